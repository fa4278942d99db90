"""The torch engine: eager by default, channels-last, in inference mode."""

import copy
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from urushi.backbones import RestorationNetwork
from urushi.backbones.claims import create_claimed
from urushi.errors import BackboneError, EngineError, FileFormatError, OutOfMemoryError
from urushi.files.model import LoadedModel
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.base import (
    Engine,
    Precision,
    picture_channels,
    runs_when_small,
    working_memory,
)
from urushi.inference.hardware import MadeAnew, in_use, keep_freed_memory

__all__ = ["TorchEngine", "build_network"]

# Allocators tell of exhausted memory in words, not in types, except CUDA's.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_cpu")


class TorchEngine(MadeAnew):
    """Executes a network with torch; see `Engine`.

    Args:
        model: a checked model file.
        device: `cpu`, `cuda`, `cuda:1`, `xpu`, `mps`.
        precision: `bf16` runs the network under autocast, so that the sum with the input picture
            stays in float32.
        threads: CPU threads of the whole process (torch knows no others), or None.
        compile: compile the network at its first run, which takes long; anew for other sizes.
        adapters: those that are not in the model's weights: they are attached.

    Raises:
        AdapterError: an adapter's settings and tensors do not belong together.
        FileFormatError: the weights do not fit the configuration in the file.
    """

    name = "torch"

    def __init__(
        self,
        model: LoadedModel,
        *,
        device: str,
        precision: Precision = "float32",
        threads: int | None = None,
        compile: bool = False,
        adapters: Sequence[AppliedAdapter] = (),
    ) -> None:
        options: dict[str, Any] = {
            "device": device, "threads": threads, "compile": compile, "adapters": adapters,
        }  # fmt: skip
        self._record(model=model, precision=precision, **options)
        self._make(model, precision, **options)

    def _make(
        self,
        model: LoadedModel,
        precision: Precision,
        device: str,
        threads: int | None,
        compile: bool,
        adapters: Sequence[AppliedAdapter],
    ) -> None:
        in_use("torch")
        target = torch.device(device)
        if target.type in ("cuda", "xpu") and target.index is None:
            target = torch.device(target.type, 0)
        if target.type == "cpu":
            keep_freed_memory()
        if threads is not None:
            torch.set_num_threads(threads)
        backbone = build_network(model)
        network: torch.nn.Module = backbone
        if adapters:
            from urushi.adapters import attach
            from urushi.adapters.stored import load_adapter

            loaded = [load_adapter(backbone, item.adapter, item.strength) for item in adapters]
            network = attach(backbone, *loaded).eval().requires_grad_(False)
        self.device = str(target)
        self.precision: Precision = precision
        self.size_multiple = backbone.size_multiple
        self.scale, self.fixed_patch = backbone.scale, backbone.fixed_patch
        self._channels = picture_channels(model)
        self.bytes_per_pixel = working_memory(model.header, self.name, precision)
        network = network.to(target)
        # torch's own annotations do not know this form of the call.
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._forward = _compile(self.network) if compile else self.network
        self._model = model
        self._options: dict[str, Any] = {
            "device": device, "threads": threads, "compile": compile, "adapters": adapters,
        }  # fmt: skip
        self._float32: TorchEngine | None = None
        # Several batches at once would take several times the memory, and be no faster.
        self._turn = threading.Lock()

    def run(self, batch: Float[np.ndarray, "b c h w"]) -> Float[np.ndarray, "b c h2 w2"]:
        """Restore a batch; see `Engine.run`."""
        assert batch.dtype == np.float32
        assert batch.shape[2] % self.size_multiple == batch.shape[3] % self.size_multiple == 0
        in_use("torch")
        with self._turn:
            try:
                return self._infer(batch)
            except (RuntimeError, MemoryError) as error:
                told_so, reason = _is_out_of_memory(error), _first_line(error)
            # Outside of the handler: the traceback would keep the feature maps alive.
            kind = torch.device(self.device).type
            if kind == "cuda":
                torch.cuda.empty_cache()
            elif kind == "xpu":
                torch.xpu.empty_cache()
            if told_so or runs_when_small(self, batch, self._infer):
                raise OutOfMemoryError(
                    f"a batch of {batch.shape[0]} x {batch.shape[2]} x {batch.shape[3]} pixels "
                    f"does not fit into the memory of {self.device}: use a smaller tile ({reason})"
                )
            raise EngineError(f"torch failed on {self.device}: {reason}")

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        kind = torch.device(self.device).type
        with (
            torch.inference_mode(),
            torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            # A read-only array is copied: torch would warn of it.
            image = torch.from_numpy(batch if batch.flags.writeable else batch.copy())
            image = image.to(self.device)
            if self._channels == 1:
                image = image.flatten(0, 1)[:, None]
            image = image.contiguous(memory_format=torch.channels_last)
            restored = self._forward(image).float()
            if self._channels == 1:
                restored = restored.unflatten(0, batch.shape[:2])[:, :, 0]
            return np.ascontiguousarray(restored.cpu().numpy())

    def rounding(self, batch: Float[np.ndarray, "b c h w"]) -> float:
        """Largest difference that the rounding of float32 makes to what becomes of a batch.

        Found beside the same network in float64. Deep networks with weights that nothing trained
        can be off by a thousandth, and then no two engines agree more closely than that.
        """
        exact = copy.deepcopy(self.network).double()
        images = torch.from_numpy(batch[:, : self._channels].astype(np.float64))
        with torch.inference_mode():
            expected = exact(images.to(self.device)).cpu().numpy()
        return float(np.abs(self.run(batch)[:, : self._channels] - expected).max())

    def in_float32(self) -> Engine:
        """Return this network in plain float32; itself if it is that."""
        if self.precision == "float32":
            return self
        if self._float32 is None:
            self._float32 = TorchEngine(self._model, precision="float32", **self._options)
        return self._float32


def _compile(network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    with warnings.catch_warnings():
        # torch's compiler imports parts that torch itself calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.compile(network)


def build_network(model: LoadedModel) -> RestorationNetwork:
    """Build the network of a model file, for inference.

    Raises:
        FileFormatError: the weights do not fit the configuration in the file.
    """
    try:
        network = create_claimed(model)
        # Copies: the engine must not share memory with the arrays of the file.
        weights = {name: torch.tensor(array) for name, array in model.tensors.items()}
        network.load_state_dict(weights, strict=True)
    except (BackboneError, RuntimeError) as error:
        raise FileFormatError(
            f"{model.path}: its weights and configuration do not form a "
            f"{model.header.backbone}: {_first_line(error)}"
        ) from error
    return network.eval().requires_grad_(False)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else type(error).__name__
