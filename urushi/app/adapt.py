"""`urushi adapt`: from a few pairs of pictures to a small file that mends more of their kind."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urushi.app.options import (
    DataRoot,
    Inputs,
    Json,
    MaybeModel,
    Seed,
    Targets,
    TrainingDevice,
    degradation_options,
    require,
    two_folders,
)
from urushi.app.output import Output, examples, name_as_given, size_text, time_text
from urushi.app.teller import Teller
from urushi.errors import AdapterError, TargetError, UrushiError
from urushi.termination import exit_code

__all__ = [
    "EPILOG",
    "adapt",
    "check_target",
    "check_usage",
]

if TYPE_CHECKING:
    from urushi.data.pairs import PairedFolder


def check_usage(
    pairs: str | None,
    paired: str | None,
    clean: str | None,
    degrade: str | None,
    values: list[str] | None,
    minutes: float | None,
    steps: int | None,
    align: bool,
) -> None:
    """Refuses options of `urushi adapt` that do not go together; those it learns from."""
    if pairs is not None and paired is not pairs:
        raise typer.BadParameter("give --pairs FOLDER, or --inputs and --targets, not both.")
    if (paired is None) == (clean is None):
        raise typer.BadParameter("give --pairs FOLDER, or --clean FOLDER with --degrade KIND.")
    if (clean is None) != (degrade is None):
        raise typer.BadParameter("--clean FOLDER and --degrade KIND need each other.")
    if values and degrade is None:
        raise typer.BadParameter("--set is an option of --degrade.")
    if align and paired is None:
        raise typer.BadParameter("--align is for --pairs.")
    if minutes is not None and (steps is not None or minutes <= 0):
        raise typer.BadParameter("give --minutes above 0, or --steps instead.")


def check_target(
    output: str | None,
    into: str | None,
    name: str | None,
    data: str | None,
    backbone: str | None,
) -> None:
    """Refuses options of `urushi adapt` that do not go together; those of what it writes."""
    if (output is None) == (into is None):
        raise typer.BadParameter("give -o FILE, or --into FILE with --name NAME.")
    if (into is None) != (name is None):
        raise typer.BadParameter("--into FILE and --name NAME need each other.")
    if data is not None and into is None:
        raise typer.BadParameter("--data is for --into: where its router's pictures are.")
    if backbone is not None and into is not None:
        raise typer.BadParameter("--into FILE names its base itself: leave --backbone out.")


if TYPE_CHECKING:
    from urushi.data.pairs import PairedFolder
    from urushi.training.adaptation import Adaptation, AdaptationResult
    from urushi.training.examples import Examples
    from urushi.training.recipe import Recipe


EPILOG = examples(
    "urushi adapt --pairs mine/ -o mine.safetensors",
    "urushi adapt --pairs mine/ -o mine.safetensors --minutes 30 --budget 3%",
    "urushi adapt --pairs mine/ --into all-in-one.safetensors --name mine",
    "urushi adapt --clean photos/ --degrade haze -o haze.safetensors",
    "urushi adapt --pairs mine/ --backbone restormer --method adaptir -o mine.safetensors",
    "urushi restore more/ -o mended/ --adapter mine.safetensors",
)
_MINUTES = 10.0
_SHEET_ROWS = 6


def adapt(
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="The adapter file to write."),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="FILE",
            help="Instead of -o: add the adapter to this all-in-one file, as --name.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="With --into: the new class's name."),
    ] = None,
    data: DataRoot = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs",
            metavar="FOLDER",
            help="A folder that holds one of inputs and one of targets.",
        ),
    ] = None,
    inputs: Inputs = None,
    targets: Targets = None,
    clean: Annotated[
        str | None,
        typer.Option("--clean", metavar="FOLDER", help="Clean pictures, for --degrade."),
    ] = None,
    degrade: Annotated[
        str | None,
        typer.Option(
            "--degrade",
            metavar="KIND",
            help="The degradation to apply; `urushi degrade` lists them.",
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="An option of the degradation; repeatable."
        ),
    ] = None,
    model: MaybeModel = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="A kind of network instead of --model: NAME.safetensors of this folder, where "
            "`urushi import` puts released weights, or the one that ships.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help="How to adapt: colora, lora, ssf, ...")
    ] = "colora",
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="SHARE",
            help="Trained parameters relative to the base's, such as 7%; for colora.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--method-set", metavar="KEY=VALUE", help="Setting of the method; repeatable."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", metavar="M", help=f"Train at most this long; default: {_MINUTES:g}."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, metavar="N", help="Instead: train at most this many steps."),
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Align shifted pairs and crop them to what both show.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted adaptation.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace the file, and what an interrupted adaptation left, if they are there.",
        ),
    ] = False,
    seed: Seed = 0,
    device: TrainingDevice = "auto",
    json: Json = False,
) -> None:
    """Adapt a model to your own degradation, from pairs, in minutes.

    Folders of pictures, the model and the adapter file may be URLs (s3://, gs://).
    """
    check_usage(pairs, inputs or targets or pairs, clean, degrade, values, minutes, steps, align)
    check_target(output, into, name, data, backbone)
    require(("torch", "accelerate", "tensorboard"), "adapting", "train")
    from urushi.inference.local_copies import LocalCopies
    from urushi.training.processes import begin, is_main, shared
    from urushi.training.run_folder import RunFolder

    begin(device)
    out = Output(json=json, quiet=not is_main())
    copies = LocalCopies(out.say)
    name_as_given(copies.told)
    facts: dict[str, Any] = {}
    extended, model = copies.changed(into), copies.model(model)
    target = copies.target(output, keep=True)
    if extended is not None:
        assert name is not None
        model, facts = _base_of(extended, name, model), {"degradations": [name]}
        target = extended.with_name(f"{name}.safetensors")
    assert target is not None
    model = _model(model, backbone)
    if target.suffix != ".safetensors":
        raise TargetError(f"{target}: the name of an adapter file must end in .safetensors")
    if not resume:
        copies.refuse_taken([target], overwrite)
    adapter = _adapter(method, budget, settings or [], model)
    kept = RunFolder(target.with_name(f"{target.stem}.run"), target)

    def looked_through() -> "Examples":
        going_on = kept.take(resume=resume, overwrite=overwrite)
        try:
            if resume and not going_on:
                # What is there is finished, or somebody else's.
                copies.refuse_taken([target], overwrite)
                out.say(f"nothing to resume in {kept.path}: it begins anew")
            two = two_folders(copies.folder(inputs), copies.folder(targets))
            paired, clean_folder = two or copies.folder(pairs), copies.folder(clean)
            return _examples(
                out, paired, clean_folder, degrade, values or [], kept.path, align, seed
            )
        except UrushiError:
            if not going_on:
                kept.remove()
            raise

    found = shared(looked_through)
    from urushi.training.adaptation import Adaptation, adaptation_recipe, prefers_bf16

    recipe = shared(
        lambda: adaptation_recipe(
            target.stem,
            model,
            adapter,
            found,
            minutes=_MINUTES if minutes is None and steps is None else minutes,
            steps=steps,
            seed=seed,
            bf16=prefers_bf16(device),
        )
    )
    adaptation = Adaptation(recipe, found, target, kept.path, facts, overwrite)
    out.say(_introduction(recipe, found, adaptation))
    before = adaptation.measure_base("cpu" if device == "cpu" else "auto").means
    out.say(f"the base alone: {before.psnr:.2f} dB on the validation pictures")
    with Teller(out) as teller:
        result = adaptation.train(resume=resume, device=device, on_progress=teller)
    if not result.training.finished:
        out.say(f"stopped after step {result.training.step}; go on with the same command and")
        out.say("  --resume")
        kept.release()
        raise typer.Exit(exit_code(result.training.stopped_by))
    if not is_main():
        return
    document = _tell(out, result, target)
    if result.after is not None:
        sheet = _write_sheet(out, adaptation, target, overwrite)
        document["sheet"] = str(sheet)
        if extended is not None and name is not None:
            document["router"] = _extend(
                out, extended, name, target, found, data, seed, device, model
            )
        copies.send(target, overwrite=overwrite)
        if extended is not None:
            # Behind the member that it names from now on.
            copies.send_changed(extended)
        copies.send_beside(sheet)
    kept.remove()
    if json:
        out.document(document)
    if result.after is None:
        raise AdapterError(
            f"no adapter was better than the base on the validation pictures, and {target} was not "
            "written: more pairs, more --minutes or another --method may help"
        )


def _model(model: str | None, backbone: str | None) -> str:
    """What is adapted."""
    from urushi.convert.releases import model_of_backbone

    return (model or "base") if backbone is None else model_of_backbone(backbone, model)


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
    out: Output,
    into: Path,
    name: str,
    expert: Path,
    found: "Examples",
    data: str | None,
    seed: int,
    device: str,
    model: str,
) -> dict[str, Any]:
    """Adds the class to the router, and tells what that did to the others."""
    from urushi.evaluation.catalog import data_root
    from urushi.training.all_in_one.new_expert import extend_with

    root = None if data is None else data_root(data)
    options = {"model": model, "data": root, "seed": seed, "device": device}
    result = extend_with(into, name, expert, found, **options)
    out.say(
        f"router: {100 * result.recognised:.0f} % of {result.pictures} new pictures are seen as "
        f"{name}; so are {100 * result.moved:.0f} % of {result.old_pictures} old ones, which are "
        f"{result.note}"
    )
    drawn = {label: share for label, share in result.moved_by_class.items() if share > 0}
    if drawn:
        told = ", ".join(f"{label} {100 * share:.0f} %" for label, share in drawn.items())
        out.say(f"drawn away from: {told}; all others go where they went, with the same result")
    out.say(f"all in one: {into} tells {len(result.header.classes)} classes apart")
    return {"file": str(into), **result.describe()}


def _adapter(method: str, budget: str | None, settings: list[str], model: str) -> dict[str, Any]:
    from urushi.settings import set_values
    from urushi.training.method_choice import choose_method

    values: dict[str, Any] = {}
    set_values(values, settings, AdapterError)
    return choose_method(method, model, values, budget)


def _examples(
    out: Output,
    pairs: "Path | PairedFolder | None",
    clean: Path | None,
    degrade: str | None,
    values: list[str],
    run: Path,
    align: bool,
    seed: int,
) -> "Examples":
    from urushi.training.examples import clean_examples, pair_examples

    with out.progress() as progress:
        task = progress.add_task("looking through the pictures", total=None)

        def tell(done: int, total: int, _name: str) -> None:
            progress.update(task, completed=done, total=total)

        if pairs is not None:
            found = pair_examples(pairs, run, align=align, on_progress=tell)
        else:
            assert clean is not None
            assert degrade is not None
            options = degradation_options(degrade, values)
            found = clean_examples(clean, options, run, patch=64, seed=seed, on_progress=tell)
    for note in found.notes:
        out.say(f"note: {note}")
    return found


def _introduction(recipe: "Recipe", found: "Examples", adaptation: "Adaptation") -> str:
    held = len(found.validation.only)
    report = adaptation.parameters()
    length = (
        f"{recipe.schedule.steps} steps"
        if recipe.schedule.minutes is None
        else f"at most {recipe.schedule.minutes:g} minutes"
    )
    return (
        f"{len(found.pack)} to learn from, {held} to measure by; {report.trainable:,} parameters "
        f"({100 * report.share:.2g} % of those of {recipe.start}), {length} of "
        f"{recipe.data.batch} patches of {recipe.data.patch} pixels"
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
