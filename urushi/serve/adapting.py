"""Learning from pairs that a client has sent, as `urushi adapt` does with its defaults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from urushi.errors import AdapterError, MissingExtraError
from urushi.inference.hardware import is_installed

__all__ = ["adapt"]

_ROWS = 6
_NEEDED = ("torch", "accelerate", "tensorboard")

Tell = Callable[[dict[str, Any]], None]


def adapt(
    tell: Tell, *, model: str, folder: str, name: str, minutes: float | None, steps: int | None
) -> dict[str, Any]:
    """Learns from the pairs of a folder, and writes an adapter and a sheet beside them.

    Args:
        tell: told of phases, scores and progress.
        model: the base, a file or a name in the zoo.
        folder: holds `input` and `target`.
        name: of the adapter.
        minutes, steps: to learn at most; one of the two.

    Raises:
        MissingExtraError: what learning needs is not installed.
        DataError: there are too few pairs, or their sizes differ.
        AdapterError: nothing better than the base was found.
    """
    for package in _NEEDED:
        if not is_installed(package):
            raise MissingExtraError(f"{package}, which adapting needs,", "train")
    from urushi.sheet import contact_sheet, write_sheet
    from urushi.training.adaptation import Adaptation, adaptation_recipe, prefers_bf16
    from urushi.training.examples import pair_examples
    from urushi.training.method_choice import choose_method
    from urushi.training.progress import Progress

    root = Path(folder)
    target, run = root / "adapter.safetensors", root / "run"
    run.mkdir()
    tell({"phase": "looking through the pairs"})
    found = pair_examples(root, run)
    method = choose_method("colora", model, {})
    bf16 = prefers_bf16("auto")
    recipe = adaptation_recipe(name, model, method, found, minutes=minutes, steps=steps, bf16=bf16)
    adaptation = Adaptation(recipe, found, target, run)
    tell({"phase": "measuring the base", "pairs": len(found.pack)})
    before = adaptation.measure_base().means
    scores = {"psnr_input": before.psnr_input, "psnr_base": before.psnr}
    tell({"phase": "learning", **scores})

    def on_progress(progress: Progress) -> None:
        facts: dict[str, Any] = {"step": progress.step, "share": progress.share}
        # The first step takes longer than all others: it says nothing about the rest.
        facts["seconds_left"] = None if progress.step == 1 else round(progress.seconds_left, 1)
        if progress.scores:
            facts["psnr"] = max(progress.scores.values())
        tell(facts)

    result = adaptation.train(on_progress=on_progress)
    if not result.training.finished:
        raise KeyboardInterrupt
    if result.after is None:
        raise AdapterError(
            "no adapter was better than the base on the pairs that were kept for measuring: more "
            "pairs, or more minutes, may help"
        )
    after = result.after.means
    tell({"phase": "drawing the sheet"})
    sheet = root / "sheet.jpg"
    write_sheet(sheet, contact_sheet(adaptation.before_and_after(_ROWS), cell_size=(320, 240)))
    gain = None if after.psnr is None or before.psnr is None else after.psnr - before.psnr
    return {
        "target": str(target),
        "sheet": str(sheet),
        "notes": list(found.notes),
        "method": "colora",
        "pictures": len(result.after.pictures),
        "steps": result.training.step,
        "seconds": round(result.training.seconds, 1),
        **scores,
        "psnr": after.psnr,
        "gain": gain,
    }
