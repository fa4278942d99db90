"""Checkpoints: all that a training carries from step to step, in one safetensors file.

Weights, their moving average and the optimizer's moments are tensors; the step, the seconds spent
and the recipe are JSON. Random states are not stored, because none is carried: see `batches`. A
checkpoint is written beside its name and renamed, so that a lost machine leaves the one before.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from urushi.errors import FileFormatError, RecipeError, TargetError
from urushi.writing import remove_leftovers, whole_file

__all__ = [
    "Checkpoint",
    "checkpoint_to_resume",
    "newest_checkpoint",
    "read_checkpoint",
    "write_checkpoint",
]

KIND = "urushi-checkpoint"
VERSION = 1
KEPT = 2  # the newest, and one before it in case the newest is damaged


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps.

    Attributes:
        step: finished optimizer steps.
        seconds: spent training so far.
        recipe: the resolved recipe as JSON values.
        data: content hash of the pack.
        tensors: by name, under the prefixes `weights.`, `ema.`, `moment1.` and `moment2.`.
        log: loss and validation rows so far.
    """

    step: int
    seconds: float
    recipe: dict[str, Any]
    data: str
    tensors: dict[str, Tensor]
    log: list[dict[str, Any]] = field(default_factory=list)

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix`, without it."""
        start = prefix + "."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes whole or not at all, then removes all but the newest two.

    Raises:
        TargetError: the disk refuses.
    """
    path = folder / f"step-{checkpoint.step:09d}.safetensors"
    facts = {
        "kind": KIND,
        "version": VERSION,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "recipe": checkpoint.recipe,
        "data": checkpoint.data,
        "log": checkpoint.log,
    }
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with whole_file(path, overwrite=True) as part:
            save_file(tensors, part, metadata={"urushi": json.dumps(facts)})
        for old in _checkpoints(folder)[KEPT:]:
            old.unlink()
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TargetError(
            f"'{path}' cannot be written ({why}): free space, and resume from the previous "
            "checkpoint with --resume."
        ) from error
    return path


def checkpoint_to_resume(run: Path, *, resume: bool) -> Checkpoint | None:
    """The newest checkpoint of a training in the folder `run`; None where it holds none.

    Raises:
        RecipeError: it holds one, and the training is not to be resumed.
    """
    checkpoint = newest_checkpoint(run / "checkpoints")
    if checkpoint is not None and not resume:
        raise RecipeError(
            f"{run} holds a training at step {checkpoint.step}: resume it (--resume), "
            "or choose another folder"
        )
    return checkpoint


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read, or None where there is none at all.

    Raises:
        FileFormatError: there are checkpoints, and every one is damaged.
    """
    problem = None
    for path in _checkpoints(folder):
        try:
            return read_checkpoint(path)
        except FileFormatError as error:
            problem = error
    if problem is not None:
        raise problem
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        FileFormatError: the file is damaged, or not a checkpoint of this version.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("urushi", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(f"{path} is damaged ({error}): resume from another one") from error
    if facts.get("kind") != KIND or facts.get("version") != VERSION:
        raise FileFormatError(f"{path} is not a checkpoint of version {VERSION}")
    return Checkpoint(
        facts["step"], facts["seconds"], facts["recipe"], facts["data"], tensors, facts["log"]
    )


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)
