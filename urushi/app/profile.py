"""`urushi profile`: which layers of a base contribute, measured and drawn."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table
from rich.text import Text

from urushi.app.options import Device, Json, Seed, degradation_options, one_of, require
from urushi.app.output import Output, complain, examples, printable, time_text
from urushi.errors import TargetError
from urushi.names import counted
from urushi.writing import refuse_taken

if TYPE_CHECKING:
    from torch import Tensor

    from urushi.adapters.attribution import Rule
    from urushi.adapters.contribution_profile import Normalise, Profile
    from urushi.adapters.profiling import ProfileTask
    from urushi.backbones import RestorationNetwork
    from urushi.files.model import LoadedModel
    from urushi.training.profile_tasks import TaskPictures

__all__ = ["EPILOG", "profile"]

EPILOG = examples(
    "urushi profile --base base --target tuned.safetensors --pairs mine/ -o base.profile.json",
    "urushi profile --pairs rainy/ --pairs hazy/ --tune-steps 300 -o p.json --plot p.png",
    "urushi profile --clean photos/ --degrade haze --tune-steps 300 -o p.json",
    "urushi profile --read p.json --plot p.png --log",
    "urushi adapt --pairs mine/ --method-set profile=p.json --budget 7% -o mine.safetensors",
)

# Written out, since the tables they stand in take long to import; a test compares them.
RULES = ("released", "paper", "midpoint")
NORMALISE = ("sum", "mean", "task")

# Outside of that the integral is too rough, or the loss hardly changes at all.
_TOLERATED = 0.05


Base = Annotated[
    str,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="Name of a shipped model, or a model file: what is profiled.",
    ),
]
Tuned = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="FILE",
        help="The base tuned fully for a task: a model, or an adapter of method full. One for "
        "each task, in their order.",
    ),
]
Pairs = Annotated[
    list[Path] | None,
    typer.Option(
        "--pairs",
        metavar="FOLDER",
        help="A task: holds a folder of inputs and one of targets. Repeatable, tasks count alike.",
    ),
]
Clean = Annotated[
    Path | None,
    typer.Option("--clean", metavar="FOLDER", help="Clean pictures, for --degrade."),
]
Degrade = Annotated[
    list[str] | None,
    typer.Option("--degrade", metavar="KIND", help="A task: what spoils them; repeatable."),
]
TuneSteps = Annotated[
    int | None,
    typer.Option(
        "--tune-steps",
        min=1,
        metavar="N",
        help="Instead of --target: tune a copy for each task by that many steps of 8 patches.",
    ),
]
Patch = Annotated[
    int,
    typer.Option("--patch", min=8, metavar="PIXELS", help="Side of what is taken of a picture."),
]
RuleName = Annotated[
    str,
    typer.Option(
        "--rule",
        metavar="RULE",
        callback=one_of(RULES),
        help="Where the points lie: " + ", ".join(RULES),
    ),
]
NormaliseName = Annotated[
    str,
    typer.Option(
        "--normalise",
        metavar="HOW",
        callback=one_of(NORMALISE),
        help="What scores are a part of: " + ", ".join(NORMALISE),
    ),
]
Read = Annotated[
    Path | None,
    typer.Option("--read", metavar="FILE", help="Show or draw this profile, measure none."),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw the profile: .png, .svg or .pdf."),
]


def profile(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The profile to write, a JSON file."),
    ] = None,
    base: Base = "base",
    target: Tuned = None,
    pairs: Pairs = None,
    clean: Clean = None,
    degrade: Degrade = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Option of a single --degrade."),
    ] = None,
    tune_steps: TuneSteps = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, metavar="M", help="Points of the path integral.")
    ] = 16,
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="Pictures of each task.")
    ] = 16,
    patch: Patch = 128,
    rule: RuleName = "midpoint",
    normalise: NormaliseName = "task",
    read: Read = None,
    plot: Plot = None,
    log: Annotated[bool, typer.Option("--log", help="Draw logarithmic heights.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure how much each layer of a base contributes; CoLoRA gives ranks by it."""
    out = Output(json=json)
    if log and plot is None:
        raise typer.BadParameter("--log goes with --plot FILE.")
    if read is not None and (output or target or pairs or clean or degrade or tune_steps):
        raise typer.BadParameter("--read FILE measures nothing: it goes with --plot alone.")
    require(("torch",), "profiling", "torch")
    _check_targets(output, plot, overwrite)
    from urushi.adapters.contribution_profile import read_profile, write_profile

    if read is not None:
        _tell(out, read_profile(read), read, plot, log)
        return
    _check_usage(target or [], pairs or [], clean, degrade or [], values or [], tune_steps)
    if output is None:
        raise typer.BadParameter("--output FILE is missing: where the profile goes.")
    found = _Run(out, base, device, patch, limit, seed).measure(
        _pictures(pairs or [], clean, degrade or [], values or [], seed),
        target or [],
        tune_steps,
        steps,
        cast("Rule", rule),
        cast("Normalise", normalise),
    )
    write_profile(output, found)
    _tell(out, found, output, plot, log)


def _check_targets(output: Path | None, plot: Path | None, overwrite: bool) -> None:
    for path in filter(None, (output, plot)):
        refuse_taken([path], overwrite)
        if not path.parent.is_dir():
            raise TargetError(f"{path} cannot be written: the folder {path.parent} does not exist")
    if plot is not None:
        from urushi.evaluation.plots import check_plot_target

        check_plot_target(plot)


