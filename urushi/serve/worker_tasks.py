"""What workers do: one picture, one look, one part of a picture, one file to be checked.

`work` is the life of a worker. It answers on a pipe, never by an exception.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urushi.errors import UnreadableError, UrushiError
from urushi.inference.hardware import require
from urushi.serve.service_wording import in_forms

if TYPE_CHECKING:
    from urushi.training.progress import Progress

__all__ = ["TASKS", "StopError", "adapt", "work"]

logger = logging.getLogger(__name__)

Tell = Callable[[dict[str, Any]], None]

_ROWS = 6


class StopError(KeyboardInterrupt):
    """The task was cancelled; unwinds like an interruption, so that nothing half done is left."""


def work(pipe: Connection, options: dict[str, Any]) -> None:
    """The life of a worker: told what to do on a pipe, until that is closed.

    Args:
        pipe: takes `(task, arguments)`, and `("cancel", {"index": ...})` meanwhile; gives
            `("ready", None)` or `("problem", sentence)` at first, then `("progress", facts)`, and
            `done`, `failed` or `cancelled` at each end.
        options: `engine`: as `Restorer` takes them; `router` and `model`: files, or None;
            `warm`: make ready what restores before saying so; `nice`: let others go before it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever stops the service lets the worker finish: the end of the pipe ends it.
        signal.signal(number, signal.SIG_IGN)
    # OpenVINO imports its converter of models, which nothing here uses, where it can.
    sys.modules.setdefault("openvino.tools.ovc", None)  # pyright: ignore[reportArgumentType]
    with contextlib.suppress(EOFError, OSError):
        _work(pipe, options)


def _work(pipe: Connection, options: dict[str, Any]) -> None:
    from urushi.serve.kept_restorers import KeptRestorers

    kept = KeptRestorers(options.get("engine", {}), options.get("router"), options.get("model"))
    try:
        if options.get("nice"):
            _let_others_go_before()
        if options.get("warm"):
            kept.warm()
    except UrushiError as error:
        pipe.send(("problem", str(error)))
        return
    pipe.send(("ready", None))

    lock, main = threading.Lock(), threading.current_thread()
    cancelled: set[int] = set()

    def tell(facts: dict[str, Any]) -> None:
        with lock:
            while pipe.poll():
                said, what = pipe.recv()
                if said == "cancel":
                    cancelled.add(what["index"])
            pipe.send(("progress", facts))
        # What was ended before is told by threads that write; they are not to be stopped.
        stoppable = main is threading.current_thread() and "ended" not in facts
        if stoppable and facts.get("index", 0) in cancelled:
            raise StopError

    while True:
        name, arguments = pipe.recv()
        cancelled.clear()
        if name in TASKS:
            pipe.send(_done(TASKS[name], kept, tell, arguments))


def _let_others_go_before() -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)


def _done(
    task: Callable[..., Any], kept: Any, tell: Tell, arguments: dict[str, Any]
) -> tuple[str, Any]:
    """How a task ended."""
    try:
        return "done", task(kept, tell, **arguments)
    except KeyboardInterrupt:
        return "cancelled", None
    except UrushiError as error:
        return "failed", (type(error).__name__, in_forms(str(error)))
    except MemoryError:
        return "failed", ("OutOfMemoryError", "there is too little memory for it")
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:
        logger.exception("a task failed unexpectedly")
        return "failed", ("fault", f"unexpected {type(error).__name__}: {error}")


def _inspect(_kitchen: Any, _tell: Tell, *, source: str, max_pixels: int) -> dict[str, Any]:
    """What a picture's header says."""
    from urushi.image import inspect_picture

    info = inspect_picture(source, max_pixels=max_pixels)
    return {
        "format": info.format,
        "width": info.width,
        "height": info.height,
        "channels": info.kind,
        "bits": info.bits,
        "alpha": info.has_alpha,
        "profile": info.has_profile,
        "pages": info.pages,
    }


def _look(kept: Any, _tell: Tell, *, source: str, max_pixels: int) -> dict[str, Any]:
    """What the router sees on a picture, and what would be done."""
    from urushi.inference.look import Looking, look_at
    from urushi.inference.naming import Found
    from urushi.inference.picture_files import FileOptions

    path = Path(source)
    item = Found(path, Path(path.name), named=True)
    for row in look_at(kept.auto(), item, Looking(FileOptions(max_pixels), most=(8, 8))):
        if row.choice is None:
            raise UnreadableError(row.message)
        return _in_forms({**row.choice.describe(), "notes": list(row.notes)})
    raise UnreadableError(f"{source}: holds no picture")


