"""The training loop: one for every recipe, on one device or many."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from torch import Tensor, nn

from urushi.backbones.network import RestorationNetwork
from urushi.data.packed import PackedPictures
from urushi.errors import RecipeError, UrushiError
from urushi.inference.hardware import keep_freed_memory
from urushi.termination import StopRequest, stop_signals
from urushi.training.batches import Batch, DegradedBatches, step_generator
from urushi.training.build import Material, check_scale, material_of
from urushi.training.checkpoint import (
    Checkpoint,
    State,
    WeightAverage,
    checked_checkpoint,
    write_checkpoint,
    write_recipe,
)
from urushi.training.fitting import learning_rate, make_optimizer
from urushi.training.losses import make_loss
from urushi.training.pretext import Pretext
from urushi.training.processes import begin, check_same
from urushi.training.progress import Clock, Progress, TrainingResult
from urushi.training.recipe import Recipe
from urushi.training.router.router_recipe import RouterRecipe

__all__ = ["Progress", "TrainingResult", "train"]

LOG_SECONDS = 10.0


def train(
    recipe: Recipe | RouterRecipe,
    pack: PackedPictures | Material,
    run: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    watch: Callable[[dict[str, float], dict[str, Tensor]], bool] | None = None,
) -> TrainingResult:
    """Trains as `recipe` says, with checkpoints in `run`.

    Under `accelerate launch` or `torchrun` the batch is shared by the processes. SIGINT and SIGTERM
    end the training after the step at hand, with a checkpoint.

    Args:
        recipe: what to do.
        pack: clean pictures, or pairs where the recipe wants them; or all that the training works
            with, where that is more; of a router's training always.
        run: folder of this training; holds checkpoints, logs and the resolved recipe.
        resume: go on from the newest checkpoint, if there is one.
        device: `auto` (the best there is) or `cpu`.
        validate: scores a network with the averaged weights, in evaluation mode; called on the
            main process.
        on_progress: called on the main process, about every ten seconds and at validations.
        watch: called on the main process after every validation, with its scores and the averaged
            weights; says whether to go on. Where it does not, the training is finished.

    Raises:
        RecipeError: the run exists already, or was made by another recipe or from other data.
        UrushiError: the loss is no longer finite.
    """
    session = _Session(recipe, pack, run, resume, device)
    session.validate, session.on_progress, session.watch = validate, on_progress, watch
    try:
        with stop_signals() as request:
            return session.run_steps(request)
    finally:
        # The processes stay together: the next stage of a training may follow.
        for tracker in session.accelerator.trackers:
            tracker.finish()


class _Judged(nn.Module):
    """A network with a loss of its own; as one module, so that processes share its gradients.

    Args:
        network: what is trained.
        loss: of an optimizer step, given the network.
    """

    def __init__(self, network: nn.Module, loss: Callable[[nn.Module, int], Tensor]) -> None:
        super().__init__()
        self.network, self._loss = network, loss

    def forward(self, step: int) -> Tensor:
        return self._loss(self.network, step)


class _Session:
    """The objects of one call of `train`."""

    validate: Callable[[nn.Module], dict[str, float]] | None = None
    on_progress: Callable[[Progress], None] | None = None
    watch: Callable[[dict[str, float], dict[str, Tensor]], bool] | None = None

    def __init__(
        self,
        recipe: Recipe | RouterRecipe,
        pack: PackedPictures | Material,
        run: Path,
        resume: bool,
        device: str,
    ) -> None:
        self.recipe, self.run = recipe, run
        if not isinstance(pack, Material):
            assert isinstance(recipe, Recipe)
            pack = material_of(recipe, pack)
        self.material = pack
        cpu = begin(device)
        # Autocast is ours: accelerate fixes the precision once for the whole process.
        self.accelerator = Accelerator(
            cpu=cpu, mixed_precision="no", log_with="tensorboard", project_dir=run
        )
        checkpoint = checked_checkpoint(recipe, self.material.sha256, run, resume=resume)
        check_same(0 if checkpoint is None else checkpoint.step, run)
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        set_seed(recipe.seed)
        self.network = self.material.network(checkpoint is not None)
        self._sharded = self._shares_weights()
        # FSDP takes no other layout than that in which weights are made.
        layout = torch.contiguous_format if self._sharded else torch.channels_last
        self.network.to(self.accelerator.device, memory_format=layout)  # pyright: ignore[reportCallIssue]
        self.stages = self.material.stages(
            self.accelerator.device,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        if self.material.loss is None:
            check_scale(self.network, self.stages, recipe.loss)
        self.pretext = self._make_pretext()
        if recipe.compile:
            self._compile()
        trained = [p for _, p in State(self.network, self.pretext, None).trained()]
        whole = _Judged(self.network, self.material.loss) if self.material.loss else self.network
        self.model, self.optimizer = self.accelerator.prepare(
            whole, make_optimizer(trained, recipe.optimizer)
        )
        # What follows the weights is made when each process has its part of them.
        self.average = WeightAverage(self.network, recipe.ema) if recipe.ema else None
        self.state = State(self.network, self.pretext, self.average)
        self.step, self.seconds, self.log, self.pixels = 0, 0.0, [], 0
        if checkpoint is not None:
            self.state.restore(checkpoint, self.optimizer)
            self.step, self.seconds = checkpoint.step, checkpoint.seconds
            self.log = list(checkpoint.log)
        if self.pretext is not None:
            self.pretext.listen(self._in_pretext())
        self.pretext_loss = None
        if self.pretext is not None and self.pretext.settings.classify:
            self.pretext_loss = self.accelerator.prepare(self.pretext)
        self.loss = make_loss(**recipe.loss.model_dump())
        if self.accelerator.is_main_process:
            write_recipe(run, recipe, ours=checkpoint is not None)
        self.accelerator.init_trackers("tensorboard")

    def _compile(self) -> None:
        # One shape after another, each with a program of its own: a program for any shape would be
        # slower, and PyTorch fails to make it.
        # Programs of an earlier training in this process know nothing of this one's hooks.
        torch.compiler.reset()
        self.network.compile(dynamic=False)

    def _make_pretext(self) -> Pretext | None:
        settings = self.recipe.pretext
        if settings is None:
            return None
        assert isinstance(self.network, RestorationNetwork)
        batches = self.stages[0][1]
        kinds = batches.kinds if isinstance(batches, DegradedBatches) else 1
        return Pretext(settings, self.network, kinds).to(self.accelerator.device)

    def _shares_weights(self) -> bool:
        """Whether each process holds a part of every weight (FSDP)."""
        if self.accelerator.distributed_type is not DistributedType.FSDP:
            return False
        plugin = self.accelerator.state.fsdp_plugin
        if plugin is None or plugin.fsdp_version != 2:
            raise RecipeError("FSDP is used in its version 2: start with --fsdp_version 2")
        if self.recipe.pretext is not None:
            raise RecipeError("pretext cannot be trained under FSDP: leave out one of the two")
        return True

    def _averaged(self) -> dict[str, Tensor]:
        """The averaged weights, for the main process; under FSDP all give their parts of them."""
        if self._sharded or self.accelerator.is_main_process:
            return self.state.averaged()
        return {}

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
        going = True
        while going and self.step < recipe.schedule.steps and not self._out_of_time():
            if self._agreed(request.number is not None):
                self._save()
                return self._result(mean, stopped=True, by=request.number)
            losses.append(self._one_step(clock))
            self.seconds = clock.add_to(self.seconds)
            last = self.step == recipe.schedule.steps or self._out_of_time()
            due = last or self.step % recipe.validation.every == 0
            if due or self.step == 1 or clock.since_report() >= LOG_SECONDS:
                mean = self._mean_loss(losses)
                scores = self._scores() if due else {}
                self._report(mean, len(losses), clock, scores)
                losses.clear()
                going = not due or not self._agreed(not self._watched(scores))
            if last or not going or time.monotonic() - saved >= 60 * recipe.checkpoint_minutes:
                self._mean_loss(losses[-1:])  # never keep a state that has already gone wrong
                self._save()
                saved = time.monotonic()
        return self._result(mean)

    def _out_of_time(self) -> bool:
        minutes = self.recipe.schedule.minutes
        return minutes is not None and self._agreed(self.seconds >= 60 * minutes)

    def _watched(self, scores: dict[str, float]) -> bool:
        """Whether to go on after a validation."""
        if self.watch is None:
            return True
        weights = self._averaged()
        return not self.accelerator.is_main_process or self.watch(scores, weights)

    def _one_step(self, clock: "Clock") -> Tensor:
        # Networks may have random layers of their own: these, too, depend on the step alone.
        generator = step_generator(self.recipe.seed + 1, self.step)
        torch.manual_seed(generator.initial_seed())
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        if self.material.loss is not None:
            loss = total = self.model(self.step)
        else:
            loss, total = self._restoring_loss(clock, generator)
        self.accelerator.backward(total)
        clip = self.recipe.optimizer.clip
        if clip is not None:
            parameters = [parameter for _, parameter in self.state.trained()]
            self.accelerator.clip_grad_norm_(parameters, clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.pretext is not None and not self._in_pretext():
            self.pretext.listen(False)
        if self.average is not None:
            self.average.update(self.network, self.step)
        return loss.detach()

    def _restoring_loss(self, clock: "Clock", generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss of the patches of the step at hand, and what is minimised."""
        with clock.preparing():
            batch = self._draw(generator)
        kind, bf16 = self.accelerator.device.type, self.recipe.precision == "bf16"
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            restored = self.model(batch.degraded, **batch.side)
        loss = self.loss(restored, batch.clean, batch.degraded)
        if self.pretext_loss is None or not self._in_pretext():
            return loss, loss
        return loss, loss + self.pretext_loss(batch.applied)

    def _learning_rate(self) -> float:
        schedule, greatest = self.recipe.schedule, self.recipe.optimizer.learning_rate
        if schedule.minutes is None:
            return learning_rate(schedule, greatest, self.step)
        # The clocks of several processes differ, their learning rates must not.
        seconds = torch.tensor(self.seconds, device=self.accelerator.device)
        return learning_rate(schedule, greatest, self.step, float(self._reduced(seconds, "mean")))

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
        weights = {} if self.validate is None else self._averaged()
        if self.validate is not None and self.accelerator.is_main_process:
            network = self.material.network(True)
            network.load_state_dict(weights)
            network = network.to(self.accelerator.device).eval().requires_grad_(False)
            scores = self.validate(network)
        self.accelerator.wait_for_everyone()
        return scores

    def _report(self, mean: float, count: int, clock: "Clock", scores: dict[str, float]) -> None:
        steps = self.recipe.schedule.steps
        seconds, busy = clock.report()
        speed, self.pixels = self.pixels / seconds, 0
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"step": self.step, "seconds": round(self.seconds, 1), "loss": mean, **scores}
        self.log.append(row)
        values = {"loss": mean, "learning_rate": rate, "pixels_per_second": speed, **scores}
        self.accelerator.log(values, step=self.step)
        if self.on_progress is not None and self.accelerator.is_main_process:
            left = (steps - self.step) * seconds / count
            share, minutes = self.step / steps, self.recipe.schedule.minutes
            if minutes is not None:
                share = min(1.0, max(share, self.seconds / (60 * minutes)))
                left = min(left, max(0.0, 60 * minutes - self.seconds))
            self.on_progress(
                Progress(self.step, steps, mean, rate, speed, left, busy, scores, share)
            )

    def _result(self, loss: float, stopped: bool = False, by: int | None = None) -> TrainingResult:
        return TrainingResult(
            finished=not stopped,
            stopped_by=by,
            step=self.step,
            seconds=self.seconds,
            weights=self.state.averaged(),
            log=self.log,
            loss=loss,
        )

    # --- checkpoints ---

    @property
    def _folder(self) -> Path:
        return self.run / "checkpoints"

    def _save(self) -> None:
        tensors = {}
        if self._sharded or self.accelerator.is_main_process:
            tensors = self.state.tensors(self.optimizer)
        if self.accelerator.is_main_process:
            recipe = self.recipe.model_dump(mode="json")
            data = self.material.sha256
            write_checkpoint(
                self._folder,
                Checkpoint(self.step, self.seconds, recipe, data, tensors, self.log),
            )
        self.accelerator.wait_for_everyone()
