"""The folder of a training: its recipe, and checkpoints of all that it carries from step to step.

Weights, their moving average and the optimizer's moments are tensors; the step, the seconds spent
and the recipe are JSON. Random states are not stored, because none is carried: see `batches`. A
checkpoint is written beside its name and renamed, so that a lost machine leaves the one before.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from urushi.errors import FileFormatError, RecipeError, TakenError, TargetError
from urushi.settings import Settings, parse_settings
from urushi.training.pretext import Pretext
from urushi.training.recipe import TrainingSettings
from urushi.writing import remove_leftovers, whole_file

__all__ = [
    "RECIPE_NAME",
    "Checkpoint",
    "State",
    "WeightAverage",
    "checked_checkpoint",
    "checkpoint_to_resume",
    "newest_checkpoint",
    "read_checkpoint",
    "write_checkpoint",
    "write_recipe",
]

RECIPE_NAME = "recipe.yaml"

KIND = "urushi-checkpoint"
VERSION = 1
KEPT = 2  # the newest, and one before it in case the newest is damaged
_PRETEXT = "pretext."


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


def checked_checkpoint(
    recipe: TrainingSettings, data: str, run: Path, *, resume: bool
) -> Checkpoint | None:
    """The checkpoint that a training goes on from; None where it begins.

    Args:
        recipe: of now.
        data: content hash of the pack of now.
        run: folder of the training.
        resume: whether it may go on.

    Raises:
        RecipeError: there is one, and the training is not to be resumed; or its data, or a key of
            its recipe that must not change, is another.
    """
    checkpoint = checkpoint_to_resume(run, resume=resume)
    if checkpoint is None:
        return None
    if checkpoint.data != data:
        raise RecipeError(
            f"{run} was trained on other pictures: give the same, or choose another folder"
        )
    # Read anew, so that keys which came later have their defaults.
    before = parse_settings(
        checkpoint.recipe, type(recipe), RecipeError, f"the recipe in {run}", former=True
    )
    then = before.model_dump(mode="json")
    for key, value in recipe.model_dump(mode="json").items():
        if key not in recipe.changeable and value != then[key]:
            raise RecipeError(
                f"{run} was started with {key} {then[key]!r:.200}, the recipe now says "
                f"{value!r:.200}: a resumed training may only change "
                f"{', '.join(sorted(recipe.changeable))}"
            )
    return checkpoint


def write_recipe(run: Path, recipe: Settings, *, ours: bool = False) -> None:
    """Makes the folder of a training and writes its recipe there.

    Args:
        run: the folder.
        recipe: what is trained; it has a `name`.
        ours: whether the folder is known to be of this training.

    Raises:
        TakenError: another recipe is there already.
        TargetError: the disk refuses.
    """
    content = recipe.model_dump(mode="json")
    path = run / RECIPE_NAME
    if not ours and path.exists() and not _same_kind(path, recipe):
        raise TakenError(
            f"'{path}' belongs to another training and was not touched: choose another folder"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
        with whole_file(path, overwrite=True) as part:
            part.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise TargetError(
            f"'{path}' cannot be written ({error.strerror or error}): choose a writable folder, "
            "with space left"
        ) from error


def _same_kind(path: Path, recipe: Settings) -> bool:
    """Whether a recipe is there of that name and of keys that this one has or had."""
    content = recipe.model_dump(mode="json")
    try:
        there = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
    if not isinstance(there, dict) or there.get("name") != content.get("name"):
        return False
    # What `urushi train` reads leaves defaults out; what it leaves has every key.
    return "seed" in there and set(there) <= {*content, *recipe.renamed}


class WeightAverage:
    """Follows `network` with decay `decay`; holds float32 copies of its parameters by name.

    The decay starts small, `(1 + n) / (10 + n)` at update `n` (as TensorFlow's moving average with
    `num_updates`), so that the random initial weights do not linger.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: p.detach().clone() for k, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Moves towards the weights after optimizer step `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [_own_part(p.detach()) for _, p in network.named_parameters()]
        own = [_own_part(tensor) for tensor in self.weights.values()]
        get_ema_multi_avg_fn(decay)(own, current, step)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Takes over stored weights."""
        for name, tensor in self.weights.items():
            _fill(tensor, weights[name])


# Under FSDP each process holds a part of every tensor. What needs a whole one is done by all of
# them at once, since all give their parts.


def _own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all, unless it is shared out."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyright: ignore[reportAttributeAccessIssue]


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # pyright: ignore[reportAttributeAccessIssue]


@torch.no_grad()
def _fill(tensor: Tensor, whole: Tensor) -> None:
    """Puts whole values into a tensor, of which this process may hold a part."""
    if not hasattr(tensor, "full_tensor"):
        tensor.copy_(whole)
        return
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(tensor, DTensor)
    # Every process has read the same file: none needs to be sent its part.
    shared_out = distribute_tensor(
        whole.to(tensor.device, tensor.dtype),
        tensor.device_mesh,
        tensor.placements,
        src_data_rank=None,
    )
    tensor.to_local().copy_(shared_out.to_local())


class State:
    """Weights, their moving average and the optimizer's moments.

    Args:
        network: what is trained.
        pretext: trained beside it, if there is one.
        average: of the network's parameters, if there is one.
    """

    def __init__(
        self, network: nn.Module, pretext: Pretext | None, average: WeightAverage | None
    ) -> None:
        self._network, self._pretext, self._average = network, pretext, average

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """All that the optimizer changes, by the names that checkpoints use."""
        own = list(self._network.named_parameters())
        if self._pretext is not None:
            own += [(_PRETEXT + name, p) for name, p in self._pretext.named_parameters()]
        return own

    def averaged(self) -> dict[str, Tensor]:
        """The network's tensors as they are shipped: on the CPU, float32, counters as they are."""
        tensors = dict(self._network.state_dict())
        tensors |= {} if self._average is None else self._average.weights
        tensors = {name: _whole(tensor) for name, tensor in tensors.items()}
        return {
            name: (tensor.detach().float() if tensor.is_floating_point() else tensor).cpu().clone()
            for name, tensor in tensors.items()
        }

    def tensors(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """All of it, as a checkpoint holds it."""
        weights = dict(self._network.state_dict())
        weights |= {n: p for n, p in self.trained() if n.startswith(_PRETEXT)}
        tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
        if self._average is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self._average.weights.items()}
        names = [name for name, _ in self.trained()]
        for index, state in optimizer.state_dict()["state"].items():
            tensors[f"moment1.{names[index]}"] = state["exp_avg"]
            tensors[f"moment2.{names[index]}"] = state["exp_avg_sq"]
        return {name: _whole(tensor.detach()).cpu().clone() for name, tensor in tensors.items()}

    def restore(self, checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        """Takes over what `tensors` gave."""
        weights = checkpoint.group("weights")
        if self._pretext is not None:
            self._pretext.load_state_dict(checkpoint.group("weights.pretext"))
        weights = _without(weights, _PRETEXT)
        own = self._network.state_dict()
        if any(hasattr(tensor, "full_tensor") for tensor in own.values()):
            for name, tensor in own.items():
                _fill(tensor, weights[name])
        else:
            self._network.load_state_dict(weights)
        if self._average is not None:
            self._average.load(checkpoint.group("ema"))
        first, second = checkpoint.group("moment1"), checkpoint.group("moment2")
        step = torch.tensor(float(checkpoint.step))
        state = optimizer.state_dict()
        state["state"] = {
            index: {
                "step": step.clone(),
                # The fused optimizer walks through memory: moments must lie as their weights do.
                "exp_avg": _like(parameter, first[name]),
                "exp_avg_sq": _like(parameter, second[name]),
            }
            for index, (name, parameter) in enumerate(self.trained())
            if name in first
        }
        optimizer.load_state_dict(state)


def _like(parameter: Tensor, values: Tensor) -> Tensor:
    made = torch.empty_like(parameter.detach())
    _fill(made, values)
    return made


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
