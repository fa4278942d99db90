"""Running one cell of a comparison: train, write the adapter file, measure what users would get."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from urushi.adapters import Adapted, Adapter
from urushi.backbones.claims import create_claimed
from urushi.data.packed import PackedPictures
from urushi.evaluation.benchmark import PictureScore, evaluate
from urushi.evaluation.metrics import mean_psnr
from urushi.files.adapter import read_adapter, write_adapter
from urushi.files.container import write_whole
from urushi.files.model import read_model, write_model
from urushi.inference.restorer import Restorer
from urushi.training.build import Material, build_network
from urushi.training.compare.cell_plan import Cell
from urushi.training.compare.together import (
    SteeredRestorer,
    Steering,
    class_material,
    pack_examples,
    scores_of_parts,
)
from urushi.training.loop import train
from urushi.training.outcome import adapter_header, adapter_tensors
from urushi.training.progress import Progress, TrainingResult
from urushi.training.recipe import Recipe
from urushi.version import __version__

__all__ = ["CellResult", "CellStopped", "cell_folder", "find_result", "run_cell"]


class CellStopped(KeyboardInterrupt):
    """A cell was stopped by a signal; its checkpoint is there.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.number = number


class CellResult(BaseModel):
    """A finished cell.

    Attributes:
        kind, version: of the document.
        hash, identity: see `Cell`.
        trainable: parameters that were trained.
        backbone: parameters of the base.
        adapter_bytes: size of the adapter file; 0 where nothing is trained.
        psnr_input, ssim_input: means of the validation pictures as they are, in dB and in [-1, 1].
        psnr, ssim: of what the restorer made of them.
        pictures: the same, one by one; of a task of classes none.
        parts: of such a task the pictures of each class, whose means the four above are the means
            of, and of each composite; see `urushi.training.compare.together.scores_of_parts`.
        steps: optimizer steps.
        seconds: of training.
        seconds_per_step: mean without the first step, which takes longer; None where there is none.
        peak_memory: bytes in training, packing and loading included, measuring not; None where it
            was not known.
        memory_before: bytes that were taken before the training began, of those.
        memory_kind: `process`: resident memory of the cell's process, libraries included.
            `accelerator`: what torch allocated there.
        loss: mean over the last steps; None where nothing is trained.
        device, threads, torch, urushi: what it was run with.
    """

    # An infinite PSNR is written as the text "Infinity", since JSON has no such number.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    kind: Literal["urushi-cell"] = "urushi-cell"
    version: Literal[1] = 1
    hash: str
    identity: dict[str, Any]
    trainable: int
    backbone: int
    adapter_bytes: int
    psnr_input: float
    ssim_input: float
    psnr: float
    ssim: float
    pictures: tuple[PictureScore, ...]
    parts: dict[str, tuple[PictureScore, ...]] = {}
    steps: int
    seconds: float
    seconds_per_step: float | None
    peak_memory: int | None
    memory_before: int | None
    memory_kind: Literal["process", "accelerator"]
    loss: float | None
    device: str
    threads: int
    torch: str
    urushi: str = __version__

    def of_part(self, name: str) -> "CellResult":
        """The same with the scores of one class or composite alone."""
        rows = self.parts[name]
        return self.model_copy(update={**_means(rows), "pictures": rows, "parts": {}})


def find_result(folder: Path, cell: Cell) -> CellResult | None:
    """The result of a cell, if it is finished; a damaged one counts as none.

    Args:
        folder: of the comparison.
        cell: which.
    """
    for path in _results(folder).glob(f"*-{cell.hash}.json"):
        try:
            return CellResult.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, OSError, UnicodeDecodeError):
            continue
    return None


def cell_folder(folder: Path, cell: Cell) -> Path:
    """Where a cell keeps what it needs until it is finished or has failed."""
    return folder.resolve() / "running" / cell.hash


