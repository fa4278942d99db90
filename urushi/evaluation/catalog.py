"""What a benchmark is, and the ones we know: the YAML files of ``urushi/data/catalog``.

A benchmark is pictures and a protocol. The pictures are either pairs in two folders, or one folder
of clean pictures and a degradation, or a part of a data set, whose description then names the
benchmark (`urushi.data.data_sets`). A degraded picture depends on the benchmark's seed and the
picture's name alone, so it stays the same whichever pictures are measured, and in whatever order.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float32
from pydantic import Field, model_validator

from urushi.data.data_sets import CATALOG, DATA_SETS, SCHEME, find_part
from urushi.data.pairs import PairedFolder, find_pictures, whole_factor
from urushi.errors import DataError, nearest
from urushi.evaluation.metrics import PROTOCOLS, named_protocol
from urushi.names import counted, plain_name
from urushi.settings import Settings, SettingsFolder, find_settings, parse_settings

if TYPE_CHECKING:
    from urushi.degradations import Degradation

__all__ = [
    "BENCHMARKS",
    "DATA_VARIABLE",
    "Benchmark",
    "Sample",
    "clean_benchmark",
    "data_root",
    "find_benchmark",
    "paired_benchmark",
    "part_benchmark",
]

DATA_VARIABLE = "URUSHI_DATA"

Picture = Float32[np.ndarray, "_ _ 3"]


@dataclass(frozen=True)
class Sample:
    """One picture of a benchmark, not read yet.

    Attributes:
        name: unique in the benchmark; the path below the folder of inputs, without suffix.
        target: the reference picture.
        input: the degraded picture, or None where it is made from ``target``.
        degradation: makes the input from the target; None with no ``input`` leaves it as it is.
        seed: of the benchmark.
        input_8bit: the input made here is rounded to multiples of 1/255.
    """

    name: str
    target: Path
    input: Path | None = None
    degradation: "Degradation | None" = None
    seed: int = 0
    input_8bit: bool = True

    def load(self) -> tuple[Picture, Picture]:
        """Reads, and degrades, the picture: input and reference, RGB ``(H, W, 3)`` in [0, 1].

        The reference may be a whole multiple of the input. Where it is made smaller here, what does
        not fill up a pixel of the input is cut off at its right and lower edge first.

        Raises:
            PictureError: a file cannot be read.
            DataError: the reference is neither of the input's size nor of a multiple of it.
        """
        from urushi.image import read_picture

        target = read_picture(self.target)
        if self.input is not None:
            degraded = read_picture(self.input)
        elif self.degradation is not None:
            from urushi.degradations.files import degrade_pixels, picture_seed

            seed = picture_seed(self.seed, self.name)
            scale = self.degradation.scale
            target = target[: len(target) // scale * scale, : target.shape[1] // scale * scale]
            degraded = degrade_pixels(target, self.degradation, seed)
            if self.input_8bit:
                degraded = np.rint(degraded * np.float32(255)) / np.float32(255)
        else:
            degraded = target
        (h, w), (th, tw) = degraded.shape[:2], target.shape[:2]
        if whole_factor((h, w), (th, tw)) is None:
            raise DataError(
                f"the input of {self.name} is {w}x{h} pixels and its reference {tw}x{th}: both "
                "must have the same size, or the reference a whole multiple of it; find such pairs "
                "with  urushi data check"
            )
        return degraded, target


class Published(Settings):
    """A score that someone published for this benchmark.

    Attributes:
        method: its name.
        psnr: mean in dB, by the benchmark's protocol as far as it is known.
        source: where it stands.
    """

    method: str
    psnr: float
    source: str


class Benchmark(Settings):
    """A benchmark; the keys of a YAML file in the catalog.

    Folders are below the data root unless they are absolute.

    Attributes:
        name: of the file, without suffix.
        title: what is measured, for a person.
        input: folder of degraded pictures; goes with ``target``.
        target: folder of their references.
        clean: folder of clean pictures, instead of ``input`` and ``target``.
        data: part of a data set, ``set:NAME/PART``, instead of any of these; of pairs, or of clean
            pictures. With a ``degradation``, the targets of pairs are clean pictures.
        place: folder of that data set, where it is not the usual one below the data root.
        degradation: what is done to the clean ones, ``{name: ..., ...}`` as in a recipe; without it
            they are measured as they are, which shows what a network does to a good picture.
        seed: of the degradation.
        input_8bit: a picture made by ``degradation`` is rounded to 8 bits.
        protocol: a name in ``PROTOCOLS``.
        crop_border: pixels not scored at each side.
        only: names of the samples to measure; all if empty.
        several: pictures show several kinds of damage at once, for which no single expert is right.
        pictures: how many there must be; a benchmark with some missing has another mean.
        source: where the pictures come from.
        licence: under what terms.
        note: what to mind when setting the score beside others.
        published: scores of others on the same pictures.
    """

    name: Annotated[str, Field(min_length=1)]
    title: str
    input: str | None = None
    target: str | None = None
    clean: str | None = None
    data: str | None = None
    place: str | None = None
    degradation: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    input_8bit: bool = True
    protocol: str = "rgb-8bit"
    crop_border: Annotated[int, Field(ge=0)] = 0
    only: list[str] = []
    several: bool = False
    pictures: Annotated[int, Field(ge=1)] | None = None
    source: str = "not stated"
    licence: str = "not stated"
    note: str = ""
    published: list[Published] = []

    @model_validator(mode="after")
    def _consistent(self) -> "Benchmark":
        paired = self.input is not None and self.target is not None
        stated = [paired, self.clean is not None, self.data is not None]
        if sum(stated) != 1 or (self.input is None) != (self.target is None):
            raise ValueError("expected either input and target, or clean, or data")
        if self.place is not None and self.data is None:
            raise ValueError("place goes with data")
        if paired and self.degradation is not None:
            raise ValueError("degradation goes with clean, not with input and target")
        if self.protocol not in PROTOCOLS:
            hint = nearest(self.protocol, PROTOCOLS)
            raise ValueError(
                f"there is no protocol {self.protocol!r}{hint}: known are {', '.join(PROTOCOLS)}"
            )
        return self

    def samples(self, root: str | Path | None = None) -> list[Sample]:
        """The pictures, sorted by name.

        Args:
            root: folder the benchmark's folders are below; ``$URUSHI_DATA`` if not given.

        Raises:
            DataError: the root or a folder is missing, a picture has no partner, or their number is
                not the expected one.
            DegradationError: the degradation does not exist or does not take these values.
        """
        if self.data is not None:
            samples = self._of_part(root, self.data)
        elif self.clean is None:
            assert self.input is not None
            assert self.target is not None
            both = self._folder(root, self.input), self._folder(root, self.target)
            samples = self._paired(PairedFolder.from_folders(*both))
        else:
            folder = self._folder(root, self.clean)
            samples = self._degraded(folder, find_pictures(folder))
        if self.only:
            missing = set(self.only) - {sample.name for sample in samples}
            if missing:
                raise DataError(f"the benchmark {self.name} has no picture {min(missing)!r}")
            samples = [sample for sample in samples if sample.name in self.only]
        if self.pictures not in (None, len(samples)):
            raise DataError(
                f"the benchmark {self.name} has {counted(len(samples), 'picture')} here, expected "
                f"{self.pictures}: complete its folder, or its mean is not comparable"
            )
        if not samples:
            raise DataError(f"the benchmark {self.name} has no pictures: its folder is empty")
        return samples

    def _of_part(self, root: str | Path | None, name: str) -> list[Sample]:
        data_set, part = find_part(name)
        folder = self._folder(root, self.place or data_set.folder)
        if data_set.parts[part].clean is None and self.degradation is None:
            return self._paired(data_set.pairs(folder, part))
        return self._degraded(folder, data_set.pictures(folder, part))

    def _paired(self, folder: PairedFolder) -> list[Sample]:
        if folder.problems and not self.only:
            more = len(folder.problems) - 1
            raise DataError(
                f"the pairs of {self.name} do not match: {folder.problems[0]}"
                + (f" (and {more} more)" if more else "")
                + "; find all with  urushi data check"
            )
        return [Sample(pair.name, pair.target, input=pair.input) for pair in folder]

    def _degraded(self, folder: Path, pictures: Iterable[Path]) -> list[Sample]:
        degradation = None
        if self.degradation is not None:
            from urushi.degradations import degradation_of

            degradation = degradation_of(self.degradation)
        return [
            Sample(
                plain_name(path.relative_to(folder).with_suffix("")),
                path,
                degradation=degradation,
                seed=self.seed,
                input_8bit=self.input_8bit,
            )
            for path in pictures
        ]

    def _folder(self, root: str | Path | None, name: str) -> Path:
        if Path(name).is_absolute():
            folder, base = Path(name), ""
        else:
            base = data_root(root)
            folder = base / name
        if not folder.is_dir():
            hint = f": put it below {base} or give another data folder" if base else ""
            raise DataError(f"the benchmark {self.name} needs the folder {folder}{hint}")
        return folder


def data_root(root: str | Path | None = None) -> Path:
    """The folder that holds the data sets: the one given, or that of ``$URUSHI_DATA``.

    Raises:
        DataError: neither is given, or it does not exist.
    """
    given = str(root) if root is not None else os.environ.get(DATA_VARIABLE, "")
    if not given:
        raise DataError(
            f"no data folder is known: give one, or set the environment variable {DATA_VARIABLE}"
        )
    if not Path(given).is_dir():
        raise DataError(f"the data folder {given} does not exist: give another one")
    return Path(given)


def paired_benchmark(
    input_folder: str | Path,
    target_folder: str | Path,
    *,
    protocol: str = "rgb-8bit",
    only: Sequence[str] = (),
) -> Benchmark:
    """A benchmark of two folders of one's own, or of the pairs named in `only`."""
    source, target = Path(input_folder).resolve(), Path(target_folder).resolve()
    beside = source != target and source.parent == target.parent
    shared = source.parent.name if beside else source.name
    title = f"pairs in {source.name}"
    if source != target:
        title = f"pairs of {source.name} and {target.name}"
    return Benchmark(
        name=plain_name(shared or source.name),
        title=plain_name(title),
        input=str(source),
        target=str(target),
        only=list(only),
        protocol=named_protocol(protocol).name,
    )


