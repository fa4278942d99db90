"""How a public data set lays out its pictures, as a rule in text: which are inputs, which targets.

A rule is a path below the folder of the data set, without suffix, in which ``{name}`` stands for
what differs: one or more characters of one file or folder name, as few as fit; ``{name*}`` also
goes over folders, and ``{name=[0-4]}`` is one character of those. An input and a target belong
together where all names that both rules have stand for the same::

    train/{scene}/blur/{frame}           train/{scene}/sharp/{frame}         GoPro
    DIV2K_train_LR_bicubic/X4/{id}x4     DIV2K_train_HR/{id}                 DIV2K
    outdoor/hazy/{id}_{light}_{density}  outdoor/gt/{id}                     SOTS, several to one
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from urushi.data.pairs import Pair, PairedFolder, find_pictures
from urushi.names import plain_name

__all__ = ["Rule", "find_pairs", "matching"]

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\*|=\[[A-Za-z0-9-]+\]|)\}")


@dataclass(frozen=True)
class Rule:
    """A rule; see this module.

    Args:
        text: the path with its names.

    Raises:
        ValueError: it holds no name, one name twice, or leaves the folder of the data set.
    """

    text: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.text).parts
        if not parts or self.text.startswith("/") or ".." in parts or "\\" in self.text:
            raise ValueError(f"{self.text!r} is no path below a folder, such as input/{{name}}")
        if not self.names:
            raise ValueError(f"{self.text!r} names nothing that differs, such as {{name}}")
        if twice := [n for n, times in Counter(self.names).items() if times > 1]:
            raise ValueError(f"{self.text!r} has {{{twice[0]}}} twice: each must be there once")
        if set("{}") & set(_FIELD.sub("", self.text)):
            raise ValueError(f"{self.text!r} has a brace that belongs to no name such as {{name}}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What differs, in the order of the rule."""
        return tuple(name for name, _ in _FIELD.findall(self.text))

    @cached_property
    def folder(self) -> PurePosixPath:
        """The folders at its beginning that are always the same."""
        fixed = []
        for part in PurePosixPath(self.text).parts[:-1]:
            if _FIELD.search(part):
                break
            fixed.append(part)
        return PurePosixPath(*fixed)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        made, end = "", 0
        for field in _FIELD.finditer(self.text):
            kind = field[2]
            wide = kind[1:] if kind.startswith("=") else ".+?" if kind else "[^/]+?"
            made += re.escape(self.text[end : field.start()]) + f"(?P<{field[1]}>{wide})"
            end = field.end()
        return re.compile(made + re.escape(self.text[end:]))

    def match(self, path: str) -> dict[str, str] | None:
        """What each name stands for in a path without suffix; None where the rule does not fit."""
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groupdict()

    def fill(self, **values: str) -> str:
        """The path with every name replaced."""
        return _FIELD.sub(lambda field: values[field[1]], self.text)


def matching(root: Path, rule: Rule) -> dict[Path, dict[str, str]]:
    """The pictures below a folder that a rule fits, with what its names stand for; sorted.

    Raises:
        DataError: the folder that the rule begins with does not exist.
    """
    found = {}
    for path in find_pictures(root / rule.folder):
        values = rule.match(path.relative_to(root).with_suffix("").as_posix())
        if values is not None:
            found[path] = values
    return found


def find_pairs(
    root: Path, input_rule: Rule, target_rule: Rule, listed: frozenset[str] | None = None
) -> PairedFolder:
    """Pairs by two rules; a target may belong to several inputs.

    Args:
        root: the folder of the data set.
        input_rule, target_rule: which have at least one name in common.
        listed: paths of inputs or targets, below the folder; pairs of which neither is among them
            are passed over. None takes all.

    Raises:
        DataError: a folder does not exist.
    """
    shared = [name for name in input_rule.names if name in target_rule.names]
    problems: list[str] = []
    targets: dict[tuple[str, ...], Path] = {}
    for path, values in matching(root, target_rule).items():
        key = tuple(values[name] for name in shared)
        if key in targets:
            problems.append(f"{path} has the same name as {targets[key]}")
        else:
            targets[key] = path
    pairs, used, taken = [], set(), {}
    for path, values in matching(root, input_rule).items():
        key, name = tuple(values[n] for n in shared), _name(path, root, input_rule)
        target = targets.get(key)
        if listed is not None and not {_below(p, root) for p in (path, target) if p} & listed:
            used.add(key)
            continue
        if target is None:
            problems.append(f"{path} has no target")
        elif name in taken:
            problems.append(f"{path} has the same name as {taken[name]}")
        else:
            pairs.append(Pair(name, path, target))
            taken[name] = path
        used.add(key)
    problems += [f"{path} has no input" for key, path in targets.items() if key not in used]
    return PairedFolder.of(root / input_rule.folder, root / target_rule.folder, pairs, problems)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _name(path: Path, root: Path, rule: Rule) -> str:
    return plain_name(path.relative_to(root / rule.folder).with_suffix(""))
