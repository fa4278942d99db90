"""Training of a router: cross-entropy on the kinds of damage, then a fitted temperature.

LoRA-IR (arXiv 2410.15385) trains a head on a frozen CLIP with balanced batches; so it is here. A
compact encoder is trained together with the head, and both are frozen when a network trains. Where
a restoration network's features are read, these are calculated once (`router_pool`).
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.errors import RecipeError, UrushiError
from urushi.evaluation.confusion import accuracy
from urushi.files.model import read_model
from urushi.files.router_file import CompactFacts, RouterMemory, ViewGeometry
from urushi.inference.hardware import choose_device
from urushi.inference.zoo import find_model
from urushi.routing.encoders import ClipEncoder, CompactEncoder, Encoder
from urushi.routing.features import FeatureEncoder, Reading
from urushi.routing.router import Router, RouterHead, RouterOutput, save_router
from urushi.training.batches import Batch, step_generator
from urushi.training.checkpoint import Checkpoint, checkpoint_to_resume, write_checkpoint
from urushi.training.router.router_batches import router_batches
from urushi.training.router.router_pool import Rows, StatisticsPool
from urushi.training.router.router_recipe import COMPACT_VIEWS, FeatureSettings, RouterRecipe
from urushi.training.router.router_result import RouterData, RouterProgress, RouterTrainingResult
from urushi.training.router.router_scores import confusion_of, scores_of
from urushi.training.signals import StopRequest, stop_signals
from urushi.training.state import State
from urushi.training.stated_recipe import write_recipe

__all__ = [
    "RouterData",
    "RouterProgress",
    "RouterTrainingResult",
    "build_router",
    "train_router",
]


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


REPORT_SECONDS = 10.0
# Of the local views of a picture so many are learnt from, where places are read: they are large.
_WINDOWS = 4
# What a resumed training may change: how it goes on, not what it is made of.
_CHANGEABLE = {
    "checkpoint_minutes", "description", "data_statement", "licence", "name", "optimizer", "steps",
    "storage", "threshold", "validation",
}  # fmt: skip


def train_router(
    recipe: RouterRecipe,
    data: RouterData,
    run: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    download: bool = True,
    on_progress: Callable[[RouterProgress], None] | None = None,
    on_pictures: Callable[[int, int, float], None] | None = None,
) -> RouterTrainingResult:
    """Trains as `recipe` says, and writes the router to `run/NAME.safetensors`.

    SIGINT and SIGTERM end the training after the step at hand, with a checkpoint.

    Args:
        recipe: what to do.
        data: pictures, of the folders the recipe names.
        run: folder of this training; holds checkpoints, the resolved recipe and the router.
        resume: go on from the newest checkpoint, if there is one.
        device: `auto` (the best there is), or a device by name.
        download: fetch a CLIP from the hub where it is not there yet.
        on_progress: called about every ten seconds and at validations.
        on_pictures: called about every ten seconds while pictures are read that a frozen network
            learns from: how many, of how many, and the seconds left.

    Raises:
        RecipeError: the run exists already, or was made by another recipe or from other data.
        DataError: the pictures do not fit the recipe.
        AdapterError, MissingExtraError: see `build_router`.
        UrushiError: the loss is no longer finite.
    """
    session = _Session(recipe, data, run, resume, choose_device(device), download)
    session.on_progress, session.on_pictures = on_progress, on_pictures
    with stop_signals() as request:
        return session.run_steps(request)


class _Session:
    """The objects of one call of `train_router`."""

    on_progress: Callable[[RouterProgress], None] | None = None
    on_pictures: Callable[[int, int, float], None] | None = None

    def __init__(
        self,
        recipe: RouterRecipe,
        data: RouterData,
        run: Path,
        resume: bool,
        device: str,
        download: bool,
    ) -> None:
        self.recipe, self.data, self.run = recipe, data, run
        self.device = torch.device(device)
        checkpoint = self._checkpoint(resume)
        torch.manual_seed(recipe.seed)
        self.router = build_router(recipe, download=download).to(self.device)
        # A frozen CLIP is neither optimized nor stored.
        own = self.router.encoder.facts.own
        self.state = State(self.router if own else self.router.head, None, None)
        own = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self.state.trained()],
            lr=own.learning_rate,
            weight_decay=own.weight_decay,
        )
        own = (recipe, data.clean, data.real, self.device)
        self.draw = router_batches(*own, seed=recipe.seed, augment=recipe.pictures.augment)
        held = (recipe, data.validation, data.real_validation, self.device)
        self.draw_validation = router_batches(
            *held, seed=recipe.seed + 1, augment=False, measuring=True
        )
        self.pool, self.held = self._pools()
        self.step, self.seconds, self.log = 0, 0.0, []
        if checkpoint is not None:
            self.state.restore(checkpoint, self.optimizer)
            self.step, self.seconds = checkpoint.step, checkpoint.seconds
            self.log = list(checkpoint.log)
        write_recipe(run, recipe, ours=checkpoint is not None)

    def _pools(self) -> tuple[StatisticsPool, StatisticsPool] | tuple[None, None]:
        """Of a frozen network's features: those to learn from, and those to be measured by."""
        encoder, settings = self.router.encoder, self.recipe.encoder
        if not isinstance(encoder, FeatureEncoder) or not isinstance(settings, FeatureSettings):
            return None, None
        stated = self.recipe.model_dump(mode="json", include={"seed", "classes", "mode", "most"})
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

    # --- steps ---

    def _fill(self, request: StopRequest) -> bool:
        """Calculates what a frozen network reads from all pictures; False where it was stopped."""
        if self.pool is None:
            return True
        assert self.held is not None
        encoder = self.router.encoder
        assert isinstance(encoder, FeatureEncoder)
        told = begin = time.monotonic()
        first: int | None = None

        def tell(done: int, total: int) -> None:
            nonlocal told, first, begin
            now = time.monotonic()
            if first is None:  # those that were there already cost nothing
                first, begin = done, now
            if self.on_pictures is not None and (now - told >= REPORT_SECONDS or done >= total):
                pace = (now - begin) / max(1, done - first)
                self.on_pictures(done, total, max(0, total - done) * pace)
                told = now

        def stopped() -> bool:
            return request.number is not None

        if not self.held.fill(lambda _done, _total: None, stopped):
            return False
        if not self.pool.fill(tell, stopped):
            return False
        encoder.standardise(self.pool.all_views, self.pool.all_places)
        return True

    def run_steps(self, request: StopRequest) -> RouterTrainingResult:
        if not self._fill(request):
            return self._result(request.number)
        steps, every = self.recipe.steps, self.recipe.validation.every
        losses: list[Tensor] = []
        reported = saved = marked = time.monotonic()
        while self.step < steps:
            if request.number is not None:
                self._save()
                return self._result(request.number)
            losses.append(self._one_step())
            now = time.monotonic()
            self.seconds, marked = self.seconds + now - marked, now
            due = self.step == steps or self.step % every == 0
            if due or now - reported >= REPORT_SECONDS:
                loss = self._mean(losses)
                self._report(loss, (now - reported) / len(losses), due)
                losses.clear()
                reported = time.monotonic()
            if self.step == steps or now - saved >= 60 * self.recipe.checkpoint_minutes:
                self._mean(losses[-1:])  # never keep a state that has already gone wrong
                self._save()
                saved = time.monotonic()
            marked = time.monotonic()
        return self._finish()

    def _one_step(self) -> Tensor:
        own = self.recipe.optimizer
        self.router.train()
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(self.recipe, self.step)
        if self.pool is None:
            batch = self.draw(self.step)
            loss = self._loss(self._read(batch).logits.float(), batch.applied)
        else:
            settings = self.recipe.encoder
            assert isinstance(settings, FeatureSettings)
            rows = self.pool.some(settings.batch, self.recipe.seed, self.step)
            loss = self._loss(self._read_rows(rows, settings.dropout).logits, rows.truths)
        self.optimizer.zero_grad()
        loss.backward()
        if own.clip is not None:
            nn.utils.clip_grad_norm_([p for _, p in self.state.trained()], own.clip)
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def _read(self, batch: Batch) -> RouterOutput:
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self.router.read(batch.degraded)

    def _read_rows(self, rows: Rows, dropout: float) -> RouterOutput:
        encoder = self.router.encoder
        assert isinstance(encoder, FeatureEncoder)
        generator = step_generator(self.recipe.seed + 2, self.step)

        def drop(values: Tensor) -> Tensor:
            # Of features of places a channel is dropped in all of them.
            kept = torch.rand(values.shape[:3], generator=generator) >= dropout
            kept = kept.to(values) / (1 - dropout)
            return values * kept.view(*values.shape[:3], *(1,) * (values.ndim - 3))

        places = None if rows.places is None else rows.places.to(self.device)
        reading = Reading(rows.statistics.to(self.device), places)
        return self.router.head(encoder.embedded(reading, drop if dropout else None))

    def _loss(self, logits: Tensor, truths: Tensor) -> Tensor:
        if self.recipe.mode == "multi":
            return F.binary_cross_entropy_with_logits(logits, truths.to(logits))
        # Where several classes are true of a picture, each is by its share.
        shares = truths.to(logits)
        return F.cross_entropy(logits, shares / shares.sum(1, keepdim=True))

    def _mean(self, losses: list[Tensor]) -> float:
        mean = float(torch.stack(losses).mean()) if losses else 0.0
        if not math.isfinite(mean):
            raise UrushiError(
                f"the loss is {mean} before step {self.step}: resume from the last checkpoint with "
                "a smaller optimizer.learning_rate or optimizer.clip"
            )
        return mean

    # --- validation ---

    @torch.no_grad()
    def _validate(self) -> tuple[np.ndarray, RouterMemory]:
        """Logits of validation pictures, with their vectors and `(B, n)` truths."""
        self.router.eval()
        own = self.recipe
        found: list[RouterOutput] = []
        truths: list[Tensor] = []
        for rows in () if self.held is None else self.held.groups:
            found.append(self._read_rows(rows, 0.0))
            truths.append(rows.truths)
        steps = math.ceil(own.validation.per_class / own.pictures.per_class)
        for step in range(steps if self.held is None else 0):
            batch = self.draw_validation(step)
            found.append(self._read(batch))
            truths.append(batch.applied)
        logits = torch.cat([output.logits.float() for output in found]).cpu().numpy()
        vectors = torch.cat([output.vector.float() for output in found]).cpu().numpy()
        return logits, RouterMemory(vectors, torch.cat(truths).cpu().numpy().astype(np.float32))

    def _report(self, loss: float, pace: float, validate: bool) -> None:
        right = None
        if validate:
            logits, memory = self._validate()
            right = accuracy(confusion_of(logits, memory.truths))
            self.log.append({"step": self.step, "loss": loss, "accuracy": right})
        if self.on_progress is not None:
            steps = self.recipe.steps
            left = (steps - self.step) * pace
            self.on_progress(RouterProgress(self.step, steps, loss, pace, left, right))

    # --- the end ---

    def _finish(self) -> RouterTrainingResult:
        recipe = self.recipe
        logits, memory = self._validate()
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
        return RouterTrainingResult(
            True,
            None,
            self.step,
            self.seconds,
            path,
            header,
            confusion_of(logits, memory.truths),
            self.log,
        )

    def _result(self, stopped_by: int | None) -> RouterTrainingResult:
        return RouterTrainingResult(
            False, stopped_by, self.step, self.seconds, None, None, None, self.log
        )

    # --- checkpoints ---

    @property
    def _folder(self) -> Path:
        return self.run / "checkpoints"

    def _checkpoint(self, resume: bool) -> Checkpoint | None:
        checkpoint = checkpoint_to_resume(self.run, resume=resume)
        if checkpoint is None:
            return None
        if checkpoint.data != self.data.sha256:
            raise RecipeError(
                f"{self.run} was trained on other pictures: give the same, or choose another folder"
            )
        for key, value in self.recipe.model_dump(mode="json").items():
            if key not in _CHANGEABLE and value != checkpoint.recipe.get(key):
                raise RecipeError(
                    f"{self.run} was started with {key} {checkpoint.recipe.get(key)!r:.200}, the "
                    f"recipe now says {value!r:.200}: a resumed training may only change "
                    f"{', '.join(sorted(_CHANGEABLE))}"
                )
        return checkpoint

    def _save(self) -> None:
        tensors = self.state.tensors(self.optimizer)
        recipe = self.recipe.model_dump(mode="json")
        write_checkpoint(
            self._folder,
            Checkpoint(self.step, self.seconds, recipe, self.data.sha256, tensors, self.log),
        )


def _learning_rate(recipe: RouterRecipe, step: int) -> float:
    own = recipe.optimizer
    if step < own.warmup:
        return own.learning_rate * (step + 1) / own.warmup
    share = min(1.0, (step - own.warmup) / max(1, recipe.steps - own.warmup - 1))
    least = min(own.final_learning_rate, own.learning_rate)
    return least + (own.learning_rate - least) * (1 + math.cos(math.pi * share)) / 2
