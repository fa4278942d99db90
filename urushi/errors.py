"""The exceptions a user of Urushi may see.

    UrushiError
    ├── PictureError        a picture cannot be read or written
    │   ├── UnreadableError     missing, empty, truncated, not a picture, no permission
    │   ├── TooLargeError       more pixels than the limit allows
    │   └── TargetError         the target cannot be written, or has no known format
    │       └── TakenError          its name is taken, and it is not to be overwritten
    ├── FileFormatError     a model file is damaged, of another kind, or newer than this version
    ├── HubError            the Hugging Face hub refuses, or does not answer
    ├── BackboneError       unknown backbone, or a configuration or size it cannot have
    ├── AdapterError        unknown method, or an adapter that does not fit its backbone
    ├── DegradationError    unknown degradation, or parameters outside their range
    ├── EngineError         an engine is missing, failed, or gave an unusable result
    │   └── OutOfMemoryError    even the smallest tile does not fit
    ├── DataError           a data set or benchmark is missing, damaged or mismatched
    ├── RecipeError         a recipe does not validate
    ├── ClusterError        a cluster cannot be joined or used, or was lost
    └── MissingExtraError   an optional dependency is needed; the message names the extra
        └── BrokenExtraError    it is installed, and cannot be imported

Every message names the value, what was expected and the way out, in one sentence.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AdapterError",
    "BackboneError",
    "BrokenExtraError",
    "ClusterError",
    "DataError",
    "DegradationError",
    "EngineError",
    "FileFormatError",
    "HubError",
    "MissingExtraError",
    "OutOfMemoryError",
    "PictureError",
    "RecipeError",
    "TakenError",
    "TargetError",
    "TooLargeError",
    "UnreadableError",
    "UrushiError",
    "brief",
    "is_bare_name",
    "nearest",
]


class UrushiError(Exception):
    """Base of all errors whose message is meant for the user.

    Args:
        message: one sentence.
        usage: what was asked for is wrong by itself, whatever files there are: a value outside its
            range, a name that nothing has, options that contradict one another. The command line
            ends with 2 then, and with 1 otherwise.
    """

    usage = False

    def __init__(self, message: object = "", *, usage: bool = False) -> None:
        super().__init__(message)
        if usage:
            self.usage = True


class PictureError(UrushiError):
    """A picture cannot be read or written."""


class UnreadableError(PictureError):
    """The file is missing, empty, truncated, not a picture, or may not be read."""


class TooLargeError(PictureError):
    """The picture has more pixels than the limit allows."""


class TargetError(PictureError):
    """The target exists already, cannot be written, or names no known format."""


class TakenError(TargetError):
    """The target exists already, or appeared meanwhile, and is not to be overwritten."""


class FileFormatError(UrushiError):
    """A model file is damaged, of another kind, or newer than this version."""


class HubError(UrushiError):
    """The Hugging Face hub refuses, does not answer, or holds something else than was sent."""


class BackboneError(UrushiError):
    """Unknown backbone, or a configuration or picture size it cannot have."""


class AdapterError(UrushiError):
    """Unknown method, settings it cannot have, or an adapter that does not fit a backbone."""


class DegradationError(UrushiError):
    """Unknown degradation, or parameters outside their documented range."""


class EngineError(UrushiError):
    """An engine is missing, failed, or gave an unusable result."""


class OutOfMemoryError(EngineError):
    """Even the smallest tile does not fit into memory."""


class DataError(UrushiError):
    """A data set or benchmark is missing, damaged or mismatched."""


class RecipeError(UrushiError):
    """A recipe does not validate."""


class ClusterError(UrushiError):
    """A cluster cannot be joined or used, or was lost."""


class MissingExtraError(UrushiError):
    """An optional dependency is needed and not installed.

    Args:
        what: what was asked for, as a noun phrase.
        extra: the extra of Urushi that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed: run  pip install 'urushi[{extra}]'")
        self.extra = extra


def is_bare_name(text: str) -> bool:
    """Whether a text can only be a name of a table, since files are given with folder or suffix.

    Where nothing has that name, what was asked for is wrong; a file that is missing is another
    matter, since the same command works once it is there.
    """
    return not set("/\\.") & set(text)


def nearest(word: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` when a known word is close to `word`, else an empty string."""
    close = get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class BrokenExtraError(MissingExtraError):
    """An optional dependency is needed and installed, but cannot be imported.

    Args:
        what: what was asked for, as a noun phrase.
        extra: the extra of Urushi that brings it.
        reason: what its import raised.
    """

    def __init__(self, what: str, extra: str, reason: BaseException) -> None:
        UrushiError.__init__(
            self,
            f"{what} is installed but cannot be imported ({brief(reason)}): run  pip install "
            f"--upgrade 'urushi[{extra}]', and  pip uninstall torchvision  where one is installed "
            "that does not fit torch",
        )
        self.extra = extra


def brief(error: BaseException) -> str:
    """What an error says, in a line of at most 200 characters; its class where it says nothing."""
    return " ".join(str(error).split())[:200].rstrip(". :") or type(error).__name__
