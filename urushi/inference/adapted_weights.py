"""Adapters as a restorer is given them: read, checked, and sorted by what can run them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urushi.adapters.fold import fold, is_foldable, told
from urushi.errors import AdapterError, FileFormatError, is_bare_name, nearest
from urushi.files.adapter import AdapterHeader, LoadedAdapter, check_base, read_adapter
from urushi.files.container import write_whole
from urushi.files.model import LoadedModel, graph_path, write_model
from urushi.files.router_facts import MOST_STRENGTH
from urushi.inference.zoo import find_adapter, zoo_experts

__all__ = [
    "AdapterLike",
    "AppliedAdapter",
    "adapter_file",
    "apply_adapters",
    "check_apart",
    "check_strength",
    "gated",
    "listed",
    "notes_of_graphs",
    "parse_adapter",
    "placed",
    "split_adapter",
    "standing_notes",
    "strong_notes",
    "write_merged",
]

# A file, or one that is read already; alone, or with its strength.
AdapterLike = str | Path | LoadedAdapter | tuple[str | Path | LoadedAdapter, float | int]


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter in use.

    Attributes:
        adapter: the checked file.
        strength: factor of its effect, from 0 to `MOST_STRENGTH`.
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
    """Return file and strength of `FILE` or `FILE:STRENGTH`; the strength is 1 if not given.

    Whether it is in range is told where it is used: by `split_adapter`.

    Raises:
        AdapterError: what follows an adapter's name and a colon is no strength.
    """
    path, colon, strength = text.rpartition(":")
    if not (colon and path) or Path(text).exists():
        return text, 1.0
    try:
        value = float(strength)
    except ValueError:
        if not set("/\\") & set(strength) and find_adapter(path).exists():
            raise AdapterError(
                f"adapter {text!r}: {strength!r} is no strength, expected {path} or, for half of "
                f"its effect, {path}:0.5",
                usage=True,
            ) from None
        return text, 1.0  # a colon in the name of a file, such as that of a drive
    return path, value


def check_strength(strength: Any, adapter: str) -> float:
    """Return the strength of an adapter, checked.

    Args:
        strength: what was given as one.
        adapter: whose it is, for people.

    Raises:
        AdapterError: it is no number from 0 to `MOST_STRENGTH`.
    """
    try:
        value = float("nan") if isinstance(strength, str | bytes | bool) else float(strength)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value <= MOST_STRENGTH:
        raise AdapterError(
            f"{adapter}: its strength is {strength!r}, expected a number from 0, without effect, "
            f"to {MOST_STRENGTH:g}; 1 is what it was trained for",
            usage=True,
        )
    return value


def split_adapter(item: Any) -> tuple[str | Path | LoadedAdapter, float]:
    """Return an adapter and its strength, which is 1 if not given.

    Raises:
        AdapterError: it is neither an adapter nor a pair of one and a strength.
    """
    source, strength = item if isinstance(item, tuple) and len(item) == 2 else (item, 1.0)
    if not isinstance(source, str | os.PathLike | LoadedAdapter):
        raise AdapterError(
            f"an adapter is {item!r:.80}, expected a name, a file, an `Adapter`, or a pair of one "
            "and its strength, such as ('haze', 0.5)",
            usage=True,
        )
    if isinstance(source, LoadedAdapter):
        return source, check_strength(strength, source.path.name)
    found = source if isinstance(source, str) else Path(source)
    return found, check_strength(strength, os.fspath(found))


def adapter_file(adapter: str | Path) -> Path:
    """Where an adapter lies that is given as a path, or as the name of one that ships.

    Raises:
        AdapterError: its strength is written behind its name.
        FileFormatError: there is neither; the message lists the names there are.
    """
    path = find_adapter(adapter)
    if os.path.lexists(path):
        return path
    text = os.fspath(adapter)
    name, colon, strength = text.rpartition(":")
    if colon and name and not set("/\\") & set(strength) and find_adapter(name).exists():
        try:
            pair = f"the pair ({name!r}, {check_strength(float(strength), name):g})"
        except (ValueError, AdapterError):
            pair = f"a pair such as ({name!r}, 0.5), with a strength from 0 to {MOST_STRENGTH:g}"
        raise AdapterError(
            f"adapter {text!r}: there is no such file, and a strength stands beside the name: give "
            f"{pair}",
            usage=True,
        )
    known = zoo_experts()
    hint = nearest(text.lower(), known)
    raise FileFormatError(
        f"{text}: there is no such file{hint or ', expected an adapter file or a name'}: "
        f"those that ship are {', '.join(known) or 'none in this installation'}",
        usage=is_bare_name(text),
    )


def check_apart(used: Iterable[tuple[str, AdapterHeader]]) -> None:
    """Check that no adapter acts twice, by what it is, not by its name.

    Args:
        used: name of the file, and header, of each.

    Raises:
        AdapterError: one does.
    """
    seen: dict[tuple[str, str], str] = {}
    for name, header in used:
        kind = header.method, header.tensors_hash
        first = seen.get(kind)
        seen[kind] = name
        if first is not None:
            what = f"{name} is" if first == name else f"{first} and {name} hold the same, which is"
            raise AdapterError(
                f"{what} given twice, and its effect would add up: give it once, with the strength "
                "that you want",
                usage=True,
            )


def gated(applied: Sequence[AppliedAdapter]) -> AppliedAdapter | None:
    """Return the adapter whose gate acts: of one that acts alone, since a gate knows its change."""
    return applied[0] if len(applied) == 1 and applied[0].adapter.header.gate else None


def standing_notes(applied: Sequence[AppliedAdapter]) -> tuple[str, ...]:
    """Return what users are told of adapters, whatever the picture is."""
    left_out = [
        i.adapter.path.name for i in applied if i.adapter.header.gate and not gated(applied)
    ]
    return strong_notes(applied) + tuple(
        f"{name} acts without its check of what belongs to the scene, which it makes alone only: "
        "restore with it first, and with the other adapters after."
        for name in left_out
    )


def notes_of_graphs(applied: Sequence[AppliedAdapter]) -> tuple[str, ...]:
    """Return what is to be told where adapters become a graph, which holds no gate."""
    return tuple(
        f"{item.adapter.path.name} acts here without its check of what belongs to the scene, "
        "which urushi restore makes: more of the scene may go with the damage."
        for item in applied
        if item.adapter.header.gate
    )


def strong_notes(applied: Iterable[AppliedAdapter]) -> tuple[str, ...]:
    """Return what users are told of adapters that act with more than they were trained for."""
    return tuple(
        f"{item.adapter.path.name} acts {item.strength:g} times as strong as it was trained for: "
        "look at the result."
        for item in applied
        if item.strength > 1
    )


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
        AdapterError: an adapter belongs to another base, is not sound, or is given twice; or a
            strength is out of range.
        FileFormatError: a file is no adapter file.
    """
    applied = tuple(_read(item) for item in listed(adapters))
    for item in applied:
        check_base(item.adapter, model)
    check_apart((item.adapter.path.name, item.adapter.header) for item in applied)
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
        AdapterError: as `apply_adapters`, or weights cannot hold an adapter or its gate.
        FileFormatError: the disk refuses.
    """
    if target.resolve() == model.path.resolve():
        raise AdapterError(f"{target} would overwrite the base: choose another name", usage=True)
    _, applied, _ = apply_adapters(model, adapters)
    for item in applied:
        if item.adapter.header.gate:
            raise AdapterError(
                f"{item.adapter.path}: its gate looks at what the adapter changed, which weights "
                "cannot hold: use it as an adapter"
            )
    merged = fold(model, [(item.adapter, item.strength) for item in applied])
    write_model(target, merged.tensors, merged.header)
    if model.graph is not None:
        write_whole(graph_path(target), model.graph.read_bytes())


def listed(adapters: Any) -> list[AdapterLike]:
    """Return adapters as a list.

    Raises:
        AdapterError: it is one adapter, or a pair of one and its strength, or no list at all.
    """
    pair = isinstance(adapters, tuple) and len(adapters) == 2
    if pair and not isinstance(adapters[1], str | os.PathLike | LoadedAdapter | tuple):
        pass
    elif isinstance(adapters, Iterable) and not isinstance(adapters, str | bytes | Mapping):
        return list(adapters)
    raise AdapterError(
        f"adapters is {adapters!r:.80}, expected a list of adapters, such as ['noise'] or "
        "[('haze', 0.5)]",
        usage=True,
    )


def _read(item: AdapterLike) -> AppliedAdapter:
    source, strength = split_adapter(item)
    adapter = source if isinstance(source, LoadedAdapter) else read_adapter(adapter_file(source))
    return AppliedAdapter(adapter, strength)


def placed(item: AdapterLike) -> AdapterLike:
    """The same adapter, its file told such that another process finds it."""
    if isinstance(item, tuple):
        return _placed(item[0]), item[1]
    return _placed(item)


def _placed(source: str | Path | LoadedAdapter) -> Path | LoadedAdapter:
    return source if isinstance(source, LoadedAdapter) else find_adapter(source).absolute()