def _restore(kept: Any, tell: Tell, *, items: list[dict[str, Any]]) -> None:
    """Restores pictures of one wish one after another, as the command does.

    Args:
        items: of each picture: `source`; `target`, a folder; `wish`; `max_pixels`; `levels`, the
            file for small versions of the result, or None. Wishes differ in `format` alone.

    Tells of each, by its `index`, that it was begun, how far it is, and how it `ended`.
    """
    from urushi.inference.batch import Event, plan_batch, run_batch
    from urushi.inference.picture_files import FileOptions

    wish = items[0]["wish"]
    restorer = kept.restorer(wish)
    jobs, told = [], []
    for index, item in enumerate(items):
        try:
            format = item["wish"].get("format")
            jobs += plan_batch([item["source"]], f"{item['target']}/", format=format)
            told.append(index)
        except UrushiError as error:
            problem = type(error).__name__, in_forms(str(error))
            tell({"index": index, "ended": ("failed", problem)})

    def on_event(event: Event) -> None:
        index = told[event.index]
        if event.result is None:
            tell({"index": index, "done": event.done, "pixels": event.pixels})
        else:
            tell({"index": index, "ended": _ended(event.result, items[index], restorer)})

    report = run_batch(
        restorer,
        jobs,
        on_event=on_event,
        options=FileOptions(
            items[0]["max_pixels"],
            strip_metadata=bool(wish.get("strip_metadata")),
            quality=wish.get("quality"),
        ),
    )
    if report.interrupted:
        raise StopError


def _ended(result: Any, item: dict[str, Any], restorer: Any) -> tuple[str, Any]:
    """How one picture ended."""
    from urushi.serve.shown_pictures import write_levels

    if result.status != "restored":
        fault = ": unexpected " in result.message
        return "failed", ("fault" if fault else "UnreadableError", in_forms(result.message))
    if item["levels"] is not None:
        try:
            write_levels(result.target, Path(item["levels"]))
        except UrushiError as error:
            return "failed", (type(error).__name__, str(error))
    return "done", {
        "target": str(result.target),
        "notes": [in_forms(note) for note in result.notes],
        "seconds": round(result.seconds, 3),
        "pixels": result.pixels,
        "router": None if result.choice is None else _in_forms(result.choice.describe()),
        "how": restorer.describe(),
    }


def _in_forms(told: dict[str, Any]) -> dict[str, Any]:
    """With the sentences in it as the service says them."""
    said = {key: in_forms(value) for key, value in told.items() if isinstance(value, str)}
    notes = {"notes": [in_forms(note) for note in told["notes"]]} if "notes" in told else {}
    return {**told, **said, **notes}


def _levels(_kitchen: Any, _tell: Tell, *, source: str, target: str) -> None:
    """Small versions of a picture, for showing it."""
    from urushi.serve.shown_pictures import write_levels

    write_levels(Path(source), Path(target))


def _try(
    kept: Any,
    _tell: Tell,
    *,
    levels: str,
    level: int,
    box: tuple[int, int, int, int],
    wish: dict[str, Any],
) -> bytes:
    """A part of a picture restored in another way, as a PNG."""
    from urushi.serve.shown_pictures import Levels, encoded

    top, left, height, width = box
    with Levels(Path(levels)) as found:
        part, margin = found.part_with_margin(level, top, left, height, width)
    restored = kept.restorer(wish).restore(part)
    (above, beside) = margin
    return encoded(restored[above : above + height, beside : beside + width], "png")


def _check_adapter(kept: Any, _tell: Tell, *, path: str) -> dict[str, Any]:
    """What an adapter file says, if it is sound and made for the base."""
    return kept.check_adapter(Path(path))


def _adapt(kept: Any, tell: Tell, **arguments: Any) -> dict[str, Any]:
    """Learns from pairs."""
    from urushi.serve.worker_tasks import adapt

    return adapt(tell, model=str(kept.base()), **arguments)


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
    require(("torch", "accelerate", "tensorboard"), "adapting", "train")
    from urushi.sheet import contact_sheet, write_sheet
    from urushi.training.adaptation import Adaptation, adaptation_recipe, prefers_bf16
    from urushi.training.examples import pair_examples
    from urushi.training.method_choice import choose_method

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

    result = adaptation.train_to_the_end(on_progress=lambda progress: tell(_facts(progress)))
    assert result.after is not None
    after = result.after.means
    tell({"phase": "drawing the sheet"})
    sheet = root / "sheet.jpg"
    write_sheet(sheet, contact_sheet(adaptation.before_and_after(_ROWS), cell_size=(320, 240)))
    gain = None if after.psnr is None or before.psnr is None else after.psnr - before.psnr
    return {
        "target": str(target),
        "sheet": str(sheet),
        "notes": [in_forms(note) for note in found.notes],
        "method": "colora",
        "pictures": len(result.after.pictures),
        "steps": result.training.step,
        "seconds": round(result.training.seconds, 1),
        **scores,
        "psnr": after.psnr,
        "gain": gain,
    }


def _facts(progress: "Progress") -> dict[str, Any]:
    """How far learning is, for the page."""
    return {
        "step": progress.step,
        "share": progress.share,
        # The first step takes longer than all others: it says nothing about the rest.
        "seconds_left": None if progress.step == 1 else round(progress.seconds_left, 1),
        **({"psnr": max(progress.scores.values())} if progress.scores else {}),
    }


TASKS: dict[str, Callable[..., Any]] = {
    "inspect": _inspect,
    "look": _look,
    "restore": _restore,
    "levels": _levels,
    "try": _try,
    "check_adapter": _check_adapter,
    "adapt": _adapt,
}
