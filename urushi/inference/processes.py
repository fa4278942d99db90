"""Engines among processes: a fork is noticed, and what is sent to another process is made anew.

The threads that an engine has started are missing in a forked process: torch then waits for them
for ever, and so does OpenVINO when it compiles. A fresh process has no such trouble, but compiled
networks cannot be sent to one: what they were made from is sent instead.
"""

import os
import threading
from abc import ABC, abstractmethod
from typing import Any

from urushi.errors import EngineError

__all__ = ["MadeAnew", "in_use"]

# The package of an engine -> the process that used it first; a forked process inherits this.
_first_users: dict[str, int] = {}
_making = threading.RLock()


def in_use(package: str) -> None:
    """Note that an engine's package starts its threads in this process, if it has not yet.

    Raises:
        EngineError: this process was forked from one where it had started them.
    """
    if _first_users.setdefault(package, os.getpid()) != os.getpid():
        raise EngineError(
            f"{package} was in use before this process was forked, and does not work in it: start "
            'processes by multiprocessing.get_context("spawn"), or fork before the first use'
        )


class MadeAnew(ABC):
    """What is pickled and copied as that from which it was made.

    It is made again by its first use and not on arrival: an error there would end the worker of a
    pool, and the sentence would be lost. A class calls `_record` with the arguments of `_make`.
    """

    _made_from: dict[str, Any]

    def _record(self, **made_from: Any) -> None:
        self._made_from = made_from

    @abstractmethod
    def _make(self, *made: Any, **made_from: Any) -> None:
        """Makes it; given what `_record` was."""

    def __getstate__(self) -> dict[str, Any]:
        return {"_made_from": self._made_from, "_waits": True}

    def __getattr__(self, name: str) -> Any:
        # Reached for what is not there, which is everything before the first use.
        own = vars(self)
        if name.startswith("__") or name in ("_made_from", "_waits") or "_waits" not in own:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _making:
            if own.get("_waits") is False:  # it is being made, by this very thread
                raise AttributeError(f"{type(self).__name__!r} object has no {name!r} yet")
            if own.get("_waits"):
                own["_waits"] = False
                try:
                    self._make(**self._made_from)
                except BaseException:
                    own["_waits"] = True  # the next use tells the same again
                    raise
                del own["_waits"]
        return getattr(self, name)
