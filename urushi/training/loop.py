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
from urushi.data.pack import PackedPictures
from urushi.degradations import create_degradation
from urushi.errors import RecipeError, UrushiError
from urushi.inference.allocator import keep_freed_memory
from urushi.training.average import WeightAverage
from urushi.training.batches import Batches, step_generator
from urushi.training.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from urushi.training.losses import make_loss
from urushi.training.progress import Clock, Progress, TrainingResult
from urushi.training.recipe import Recipe
from urushi.training.signals import StopRequest, stop_signals

__all__ = ["Progress", "TrainingResult", "learning_rate", "train"]

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


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0."""
    schedule, greatest = recipe.schedule, recipe.optimizer.learning_rate
    if step < schedule.warmup:
        return greatest * (step + 1) / schedule.warmup
    length = max(1, schedule.steps - schedule.warmup - 1)
    share = min(1.0, (step - schedule.warmup) / length)
    least = min(schedule.final_learning_rate, greatest)
    return least + (greatest - least) * (1 + math.cos(math.pi * share)) / 2


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
        if recipe.data.batch % processes:
            raise RecipeError(
                f"data.batch is {recipe.data.batch}, shared by {processes} processes: "
                "choose a multiple"
            )
        checkpoint = self._checkpoint_to_resume(resume)
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        set_seed(recipe.seed)
        self.network = create_backbone(recipe.backbone.name, recipe.backbone.config)
        self.network.to(self.accelerator.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.average = WeightAverage(self.network, recipe.ema) if recipe.ema else None
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=recipe.optimizer.learning_rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.step, self.seconds, self.log = 0, 0.0, []
        if checkpoint is not None:
            self._restore(checkpoint, optimizer)
        if recipe.compile:
            self.network.compile()
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.loss = make_loss(recipe.loss.name, recipe.loss.frequency, recipe.loss.floor)
        self.batches = self._make_batches()
        if self.accelerator.is_main_process:
            run.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
            (run / "recipe.yaml").write_text(text, encoding="utf-8")
        self.accelerator.init_trackers("tensorboard")

    def _make_batches(self) -> Batches:
        data, device = self.recipe.data, self.accelerator.device
        options = dict(self.recipe.degradation)
        return Batches(
            pack=self.pack,
            degradation=create_degradation(options.pop("name", ""), **options),
            patch=data.patch,
            batch=data.batch,
            augment=data.augment,
            seed=self.recipe.seed,
            device=device,
            # On an accelerator the pixels stay there; on a CPU the mapped file is as near.
            resident=None if device.type == "cpu" else self.pack.to_tensor(device),
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )

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
        with clock.preparing():
            degraded, clean = self.batches(self.step)
            degraded = degraded.contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        # Networks may have random layers of their own: these, too, depend on the step alone.
        torch.manual_seed(step_generator(recipe.seed + 1, self.step).initial_seed())
        kind, bf16 = self.accelerator.device.type, recipe.precision == "bf16"
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            restored = self.model(degraded)
        loss = self.loss(restored, clean)
        self.accelerator.backward(loss)
        if recipe.optimizer.clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.average is not None:
            self.average.update(self.network, self.step)
        return loss.detach()

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
        data, steps = self.recipe.data, self.recipe.schedule.steps
        seconds, busy = clock.report()
        speed = count * data.batch * data.patch**2 / seconds
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
            names = [name for name, _ in self.network.named_parameters()]
            tensors = {
                f"weights.{k}": v.detach().cpu().clone()
                for k, v in self.network.state_dict().items()
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
        self.network.load_state_dict(checkpoint.group("weights"))
        if self.average is not None:
            self.average.load(checkpoint.group("ema"))
        first, second = checkpoint.group("moment1"), checkpoint.group("moment2")
        step = torch.tensor(float(checkpoint.step))
        state = optimizer.state_dict()
        state["state"] = {
            index: {"step": step.clone(), "exp_avg": first[name], "exp_avg_sq": second[name]}
            for index, (name, _) in enumerate(self.network.named_parameters())
            if name in first
        }
        optimizer.load_state_dict(state)
        self.step, self.seconds = checkpoint.step, checkpoint.seconds
        self.log = list(checkpoint.log)
