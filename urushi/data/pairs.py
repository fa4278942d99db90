"""Pairs of pictures in folders: a degraded input and the target it should become.

Public data sets lay their pairs out in a handful of ways. Two folders are paired by file name; the
suffix may differ, and so may a word that tells the side (``rain-12.png``, ``norain-12.png``).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from urushi.errors import DataError
from urushi.names import plain_name

__all__ = [
    "INPUT_FOLDERS",
    "TARGET_FOLDERS",
    "Pair",
    "PairedFolder",
    "find_left_out",
    "find_pictures",
    "whole_factor",
]

# No network enlarges more.
_LARGEST_FACTOR = 16

INPUT_FOLDERS = (
    "input", "inputs", "lq", "lr", "noisy", "rain", "rainy", "hazy", "snow", "snowy", "low",
    "blur", "blurry", "degraded",
)  # fmt: skip
TARGET_FOLDERS = (
    "target", "targets", "gt", "hq", "hr", "clean", "norain", "clear", "high", "normal", "sharp",
    "groundtruth", "reference",
)  # fmt: skip

_SIDES = {**dict.fromkeys(INPUT_FOLDERS, 0), **dict.fromkeys(TARGET_FOLDERS, 1)}
_WORDS = "|".join(sorted({*INPUT_FOLDERS, *TARGET_FOLDERS, "real", "mean"}, key=len, reverse=True))
# Of super-resolution sets: 0801x4 is 0801 made four times smaller.
_FACTOR = re.compile(r"(?<=\d)x[2348]$", re.IGNORECASE)
# The inputs of some sets, where nothing else tells which folder has them.
_FALLBACK_INPUT = "data"
_SIDE_WORD = re.compile(rf"^(?:{_WORDS})(?:[-_. ]+|(?=\d))|[-_. ]+(?:{_WORDS})$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """One pair; ``name`` is the input's path below its folder, without suffix, with ``/``."""

    name: str
    input: Path
    target: Path


def find_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder by file name, sorted; hidden files are passed over.

    Raises:
        DataError: there is no such folder.
    """
    from urushi.image import is_picture_name

    return _files(Path(folder), is_picture_name)


def find_left_out(folder: Path) -> list[Path]:
    """All pictures below a folder that are of formats that are not read, by file name, sorted.

    Raises:
        DataError: there is no such folder.
    """
    from urushi.image import foreign_name

    return _files(Path(folder), lambda path: foreign_name(path) is not None)


def _files(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist: name a folder of pictures")
    return sorted(
        path
        for path in folder.rglob("*")
        if wanted(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def whole_factor(input_size: tuple[int, int], target_size: tuple[int, int]) -> int | None:
    """How many times longer both sides of a target are than its input's; None for other sizes."""
    factor = target_size[0] // max(input_size[0], 1)
    fits = (factor * input_size[0], factor * input_size[1]) == tuple(target_size)
    return factor if fits and 1 <= factor <= _LARGEST_FACTOR else None


class PairedFolder:
    """Inputs and targets matched by name.

    Three rules, the first that fits: equal names without suffix; equal after dropping a word for
    the side (``12_rainy`` and ``12_clean``); and the name of an input that continues the name of a
    target that is left over, as where several inputs share one (``1400_3`` and ``1400``).

    Args:
        root: a folder that holds one folder of inputs and one of targets under usual names, such as
            ``input`` and ``target``, ``lq`` and ``gt``, ``noisy`` and ``clean``, ``rain`` and
            ``norain``, ``low`` and ``high``. Or such folders lie further down, two for each scene;
            or both sides lie in one folder, told apart by a word in their names
            (``12_NOISY_010``, ``12_GT_010``). Or use :meth:`from_folders`.

    Attributes:
        input_folder, target_folder: of the two sides; the same where they are told apart otherwise.
        pairs: what was matched, sorted by name.
        problems: one line for every picture that has no partner or more than one.

    Raises:
        DataError: there is no such folder, or no two folders in it can be told to be a pair.
    """

    def __init__(self, root: str | Path) -> None:
        self._match(*_sides(Path(root)))

    @classmethod
    def from_folders(cls, input_folder: str | Path, target_folder: str | Path) -> "PairedFolder":
        """Pairs of two folders of any name; of one, where both sides lie in it."""
        paired = cls.__new__(cls)
        paired._match(Path(input_folder), Path(target_folder))
        return paired

    @classmethod
    def of(
        cls, input_folder: Path, target_folder: Path, pairs: Iterable[Pair], problems: Iterable[str]
    ) -> "PairedFolder":
        """Pairs that were found otherwise, and what has no partner."""
        paired = cls.__new__(cls)
        paired.input_folder, paired.target_folder = input_folder, target_folder
        paired.pairs = tuple(sorted(pairs, key=lambda pair: pair.name))
        paired.problems = tuple(sorted(problems))
        return paired

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def _match(self, input_folder: Path, target_folder: Path) -> None:
        self.input_folder, self.target_folder = input_folder, target_folder
        problems: list[str] = []
        if input_folder == target_folder:
            found, problems = _mixed(input_folder)
            self.pairs = tuple(sorted(found, key=lambda pair: pair.name))
            self.problems = tuple(sorted(problems))
            return
        inputs = _by_name(input_folder, problems)
        targets = _by_name(target_folder, problems)
        partner = {name: name for name in inputs if name in targets}
        _match_bare(inputs, targets, partner)
        _match_shared(inputs, targets, partner)
        used = set(partner.values())
        problems += [f"{inputs[name]} has no target" for name in inputs if name not in partner]
        problems += [f"{targets[name]} has no input" for name in targets if name not in used]
        found = (Pair(name, inputs[name], targets[other]) for name, other in partner.items())
        self.pairs = tuple(sorted(found, key=lambda pair: pair.name))
        self.problems = tuple(sorted(problems))


