"""Training of a router: cross-entropy on the kinds of damage, then a fitted temperature.

LoRA-IR (arXiv 2410.15385) trains a head on a frozen CLIP with balanced batches; so it is here. A
compact encoder is trained together with the head, and both are frozen when a network trains. Where
a restoration network's features are read, these are calculated once (`router_pool`).
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from urushi.data.pack import PackedPictures
from urushi.errors import RecipeError
from urushi.evaluation.confusion import accuracy
from urushi.files.model import read_model
from urushi.files.router_file import CompactFacts, RouterHeader, RouterMemory, ViewGeometry
from urushi.inference.hardware import choose_device
from urushi.inference.zoo import find_model
from urushi.routing.encoders import ClipEncoder, CompactEncoder, Encoder
from urushi.routing.features import FeatureEncoder, Reading
from urushi.routing.router import Router, RouterHead, RouterOutput, batch_views, save_router
from urushi.termination import stop_signals
from urushi.training.batches import Batch, step_generator
from urushi.training.build import Material
from urushi.training.checkpoint import checked_checkpoint, write_recipe
from urushi.training.kept_parts import OnPictures
from urushi.training.loop import train
from urushi.training.losses import class_loss
from urushi.training.processes import begin, rows_of, shared
from urushi.training.progress import Progress, TrainingResult
from urushi.training.router.router_batches import router_batches
from urushi.training.router.router_pool import Rows, StatisticsPool
from urushi.training.router.router_recipe import COMPACT_VIEWS, FeatureSettings, RouterRecipe
from urushi.training.router.router_scores import confusion_of, scores_of

__all__ = ["ACCURACY", "RouterData", "RouterTrainingResult", "build_router", "train_router"]

ACCURACY = "accuracy"
"""The score of a validation: share of the pictures of one class that are taken for it."""

# Of the local views of a picture so many are learnt from, where places are read: they are large.
_WINDOWS = 4


@dataclass(frozen=True)
class RouterData:
    """Pictures a router learns from, and others by which it is measured.

    Attributes:
        clean: clean pictures to degrade.
        validation: clean pictures, none of them in `clean`.
        real: pictures of classes, by name.
        real_validation: the same to measure by; of other places.
    """

    clean: PackedPictures
    validation: PackedPictures
    real: Mapping[str, PackedPictures] = field(default_factory=dict)
    real_validation: Mapping[str, PackedPictures] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """What was trained on."""
        parts = [self.clean.sha256, *(f"{n}:{p.sha256}" for n, p in sorted(self.real.items()))]
        return " ".join(parts)


@dataclass(frozen=True)
class RouterTrainingResult:
    """What `train_router` leaves.

    Attributes:
        finished: False when it was stopped by a signal; resume it.
        stopped_by: number of that signal.
        step: optimizer steps done.
        seconds: spent training, over all resumptions.
        path: the router's file; None unless finished.
        header: what it says; None unless finished.
        confusion: of validation pictures with one class: rows are classes, columns what was seen.
        log: rows of step, seconds, loss and, of validations, accuracy.
    """

    finished: bool
    stopped_by: int | None
    step: int
    seconds: float
    path: Path | None
    header: RouterHeader | None
    confusion: np.ndarray | None
    log: list[dict[str, Any]]


def build_router(recipe: RouterRecipe, *, download: bool = True) -> Router:
    """The router a recipe describes, with fresh weights from torch's global generator.

    Raises:
        AdapterError: the CLIP cannot be loaded, the base cannot be read, or the views do not suit
            the encoder.
        FileFormatError: there is no such base.
        RecipeError: the base is no NAFNet.
        MissingExtraError: transformers is not installed.
    """
    encoder: Encoder
    if isinstance(recipe.encoder, CompactFacts):
        facts = recipe.encoder
        encoder = CompactEncoder(facts.widths, facts.width, facts.blocks)
        views = recipe.views or COMPACT_VIEWS
    elif isinstance(recipe.encoder, FeatureSettings):
        encoder = _feature_encoder(recipe.encoder)
        views = recipe.views or COMPACT_VIEWS
    else:
        encoder = ClipEncoder(recipe.encoder.name, download=download)
        assert encoder.view_size is not None
        views = recipe.views or ViewGeometry(size=encoder.view_size)
    return Router(encoder, RouterHead(encoder.width, len(recipe.classes)), views)


def _feature_encoder(settings: FeatureSettings) -> FeatureEncoder:
    model = read_model(find_model(settings.base))
    if model.header.backbone != "nafnet":
        raise RecipeError(
            f"encoder.base {settings.base!r:.100} is a {model.header.backbone}: the features of a "
            "nafnet can be read"
        )
    state = {name: torch.tensor(tensor) for name, tensor in model.tensors.items()}
    return FeatureEncoder.of_network(
        model.header.config,
        state,
        middle=settings.middle,
        width=settings.width,
        places=settings.places,
    )


def train_router(
    recipe: RouterRecipe,
    data: RouterData,
    run: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    download: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    on_pictures: OnPictures | None = None,
) -> RouterTrainingResult:
    """Trains as `recipe` says, and writes the router to `run/NAME.safetensors`.

    SIGINT and SIGTERM end the training after the step at hand, with a checkpoint.

    Args:
        recipe: what to do.
        data: pictures, of the folders the recipe names.
        run: folder of this training; holds checkpoints, logs, the resolved recipe and the router.
        resume: go on from the newest checkpoint, if there is one.
        device: `auto` (the best there is) or `cpu`.
        download: fetch a CLIP from the hub where it is not there yet.
        on_progress: called about every ten seconds and at validations, whose score is `ACCURACY`.
        on_pictures: called while pictures are read that a frozen network learns from.

    Raises:
        RecipeError: the run exists already, or was made by another recipe or from other data.
        DataError: the pictures do not fit the recipe.
        AdapterError, MissingExtraError: see `build_router`.
        UrushiError: the loss is no longer finite.
    """
    # Now, and not after all pictures were read.
    checkpoint = checked_checkpoint(recipe, data.sha256, run, resume=resume)
    begin(device)
    session = _Session(recipe, data, run, torch.device(choose_device(device)), download)
    shared(lambda: write_recipe(run, recipe, ours=checkpoint is not None))
    with stop_signals() as request:
        session.fill(lambda: request.number is not None, on_pictures)
    if request.number is not None:
        step, seconds, log = 0, 0.0, []
        if checkpoint is not None:
            step, seconds, log = checkpoint.step, checkpoint.seconds, checkpoint.log
        return RouterTrainingResult(False, request.number, step, seconds, None, None, None, log)
    training = train(
        recipe,
        session.material,
        run,
        resume=resume,
        device="cpu" if device == "cpu" else "auto",
        validate=session.validate,
        on_progress=on_progress,
    )
    return shared(lambda: session.result(training))


class _Session:
    """The objects of one call of `train_router`."""

    def __init__(
        self,
        recipe: RouterRecipe,
        data: RouterData,
        run: Path,
        device: torch.device,
        download: bool,
    ) -> None:
        self.recipe, self.data, self.run, self.device = recipe, data, run, device
        torch.manual_seed(recipe.seed)
        self.router = build_router(recipe, download=download).to(device)
        # A frozen CLIP is neither optimized nor stored.
        self.trained = self.router if self.router.encoder.facts.own else self.router.head
        self.material = Material(
            data.sha256, lambda _begun: copy.deepcopy(self.trained), lambda *_: [], self._loss
        )
        own = (recipe, data.clean, data.real, device)
        self.draw = router_batches(*own, seed=recipe.seed, augment=recipe.pictures.augment)
        held = (recipe, data.validation, data.real_validation, device)
        self.draw_validation = router_batches(
            *held, seed=recipe.seed + 1, augment=False, measuring=True
        )
        self.pool, self.held = self._pools()
        self._measured: tuple[np.ndarray, RouterMemory] | None = None

    def _pools(self) -> tuple[StatisticsPool, StatisticsPool] | tuple[None, None]:
        """Of a frozen network's features: those to learn from, and those to be measured by."""
        encoder, settings = self.router.encoder, self.recipe.encoder
        if not isinstance(encoder, FeatureEncoder) or not isinstance(settings, FeatureSettings):
            return None, None
        kept = {"seed", "classes", "mode", "max_degradations"}
        stated = self.recipe.model_dump(mode="json", include=kept)
        stated["pictures"] = self.recipe.pictures.model_dump(mode="json")
        bf16 = self.recipe.precision == "bf16"
        kinds = len(self.recipe.classes) + (self.recipe.pictures.unknown is not None)
        held = self.recipe.validation.per_class * kinds
        packs = {**self.data.real_validation, "clean": self.data.validation}
        measured = " ".join(f"{name}:{pack.sha256}" for name, pack in sorted(packs.items()))
        shared = (encoder, self.router.views)
        return (
            StatisticsPool(self.run, *shared, self.draw, settings.pictures,
                           [stated, self.data.sha256], bf16,
                           None if settings.places is None else _WINDOWS),
            StatisticsPool(self.run, *shared, self.draw_validation, held,
                           [stated, measured, "validation"], bf16),
        )  # fmt: skip

    def fill(self, stopped: Callable[[], bool], on_pictures: OnPictures | None) -> None:
        """Calculates what a frozen network reads from all pictures, or until it is stopped."""
        if self.pool is None:
            return
        assert self.held is not None
        encoder = self.router.encoder
        assert isinstance(encoder, FeatureEncoder)
        if self.held.fill(stopped) and self.pool.fill(stopped, on_pictures):
            encoder.standardise(self.pool.all_views, self.pool.all_places)

    # --- steps ---

    @property
    def _normalises(self) -> bool:
        """Whether what is learnt depends on the other pictures of a batch."""
        return any(isinstance(layer, _BatchNorm) for layer in self.router.modules())

    def _loss(self, network: nn.Module, step: int) -> Tensor:
        if self.pool is None:
            whole = self.draw(step)
            # A batch that is normalised as a whole is the same to all processes only as a whole.
            rows = slice(None) if self._normalises else rows_of(len(whole.degraded))
            batch = Batch(*(part[rows] for part in whole[:3]))
            return class_loss(self._read(network, batch).logits, batch.applied, self.recipe.mode)
        settings = self.recipe.encoder
        assert isinstance(settings, FeatureSettings)
        rows = self.pool.some(settings.batch, self.recipe.seed, step)
        generator = step_generator(self.recipe.seed + 2, step)

        def drop(values: Tensor) -> Tensor:
            # Of features of places a channel is dropped in all of them.
            kept = torch.rand(values.shape[:3], generator=generator) >= settings.dropout
            kept = kept.to(values) / (1 - settings.dropout)
            return values * kept.view(*values.shape[:3], *(1,) * (values.ndim - 3))

        read = self._read_rows(network, rows, drop if settings.dropout else None)
        return class_loss(read.logits, rows.truths, self.recipe.mode)

    def _read(self, network: nn.Module, batch: Batch) -> RouterOutput:
        bf16 = self.recipe.precision == "bf16"
        views = batch_views(batch.degraded, self.router.views)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            whole = isinstance(network, Router)
            read = network(views if whole else self.router.encoder(views))
        return RouterOutput(read.logits.float(), read.vector.float())

    def _read_rows(
        self, network: nn.Module, rows: Rows, drop: Callable[[Tensor], Tensor] | None = None
    ) -> RouterOutput:
        assert isinstance(network, Router)
        assert isinstance(network.encoder, FeatureEncoder)
        places = None if rows.places is None else rows.places.to(self.device)
        reading = Reading(rows.statistics.to(self.device), places)
        return network.head(network.encoder.embedded(reading, drop))

    # --- validation ---

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Accuracy on validation pictures; keeps their logits, vectors and `(B, n)` truths."""
        own = self.recipe
        if self.held is not None:
            read = [(self._read_rows(network, rows), rows.truths) for rows in self.held.groups]
        else:
            steps = math.ceil(own.validation.per_class / own.pictures.per_class)
            batches = map(self.draw_validation, range(steps))
            read = [(self._read(network, batch), batch.applied) for batch in batches]
        logits = torch.cat([output.logits for output, _ in read]).cpu().numpy()
        vectors = torch.cat([output.vector for output, _ in read]).cpu().numpy()
        truths = torch.cat([truths for _, truths in read]).cpu().numpy().astype(np.float32)
        self._measured = logits, RouterMemory(vectors, truths)
        return {ACCURACY: accuracy(confusion_of(logits, truths))}

    # --- the end ---

    def result(self, training: TrainingResult) -> RouterTrainingResult:
        """What the training left; writes the router where that is finished."""
        recipe = self.recipe
        known = (training.finished, training.stopped_by, training.step, training.seconds)
        if not training.finished:
            return RouterTrainingResult(*known, None, None, None, training.log)
        self.trained.load_state_dict(training.weights)
        if self._measured is None:  # it was stopped between its last step and this
            self.validate(self.trained.eval())
        assert self._measured is not None
        logits, memory = self._measured
        scores, temperature = scores_of(recipe, logits, memory.truths)
        path = self.run / f"{recipe.name}.safetensors"
        header = save_router(
            path,
            self.router,
            list(recipe.classes),
            recipe.storage,
            memory,
            mode=recipe.mode,
            temperature=temperature,
            threshold=recipe.threshold,
            name=recipe.name,
            description=recipe.description,
            recipe=recipe.model_dump(mode="json"),
            scores=scores,
            licence=recipe.licence,
            data=recipe.data_statement,
        )
        confusion = confusion_of(logits, memory.truths)
        return RouterTrainingResult(*known, path, header, confusion, training.log)