def _check_usage(
    targets: list[str],
    pairs: list[Path],
    clean: Path | None,
    degrade: list[str],
    values: list[str],
    tune_steps: int | None,
) -> None:
    tasks = len(pairs) + len(degrade)
    if (clean is None) == bool(degrade):
        raise typer.BadParameter("--clean FOLDER and --degrade KIND need each other.")
    if not tasks:
        raise typer.BadParameter("name what to measure on: --pairs FOLDER, or --clean FOLDER.")
    if values and len(degrade) != 1:
        raise typer.BadParameter("--set goes with a single --degrade.")
    if bool(targets) == (tune_steps is not None):
        raise typer.BadParameter("give --target FILE, or --tune-steps N to make one.")
    if len(targets) not in (0, 1, tasks):
        raise typer.BadParameter(
            f"{len(targets)} --target for {counted(tasks, 'task')}: give one each."
        )


def _pictures(
    pairs: list[Path], clean: Path | None, degrade: list[str], values: list[str], seed: int
) -> "list[TaskPictures]":
    from urushi.training.profile_tasks import clean_task, paired_task

    found = [paired_task(folder) for folder in pairs]
    for kind in degrade:
        assert clean is not None
        found.append(clean_task(clean, degradation_options(kind, values), seed))
    return found


class _Run:
    """The base on its device, and how much of each task's pictures is taken."""

    def __init__(
        self, out: Output, base: str, device: str, patch: int, limit: int, seed: int
    ) -> None:
        from urushi.files.model import read_model
        from urushi.inference.hardware import choose_device
        from urushi.inference.zoo import find_model
        from urushi.training.profile_tasks import build_model

        self._out, self._patch, self._limit, self._seed = out, patch, limit, seed
        self._model: LoadedModel = read_model(find_model(base))
        self._network: RestorationNetwork = build_model(self._model).to(choose_device(device))

    def measure(
        self,
        given: "Sequence[TaskPictures]",
        targets: list[str],
        tune_steps: int | None,
        steps: int,
        rule: "Rule",
        normalise: "Normalise",
    ) -> "Profile":
        from urushi.adapters.profiling import measure_profile
        from urushi.files.adapter import base_facts

        shared = targets * len(given) if len(targets) == 1 else targets
        tasks = [
            self._task(one, shared[index] if shared else None, tune_steps)
            for index, one in enumerate(given)
        ]
        with self._out.progress() as progress:
            bar = progress.add_task("attributing", total=None)
            return measure_profile(
                self._network,
                base_facts(self._model),
                tasks,
                steps=steps,
                rule=rule,
                normalise=normalise,
                on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
            )

    def _task(
        self, pictures: "TaskPictures", target: str | None, tune_steps: int | None
    ) -> "ProfileTask":
        """Pictures and target of one task; the target is tuned where none is given."""
        from urushi.adapters.profiling import ProfileTask
        from urushi.training.profile_tasks import BATCH, read_target

        pairs = pictures.middles(self._limit, self._patch)
        if target is not None:
            tuned_by, parameters = Path(target).name, read_target(self._model, target)
        else:
            assert tune_steps is not None
            tuned_by = f"{counted(tune_steps, 'step')} of {BATCH} patches of the same pictures"
            parameters = self._tuned(pictures, tune_steps)
        data = f"{pictures.data}, the middle {self._patch} pixels"
        return ProfileTask(pictures.name, parameters, pairs, data, tuned_by)

    def _tuned(self, pictures: "TaskPictures", steps: int) -> "dict[str, Tensor]":
        from urushi.training.profile_tasks import tuned_parameters

        start = time.monotonic()
        with self._out.progress() as progress:
            bar = progress.add_task(f"tuning for {printable(pictures.name)}", total=steps)
            parameters = tuned_parameters(
                self._network,
                pictures,
                steps=steps,
                patch=self._patch,
                seed=self._seed,
                on_step=lambda done, _loss: progress.update(bar, completed=done),
            )
        taken = time_text(time.monotonic() - start)
        self._out.say(f"{pictures.name}: a copy tuned by {counted(steps, 'step')} in {taken}")
        return parameters


def _tell(out: Output, found: "Profile", path: Path, plot: Path | None, log: bool) -> None:
    for task in found.tasks:
        out.say(
            f"{task.name}: {counted(task.pictures, 'picture')}, base {task.psnr_baseline:.2f} dB, "
            "target "
            f"{task.psnr_target:.2f} dB; the attributions account for {task.accounted:.1%} of the "
            "difference"
        )
        if task.psnr_target <= task.psnr_baseline:
            complain(
                f"{task.name}: the target is no better than the base on these pictures, a profile "
                "of it says little: tune it longer, or name the pictures it was tuned for"
            )
        elif abs(task.accounted - 1) > _TOLERATED:
            complain(f"{task.name}: the path integral is rough: give more --steps")
    table = Table(title="Mean contribution per parameter", title_justify="left")
    table.add_column("part")
    table.add_column("contribution", justify="right")
    rows = {**found.of_kinds(), **found.of_stages()}
    for name, value in rows.items():
        table.add_row(Text(printable(name)), f"{value:.3g}")
    out.show(table)
    out.say(f"profile: {path}")
    if plot is not None:
        from urushi.evaluation.plots import draw_profile

        draw_profile(found, plot, log=log)
        out.say(f"plot: {plot}")
    if out.json:
        out.document(
            {
                "profile": str(path),
                "plot": str(plot) if plot else None,
                "tasks": [task.model_dump() for task in found.tasks],
                "kinds": found.of_kinds(),
                "stages": found.of_stages(),
                "units": found.of_units(),
            }
        )
