"""Whether a data set lies there as it is described: what is missing, and what is different."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

from pydantic import BaseModel, ConfigDict, computed_field

from urushi.data.data_sets import DataSet, Part
from urushi.data.pack import read_8bit
from urushi.data.pairs import find_pictures
from urushi.errors import DataError, PictureError
from urushi.names import plain_name

__all__ = ["DataSetReport", "PartReport", "check_data_set"]

# Named in sentences; all of them are in the document.
_NAMED = 20

OnProgress = Callable[[int, int, str], None]


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class PartReport(_Report):
    """What was found of one part; names are paths below the folder of the data set.

    Attributes:
        part: its name.
        missing: why nothing of it is there; empty where something is.
        expected, found: inputs, or pictures alone; the first is None where no source tells.
        expected_targets, found_targets: different targets; None of pictures alone.
        told: who tells the expected numbers.
        unpaired: one sentence for every picture without a partner.
        unreadable: (name, reason).
        sizes: (name, what it has, what was expected).
    """

    part: str
    missing: str = ""
    expected: int | None = None
    found: int = 0
    expected_targets: int | None = None
    found_targets: int | None = None
    told: str = ""
    unpaired: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    sizes: tuple[tuple[str, str, str], ...] = ()

    @computed_field
    @property
    def ok(self) -> bool:
        """Nothing is missing or different, as far as the description says."""
        counted = self.expected in (None, self.found)
        counted &= self.expected_targets in (None, self.found_targets)
        nothing = not (self.missing or self.unpaired or self.unreadable or self.sizes)
        return counted and nothing and self.found > 0

    def lines(self) -> list[str]:
        """The report as sentences: the counts, then one for everything that is wrong."""
        if self.missing:
            return [f"{self.part}: {self.missing}"]
        head = f"{self.part}: {_counted(self.found, self.expected)}"
        if self.found_targets is not None and self.found_targets != self.found:
            head += f", targets {_counted(self.found_targets, self.expected_targets)}"
        if self.expected is None:
            head += "; no source tells how many there must be"
        found = [f"unpaired: {sentence}" for sentence in self.unpaired]
        found += [f"unreadable: {reason}" for _, reason in self.unreadable]
        found += [f"size: {name} is {has}, expected {wanted}" for name, has, wanted in self.sizes]
        left = len(found) - _NAMED
        return [head, *(f"  {line}" for line in found[:_NAMED]), *_more(left)]


def _counted(found: int, expected: int | None) -> str:
    if expected is None or expected == found:
        return f"{found}"
    missing = expected - found
    return f"{found} of {expected}, {abs(missing)} {'missing' if missing > 0 else 'too many'}"


def _more(left: int) -> list[str]:
    return [f"  and {left} more; --json names them all"] if left > 0 else []


class DataSetReport(_Report):
    """What was found of a data set.

    Attributes:
        data_set: its name.
        folder: where it was looked for.
        parts: one each.
        others: pictures below the folder that belong to no part that was looked at.
        decoded: pictures were decoded; otherwise their headers alone were read.
    """

    data_set: str
    folder: str
    parts: tuple[PartReport, ...]
    others: int
    decoded: bool

    @computed_field
    @property
    def ok(self) -> bool:
        """Every part is as it is described."""
        return all(part.ok for part in self.parts)

    def lines(self) -> list[str]:
        """The report as sentences."""
        lines = [f"{self.data_set} in {self.folder}"]
        lines += [line for part in self.parts for line in part.lines()]
        if self.others:
            lines.append(f"{self.others} other pictures lie there, which belong to no part")
        if not self.decoded:
            lines.append("headers alone were read: pictures that are cut short are not found so")
        good = "all is there as described"
        return [*lines, good if self.ok else "something is missing or different"]


def check_data_set(
    data_set: DataSet,
    root: Path,
    *,
    parts: Iterable[str] = (),
    decode: bool = True,
    on_progress: OnProgress | None = None,
) -> DataSetReport:
    """Looks at every picture of a data set.

    Args:
        data_set: what must be there.
        root: its folder.
        parts: those to look at; all if none is named.
        decode: decode every picture, and not its header alone: needed to find those that are cut
            short, and slow.
        on_progress: called after every picture with (done, total, name).

    Raises:
        DataError: the folder does not exist, or there is no such part.
    """
    if not root.is_dir():
        raise DataError(f"the folder {root} does not exist: name that of {data_set.name}")
    names = list(parts) or list(data_set.parts)
    if unknown := [name for name in names if name not in data_set.parts]:
        raise DataError(
            f"{data_set.name} has no part {unknown[0]!r}: its parts are "
            f"{', '.join(data_set.parts)}",
            usage=True,
        )
    looker = _Looker(root, decode, on_progress)
    gathered = {name: _gather(data_set, root, name) for name in names}
    looker.look(path for found in gathered.values() for pair in found.rows for path in pair)
    reports = tuple(found.report(looker) for found in gathered.values())
    others = len(set(find_pictures(root)) - set(looker.known) - looker.named(reports))
    return DataSetReport(
        data_set=data_set.name, folder=str(root), parts=reports, others=others, decoded=decode
    )


class _Looker:
    """Sizes of pictures, or why they cannot be read."""

    def __init__(self, root: Path, decode: bool, tell: OnProgress | None) -> None:
        self.root, self._decode, self._tell = root, decode, tell
        self.known: dict[Path, tuple[int, int] | str] = {}

    def look(self, paths: Iterable[Path]) -> None:
        files = list(dict.fromkeys(paths))
        with ThreadPoolExecutor(max_workers=min(4, cpu_count() or 1)) as pool:
            found = pool.map(self._size, files)
            for done, (path, size) in enumerate(zip(files, found, strict=True), start=1):
                self.known[path] = size
                if self._tell is not None:
                    self._tell(done, len(files), self.name(path))

    def _size(self, path: Path) -> tuple[int, int] | str:
        from urushi.image import inspect_picture

        try:
            if self._decode:
                height, width = read_8bit(path).shape[:2]
                return width, height
            info = inspect_picture(path)
            return info.width, info.height
        except PictureError as error:
            return str(error)

    def name(self, path: Path) -> str:
        return plain_name(path.relative_to(self.root))

    def named(self, reports: tuple[PartReport, ...]) -> set[Path]:
        """Pictures without a partner: told already."""
        sentences = {s.partition(" has ")[0] for report in reports for s in report.unpaired}
        return {Path(text) for text in sentences}


class _Gathered:
    """The pictures of a part: (input, target), or (picture,)."""

    def __init__(self, name: str, plan: Part) -> None:
        self.name, self.plan = name, plan
        self.rows: list[tuple[Path, ...]] = []
        self.problems: tuple[str, ...] = ()
        self.missing = ""

    def report(self, looker: _Looker) -> PartReport:
        if self.missing:
            return PartReport(part=self.name, missing=self.missing)
        paired = self.plan.clean is None
        looks = {path: looker.known[path] for row in self.rows for path in row}
        unreadable = [(looker.name(p), why) for p, why in looks.items() if isinstance(why, str)]
        targets = len({row[-1] for row in self.rows}) if paired else None
        return PartReport(
            part=self.name,
            expected=self.plan.pictures,
            found=len(self.rows),
            expected_targets=self.plan.targets,
            found_targets=targets,
            told=self.plan.told,
            unpaired=self.problems,
            unreadable=tuple(unreadable),
            sizes=tuple(self._wrong_sizes(looks, looker)),
        )

    def _wrong_sizes(
        self, looks: dict[Path, tuple[int, int] | str], looker: _Looker
    ) -> Iterable[tuple[str, str, str]]:
        for row in self.rows:
            sizes = [looks[path] for path in row]
            if any(isinstance(size, str) for size in sizes):
                continue
            first, last = sizes[0], sizes[-1]
            assert not isinstance(first, str)
            wanted = self.plan.size
            if wanted is not None and first != wanted:
                yield looker.name(row[0]), _text(first), _text(wanted)
            scaled = (first[0] * self.plan.scale, first[1] * self.plan.scale)
            if last != scaled and len(row) == 2:
                yield looker.name(row[1]), _text(last), _text(scaled)


def _text(size: object) -> str:
    assert isinstance(size, tuple)
    return f"{size[0]}x{size[1]}"


def _gather(data_set: DataSet, root: Path, name: str) -> _Gathered:
    found = _Gathered(name, data_set.parts[name])
    try:
        if found.plan.clean is not None:
            found.rows = [(path,) for path in data_set.pictures(root, name)]
        else:
            pairs = data_set.pairs(root, name)
            found.rows = [(pair.input, pair.target) for pair in pairs]
            found.problems = pairs.problems
    except DataError as reason:
        found.missing = f"missing, {str(reason).partition(': ')[0]}"
    if not found.rows and not found.problems and not found.missing:
        rules = " and ".join(rule.text for rule in found.plan.rules)
        found.missing = f"no picture is named {rules}"
    return found
