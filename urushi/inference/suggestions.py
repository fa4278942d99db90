"""What else could be done: pictures that were left alone although they may be damaged.

See docs/decisions/0023 for which these are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urushi.inference.choice import Choice
from urushi.routing.wording import look_like

__all__ = ["Suggestion", "suggestions_of"]

# So many files are named in a sentence.
_NAMED = 3


@dataclass(frozen=True)
class Suggestion:
    """Pictures of a batch that one task may help.

    Attributes:
        task: the kind of damage that is the likeliest one of them all.
        files: the pictures, in the order of the batch.
    """

    task: str
    files: tuple[Path, ...]

    def sentence(self, *, restored: bool) -> str:
        """For people: how many there are, what they look like, what to do, and which they are.

        Args:
            restored: whether they were restored, so that their targets are there.
        """
        one = len(self.files) == 1
        who = "1 picture looks" if one else f"{len(self.files)} pictures look"
        left, again = "would be", ""
        if restored:
            left, again = "was" if one else "were", " --overwrite"
        named = ", ".join(map(str, self.files[:_NAMED]))
        if (more := len(self.files) - _NAMED) > 0:
            named += f" and {more} more, which --json lists"
        what = f"{who} {look_like(self.task)} but {left} left alone"
        return f"{what}: --task {self.task}{again}, if so, for {named}"

    def describe(self) -> dict[str, Any]:
        """Plain JSON values: `task`, `files`."""
        return {"task": self.task, "files": [str(path) for path in self.files]}


def suggestions_of(chosen: Iterable[tuple[Path, Choice | None]]) -> list[Suggestion]:
    """Groups pictures by the task that is suggested for them, the largest group first.

    Args:
        chosen: each picture, and what was chosen for it; None where nothing looked at it.
    """
    groups: dict[str, dict[Path, None]] = {}  # pages of one file count once
    for path, choice in chosen:
        if choice is not None and choice.suggested is not None:
            groups.setdefault(choice.suggested, {})[path] = None
    by_size = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [Suggestion(task, tuple(files)) for task, files in by_size]
