"""Options that several commands share."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from urushi.data.pairs import PairedFolder
    from urushi.degradations import Degradation
    from urushi.inference.choice import PictureRestorer
    from urushi.inference.restorer import EngineOptions

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Adapters",
    "DataRoot",
    "Description",
    "Device",
    "EngineName",
    "Inputs",
    "Json",
    "Licence",
    "Linear",
    "MaybeModel",
    "Model",
    "Overlap",
    "OverwriteFile",
    "Precision",
    "Quality",
    "Quick",
    "RecipeValues",
    "Router",
    "Seed",
    "StrengthOf",
    "StrengthOfChroma",
    "StrengthOfLuma",
    "Targets",
    "Task",
    "Threads",
    "Threshold",
    "Tile",
    "TopK",
    "TrainingDevice",
    "TrainingOptions",
    "White",
    "as_usage",
    "check_choice",
    "check_rule",
    "check_two_folders",
    "choose_restorer",
    "degradation_options",
    "make_degradation",
    "one_of",
    "require",
    "two_folders",
]

# Written out, since the tables they stand in take long to import; a test compares them.
ENGINES = ("auto", "openvino", "torch")
PRECISIONS = ("float32", "bf16", "int8")


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """A callback that refuses values other than these."""

    def check(value: str) -> str:
        if value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}.")
        return value

    return check


Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="Name of a shipped model, or a model file."
    ),
]
MaybeModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A shipped model's name, or a model file; default: base.",
    ),
]
Router = Annotated[
    str | None,
    typer.Option(
        "--router",
        metavar="FILE",
        help="An all-in-one file, whose router chooses what a picture needs; default: the one "
        "that ships.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="auto: choose for each picture; none: the base alone; or a task of the all-in-one "
        "file, such as haze, for all pictures. haze+noise: several, one after the other; what came "
        "last, such as noise, is undone first.",
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        "-a",
        metavar="FILE[:STRENGTH]",
        help="An adapter file made for the model, or one that ships, by name, such as film; "
        "repeatable. "
        "FILE:0.5 is half as strong; strengths are from 0 to 2.",
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        "--k",
        min=1,
        metavar="N",
        help="Mix up to N experts for a picture, the router's likeliest, in proportion to their "
        "probabilities; default: 1.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        min=0.0,
        max=1.0,
        metavar="P",
        help="Use the base alone where the router is less sure than P, from 0 to 1; default: what "
        "its file says.",
    ),
]
White = Annotated[
    float | None,
    typer.Option(
        "--white",
        metavar="VALUE",
        help="The value that means white in pictures of 16 bits or floating point, such as 4095 "
        "or 255; default: what each file says. Floating point is then taken as sRGB.",
    ),
]
Linear = Annotated[
    bool | None,
    typer.Option(
        "--linear/--no-linear",
        help="Take pictures of 16 bits or floating point without a profile as linear light, or "
        "as sRGB; default: floating point is linear.",
    ),
]
StrengthOf = Annotated[
    float,
    typer.Option(
        "--strength",
        min=0.0,
        max=1.0,
        metavar="0..1",
        help="Blend with the picture as it was: 0 leaves it so, 1 keeps all that is changed.",
    ),
]
StrengthOfLuma = Annotated[
    float,
    typer.Option(
        "--luma",
        min=0.0,
        max=1.0,
        metavar="0..1",
        help="How much of the change of lightness is kept, times --strength.",
    ),
]
StrengthOfChroma = Annotated[
    float,
    typer.Option(
        "--chroma",
        min=0.0,
        max=1.0,
        metavar="0..1",
        help="How much of the change of colour is kept, times --strength.",
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        "--quality",
        min=1,
        max=100,
        help="Of JPEG, WebP and AVIF; 100 makes WebP and AVIF lossless. Default: 95, AVIF 85; a "
        "lossless WebP or AVIF stays lossless.",
    ),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Choose by one look alone: faster, and less often right. Leaves out the second look "
        "at what the first expert makes, and the trials of routers that have them.",
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        callback=one_of(ENGINES),
        help="What runs the network: auto, openvino or torch.",
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, xpu or mps."),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="PRECISION",
        callback=one_of(PRECISIONS),
        help="float32; bf16: faster, a little less exact; int8: where `urushi export` made it, for "
        "the base alone: pictures that get an expert, or that int8 changes, are done in float32.",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        "--tile",
        min=1,
        metavar="PIXELS",
        help="Side of a tile; default: chosen by the memory there is.",
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        "--overlap",
        min=0,
        metavar="PIXELS",
        help="What neighbouring tiles share; default: 16, or half of a small tile.",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="Threads of the engine.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to stdout, the rest to stderr.")
]
Description = Annotated[
    str, typer.Option("--description", metavar="TEXT", help="A sentence about it.")
]
Licence = Annotated[
    str, typer.Option("--licence", metavar="NAME", help="Its licence, as SPDX names it.")
]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
Inputs = Annotated[
    str | None,
    typer.Option(
        "--inputs", metavar="FOLDER", help="Instead of --pairs: the folder of degraded pictures."
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(
        "--targets",
        metavar="FOLDER",
        help="With --inputs: the folder of targets, of the same names.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of all random numbers.")
]
DataRoot = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Folder of the data sets; default: the environment variable URUSHI_DATA.",
    ),
]
TrainingDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        callback=one_of(("auto", "cpu")),
        help="auto (the best available) or cpu.",
    ),
]
RecipeValues = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change a value of the recipe; repeatable."),
]


@dataclass(frozen=True)
class TrainingOptions:
    """What `urushi train` was asked for, of a recipe of any kind; see there."""

    recipe: str
    data: str | None
    pack: str | None
    output: Path | None
    resume: bool
    device: str
    values: Sequence[str]
    graph: bool
    json: bool

    def run(self, name: str) -> Path:
        """The folder of a training of that name."""
        return self.output or Path("runs") / name

    def command(self, name: str) -> str:
        """The command that goes on with it."""
        words = ["urushi", "train", self.recipe, "-o", str(self.run(name))]
        words += ["--data", self.data] if self.data is not None else []
        words += ["--pack", self.pack] if self.pack is not None else []
        words += ["--device", self.device] if self.device != "auto" else []
        words += [] if self.graph else ["--no-graph"]
        for value in self.values:
            words += ["--set", value]
        return shlex.join([*words, "--resume"])


def check_two_folders(inputs: str | Path | None, targets: str | Path | None) -> None:
    """Refuses one of two folders."""
    if (inputs is None) != (targets is None):
        raise typer.BadParameter("--inputs FOLDER and --targets FOLDER need each other.")


def two_folders(inputs: str | Path | None, targets: str | Path | None) -> "PairedFolder | None":
    """The pairs of two folders; None where none are named."""
    check_two_folders(inputs, targets)
    if inputs is None or targets is None:
        return None
    from urushi.data.pairs import PairedFolder

    return PairedFolder.from_folders(Path(inputs), Path(targets))


def choose_restorer(
    model: str | None,
    router: str | None,
    task: str | None,
    options: "EngineOptions",
    adapters: Sequence[str] | None = None,
    *,
    default: bool = True,
    quick: bool = False,
) -> "PictureRestorer":
    """The restorer these options ask for; one that chooses where that is asked for.

    Args:
        default: choose where an all-in-one file ships and nothing else is asked for.
        quick: choose by a look alone.
    """
    from urushi.inference.adapted_weights import parse_adapter
    from urushi.inference.auto import AUTO, NONE, AutoRestorer
    from urushi.inference.restorer import Restorer
    from urushi.inference.zoo import find_all_in_one

    check_choice(router, task, adapters)
    asked = router is not None or task not in (None, NONE)
    by_itself = default and model is None and task is None and not adapters
    if asked or (by_itself and find_all_in_one() is not None):
        return AutoRestorer(
            router, model=model, task=AUTO if task is None else task, quick=quick, **options
        )
    return Restorer(
        model or "base", adapters=[parse_adapter(text) for text in adapters or ()], **options
    )


def check_choice(router: str | None, task: str | None, adapters: Sequence[str] | None) -> None:
    """Refuses options that say, each by itself, what mends the pictures."""
    given = {"--router": router is not None, "--task": task not in (None, "none")}
    others = " and ".join(option for option, is_given in given.items() if is_given)
    if adapters and others:
        also = "so does" if " and " not in others else "so do"
        raise typer.BadParameter(
            f"--adapter says what mends the pictures, and {also} {others}: leave one out."
        )


def check_rule(
    given: str,
    model: str | None,
    router: str | None,
    task: str | None,
    adapters: Sequence[str] | None,
    *,
    default: bool = True,
) -> None:
    """Refuses an option of a router where nothing would be chosen, with a way out that works.

    Args:
        given: the option.
        model, router, task, adapters: beside it.
        default: as `choose_restorer` takes it.
    """
    from urushi.inference.zoo import find_all_in_one

    if adapters:
        raise typer.BadParameter(
            f"{given} is for a router, which chooses, and --adapter says what mends the pictures: "
            "leave one out."
        )
    ships = find_all_in_one() is not None
    by_itself = router is not None or (default and model is None and ships)
    if task not in (None, "auto"):
        way = "leave --task out" if by_itself else f"give --task auto instead of --task {task}"
        raise typer.BadParameter(f"{given} is for what the router sees: {way}.")
    if task is None and not by_itself:
        way = "--router FILE, or --task auto, too" if ships else "--router FILE, too"
        raise typer.BadParameter(f"{given} is for a router, which chooses: give {way}.")


def require(packages: Sequence[str], what: str, extra: str) -> None:
    """Raises `MissingExtraError` unless the packages are there that `what` needs."""
    from urushi.inference import hardware

    hardware.require(packages, what, extra)


@contextmanager
def as_usage() -> Iterator[None]:
    """Where options are read: what is wrong there is what was asked for, but for files."""
    from urushi.errors import FileFormatError, MissingExtraError, UrushiError

    try:
        yield
    except (FileFormatError, MissingExtraError):
        raise
    except UrushiError as error:
        error.usage = True
        raise


def degradation_options(name: str, values: Sequence[str]) -> dict[str, Any]:
    """A degradation as plain values, from its name and `KEY=VALUE` texts; checked."""
    from urushi.errors import DegradationError
    from urushi.settings import set_values

    content: dict[str, Any] = {}
    with as_usage():
        set_values(content, values, DegradationError)
        make_degradation({**content, "name": name})
    return {**content, "name": name}


def make_degradation(options: dict[str, Any]) -> "Degradation":
    """The degradation that plain values describe."""
    require(("torch",), "degrading", "torch")
    from urushi.degradations import degradation_of

    return degradation_of(options)
