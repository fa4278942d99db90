"""What a worker keeps ready: restorers for what is asked for most, each made ready once."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from urushi.errors import AdapterError
from urushi.files.adapter import check_base, read_adapter
from urushi.files.model import read_model
from urushi.inference.auto import AUTO, NONE, AutoRestorer, with_strength
from urushi.inference.choice import PictureRestorer
from urushi.inference.restorer import Restorer
from urushi.inference.strength import FULL, Strength
from urushi.inference.zoo import find_all_in_one, find_model

__all__ = ["KeptRestorers"]

# Each takes tens of megabytes.
_KEPT = 6


class KeptRestorers:
    """Makes restorers ready and keeps them.

    Args:
        options: of every restorer, such as `engine`, `device`, `precision`, `tile`, `threads`.
        router: the all-in-one file; None takes the one that ships.
        model: its base, or the network that restores where nothing ships that chooses; None takes
            the one that ships.
    """

    def __init__(self, options: Mapping[str, Any], router: str | None, model: str | None) -> None:
        self._options, self._router, self._model = dict(options), router, model
        self._auto: AutoRestorer | None = None
        self._ready: OrderedDict[tuple[Any, ...], PictureRestorer] = OrderedDict()

    def warm(self) -> None:
        """Makes ready what restores where nothing is said."""
        if self._chooses():
            self.auto().describe()
        else:
            self.restorer({})

    def auto(self) -> AutoRestorer:
        """What chooses by itself.

        Raises:
            UrushiError: there is no such file, or it is not sound.
        """
        if self._auto is None:
            self._auto = AutoRestorer(self._router, model=self._model, **self._options)
        self._auto.strength = FULL
        return self._auto

    def restorer(self, wish: Mapping[str, Any]) -> PictureRestorer:
        """What restores as is wished.

        Args:
            wish: `task`; `adapters`, pairs of a file and a strength; `strength`, `luma`, `chroma`.

        Raises:
            UrushiError: it cannot be.
        """
        task = wish.get("task") or None
        adapters = [(str(path), float(share)) for path, share in wish.get("adapters") or ()]
        strength = Strength(*(float(wish.get(n, 1.0)) for n in ("strength", "luma", "chroma")))
        if adapters and task not in (None, NONE):
            raise AdapterError(
                "adapters say what mends the picture, and so does task: leave one out"
            )
        by_itself = task == AUTO or (task is None and not adapters and self._chooses())
        if by_itself:
            auto = self.auto()
            auto.strength = strength
            return auto
        return with_strength(self._kept((task, *adapters), task, adapters), strength)

    def check_adapter(self, path: Path) -> dict[str, Any]:
        """What an adapter file says.

        Raises:
            UrushiError: it is not sound, or made for another base.
        """
        adapter = read_adapter(path)
        check_base(adapter, read_model(self.base()))
        header = adapter.header
        return {
            "method": header.method,
            "description": getattr(header, "description", "") or "",
            "tensors_hash": header.tensors_hash,
        }

    def _kept(
        self, key: tuple[Any, ...], task: str | None, adapters: Sequence[tuple[str, float]]
    ) -> PictureRestorer:
        ready = self._ready.pop(key, None)
        if ready is None:
            while len(self._ready) >= _KEPT:
                self._ready.popitem(last=False)
            ready = self._made(task, adapters)
        self._ready[key] = ready
        return ready

    def _made(self, task: str | None, adapters: Sequence[tuple[str, float]]) -> PictureRestorer:
        if task in (None, NONE):
            return Restorer(self.base(), adapters=list(adapters), **self._options)
        return AutoRestorer(self._router, model=self._model, task=task, **self._options)

    def _chooses(self) -> bool:
        """Whether each picture is looked at where nothing is said, as the command goes about it."""
        if self._router is not None:
            return True
        return self._model is None and find_all_in_one() is not None

    def base(self) -> Path:
        """The network that adapters are for."""
        return find_model(self._model or "base")
