"""Adapters as a restorer is given them: read, checked, and sorted by what can run them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urushi.adapters.fold import fold, is_foldable, told
from urushi.errors import AdapterError
from urushi.files.adapter import LoadedAdapter, check_base, read_adapter
from urushi.files.container import write_whole
from urushi.files.model import LoadedModel, graph_path, write_model
from urushi.inference.zoo import find_adapter

__all__ = [
    "AdapterLike",
    "AppliedAdapter",
    "apply_adapters",
    "parse_adapter",
    "placed",
    "write_merged",
]

# A file, or one that is read already; alone, or with its strength.
AdapterLike = str | Path | LoadedAdapter | tuple[str | Path | LoadedAdapter, float | int]


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter in use.

    Attributes:
        adapter: the checked file.
        strength: factor of its effect.
    """

    adapter: LoadedAdapter
    strength: float

    @property
    def told(self) -> str:
        """How people are told of it: its file, and a strength that is not 1."""
        return told(self.adapter, self.strength)

    def describe(self) -> dict[str, Any]:
        """Plain JSON values: `name`, `file`, `method`, `strength`, and the hash of its tensors."""
        header = self.adapter.header
        return {
            "name": self.adapter.name,
            "file": self.adapter.path.name,
            "method": header.method,
            "strength": self.strength,
            "tensors_hash": header.tensors_hash,
        }


def parse_adapter(text: str) -> tuple[str, float]:
    """Return file and strength of `FILE` or `FILE:STRENGTH`; the strength is 1 if not given."""
    path, colon, strength = text.rpartition(":")
    if colon and path and not Path(text).exists():
        try:
            return path, float(strength)
        except ValueError:
            pass  # a colon in the name of a file, such as that of a drive
    return text, 1.0


def apply_adapters(
    model: LoadedModel, adapters: Sequence[AdapterLike]
) -> tuple[LoadedModel, tuple[AppliedAdapter, ...], tuple[AppliedAdapter, ...]]:
    """Read adapters and put those into a model's weights that weights can hold.

    Args:
        model: the base of all of them.
        adapters: files or names in the zoo, or pairs of one and a strength.

    Returns:
        The model to run; all adapters in their order; and those of them that are not in its
        weights, which the engine has to attach.

    Raises:
        AdapterError: an adapter belongs to another base, or is not sound.
        FileFormatError: a file is no adapter file.
    """
    if isinstance(adapters, str | Path | LoadedAdapter):
        raise AdapterError(
            f"adapters is {adapters!r:.80}, expected a list: put it into square brackets"
        )
    applied = tuple(_read(item) for item in adapters)
    for item in applied:
        check_base(item.adapter, model)
    foldable = [(i.adapter, i.strength) for i in applied if is_foldable(i.adapter)]
    attached = tuple(item for item in applied if not is_foldable(item.adapter))
    return fold(model, foldable, lazily=True), applied, attached


def write_merged(model: LoadedModel, adapters: Sequence[AdapterLike], target: Path) -> None:
    """Write a model file of a base with adapters in its weights, and its graph if it has one.

    Args:
        model: the base of all of them.
        adapters: as for `apply_adapters`.
        target: `NAME.safetensors`; a file that is there is replaced.

    Raises:
        AdapterError: as `apply_adapters`, or weights cannot hold an adapter.
        FileFormatError: the disk refuses.
    """
    if target.resolve() == model.path.resolve():
        raise AdapterError(f"{target} would overwrite the base: choose another name")
    _, applied, _ = apply_adapters(model, adapters)
    merged = fold(model, [(item.adapter, item.strength) for item in applied])
    write_model(target, merged.tensors, merged.header)
    if model.graph is not None:
        write_whole(graph_path(target), model.graph.read_bytes())


def _read(item: AdapterLike) -> AppliedAdapter:
    source, strength = item if isinstance(item, tuple) else (item, 1.0)
    if not math.isfinite(strength):
        raise AdapterError(f"an adapter's strength is {strength}, expected a number such as 0.5")
    adapter = source if isinstance(source, LoadedAdapter) else read_adapter(find_adapter(source))
    return AppliedAdapter(adapter, float(strength))


def placed(item: AdapterLike) -> AdapterLike:
    """The same adapter, its file told such that another process finds it."""
    if isinstance(item, tuple):
        return _placed(item[0]), item[1]
    return _placed(item)


def _placed(source: str | Path | LoadedAdapter) -> Path | LoadedAdapter:
    return source if isinstance(source, LoadedAdapter) else find_adapter(source).absolute()
