r"""Keys of PEFT's `alpha_pattern`: names of layers, or regular expressions of a plain kind.

PEFT takes the first key that matches a layer's name, or its end after a dot. Regular expressions
of strangers are not run, as some take for ever. Names are matched as such; of others, what is made
of characters, classes (`[12]`, `\d`, `\w`, `.`), repetitions and alternatives is matched here, in
a time that grows with the lengths alone. Groups are not read.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from urushi.errors import AdapterError

__all__ = ["first_key"]

# Names, in which PEFT takes a dot for any character.
_NAME = re.compile(r"(\^?)((?:\\\.|[\w.])+)(\$?)")
_ATOM = re.compile(r"(\\[.dw]|\[\^?(?:\w-\w|[\w.])+\]|[\w.-])([*+?]?)\??")
_LONGEST, _MOST_EXPRESSIONS = 300, 100


class _Atom(NamedTuple):
    """One character of some, or several of them."""

    one: re.Pattern[str]
    may_lack: bool
    may_repeat: bool


class _Alternative(NamedTuple):
    from_start: bool
    atoms: tuple[_Atom, ...]


def first_key(keys: Iterable[str], layer: str, folder: Path) -> str | None:
    """The first key that PEFT takes for a layer: one that matches its name, or the name's end.

    Raises:
        AdapterError: a key before it is an expression of another kind.
    """
    expressions = 0
    for key in keys:
        name = _NAME.fullmatch(key)
        if name is not None:
            # Single characters alone, so that matching takes no time to speak of.
            found = re.fullmatch(("" if name[1] else r"(?:.*\.)?") + name[2], layer) is not None
        else:
            expressions += 1
            read = _read(key) if expressions <= _MOST_EXPRESSIONS else None
            if read is None:
                raise AdapterError(
                    f"{folder}: alpha_pattern has the key {key!r:.80}: only names of layers and "
                    "plain regular expressions are read, without groups"
                )
            found = any(_fits(alternative, layer) for alternative in read)
        if found:
            return key
    return None


@lru_cache(maxsize=_MOST_EXPRESSIONS)
def _read(key: str) -> tuple[_Alternative, ...] | None:
    """The alternatives of an expression; None for one of another kind."""
    alternatives = []
    for text in key.split("|") if len(key) <= _LONGEST else [""]:
        atoms, at, end = [], int(text.startswith("^")), len(text.removesuffix("$"))
        while at < end and (found := _ATOM.match(text, at, end)) is not None:
            try:
                one = re.compile(found[1])
            except re.error:  # a range from the greater to the smaller
                return None
            atoms.append(_Atom(one, found[2] in ("*", "?"), found[2] in ("*", "+")))
            at = found.end()
        if at != end or not atoms:
            return None
        alternatives.append(_Alternative(text.startswith("^"), tuple(atoms)))
    return tuple(alternatives)


def _fits(alternative: _Alternative, name: str) -> bool:
    """Whether it matches a name, or what follows one of its dots, up to its end."""
    atoms = alternative.atoms

    def closed(places: Iterable[int]) -> set[int]:
        """With the places behind what may be lacking."""
        found = set()
        for place in places:
            found.add(place)
            while place < len(atoms) and atoms[place].may_lack:
                place += 1
                found.add(place)
        return found

    live: set[int] = set()
    for at, character in enumerate(name):
        if at == 0 or (name[at - 1] == "." and not alternative.from_start):
            live |= closed([0])
        reached = []
        for place in live:
            if place < len(atoms) and atoms[place].one.fullmatch(character):
                reached += [place + 1, place] if atoms[place].may_repeat else [place + 1]
        live = closed(reached)
    return len(atoms) in live
