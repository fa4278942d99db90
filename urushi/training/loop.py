"""The training loop: one for every recipe, on one device or many."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from urushi.backbones import create_backbone
from urushi.backbones.network import RestorationNetwork
from urushi.data.pack import PackedPictures
from urushi.degradations import create_degradation
from urushi.degradations.chain import Chain
from urushi.errors import RecipeError, UrushiError
from urushi.inference.allocator import keep_freed_memory
from urushi.training.average import WeightAverage
from urushi.training.batches import Batch, Batches, step_generator
from urushi.training.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from urushi.training.losses import make_loss
from urushi.training.pretext import Pretext
from urushi.training.progress import Clock, Progress, TrainingResult
from urushi.training.recipe import Recipe
from urushi.training.schedule import learning_rate
from urushi.training.signals import StopRequest, stop_signals
from urushi.training.start import load_start

__all__ = ["Progress", "TrainingResult", "train"]

LOG_SECONDS = 10.0
# What a resumed training may change: how it goes on, not what it is made of.
CHANGEABLE = {
    "checkpoint_minutes",
    "compile",
    "description",
    "loss",
    "optimizer",
    "schedule",
    "validation",
}


def train(
    recipe: Recipe,
    pack: PackedPictures,
    run: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Trains as `recipe` says, with checkpoints in `run`.

    Under `accelerate launch` or `torchrun` the batch is shared by the processes. SIGINT and SIGTERM
    end the training after the step at hand, with a checkpoint.

    Args:
        recipe: what to do.
        pack: clean pictures.
        run: folder of this training; holds checkpoints, logs and the resolved recipe.
        resume: go on from the newest checkpoint, if there is one.
        device: `auto` (the best there is) or `cpu`.
        validate: scores a network with the averaged weights, in evaluation mode; called on the
            main process.
        on_progress: called on the main process, about every ten seconds and at validations.

    Raises:
        RecipeError: the run exists already, or was made by another recipe or from other data.
        UrushiError: the loss is no longer finite.
    """
    session = _Session(recipe, pack, run, resume, device)
    session.validate, session.on_progress = validate, on_progress
    try:
        with stop_signals() as request:
            return session.run_steps(request)
    finally:
        session.accelerator.end_training()


