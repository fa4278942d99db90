"""Adapting a base to a user's own pictures: sensible defaults, the best of the way kept."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from urushi.adapters import Adapted, Adapter, ParameterReport
from urushi.errors import AdapterError, DataError, UrushiError
from urushi.evaluation.benchmark import BenchmarkResult, PictureScore, Triplet, evaluate
from urushi.files.adapter import (
    AdapterHeader,
    LoadedAdapter,
    read_adapter_header,
    write_adapter,
)
from urushi.files.container import write_whole
from urushi.files.model import LoadedModel, read_model
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_model
from urushi.training.build import build_network
from urushi.training.examples import Examples
from urushi.training.loop import train
from urushi.training.outcome import adapter_header, adapter_tensors
from urushi.training.processes import begin, shared
from urushi.training.progress import Progress, TrainingResult
from urushi.training.recipe import DataSettings, Recipe, ScheduleSettings, ValidationSettings
from urushi.training.run_folder import BEST_NAME
from urushi.writing import refuse_taken

__all__ = [
    "DEFAULT_LEARNING_RATE",
    "LEARNING_RATES",
    "Adaptation",
    "AdaptationResult",
    "adaptation_recipe",
    "prefers_bf16",
]

VALIDATION = "validation"
# Greatest learning rate by method; docs/log.md has the trials. Others take that of low rank.
LEARNING_RATES = {"full": 6e-4, "ssf": 1e-2, "adaptformer": 1e-2, "vera": 1e-1}
DEFAULT_LEARNING_RATE = 3e-3
_PATCH, _BATCH = 128, 8
_UNLIMITED = 1_000_000
_EVERY = 25
# It is over when that many validations in a row were no better, and part of the time is spent.
_PATIENCE, _WORTH, _LEAST_SHARE = 12, 0.01, 0.4


def adaptation_recipe(
    name: str,
    base: str,
    adapter: Mapping[str, Any],
    examples: Examples,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    bf16: bool = False,
) -> Recipe:
    """The recipe of an adaptation: what a user need not say.

    Args:
        name: of the adapter.
        base: model file, or name in the zoo.
        adapter: `{"method": ..., ...}`.
        examples: to learn from; the patch is fitted to the smallest picture.
        minutes: to train, at most.
        steps: to train, at most; give one of the two.
        seed: of everything random.
        bf16: calculate in bfloat16.

    Raises:
        DataError: the pictures are too small.
    """
    patch = _fitting_patch(examples)
    pixels = _BATCH * _PATCH**2
    batch = max(_BATCH, min(32, pixels // patch**2))
    paired = examples.degradation is None
    method = str(adapter.get("method", ""))
    return Recipe(
        name=name,
        start=base,
        adapter=dict(adapter),
        data=DataSettings(
            pictures=[] if paired else ["."],
            pairs=["."] if paired else [],
            patch=patch,
            batch=batch,
        ),
        degradation=examples.degradation,
        seed=seed,
        loss={"name": "psnr", "floor": 1e-5},  # pyright: ignore[reportArgumentType]
        optimizer={"learning_rate": LEARNING_RATES.get(method, DEFAULT_LEARNING_RATE), "clip": 0.5},  # pyright: ignore[reportArgumentType]
        schedule=ScheduleSettings(steps=steps or _UNLIMITED, minutes=minutes, warmup=20),
        ema=0.98,
        precision="bf16" if bf16 else "float32",
        validation=ValidationSettings(every=_EVERY),
        checkpoint_minutes=1.0,
    )


def prefers_bf16(device: str) -> bool:
    """Whether calculating in bfloat16 is faster on that device (`auto` or `cpu`) than float32."""
    if device == "auto" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_amx_tile_supported()


def _fitting_patch(examples: Examples) -> int:
    """Side of a patch: 128 pixels, or what fits into most pictures."""
    # Clean pictures are still to be made smaller.
    shrinks = examples.scale if examples.degradation is not None else 1
    sides = np.sort(examples.pack.sizes.min(1)) // shrinks
    side = int(sides[len(sides) // 10])
    patch = min(_PATCH, side // 8 * 8)
    if patch < 16:
        raise DataError(
            f"the pictures are {side} pixels on their shorter side: at least 16 are needed"
        )
    return patch


def _adapter_of(network: Adapted) -> Adapter:
    (adapter,) = network.adapters
    assert isinstance(adapter, Adapter)
    return adapter


@dataclass(frozen=True)
class AdaptationResult:
    """What an adaptation gave.

    Attributes:
        before: validation of the frozen base.
        after: of the best adapter, the one in the file; None where none was better than the base.
        header: of the file.
        training: what the loop says.
    """

    before: BenchmarkResult
    after: BenchmarkResult | None
    header: AdapterHeader | None
    training: TrainingResult


class _Remembered(BaseModel):
    """What a resumed adaptation has to know of the adapter that is in the file.

    Attributes:
        kept: validations of which one is that of the file.
        waiting: validations since then that were no better.
    """

    # Written as the results themselves are: JSON has no infinite numbers.
    model_config = ConfigDict(ser_json_inf_nan="strings")

    kept: tuple[BenchmarkResult, ...]
    waiting: int


@dataclass
class Adaptation:
    """One adaptation. The file is written whenever the validation is better than before.

    Args:
        recipe: of `adaptation_recipe`, or like it.
        examples: to learn from.
        target: the adapter file.
        run: folder of checkpoints.
        facts: fields of the file's header.
        overwrite: replace an adapter file that is there although this adaptation did not write it.
    """

    recipe: Recipe
    examples: Examples
    target: Path
    run: Path
    facts: dict[str, Any] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        assert self.recipe.start is not None
        self.base: LoadedModel = read_model(find_model(self.recipe.start))
        self._best: BenchmarkResult | None = None
        self._latest: BenchmarkResult | None = None
        self._header: AdapterHeader | None = None
        self._waiting, self._share = 0, 0.0
        self._network: Adapted | None = None

    def parameters(self) -> ParameterReport:
        """How much is trained."""
        network = build_network(self.recipe)
        assert isinstance(network, Adapted)
        return network.report()

    def measure_base(self, device: str = "auto") -> BenchmarkResult:
        """Validation scores of the frozen base."""
        restorer = Restorer(self.base, engine="torch", device=device)
        if restorer.scale != self.examples.scale:
            does, wanted = (
                "keeps the size" if scale == 1 else f"enlarges {scale} times"
                for scale in (restorer.scale, self.examples.scale)
            )
            raise DataError(
                f"{self.recipe.start} {does}, and the targets need a network that {wanted}: "
                "choose another model, or pictures made for this one"
            )
        self.before = shared(lambda: evaluate(restorer, self.examples.validation))
        return self.before

    def train(
        self,
        *,
        resume: bool = False,
        device: str = "auto",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> AdaptationResult:
        """Trains to the end, or until a signal; see `urushi.training.loop.train` for errors.

        Resumed, it goes on with the best adapter so far, which is in the file.

        Raises:
            TakenError: an adapter file is there that this adaptation did not write.
        """
        begin(device)

        def ready() -> None:
            if resume:
                self._recall()
            if self._best is None:
                refuse_taken([self.target], self.overwrite)

        shared(ready)

        def tell(progress: Progress) -> None:
            self._share = progress.share
            if on_progress is not None:
                on_progress(progress)

        training = train(
            self.recipe,
            self.examples.pack,
            self.run,
            resume=resume,
            device=device,
            validate=self._validate,
            on_progress=tell,
            watch=self._watch,
        )
        found = shared(lambda: (self._best, self._header))
        return AdaptationResult(self.before, *found, training)

    def train_to_the_end(
        self, *, device: str = "auto", on_progress: Callable[[Progress], None] | None = None
    ) -> AdaptationResult:
        """Trains where nothing but a better adapter is of use: `after` is there.

        Raises:
            AdapterError: no adapter was better than the base.
            KeyboardInterrupt: it was interrupted.
            TakenError: see `train`.
        """
        result = self.train(device=device, on_progress=on_progress)
        if not result.training.finished:
            raise KeyboardInterrupt
        if result.after is None:
            raise AdapterError(
                "no adapter was better than the base on the pairs that were set aside to measure "
                "by: more pairs, or a longer training, may help"
            )
        return result

    def before_and_after(self, most: int) -> list[list[tuple[np.ndarray, str]]]:
        """Rows for a contact sheet: input, base, best adapter and target of validation pictures.

        Args:
            most: rows.
        """
        rows: list[list[tuple[np.ndarray, str]]] = []
        plain = Restorer(self.base, engine="torch")
        ours = Restorer(self.base, adapters=[self.target], engine="torch")

        def keep(_done: int, _total: int, row: PictureScore, shown: Triplet) -> None:
            if shown.restored is None:
                return
            base = plain.restore(shown.input)
            rows.append(
                [
                    (shown.input, f"{row.name}: {row.psnr_input:.2f} dB"),
                    (base, "base"),
                    (np.clip(shown.restored, 0, 1), f"adapter: {row.psnr:.2f} dB"),
                    (shown.reference, "target"),
                ]
            )

        evaluate(ours, self.examples.validation, limit=most, on_picture=keep)
        return rows

    def _validate(self, network: nn.Module) -> dict[str, float]:
        assert isinstance(network, Adapted)
        self._network = network
        adapter = _adapter_of(network)
        header = adapter_header(self.recipe, adapter, self.base, **self.facts)
        tensors = adapter_tensors(adapter)
        loaded = LoadedAdapter(header, tensors, self.target)
        device = str(next(network.backbone.parameters()).device)
        restorer = Restorer(self.base, adapters=[loaded], engine="torch", device=device)
        self._latest = evaluate(restorer, self.examples.validation)
        psnr = self._latest.means.psnr
        assert psnr is not None
        return {VALIDATION: psnr}

    def _recall(self) -> None:
        """Finds out what the file holds, if this adaptation wrote it before it was interrupted."""
        try:
            header = read_adapter_header(self.target)
            known = _Remembered.model_validate_json(self._remembered.read_bytes())
        except (UrushiError, OSError, ValueError):
            return
        stored: Any = header.scores.get(VALIDATION)
        for result in known.kept:
            if isinstance(stored, dict) and stored.get("psnr") == result.means.psnr:
                self._best, self._header, self._waiting = result, header, known.waiting

    @property
    def _remembered(self) -> Path:
        return self.run / BEST_NAME

    def _remember(self, *kept: BenchmarkResult | None) -> None:
        """Notes down what the file holds, or what one of two it holds in a moment."""
        found = _Remembered(kept=tuple(one for one in kept if one), waiting=self._waiting)
        self._remembered.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._remembered, found.model_dump_json().encode())

    def _watch(self, scores: dict[str, float], _weights: dict[str, Tensor]) -> bool:
        best = self.before.means.psnr if self._best is None else self._best.means.psnr
        assert best is not None
        if scores[VALIDATION] > best + (_WORTH if self._best else 0.0):
            self._waiting = 0
            self._keep()
            return True
        self._waiting += 1
        self._remember(self._best)
        return self._waiting < _PATIENCE or self._share < _LEAST_SHARE

    def _keep(self) -> None:
        assert self._network is not None
        assert self._latest is not None
        adapter = _adapter_of(self._network)
        means = self._latest.means
        scores = {
            "pictures": len(self._latest.pictures),
            "psnr_base": self.before.means.psnr,
            "psnr": means.psnr,
            "ssim_base": self.before.means.ssim,
            "ssim": means.ssim,
        }
        assert all(value is None or math.isfinite(value) for value in scores.values())
        facts = {**self.facts, "scores": {VALIDATION: scores}}
        if self._best is None:
            refuse_taken([self.target], self.overwrite)  # it may have appeared meanwhile
        self._remember(self._best, self._latest)
        header = adapter_header(self.recipe, adapter, self.base, **facts)
        self._header = write_adapter(
            self.target, adapter_tensors(adapter), header, self.recipe.storage
        )
        self._best = self._latest
