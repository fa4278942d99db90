"""Names of files as text: the same on every machine, in every locale."""

import os
from pathlib import PurePath

__all__ = ["plain_name"]


def plain_name(path: PurePath | str) -> str:
    """The path with `/`, as text that any file and any JSON can hold.

    Names of files are bytes, mostly of UTF-8. Those that are not are written as `caf\\xe9`, so that
    two names stay two; what Python's locale has made of them plays no part.
    """
    text = path if isinstance(path, str) else path.as_posix()
    return os.fsencode(text).decode("utf-8", "backslashreplace")
