"""Shows how a training goes: a bar on a terminal, lines elsewhere."""

from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn

from urushi.app.output import Output, time_text

if TYPE_CHECKING:
    from urushi.training.progress import Progress

__all__ = ["Teller"]


class Teller:
    """Called with every report of a training, within its context."""

    def __init__(self, out: Output) -> None:
        self._out = out
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[said]}", markup=False),
        )
        self._bar = out.progress(*columns)
        self._task = self._bar.add_task("", total=None, said="")

    def __enter__(self) -> "Teller":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, progress: "Progress") -> None:
        # Where the time ends a training, its number of steps is only a bound.
        by_time = progress.share > progress.step / progress.steps
        steps = f"step {progress.step}" + ("" if by_time else f" of {progress.steps}")
        speed = f"{progress.pixels_per_second / 1e6:.2f} megapixels/s"
        # The first step takes longer than all others: it says nothing about the rest.
        left = "" if progress.step == 1 else f", {time_text(progress.seconds_left)} left"
        said = f"loss {progress.loss:.4g}, {speed}{left}"
        self._bar.update(
            self._task,
            description=steps,
            completed=progress.share,
            total=1.0,
            said=said,
        )
        if not self._out.live:
            self._out.say(f"{steps}: {said}")
        if progress.scores:
            scores = ", ".join(f"{name} {psnr:.2f} dB" for name, psnr in progress.scores.items())
            self._out.say(f"{steps}: {scores}")