def part_benchmark(name: str, root: str | Path, protocol: str = "rgb-8bit") -> Benchmark:
    """A benchmark of the pairs of a part of a data set.

    Args:
        name: ``set:NAME/PART``.
        root: the place of the data.
        protocol: how they are scored.

    Raises:
        DataError: there is no such part.
    """
    data_set, part = find_part(name)
    return Benchmark(
        name=f"{data_set.name}-{part}",
        title=f"{data_set.title}: {part}",
        data=f"{SCHEME}{data_set.name}/{part}",
        place=str((Path(root) / data_set.folder).resolve()),
        protocol=named_protocol(protocol).name,
    )


def clean_benchmark(
    folder: str | Path,
    degradation: Mapping[str, Any] | None,
    *,
    seed: int = 0,
    input_8bit: bool = True,
    protocol: str = "rgb-8bit",
    only: Sequence[str] = (),
) -> Benchmark:
    """A benchmark of one's own clean pictures and a degradation, ``{"name": ..., ...}``.

    Of pictures that it makes smaller, a border as wide as the factor is not scored, as is usual.

    Raises:
        DegradationError: the degradation does not exist or does not take these values.
    """
    clean = Path(folder).resolve()
    kind = str(degradation.get("name")) if degradation else "clean"
    scale = 1
    if degradation:
        from urushi.degradations import degradation_of

        scale = degradation_of(degradation).scale
    return Benchmark(
        name=plain_name(f"{clean.name}-{kind}"),
        title=plain_name(f"{clean.name}, {kind}"),
        clean=str(clean),
        degradation=dict(degradation) if degradation else None,
        seed=seed,
        only=list(only),
        input_8bit=input_8bit,
        protocol=named_protocol(protocol).name,
        crop_border=scale if scale > 1 else 0,
    )


