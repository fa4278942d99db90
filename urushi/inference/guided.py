"""Restoring with guidance: an engine whose network reads a degradation vector beside each tile.

A gate stands beside a normalisation, where weights cannot hold it, and the vector changes from
picture to picture: so this runs on torch alone, and one engine serves all pictures of a route.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from urushi.adapters.fold import folded_weights, is_foldable, with_weights
from urushi.errors import EngineError, MissingExtraError
from urushi.files.adapter import check_base
from urushi.files.model import LoadedModel
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.base import Engine, Precision
from urushi.inference.hardware import MadeAnew, choose_device, is_installed
from urushi.inference.restorer import Restorer

if TYPE_CHECKING:
    import torch

    from urushi.inference.engines.torch_engine import TorchEngine

__all__ = ["GuidedEngine", "fold_guided", "guided_restorer"]

_OF_GUIDANCE = "guidance."  # in front of the names of its layers, in adapters that change them
_TILES = ("tile", "overlap", "memory_limit")


class GuidedEngine(MadeAnew):
    """An engine of torch that is told a picture's vector before the picture's tiles.

    Args:
        engine: of a network with guidance attached.
    """

    def __init__(self, engine: "TorchEngine") -> None:
        self._record(engine=engine)
        self._make(engine)

    def _make(self, engine: "TorchEngine", vector: np.ndarray | None = None) -> None:
        self._engine = engine
        self.name, self.device = engine.name, engine.device
        self.precision: Precision = engine.precision
        self.size_multiple = engine.size_multiple
        self.bytes_per_pixel = engine.bytes_per_pixel
        self.scale, self.fixed_patch = engine.scale, engine.fixed_patch
        self._network = engine._forward
        engine._forward = self._forward
        self._float32: GuidedEngine | None = None
        self.guide(vector)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "_waits" not in self.__dict__ and self._vector is not None:
            vector = self._vector[0].cpu().numpy()
            state["_made_from"] = {"engine": self._engine, "vector": vector}
        return state

    def guide(self, vector: np.ndarray | None) -> None:
        """The degradation vector of the picture that comes next; None leaves guidance out."""
        import torch

        self._vector = None
        if vector is not None:
            self._vector = torch.tensor(vector[None], dtype=torch.float32, device=self.device)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Restore a batch; see `Engine.run`."""
        return self._engine.run(batch)

    def in_float32(self) -> Engine:
        """Return this network in plain float32; itself if it is that."""
        if self.precision == "float32":
            return self
        if self._float32 is None:
            plain: Any = self._engine.in_float32()
            self._float32 = GuidedEngine(plain)
        self._float32._vector = self._vector
        return self._float32

    def _forward(self, image: "torch.Tensor") -> "torch.Tensor":
        network: Any = self._network
        return network(image, vector=self._vector)


def fold_guided(
    model: LoadedModel, guidance: AppliedAdapter, adapters: Sequence[AppliedAdapter]
) -> tuple[LoadedModel, AppliedAdapter, list[AppliedAdapter]]:
    """Put adapters into the weights of a model and of its guidance.

    LoRA-IR's experts change both: every convolution has them, those of the gates as well.

    Returns:
        The model to run; the guidance to attach; those adapters that weights cannot hold, to be
        attached as well.

    Raises:
        AdapterError: an adapter belongs to another base, or is not sound.
    """
    for item in (guidance, *adapters):
        check_base(item.adapter, model)
    attached = [item for item in adapters if not is_foldable(item.adapter)]
    parts = [(item.adapter, item.strength) for item in adapters if is_foldable(item.adapter)]
    if not parts:
        return model, guidance, attached
    own = {_OF_GUIDANCE + name: array for name, array in guidance.adapter.tensors.items()}
    changed = folded_weights(parts, {**model.tensors, **own})
    inside = {n.removeprefix(_OF_GUIDANCE): changed.pop(n) for n in own if n in changed}
    tuned = replace(guidance.adapter, tensors={**guidance.adapter.tensors, **inside})
    ready = with_weights(model, changed, parts)
    return ready, replace(guidance, adapter=tuned), attached


def guided_restorer(
    model: LoadedModel,
    guidance: AppliedAdapter,
    adapters: Sequence[AppliedAdapter],
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    compile: bool = False,
    **tiles: Any,
) -> Restorer:
    """A restorer with guidance, whose engine is a `GuidedEngine`.

    Args:
        model: the base.
        guidance: of method `guidance`.
        adapters: besides; they may change the guidance's layers, too, as LoRA-IR's experts do.
        engine, device, precision, threads, compile, tiles: as `Restorer` takes them.

    Raises:
        EngineError: something else than torch is asked for.
        MissingExtraError: torch is not installed.
        AdapterError: an adapter belongs to another base.
    """
    assert set(tiles) <= set(_TILES), tiles
    if engine == "openvino" or precision == "int8":
        raise EngineError(
            f"{'openvino' if engine == 'openvino' else precision} cannot run guidance, which this "
            "all-in-one file has: use engine torch with precision float32 or bf16",
            usage=True,
        )
    if not is_installed("torch"):
        raise MissingExtraError("torch, which guidance needs,", "torch")
    from urushi.inference.engines.torch_engine import TorchEngine

    ready, tuned, attached = fold_guided(model, guidance, adapters)
    made = TorchEngine(
        ready,
        device=choose_device(device),
        precision=precision,  # pyright: ignore[reportArgumentType]
        threads=threads,
        compile=compile,
        adapters=(tuned, *attached),
    )
    return Restorer.from_engine(GuidedEngine(made), adapters=(guidance, *adapters), **tiles)
