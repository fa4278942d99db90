"""Names of files and numbers of things as text: the same on every machine, in every locale."""

import os
from pathlib import PurePath

__all__ = ["counted", "plain_name"]


def counted(count: int, one: str, many: str = "") -> str:
    """`1 page`, `2 pages`; `many` where the plural takes more than an s."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def plain_name(path: PurePath | str) -> str:
    """The path with `/`, as text that any file and any JSON can hold.

    Names of files are bytes, mostly of UTF-8. Those that are not are written as `caf\\xe9`, so that
    two names stay two; what Python's locale has made of them plays no part.
    """
    text = path if isinstance(path, str) else path.as_posix()
    return os.fsencode(text).decode("utf-8", "backslashreplace")
