"""`urushi adapt`: from a few pairs of pictures to a small file that mends more of their kind."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urushi.app.adapt_options import LengthGroup, MethodGroup, PictureGroup, TargetGroup
from urushi.app.groups import grouped
from urushi.app.options import Json, Seed, TrainingDevice, as_usage, require
from urushi.app.output import Output, examples, name_as_given, size_text, time_text
from urushi.app.teller import Teller
from urushi.errors import AdapterError, BackboneError, TargetError
from urushi.names import counted
from urushi.termination import exit_code

__all__ = ["EPILOG", "adapt"]

if TYPE_CHECKING:
    from urushi.inference.local_copies import LocalCopies
    from urushi.training.adaptation import Adaptation, AdaptationResult
    from urushi.training.examples import Examples
    from urushi.training.run_folder import RunFolder

EPILOG = examples(
    "urushi adapt --pairs mine/ -o mine.safetensors",
    "urushi adapt --pairs mine/ -o mine.safetensors --minutes 30 --budget 3%",
    "urushi adapt --pairs mine/ --into all-in-one.safetensors --name mine",
    "urushi adapt --clean photos/ --degrade haze -o haze.safetensors",
    "urushi adapt --pairs mine/ --backbone restormer --method adaptir -o mine.safetensors",
    "urushi restore more/ -o mended/ --adapter mine.safetensors",
)
_SHEET_ROWS = 6


Align = Annotated[
    bool, typer.Option("--align", help="Align shifted pairs and crop them to what both show.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted adaptation.")]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the file, and what an interrupted adaptation left, if they are there.",
    ),
]


@grouped
def adapt(
    *,
    where: TargetGroup,
    pictures: PictureGroup,
    how: MethodGroup,
    length: LengthGroup,
    align: Align = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: TrainingDevice = "auto",
    json: Json = False,
) -> None:
    """Adapt a model to your own degradation, from pairs, in minutes.

    Folders of pictures, the model and the adapter file may be URLs (s3://, gs://).
    """
    pictures.check(align)
    length.check()
    where.check(how.backbone)
    require(("torch", "accelerate", "tensorboard"), "adapting", "train")
    from urushi.inference.local_copies import LocalCopies
    from urushi.training.processes import begin, is_main, shared

    begin(device)
    out = Output(json=json, quiet=not is_main())
    copies = LocalCopies(out.say)
    name_as_given(copies.told)
    aim = _aim(where, how, copies)
    if not resume:
        copies.refuse_taken([aim.target], overwrite)
    adapter = how.adapter(aim.model)
    kept = aim.run_folder()

    def looked_through() -> "Examples":
        with kept.filled(resume=resume, overwrite=overwrite) as going_on:
            if resume and not going_on:
                # What is there is finished, or somebody else's.
                copies.refuse_taken([aim.target], overwrite)
                out.say(f"nothing to resume in {kept.path}: it begins anew")
            return pictures.examples(out, copies, kept.path, align=align, seed=seed)

    found = shared(looked_through)
    adaptation = _adaptation(aim, adapter, found, length, kept.path, overwrite, seed, device)
    result = _train(out, adaptation, resume, device)
    if not result.training.finished:
        kept.release()
        raise typer.Exit(exit_code(result.training.stopped_by))
    if not is_main():
        return
    document = _finish(out, copies, aim, adaptation, result, device)
    kept.remove()
    if json:
        out.document(document)
    if result.after is None:
        raise AdapterError(
            f"no adapter was better than the base on the validation pictures, and {aim.target} was "
            "not written: more pairs, more --minutes or another --method may help"
        )


def _finish(
    out: Output,
    copies: "LocalCopies",
    aim: "_Aim",
    adaptation: "Adaptation",
    result: "AdaptationResult",
    device: str,
) -> dict[str, Any]:
    """Draws a sheet, adds the class to the router, and sends what lies elsewhere; gives the facts.

    Nothing but the facts where no adapter was better than the base.
    """
    facts = _tell(out, result, aim.target)
    if result.after is None:
        return facts
    sheet = _write_sheet(out, adaptation, aim.target, adaptation.overwrite)
    facts["sheet"] = str(sheet)
    if aim.into is not None:
        facts["router"] = _extend(out, aim, aim.into, adaptation, device)
    copies.send(aim.target, overwrite=adaptation.overwrite)
    if aim.into is not None:
        # Behind the member that it names from now on.
        copies.send_changed(aim.into)
    copies.send_beside(sheet)
    return facts


@dataclass(frozen=True)
class _Aim:
    """What an adaptation is to make, and of what.

    Attributes:
        target: the adapter file.
        model: the base.
        facts: what its header says besides.
        into: the all-in-one file that a class is added to, or None.
        name: of that class.
        data: where pictures of its other classes are, or None.
    """

    target: Path
    model: str
    facts: dict[str, Any]
    into: Path | None
    name: str
    data: str | None

    def run_folder(self) -> "RunFolder":
        """Where it keeps what it needs until it is finished."""
        from urushi.training.run_folder import RunFolder

        return RunFolder(self.target.with_name(f"{self.target.stem}.run"), self.target)


def _aim(where: TargetGroup, how: MethodGroup, copies: "LocalCopies") -> _Aim:
    """What these options ask for, before any work."""
    from urushi.backbones import BACKBONES
    from urushi.convert.releases import model_of_backbone

    into, model = copies.changed(where.into), copies.model(how.model)
    target = copies.target(where.output, keep=True)
    facts: dict[str, Any] = {}
    name = where.name or ""
    if into is not None:
        model, facts = _base_of(into, name, model), {"degradations": [name]}
        target = into.with_name(f"{name}.safetensors")
    assert target is not None
    if how.backbone is not None:
        with as_usage():
            BACKBONES.find(how.backbone, BackboneError)
        model = model_of_backbone(how.backbone, model)
    if target.suffix != ".safetensors":
        raise TargetError(
            f"{target}: the name of an adapter file must end in .safetensors", usage=True
        )
    return _Aim(target, model or "base", facts, into, name, where.data)


def _adaptation(
    aim: _Aim,
    adapter: dict[str, Any],
    found: "Examples",
    length: LengthGroup,
    run: Path,
    overwrite: bool,
    seed: int,
    device: str,
) -> "Adaptation":
    """What will be trained, the same in all processes."""
    from urushi.training.adaptation import Adaptation, adaptation_recipe, prefers_bf16
    from urushi.training.processes import shared

    recipe = shared(
        lambda: adaptation_recipe(
            aim.target.stem,
            aim.model,
            adapter,
            found,
            minutes=length.most_minutes,
            steps=length.steps,
            seed=seed,
            bf16=prefers_bf16(device),
        )
    )
    return Adaptation(recipe, found, aim.target, run, aim.facts, overwrite)


def _train(out: Output, adaptation: "Adaptation", resume: bool, device: str) -> "AdaptationResult":
    """Measures the base, and trains; says how that goes."""
    out.say(_introduction(adaptation))
    before = adaptation.measure_base("cpu" if device == "cpu" else "auto").means
    out.say(f"the base alone: {before.psnr:.2f} dB on the validation pictures")
    with Teller(out) as teller:
        result = adaptation.train(resume=resume, device=device, on_progress=teller)
    if not result.training.finished:
        out.say(f"stopped after step {result.training.step}; go on with the same command and")
        out.say("  --resume")
    return result


def _base_of(into: Path, name: str, model: str | None) -> str:
    """The base of an all-in-one file that a class can be added to."""
    from urushi.files.all_in_one_file import read_all_in_one
    from urushi.inference.auto import find_base
    from urushi.training.all_in_one.new_expert import check_new_class

    members = read_all_in_one(into)
    base = find_base(members, model)
    check_new_class(members, name, base)
    return model or str(base.path)


def _extend(
    out: Output, aim: _Aim, into: Path, adaptation: "Adaptation", device: str
) -> dict[str, Any]:
    """Adds the class to the router, and tells what that did to the others."""
    from urushi.evaluation.catalog import data_root
    from urushi.training.all_in_one.new_expert import extend_with

    root = None if aim.data is None else data_root(aim.data)
    seed = adaptation.recipe.seed
    options = {"model": aim.model, "data": root, "seed": seed, "device": device}
    result = extend_with(into, aim.name, aim.target, adaptation.examples, **options)
    out.say(
        f"router: {100 * result.recognised:.0f} % of {result.pictures} new pictures are seen as "
        f"{aim.name}; so are {100 * result.moved:.0f} % of {result.old_pictures} old ones, which "
        f"are {result.note}"
    )
    drawn = {label: share for label, share in result.moved_by_class.items() if share > 0}
    if drawn:
        told = ", ".join(f"{label} {100 * share:.0f} %" for label, share in drawn.items())
        out.say(f"drawn away from: {told}; all others go where they went, with the same result")
    out.say(
        f"all in one: {into} tells {counted(len(result.header.classes), 'class', 'classes')} apart"
    )
    return {"file": str(into), **result.describe()}


def _introduction(adaptation: "Adaptation") -> str:
    recipe, found = adaptation.recipe, adaptation.examples
    held = len(found.validation.only)
    report = adaptation.parameters()
    length = (
        counted(recipe.schedule.steps, "step")
        if recipe.schedule.minutes is None
        else f"at most {recipe.schedule.minutes:g} minutes"
    )
    return (
        f"{len(found.pack)} to learn from, {held} to measure by; {report.trainable:,} parameters "
        f"({100 * report.share:.2g} % of those of {recipe.start}), {length} of "
        f"{counted(recipe.data.batch, 'patch', 'patches')} of {recipe.data.patch} pixels"
    )


def _tell(out: Output, result: "AdaptationResult", output: Path) -> dict[str, Any]:
    before = result.before.means
    document: dict[str, Any] = {
        "adapter": None,
        "pictures": len(result.before.pictures),
        "psnr_input": before.psnr_input,
        "psnr_base": before.psnr,
        "psnr": None,
        "steps": result.training.step,
        "seconds": round(result.training.seconds, 1),
        "log": result.training.log,
    }
    if result.after is None:
        return document
    after = result.after.means
    assert after.psnr is not None
    assert before.psnr is not None
    out.say(
        f"validation: {before.psnr_input:.2f} dB as they are, {before.psnr:.2f} with the base, "
        f"{after.psnr:.2f} with the adapter ({after.psnr - before.psnr:+.2f})"
    )
    size = output.stat().st_size
    out.say(f"adapter: {output} ({size_text(size)}), in {time_text(result.training.seconds)}")
    return {**document, "adapter": str(output), "psnr": after.psnr, "size": size}


def _write_sheet(out: Output, adaptation: "Adaptation", output: Path, overwrite: bool) -> Path:
    """Input, base, adapter and target of some validation pictures, side by side."""
    from urushi.sheet import contact_sheet, is_sheet, write_sheet

    path, number = output.with_suffix(".jpg"), 2
    # Nobody named it: whatever has its name, such as a photograph, stays.
    while os.path.lexists(path) and not (overwrite and is_sheet(path)):
        path, number = output.with_name(f"{output.stem}-{number}.jpg"), number + 1
    rows = adaptation.before_and_after(_SHEET_ROWS)
    write_sheet(path, contact_sheet(rows, cell_size=(320, 240)), overwrite=overwrite)
    out.say(f"before and after: {path}")
    return path