class _Catalog(Mapping[str, Benchmark]):
    """The benchmarks in a folder of YAML files, and those that data sets name."""

    def __init__(self) -> None:
        self._files = SettingsFolder(CATALOG, Benchmark, DataError)

    @cached_property
    def _of_sets(self) -> dict[str, str]:
        """The name of the data set of each benchmark that one names."""
        found: dict[str, str] = {}
        for name, data_set in DATA_SETS.items():
            for benchmark in data_set.benchmarks:
                if benchmark in found or benchmark in self._files:
                    raise DataError(
                        f"two benchmarks are called {benchmark!r}, one of them {name}'s"
                    )
                found[benchmark] = name
        return found

    def __getitem__(self, name: str) -> Benchmark:
        if name in self._files:
            return self._files[name]
        return _benchmark_of(self._of_sets[name], name)

    def __iter__(self) -> Iterator[str]:
        yield from self._files
        yield from self._of_sets

    def __len__(self) -> int:
        return len(self._files) + len(self._of_sets)


def _benchmark_of(data_set: str, name: str) -> Benchmark:
    """A benchmark that a data set names."""
    own = DATA_SETS[data_set]
    plan = dict(own.benchmarks[name])
    part = plan.pop("part")
    said = {"title": own.title, "source": own.source, "licence": own.licence, **plan}
    said |= {"name": name, "data": f"{SCHEME}{own.name}/{part}"}
    said["pictures"] = plan.get("pictures", own.parts[part].pictures)
    if plan.get("degradation") and own.parts[part].targets is not None:
        said["pictures"] = own.parts[part].targets
    return parse_settings(said, Benchmark, DataError, f"{data_set}: benchmark {name}")


BENCHMARKS: Mapping[str, Benchmark] = _Catalog()


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or the one described by a YAML file of that path.

    Raises:
        DataError: there is none, or the file does not describe one.
    """
    return find_settings(name, BENCHMARKS, Benchmark, DataError, "benchmark")