def _match_bare(inputs: dict[str, Path], targets: dict[str, Path], partner: dict[str, str]) -> None:
    """Adds pairs whose names are equal, and unambiguous, without the word for the side."""
    lone_targets = [name for name in targets if name not in partner.values()]
    lone_inputs = [name for name in inputs if name not in partner]
    by_bare = {_bare(name): name for name in lone_targets}
    times = Counter(map(_bare, lone_targets))
    times_input = Counter(map(_bare, lone_inputs))
    for name in lone_inputs:
        bare = _bare(name)
        if times[bare] == 1 and times_input[bare] == 1:
            partner[name] = by_bare[bare]


def _match_shared(
    inputs: dict[str, Path], targets: dict[str, Path], partner: dict[str, str]
) -> None:
    """Adds inputs whose name continues that of a target nobody has claimed so far."""
    free = {_bare(name): name for name in targets if name not in partner.values()}
    for name in inputs:
        if name in partner:
            continue
        stem = _bare(name)
        while "_" in stem.rpartition("/")[2] and stem not in free:
            stem = stem.rpartition("_")[0]
        if stem in free:
            partner[name] = free[stem]


def _sides(root: Path) -> tuple[Path, Path]:
    if not root.is_dir():
        raise DataError(f"the folder {root} does not exist: name a folder with pairs in it")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    inputs = [path for path in folders if path.name.lower() in INPUT_FOLDERS]
    targets = [path for path in folders if path.name.lower() in TARGET_FOLDERS]
    if not inputs and len(targets) == 1:
        inputs = [path for path in folders if path.name.lower() == _FALLBACK_INPUT]
    if not inputs and not targets and _mixed(root)[0]:
        return root, root
    if len(inputs) != 1 or len(targets) != 1:
        seen = ", ".join(path.name for path in folders[:8]) or "none"
        raise DataError(
            f"{root} holds no recognisable pairs (its folders: {seen}): expected one "
            "folder of inputs and one of targets, such as input and target; on the command line "
            "--inputs FOLDER and --targets FOLDER name both"
        )
    return inputs[0], targets[0]


def _mixed(root: Path) -> tuple[list[Pair], list[str]]:
    """Pairs and problems where both sides lie below one folder, by a word for the side.

    The word is a folder on the way (``GOPR1/blur/47``, ``GOPR1/sharp/47``), or a part of the name
    (``12_NOISY_010``, ``12_GT_010``); what is left without it is equal for both.
    """
    sides: tuple[dict[str, list[Path]], dict[str, list[Path]]] = ({}, {})
    problems = []
    for path in find_pictures(root):
        side, key = _side_of(path.relative_to(root))
        if side is None:
            problems.append(f"{path} does not tell whether it is an input or a target")
        else:
            sides[side].setdefault(key, []).append(path)
    pairs = []
    for key in sorted({*sides[0], *sides[1]}):
        inputs, targets = sides[0].get(key, []), sides[1].get(key, [])
        if len(inputs) == len(targets) == 1:
            name = plain_name(inputs[0].relative_to(root).with_suffix(""))
            pairs.append(Pair(name, inputs[0], targets[0]))
            continue
        problems += [
            f"{path} has {'no' if not targets else 'more than one'} target"
            for path in inputs
            if len(targets) != 1
        ]
        problems += [
            f"{path} has {'no' if not inputs else 'more than one'} input"
            for path in targets
            if len(inputs) != 1
        ]
    return pairs, problems


def _side_of(path: Path) -> tuple[int | None, str]:
    """0 for an input, 1 for a target, None where nothing tells; and the path without that word."""
    folders, parts = list(path.parts[:-1]), re.split(r"([-_. ]+)", path.stem)
    for words in (folders, parts):
        told = [i for i, word in enumerate(words) if word.lower() in _SIDES]
        if told:
            side = _SIDES[words.pop(told[-1]).lower()]
            return side, "/".join([*folders, "".join(parts)])
    return None, ""


def _by_name(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Pictures by path without suffix; of two with one name the first is taken."""
    found: dict[str, Path] = {}
    for path in find_pictures(folder):
        name = plain_name(path.relative_to(folder).with_suffix(""))
        if name in found:
            problems.append(f"{path} has the same name as {found[name]}")
        else:
            found[name] = path
    return found


def _bare(name: str) -> str:
    """The name without the word that says which side of a pair it is."""
    parent, slash, stem = name.rpartition("/")
    bare = _FACTOR.sub("", _SIDE_WORD.sub("", stem))
    return parent + slash + (bare or stem)
