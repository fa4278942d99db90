"""Tables of what this package has built in, which other packages can add to.

A package adds to a table by an entry point (Python Packaging User Guide, "Entry points
specification") of the table's group, named as the entry is to be called:

    [project.entry-points."urushi.methods"]
    diagonal = "my_package.diagonal:METHOD"

What is built in cannot be replaced. A plugin that cannot be used is named in one sentence and left
out; everything else goes on.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from urushi.errors import UrushiError, brief, nearest

__all__ = ["PluginWarning", "Table", "tell_plugins_with"]

Entry = TypeVar("Entry")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class PluginWarning(UserWarning):
    """A plugin cannot be used."""


def _warn(sentence: str) -> None:
    warnings.warn(sentence, PluginWarning, stacklevel=4)


_tell: Callable[[str], None] = _warn


def tell_plugins_with(tell: Callable[[str], None]) -> None:
    """Hand what is to be said of plugins to `tell`, one sentence at a time, instead of warning."""
    global _tell
    _tell = tell


@dataclass
class _Plugins(Generic[Entry]):
    """What entry points add to a table.

    Attributes:
        points: those that may be loaded, by name.
        problems: why the others cannot be used, by name.
        loaded: what was loaded, by name.
        told: names whose problem has been told.
    """

    points: dict[str, EntryPoint]
    problems: dict[str, str]
    loaded: dict[str, Entry] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


class Table(Mapping[str, Entry]):
    """Entries by name: those built in, in their order, and then those of plugins, by name.

    Looking at all names loads the plugins, asking for one loads that one alone.

    Args:
        what: what an entry is called in sentences, such as `method`.
        group: of the entry points that add to it, such as `urushi.methods`.
        own: entries that are built in, or where they are: `"MODULE:NAME"`, imported on first use.
        fits: whether an object can be the entry of a name.
        expected: what `fits` asks for, in words, such as `a Method`.
        reserved: further names that are known where this table is used, and no plugin may have.
    """

    def __init__(
        self,
        what: str,
        group: str,
        own: Mapping[str, "Entry | str"],
        fits: Callable[[object, str], bool],
        expected: str,
        reserved: tuple[str, ...] = (),
    ) -> None:
        self.what, self.group = what, group
        self._own = dict(own)
        self._fits, self._expected, self._reserved = fits, expected, reserved
        self._found: _Plugins[Entry] | None = None

    def __getitem__(self, name: str) -> Entry:
        if name in self._own:
            entry = self._own[name]
            if isinstance(entry, str):
                entry = self._own[name] = _imported(entry)
            return entry
        if self._load(name):
            return self._plugins().loaded[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        plugins = self._plugins()
        for name in sorted(plugins.points):
            if self._load(name):
                yield name
        for name in sorted(plugins.problems.keys() - plugins.told):
            plugins.told.add(name)
            _tell(plugins.problems[name])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._own or self._load(name))

    def find(self, name: str, error: type[UrushiError], source: str = "") -> Entry:
        """The entry of that name.

        Args:
            name: of the entry.
            error: the exception to raise.
            source: what the sentence begins with, such as `mine.yaml: `.

        Raises:
            UrushiError: of the class `error`; there is none, or its plugin cannot be used.
        """
        if name in self:
            return self[name]
        if problem := self._plugins().problems.get(name):
            self._plugins().told.add(name)
            raise error(f"{source}{problem}")
        known = [*self, *self._reserved]
        raise error(
            f"{source}{self.what} {name!r:.100} is unknown{nearest(name, known)}: known are "
            f"{', '.join(known)}"
        )

    def place(self, name: str) -> str | None:
        """Where an entry is that is built in and has not been used yet; else None."""
        entry = self._own.get(name)
        return entry if isinstance(entry, str) else None

    def plugins(self) -> dict[str, str]:
        """Packages by the names of the entries that they add and that can be used."""
        points = dict(self._plugins().points)
        return {name: _package(point) for name, point in points.items() if self._load(name)}

    def problems(self) -> list[str]:
        """Why plugins cannot be used, one sentence each."""
        for name in list(self._plugins().points):
            self._load(name)
        plugins = self._plugins()
        plugins.told.update(plugins.problems)
        return [sentence for _, sentence in sorted(plugins.problems.items())]

    def _plugins(self) -> "_Plugins[Entry]":
        if self._found is None:
            self._found = self._look()
        return self._found

    def _look(self) -> "_Plugins[Entry]":
        """The entry points there are; nothing is loaded yet."""
        points: dict[str, EntryPoint] = {}
        problems: dict[str, str] = {}
        for point in sorted(entry_points(group=self.group), key=_package):
            name, package = point.name, _package(point)
            said = f"the plugin {package} adds the {self.what} {name!r:.100}"
            if name in self._own or name in self._reserved:
                # By another key than the name, which the one that is built in keeps.
                problems[f"{name} of {package}"] = (
                    f"{said}, which is built in and stays what it is: its author has to choose "
                    "another name"
                )
            elif not _NAME.fullmatch(name):
                problems[name] = (
                    f"{said}, which is no name: expected small letters, digits and underscores, "
                    "such as diagonal"
                )
            elif name in points and points[name].value != point.value:
                problems[name] = (
                    f"{said}, and so does {_package(points[name])}: neither is used, uninstall one"
                )
            else:
                points[name] = point
        for name in problems.keys() & points.keys():
            del points[name]
        return _Plugins(points, problems)

    def _load(self, name: str) -> bool:
        """Whether the entry of that name, which is not built in, can be used."""
        plugins = self._plugins()
        point = plugins.points.get(name)
        if name in plugins.loaded or point is None:
            return name in plugins.loaded
        try:
            entry = point.load()
        # Whatever a package raises that was written for another version, or does not fit.
        except Exception as error:
            reason = f"cannot be loaded ({brief(error)})"
        else:
            if self._fits(entry, name):
                plugins.loaded[name] = entry
                return True
            reason = f"is a {type(entry).__name__}, expected {self._expected}"
        del plugins.points[name]
        plugins.problems[name] = (
            f"the {self.what} {name!r} of the plugin {_package(point)} is left out: {point.value} "
            f"{reason}; update or uninstall that package"
        )
        return False


def _imported(place: str) -> "Entry":  # pyright: ignore[reportInvalidTypeVarUse]
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _package(point: EntryPoint) -> str:
    """The distribution that an entry point belongs to, and its version."""
    try:
        assert point.dist is not None
        return f"{point.dist.name} {point.dist.version}"
    # Folders of metadata that are not whole; what is raised differs between versions of Python.
    except Exception:
        return "of unknown origin"