class _Session:
    """The objects of one call of `train`."""

    validate: Callable[[nn.Module], dict[str, float]] | None = None
    on_progress: Callable[[Progress], None] | None = None

    def __init__(
        self, recipe: Recipe, pack: PackedPictures, run: Path, resume: bool, device: str
    ) -> None:
        self.recipe, self.pack, self.run = recipe, pack, run
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            # Autocast is ours: accelerate fixes the precision once for the whole process.
            mixed_precision="no",
            log_with="tensorboard",
            project_dir=run,
        )
        processes = self.accelerator.num_processes
        for batch in (recipe.data.batch, *(s.batch for s in recipe.schedule.patches)):
            if batch % processes:
                raise RecipeError(
                    f"a batch of {batch} is shared by {processes} processes: choose a multiple"
                )
        checkpoint = self._checkpoint_to_resume(resume)
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        set_seed(recipe.seed)
        self.network = create_backbone(recipe.backbone.name, recipe.backbone.config)
        if recipe.start is not None and checkpoint is None:
            load_start(self.network, recipe.start)
        self.network.to(self.accelerator.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.stages = self._make_stages()
        self.pretext = self._make_pretext()
        self.average = WeightAverage(self.network, recipe.ema) if recipe.ema else None
        optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self._trained()],
            lr=recipe.optimizer.learning_rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.step, self.seconds, self.log, self.pixels = 0, 0.0, [], 0
        if checkpoint is not None:
            self._restore(checkpoint, optimizer)
        if self.pretext is not None:
            self.pretext.listen(self._in_pretext())
        if recipe.compile:
            # One shape after another, each with a program of its own: a program for any shape
            # would be slower, and PyTorch fails to make it.
            self.network.compile(dynamic=False)
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.pretext_loss = None
        if self.pretext is not None and self.pretext.settings.classify:
            self.pretext_loss = self.accelerator.prepare(self.pretext)
        self.loss = make_loss(recipe.loss.name, recipe.loss.frequency, recipe.loss.floor)
        if self.accelerator.is_main_process:
            run.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
            (run / "recipe.yaml").write_text(text, encoding="utf-8")
        self.accelerator.init_trackers("tensorboard")

    def _make_stages(self) -> list[tuple[int, Batches]]:
        """The patches of every stage of the training, by the step with which it begins."""
        data, device = self.recipe.data, self.accelerator.device
        options = dict(self.recipe.degradation)
        degradation = create_degradation(options.pop("name", ""), **options)
        # On an accelerator the pixels stay there; on a CPU the mapped file is as near.
        resident = None if device.type == "cpu" else self.pack.to_tensor(device)
        stages = [(0, data.patch, data.batch)]
        stages += [(s.from_step, s.patch, s.batch) for s in self.recipe.schedule.patches]
        return [
            (
                start,
                Batches(
                    pack=self.pack,
                    degradation=degradation,
                    patch=patch,
                    batch=batch,
                    augment=data.augment,
                    seed=self.recipe.seed,
                    device=device,
                    resident=resident,
                    rank=self.accelerator.process_index,
                    processes=self.accelerator.num_processes,
                ),
            )
            for start, patch, batch in stages
        ]

    def _make_pretext(self) -> Pretext | None:
        settings = self.recipe.pretext
        if settings is None:
            return None
        assert isinstance(self.network, RestorationNetwork)
        degradation = self.stages[0][1].degradation
        kinds = len(degradation.steps) if isinstance(degradation, Chain) else 1
        return Pretext(settings, self.network, kinds).to(self.accelerator.device)

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        """All that the optimizer changes, by the names that checkpoints use."""
        own = list(self.network.named_parameters())
        if self.pretext is not None:
            own += [(f"pretext.{name}", p) for name, p in self.pretext.named_parameters()]
        return own

    def _in_pretext(self) -> bool:
        return self.recipe.pretext is not None and self.step < self.recipe.pretext.until

    # --- steps ---

    def run_steps(self, request: StopRequest) -> TrainingResult:
        recipe = self.recipe
        clock = Clock()
        losses: list[Tensor] = []
        mean = math.nan
        saved = time.monotonic()
        self.model.train()
        while self.step < recipe.schedule.steps:
            if self._agreed(request.number is not None):
                self._save()
                return self._result(mean, stopped=True, by=request.number)
            losses.append(self._one_step(clock))
            self.seconds = clock.add_to(self.seconds)
            last = self.step == recipe.schedule.steps
            due = last or self.step % recipe.validation.every == 0
            if due or self.step == 1 or clock.since_report() >= LOG_SECONDS:
                mean = self._mean_loss(losses)
                self._report(mean, len(losses), clock, self._scores() if due else {})
                losses.clear()
            if last or time.monotonic() - saved >= 60 * recipe.checkpoint_minutes:
                self._mean_loss(losses[-1:])  # never keep a state that has already gone wrong
                self._save()
                saved = time.monotonic()
        return self._result(mean)

    def _one_step(self, clock: "Clock") -> Tensor:
        recipe = self.recipe
        # Networks may have random layers of their own: these, too, depend on the step alone.
        generator = step_generator(recipe.seed + 1, self.step)
        torch.manual_seed(generator.initial_seed())
        with clock.preparing():
            batch = self._draw(generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        kind, bf16 = self.accelerator.device.type, recipe.precision == "bf16"
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            restored = self.model(batch.degraded)
        loss = self.loss(restored, batch.clean)
        total = loss
        if self.pretext_loss is not None and self._in_pretext():
            total = loss + self.pretext_loss(batch.applied)
        self.accelerator.backward(total)
        if recipe.optimizer.clip is not None:
            parameters = [parameter for _, parameter in self._trained()]
            self.accelerator.clip_grad_norm_(parameters, recipe.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.pretext is not None and not self._in_pretext():
            self.pretext.listen(False)
        if self.average is not None:
            self.average.update(self.network, self.step)
        return loss.detach()

    def _draw(self, generator: torch.Generator) -> Batch:
        """The batch of the step at hand, masked where the recipe asks for it."""
        draw = next(batches for start, batches in reversed(self.stages) if start <= self.step)
        batch = draw(self.step)
        self.pixels += draw.batch * draw.patch**2
        degraded = batch.degraded
        if self.pretext is not None and self._in_pretext():
            degraded = self.pretext.mask(degraded, generator, draw.rows, draw.batch)
        degraded = degraded.contiguous(memory_format=torch.channels_last)
        return batch._replace(degraded=degraded)

    def _agreed(self, stop: bool) -> bool:
        """Whether any process was asked to stop; all must leave the loop at the same step."""
        if self.accelerator.num_processes == 1:
            return stop
        flag = torch.tensor(float(stop), device=self.accelerator.device)
        return float(self._reduced(flag, "sum")) > 0

    def _reduced(self, value: Tensor, how: str) -> Tensor:
        result = self.accelerator.reduce(value, how)
        assert isinstance(result, Tensor)
        return result

    def _mean_loss(self, losses: list[Tensor]) -> float:
        if not losses:
            return math.nan
        mean = float(self._reduced(torch.stack(losses).mean(), "mean"))
        if not math.isfinite(mean):
            raise UrushiError(
                f"the loss is {mean} before step {self.step}: resume from the last checkpoint with "
                "a smaller optimizer.learning_rate or optimizer.clip"
            )
        return mean

    # --- reports ---

    def _scores(self) -> dict[str, float]:
        scores: dict[str, float] = {}
        if self.validate is not None and self.accelerator.is_main_process:
            network = create_backbone(self.recipe.backbone.name, self.recipe.backbone.config)
            network.load_state_dict(self._averaged())
            network = network.to(self.accelerator.device).eval().requires_grad_(False)
            scores = self.validate(network)
        self.accelerator.wait_for_everyone()
        return scores

    def _report(self, mean: float, count: int, clock: "Clock", scores: dict[str, float]) -> None:
        steps = self.recipe.schedule.steps
        seconds, busy = clock.report()
        speed, self.pixels = self.pixels / seconds, 0
        rate = learning_rate(self.recipe, self.step - 1)
        row = {"step": self.step, "seconds": round(self.seconds, 1), "loss": mean, **scores}
        self.log.append(row)
        values = {"loss": mean, "learning_rate": rate, "pixels_per_second": speed, **scores}
        self.accelerator.log(values, step=self.step)
        if self.on_progress is not None and self.accelerator.is_main_process:
            left = (steps - self.step) * seconds / count
            self.on_progress(Progress(self.step, steps, mean, rate, speed, left, busy, scores))

    def _averaged(self) -> dict[str, Tensor]:
        source = self.average.weights if self.average else dict(self.network.named_parameters())
        return {name: tensor.detach().float().cpu().clone() for name, tensor in source.items()}

    def _result(self, loss: float, stopped: bool = False, by: int | None = None) -> TrainingResult:
        return TrainingResult(
            finished=not stopped,
            stopped_by=by,
            step=self.step,
            seconds=self.seconds,
            weights=self._averaged(),
            log=self.log,
            loss=loss,
        )

    # --- checkpoints ---

    @property
    def _folder(self) -> Path:
        return self.run / "checkpoints"

    def _checkpoint_to_resume(self, resume: bool) -> Checkpoint | None:
        checkpoint = newest_checkpoint(self._folder)
        if checkpoint is None:
            return None
        if not resume:
            raise RecipeError(
                f"{self.run} holds a training at step {checkpoint.step}: resume it (--resume), "
                "or choose another folder"
            )
        if checkpoint.data != self.pack.sha256:
            raise RecipeError(
                f"{self.run} was trained on other pictures than those of {self.pack.path}: "
                "give the same, or choose another folder"
            )
        wanted = self.recipe.model_dump(mode="json")
        for key, value in wanted.items():
            if key not in CHANGEABLE and value != checkpoint.recipe.get(key):
                raise RecipeError(
                    f"{self.run} was started with {key} {checkpoint.recipe.get(key)!r}, the recipe "
                    f"now says {value!r}: a resumed training may only change "
                    f"{', '.join(sorted(CHANGEABLE))}"
                )
        return checkpoint

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            trained = self._trained()
            names = [name for name, _ in trained]
            tensors = {
                f"weights.{k}": v.detach().cpu().clone()
                for k, v in self.network.state_dict().items()
            }
            tensors |= {
                f"weights.{name}": parameter.detach().cpu().clone()
                for name, parameter in trained
                if name.startswith("pretext.")
            }
            if self.average is not None:
                tensors |= {f"ema.{k}": v.cpu().clone() for k, v in self.average.weights.items()}
            states = self.optimizer.state_dict()["state"]
            for index, state in states.items():
                tensors[f"moment1.{names[index]}"] = state["exp_avg"].cpu().clone()
                tensors[f"moment2.{names[index]}"] = state["exp_avg_sq"].cpu().clone()
            recipe = self.recipe.model_dump(mode="json")
            write_checkpoint(
                self._folder,
                Checkpoint(self.step, self.seconds, recipe, self.pack.sha256, tensors, self.log),
            )
        self.accelerator.wait_for_everyone()

    def _restore(self, checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        weights = checkpoint.group("weights")
        if self.pretext is not None:
            self.pretext.load_state_dict(checkpoint.group("weights.pretext"))
        own = {name: t for name, t in weights.items() if not name.startswith("pretext.")}
        self.network.load_state_dict(own)
        if self.average is not None:
            self.average.load(checkpoint.group("ema"))
        first, second = checkpoint.group("moment1"), checkpoint.group("moment2")
        step = torch.tensor(float(checkpoint.step))
        state = optimizer.state_dict()
        state["state"] = {
            index: {"step": step.clone(), "exp_avg": first[name], "exp_avg_sq": second[name]}
            for index, (name, _) in enumerate(self._trained())
            if name in first
        }
        optimizer.load_state_dict(state)
        self.step, self.seconds = checkpoint.step, checkpoint.seconds
        self.log = list(checkpoint.log)