def run_cell(
    cell: Cell,
    folder: Path,
    *,
    device: str = "auto",
    alone: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> CellResult:
    """Trains and measures one cell, and writes its result.

    A cell that was interrupted goes on from its checkpoint, which is written every two minutes and
    on a signal; one that failed starts again.

    Args:
        cell: what to run.
        folder: of the comparison.
        device: `auto` (the best there is) or `cpu`.
        alone: the process runs this cell and nothing else, so that its memory says something.
        on_progress: see `urushi.training.loop.train`.

    Raises:
        CellStopped: a signal arrived.
        UrushiError: the data, the method or the training.
    """
    run = cell_folder(folder, cell)
    run.mkdir(parents=True, exist_ok=True)
    try:
        result = _Run(cell, run, device, alone, on_progress).result()
        path = _results(folder) / f"{_slug(cell)}-{cell.hash}.json"
        path.parent.mkdir(exist_ok=True)
        write_whole(path, result.model_dump_json(indent=2).encode())
    except Exception:
        shutil.rmtree(run, ignore_errors=True)
        raise
    shutil.rmtree(run, ignore_errors=True)
    return result


class _Run:
    def __init__(
        self,
        cell: Cell,
        run: Path,
        device: str,
        alone: bool,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.cell, self.run, self.alone, self.on_progress = cell, run, alone, on_progress
        self.device = device
        self.recipe = self._with_base(cell.recipe)
        assert self.recipe.start is not None
        self.base = read_model(Path(self.recipe.start))
        self.memory: tuple[int | None, int | None] = (None, None)

    def result(self) -> CellResult:
        cell, training, adapters, size = self.cell, None, [], 0
        if cell.pairs is None:
            network = build_network(self.recipe)
        else:
            training = self._train(self._pack())
            network = build_network(self.recipe, begun=True)
            network.load_state_dict(training.weights)
        assert isinstance(network, Adapted)
        report = network.report()
        if training is not None:
            path = self._write(network)
            adapters, size = [path], path.stat().st_size
        pictures, parts = self._measured(adapters)
        of_classes = [_means(parts[part.name]) for part in cell.classes] or [_means(pictures)]
        means = {key: float(np.mean([one[key] for one in of_classes])) for key in of_classes[0]}
        return CellResult(
            hash=cell.hash,
            identity=cell.identity,
            trainable=report.trainable,
            backbone=report.backbone,
            adapter_bytes=size,
            **means,
            pictures=pictures,
            parts=parts,
            peak_memory=self.memory[1],
            memory_before=self.memory[0],
            memory_kind="accelerator" if _on_cuda(self.device) else "process",
            device=_device_name(self.device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            **_training_facts(training),
        )

    def _with_base(self, recipe: Recipe) -> Recipe:
        """The recipe with the base to start from: the one stated, or one of random weights."""
        if not self.cell.random:
            return recipe
        assert recipe.start is not None
        model = read_model(Path(recipe.start))
        # Not the seed of batches and adapters: weights must have nothing in common with those.
        torch.manual_seed(recipe.seed + (1 << 32))
        network = create_claimed(model)
        weights: dict[str, Tensor] = network.state_dict()
        tensors = {name: tensor.float().numpy() for name, tensor in weights.items()}
        path = self.run / "random.safetensors"
        facts = {"description": "Random weights.", "recipe": None, "scores": {}}
        write_model(path, tensors, model.header.model_copy(update=facts), "float32")
        return recipe.model_copy(update={"start": str(path)})

    def _measured(
        self, adapters: list[Path]
    ) -> tuple[tuple[PictureScore, ...], dict[str, tuple[PictureScore, ...]]]:
        """Scores of the pictures of the task, or of each of its parts."""
        cell = self.cell
        if cell.route is None:
            restorer = Restorer(self.base, adapters=adapters, engine="torch", device=self.device)
            if cell.validation is not None:
                return evaluate(restorer, cell.validation, limit=cell.limit).pictures, {}
            return (), scores_of_parts(cell, restorer)
        steering = Steering(cell.route, [part.name for part in cell.classes], self.recipe.seed)
        steered = SteeredRestorer(self.base, read_adapter(adapters[0]), steering, self.device)
        return (), scores_of_parts(cell, steered)

    def _pack(self) -> PackedPictures | Material:
        if self.cell.classes:
            return class_material(self.cell, self.recipe, self.run)
        path = self.run / "pack.safetensors"
        return pack_examples(self.cell.examples, path, self.recipe.data.patch)

    def _train(self, pack: PackedPictures | Material) -> TrainingResult:
        before = _memory(self.device, peak=False) if self.alone else None
        training = train(
            self.recipe,
            pack,
            self.run,
            resume=True,
            device="cpu" if self.device == "cpu" else "auto",
            on_progress=self.on_progress,
        )
        if not training.finished:
            raise CellStopped(training.stopped_by)
        self.memory = (before, _memory(self.device, peak=True) if self.alone else None)
        return training

    def _write(self, network: Adapted) -> Path:
        (adapter,) = network.adapters
        assert isinstance(adapter, Adapter)
        path = self.run / "adapter.safetensors"
        header = adapter_header(self.recipe, adapter, self.base)
        write_adapter(path, adapter_tensors(adapter), header, self.recipe.storage)
        return path


def _means(rows: tuple[PictureScore, ...]) -> dict[str, float]:
    psnr = [row.psnr for row in rows if row.psnr is not None]
    ssim = [row.ssim for row in rows if row.ssim is not None]
    return {
        "psnr_input": mean_psnr([row.psnr_input for row in rows]),
        "ssim_input": float(np.mean([row.ssim_input for row in rows])),
        "psnr": mean_psnr(psnr),
        "ssim": float(np.mean(ssim)),
    }


def _training_facts(training: TrainingResult | None) -> dict[str, Any]:
    if training is None:
        return {"steps": 0, "seconds": 0.0, "seconds_per_step": None, "loss": None}
    later = None
    if training.step > 1:
        later = (training.seconds - training.log[0]["seconds"]) / (training.step - 1)
    return {
        "steps": training.step,
        "seconds": training.seconds,
        "seconds_per_step": later,
        "loss": training.log[-1]["loss"],
    }


def _results(folder: Path) -> Path:
    return folder / "cells"


def _slug(cell: Cell) -> str:
    """A name for people; what counts is the hash behind it."""
    numbers = [str(number) for number in (cell.pairs, cell.seed) if number is not None]
    text = "-".join([cell.base, cell.task, cell.label, *numbers])
    return re.sub(r"[^A-Za-z0-9._%-]", "_", text)[:100]


def _on_cuda(device: str) -> bool:
    return device != "cpu" and torch.cuda.is_available()


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if _on_cuda(device) else "cpu"


def _memory(device: str, *, peak: bool) -> int | None:
    """Bytes taken, now or at most so far: on the accelerator, or of the process."""
    if _on_cuda(device):
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    # Not getrusage: its peak begins with that of the process which started this one.
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in lines.splitlines():
        name, _, rest = line.partition(":")
        if name == ("VmHWM" if peak else "VmRSS"):
            return int(rest.split()[0]) * 1024
    return None
