"""Files of the Hugging Face hub, by way of its cache; and model files among them."""

import os
import re
from pathlib import Path
from typing import Any

from urushi.errors import FileFormatError, MissingExtraError
from urushi.inference.hardware import is_installed

__all__ = [
    "ENDPOINT_VARIABLE",
    "cached_file",
    "check_repository",
    "hub_file",
    "model_from_hub",
    "quieten_client",
    "without_tokens",
]

ENDPOINT_VARIABLE = "HF_ENDPOINT"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{6,}|(?<=[Bb]earer )\S+")
_PATIENCE = 10.0  # seconds until the hub has to answer
# The graph that OpenVINO runs, and the ranges of its 8-bit form; a model may have neither.
_BESIDE = (".onnx", ".int8")


def model_from_hub(
    repository: str,
    *,
    file: str = "model.safetensors",
    revision: str | None = None,
    endpoint: str | None = None,
) -> Path:
    """Where a model file of a repository lies now: in the hub's cache, fetched if it was not there.

    What was fetched before is taken without asking the network; another `revision` is fetched anew.

    Args:
        repository: `owner/name`.
        file: the model file; `NAME.onnx` and `NAME.int8` come with it, where they are there.
        revision: branch, tag or commit; None for the main branch.
        endpoint: address of a mirror of the hub; None for the hub, or `$HF_ENDPOINT`.

    Raises:
        FileFormatError: the name is none, or the file cannot be had.
        MissingExtraError: huggingface_hub is not installed.
    """
    check_repository(repository)
    if Path(file).suffix != ".safetensors":
        raise FileFormatError(
            f"{file!r} in {repository}: expected the name of a .safetensors file", usage=True
        )
    known = cached_file(repository, file, revision)
    if known is not None:
        return known
    page = f"https://huggingface.co/{repository}"
    # The weights come last: whoever finds them in the cache finds all that belongs to them.
    for suffix in _BESIDE:
        beside = str(Path(file).with_suffix(suffix))
        hub_file(repository, beside, revision, page=page, endpoint=endpoint, optional=True)
    path = hub_file(repository, file, revision, page=page, endpoint=endpoint)
    assert path is not None
    return path


def check_repository(repository: str) -> None:
    """Check the name of a repository, and that the hub can be asked for it.

    Raises:
        FileFormatError: it is none that the hub could have.
        MissingExtraError: huggingface_hub is not installed.
    """
    if _NAME.fullmatch(repository) is None or ".." in repository or "--" in repository:
        raise FileFormatError(
            f"repository {without_tokens(repository)!r:.120}: expected owner/name, of letters, "
            "digits, - and _ and .",
            usage=True,
        )
    if not is_installed("huggingface_hub"):
        raise MissingExtraError("huggingface_hub, which fetching needs,", "hub")


def quieten_client(*, bars: bool) -> None:
    """Keep the hub's client from telling of its retries, and without `bars` of its progress."""
    if is_installed("huggingface_hub"):
        from huggingface_hub.utils import disable_progress_bars
        from huggingface_hub.utils.logging import set_verbosity_error

        set_verbosity_error()
        if not bars:
            disable_progress_bars()


def without_tokens(text: str, token: str | None = None) -> str:
    """The text without what may be a token of the hub, whoever put it there."""
    text = text.replace(token, "***") if token else text
    return _TOKEN.sub("***", text)


def cached_file(repository: str, file: str, revision: str | None = None) -> Path | None:
    """Where a file of a repository lies in the hub's cache; None where it does not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def hub_file(
    repository: str,
    file: str,
    revision: str | None = None,
    *,
    page: str,
    endpoint: str | None = None,
    optional: bool = False,
) -> Path | None:
    """Fetches a file of a repository into the hub's cache, if it is not there as it is now.

    Args:
        repository: `owner/name`.
        file: its name there.
        revision: branch, tag or commit; None for the main branch.
        page: where people look at it, for messages.
        endpoint: address of a mirror of the hub; None for the hub, or `$HF_ENDPOINT`.
        optional: it need not be there.

    Returns:
        Where it lies; None where it is optional and its repository does not have it.

    Raises:
        FileFormatError: it cannot be had.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE)
    at: dict[str, Any] = {"revision": revision, "endpoint": endpoint}
    try:
        # The download itself would try for half a minute before it says that nobody answers.
        get_hf_file_metadata(hf_hub_url(repository, file, **at), timeout=_PATIENCE)
        return Path(hf_hub_download(repository, file, **at))
    except Exception as error:
        gone = isinstance(error, EntryNotFoundError)
        if optional and gone and not isinstance(error, LocalEntryNotFoundError):
            return None
        where = f"{file} of {repository}"
        raise FileFormatError(_told(error, where, repository, revision, page, endpoint)) from error


def _told(
    error: Exception,
    where: str,
    repository: str,
    revision: str | None,
    page: str,
    endpoint: str | None,
) -> str:
    """What an error of the hub's client means, and the way out.

    Args:
        error: whatever it raised.
        where: the file and its repository, in words.
        repository, revision, page, endpoint: see `hub_file`.
    """
    from huggingface_hub import errors

    # Some are kinds of others: those come first.
    match error:
        case errors.OfflineModeIsEnabled():
            return (
                f"{where} has not been fetched yet, and HF_HUB_OFFLINE forbids to ask the hub: "
                "unset it"
            )
        case errors.LocalEntryNotFoundError():
            return _unreachable(where, endpoint)
        case errors.GatedRepoError():
            return f"{where} is given on request: ask for it at {page}, then  hf auth login"
        case errors.RepositoryNotFoundError():
            return (
                f"the hub has no repository {repository}, or it is a private one: look at {page}, "
                "and  hf auth login  if it is yours"
            )
        case errors.RevisionNotFoundError():
            return f"{repository} has no revision {revision!r:.100}: look at {page}/commits/main"
        case errors.EntryNotFoundError():
            return f"{where} is gone: look at {page}"
        case errors.HfHubHTTPError() | OSError():
            if getattr(getattr(error, "response", None), "status_code", 0) in (401, 403):
                return (
                    f"{where} is kept from this token: make one that may read it, then  hf auth "
                    "login"
                )
            line = without_tokens(str(error)).strip().splitlines()
            why = line[0][:200] if line else type(error).__name__
            return f"{where} cannot be fetched ({why}): try again later"
        case _:
            # Those of the library that asks the network, which is another one in every year.
            return _unreachable(where, endpoint)


def _unreachable(where: str, endpoint: str | None) -> str:
    return (
        f"{where} cannot be fetched, because {endpoint or 'the hub'} cannot be reached: connect "
        "this computer to the network, or bring the file and  urushi import  it"
    )
