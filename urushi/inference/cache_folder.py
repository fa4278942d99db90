"""Where this program keeps what it can make or fetch again."""

import os
import sys
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "cache_folder"]

CACHE_VARIABLE = "URUSHI_CACHE"


def cache_folder() -> Path:
    """The folder of this user's cache, which may not be there.

    `$URUSHI_CACHE`; else `urushi` in `$XDG_CACHE_HOME`, on Windows in `%LOCALAPPDATA%`, and else in
    `~/.cache`.
    """
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    if not shared and sys.platform == "win32":
        shared = os.environ.get("LOCALAPPDATA")
    return Path(shared or Path.home() / ".cache") / "urushi"
