"""Tasks to measure a profile on: their pictures, and a copy of the base tuned for each."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from urushi.adapters.fold import fold
from urushi.backbones import RestorationNetwork
from urushi.backbones.claims import create_claimed
from urushi.backbones.released_networks import load_strictly
from urushi.data.pack import pack_pairs, pack_pictures
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.data.pairs import PairedFolder
from urushi.degradations import degradation_of
from urushi.errors import FileFormatError
from urushi.evaluation.catalog import Benchmark, clean_benchmark, paired_benchmark
from urushi.files.adapter import read_adapter
from urushi.files.model import LoadedModel, read_model
from urushi.inference.zoo import find_model
from urushi.training.batches import Batches, DegradedBatches, PairBatches
from urushi.training.fitting import fit
from urushi.training.losses import make_loss
from urushi.training.recipe import OptimizerSettings, ScheduleSettings

__all__ = [
    "BATCH",
    "LEARNING_RATE",
    "TaskPictures",
    "build_model",
    "clean_task",
    "paired_task",
    "read_target",
    "tune_copy",
    "tuned_parameters",
]

LEARNING_RATE = 2e-4
# Mean squared error below which a picture counts as right: see `docs/log.md`.
_FLOOR = 1e-4


def tune_copy(
    network: nn.Module,
    batches: Batches,
    *,
    steps: int,
    learning_rate: float = LEARNING_RATE,
    on_step: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Trains all parameters of a copy of a network.

    Args:
        network: the base, on the device of the batches; stays as it is.
        batches: what to train on.
        steps: optimizer steps.
        learning_rate: of the first step.
        on_step: called after every step with the steps done and the loss in dB.

    Returns:
        The copy, in evaluation mode.

    Raises:
        UrushiError: the loss is no longer finite.
    """
    tuned = copy.deepcopy(network).train().requires_grad_(True)
    loss_of = make_loss("psnr", floor=_FLOOR)

    def loss(step: int) -> Tensor:
        batch = batches(step)
        return loss_of(tuned(batch.degraded), batch.clean)

    fit(
        tuned.parameters(),
        loss,
        OptimizerSettings(learning_rate=learning_rate),
        ScheduleSettings(steps=steps),
        way_out="give a tuned network instead, or other pictures",
        on_step=on_step,
    )
    return tuned.eval()


BATCH = 8
_SUBSETS = ("train", "training", "val", "validation", "test")

Picture = Float32[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class TaskPictures:
    """Pictures of a task.

    Attributes:
        name: what the task is called.
        data: what the pictures are, for people.
        benchmark: the same pictures, to read.
        degradation: of clean pictures; None where there are pairs.
    """

    name: str
    data: str
    benchmark: Benchmark
    degradation: Mapping[str, Any] | None

    def middles(
        self, limit: int, side: int
    ) -> list[tuple[Float[Tensor, "3 _ _"], Float[Tensor, "3 _ _"]]]:
        """The middle of some pictures and of their references.

        Args:
            limit: how many, spread evenly over the sorted names; fewer where there are fewer.
            side: greatest height and width in pixels.

        Raises:
            DataError: pictures are missing or differ in size.
            PictureError: one cannot be read.
        """
        samples = self.benchmark.samples()
        count = min(limit, len(samples))
        chosen = [samples[i * len(samples) // count] for i in range(count)]
        return [_middle(*sample.load(), side) for sample in chosen]

    def batches(self, folder: Path, patch: int, seed: int, device: torch.device) -> Batches:
        """Patches of all pictures, which are packed into `folder`.

        Args:
            folder: for the pack.
            patch: side of a patch in pixels; smaller where no picture is as large.
            seed: of everything random.
            device: where patches are made.

        Raises:
            DataError: nothing can be packed.
        """
        path = folder / "pack.safetensors"
        if self.degradation is None:
            samples = self.benchmark.samples()
            pack_pairs([(s.name, s.input, s.target) for s in samples if s.input], path)
            pack: PackedPictures = PackedPairs(path)
        else:
            assert self.benchmark.clean is not None
            pack_pictures([Path(self.benchmark.clean)], path)
            pack = PackedPictures(path)
        patch = min(patch, int(pack.sizes.min(1).max()))
        shared = (pack, patch, BATCH, True, seed, device)
        if self.degradation is None:
            return PairBatches(*shared)
        return DegradedBatches(*shared, degradation=degradation_of(self.degradation))


def paired_task(folder: Path) -> TaskPictures:
    """The task of a folder that holds a folder of inputs and one of targets.

    Raises:
        DataError: no pairs can be told apart in it.
    """
    found = PairedFolder(folder)
    benchmark = paired_benchmark(found.input_folder, found.target_folder)
    folder = folder.resolve()
    # Such a name tells nothing of the task; that of the folder around it may.
    name = "/".join(folder.parts[-2:]) if folder.name in _SUBSETS else folder.name
    return TaskPictures(name, f"pairs of {name}", benchmark, None)


def clean_task(folder: Path, degradation: Mapping[str, Any], seed: int) -> TaskPictures:
    """The task of undoing a degradation of clean pictures.

    Args:
        folder: of clean pictures.
        degradation: `{"name": ..., ...}`.
        seed: of the degradation of the pictures that are measured on.
    """
    benchmark = clean_benchmark(folder, degradation, seed=seed)
    said = ", ".join(f"{key} {value}" for key, value in degradation.items() if key != "name")
    kind = str(degradation.get("name", ""))
    data = f"pictures of {folder.resolve().name}, {kind}" + (f" ({said})" if said else "")
    return TaskPictures(kind, data, benchmark, degradation)


def build_model(model: LoadedModel, weights: LoadedModel | None = None) -> RestorationNetwork:
    """The network of a model file, with its own weights or those of another of its architecture.

    Raises:
        BackboneError: the weights are those of another architecture.
    """
    loaded = weights or model
    network = create_claimed(model)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in loaded.tensors.items()}
    load_strictly(network, tensors, loaded.path.name)
    return network.eval()


def read_target(base: LoadedModel, name: str) -> dict[str, Tensor]:
    """Parameters of the base tuned for a task, from a model file or a file of an adapter.

    Raises:
        FileFormatError: the file is neither.
        AdapterError: the adapter belongs to another base, or weights cannot hold it.
        BackboneError: the model is of another architecture.
    """
    path = find_model(name)
    try:
        adapter = read_adapter(path)
    except FileFormatError:
        target = read_model(path)
    else:
        target = fold(base, [(adapter, 1.0)])
    return dict(build_model(base, target).named_parameters())


def tuned_parameters(
    network: RestorationNetwork,
    pictures: TaskPictures,
    *,
    steps: int,
    patch: int,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> dict[str, Tensor]:
    """Parameters of a copy of the network, tuned for the task whole; see `tune_copy`."""
    device = next(network.parameters()).device
    with TemporaryDirectory() as folder:
        batches = pictures.batches(Path(folder), patch, seed, device)
        tuned = tune_copy(network, batches, steps=steps, on_step=on_step)
    return dict(tuned.named_parameters())


def _middle(
    degraded: Picture, reference: Picture, side: int
) -> tuple[Float[Tensor, "3 _ _"], Float[Tensor, "3 _ _"]]:
    height, width = reference.shape[:2]
    top, left = (max(0, (length - side) // 2) for length in (height, width))
    part = slice(top, top + side), slice(left, left + side)
    both: Sequence[Tensor] = [
        torch.from_numpy(np.ascontiguousarray(pixels[part].transpose(2, 0, 1)))
        for pixels in (degraded, reference)
    ]
    return both[0], both[1]
