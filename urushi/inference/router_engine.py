"""Opens a router file on an engine.

The head is a few hundred numbers and runs on arrays; the encoder runs on torch, or, where it is a
one of ours whose graph stands beside the file, on OpenVINO without torch.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from urushi.errors import EngineError, MissingExtraError
from urushi.files.model import LoadedModel, ModelHeader
from urushi.files.router_file import (
    LoadedRouter,
    read_router,
)
from urushi.files.tensors import Tensors, identity_of
from urushi.inference.engines import ENGINES, check_some_engine
from urushi.inference.hardware import choose_device, in_use, is_installed
from urushi.routing.probe import Evidence
from urushi.routing.running import EmbeddingEngine, PictureRouter

if TYPE_CHECKING:
    pass

__all__ = ["OpenVINOEncoder", "TorchEncoder", "as_model", "compare_with_torch", "open_router"]

# Largest difference between graph and torch, relative to the largest number of the embeddings.
_TOLERANCE = 1e-4
# So many views at once: an activation of a thousand views would take gigabytes.
_AT_ONCE = 16


def open_router(
    router: Path | LoadedRouter,
    *,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    clip: str | None = None,
    download: bool = False,
    evidence: Evidence | None = None,
) -> PictureRouter:
    """Makes a router file ready to read pictures.

    Args:
        router: a router file, or one that was read.
        engine: `openvino`, `torch`, or `auto`: OpenVINO on a CPU where it is installed and the
            encoder has its graph, else torch.
        device: as `urushi.inference.engines.create_engine` takes it.
        threads: of the CPU, for OpenVINO; None leaves it to the engine.
        clip, download: see `urushi.routing.encoders.create_encoder`; for routers with CLIP.
        evidence: of all-in-one files that try their experts, see `urushi.inference.probing`; None
            leaves the decision to the head.

    Raises:
        FileFormatError: the file, or its graph, is not sound.
        EngineError: an option is unknown, unavailable, or can have no effect.
        MissingExtraError: the engine, or transformers, is not installed.
        AdapterError: the CLIP is not there, or another.
    """
    stored = router if isinstance(router, LoadedRouter) else read_router(router)
    if engine not in ("auto", *ENGINES):
        raise EngineError(
            f"engine {engine!r} is unknown: expected auto, {', '.join(ENGINES)}", usage=True
        )
    own = stored.header.encoder.own
    if engine == "openvino" and not own:
        raise EngineError(
            f"OpenVINO cannot run the CLIP of {stored.name}: use engine torch", usage=True
        )
    if engine == "auto":
        check_some_engine()
        able = own and stored.graph is not None and is_installed("openvino")
        engine = "openvino" if able and device in ("auto", "cpu") else "torch"
    if not is_installed(ENGINES[engine].package):
        raise MissingExtraError(f"the engine {engine!r}", ENGINES[engine].extra)
    made: EmbeddingEngine
    if engine == "openvino":
        if device not in ("auto", "cpu"):
            raise EngineError(
                f"OpenVINO runs on the CPU only, not on {device!r}: use torch", usage=True
            )
        made = OpenVINOEncoder(stored, threads=threads)
    else:
        chosen = choose_device(device)
        made = TorchEncoder(stored, device=chosen, clip=clip, download=download)
    return PictureRouter(stored, made, evidence)


class OpenVINOEncoder:
    """Executes the graph of an encoder of ours on the CPU; see `EmbeddingEngine`.

    Args:
        stored: a checked router file with a graph.
        threads: CPU threads, or None for OpenVINO's choice.

    Raises:
        EngineError: there is no graph.
        FileFormatError: the graph is damaged or of another encoder.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, stored: LoadedRouter, *, threads: int | None = None) -> None:
        from urushi.inference.engines.compiling import Network
        from urushi.inference.engines.openvino_engine import cpu_options, openvino_core

        in_use("openvino")
        network = Network(openvino_core(), as_model(stored), lambda _: compare_with_torch(stored))
        # In float32: probabilities should not depend on the CPU.
        options = cpu_options("f32", threads) | {"PERFORMANCE_HINT": "LATENCY"}
        self._request = network.compiled(None, options).create_infer_request()
        self._turn = threading.Lock()

    def embed(self, views: Float[np.ndarray, "n 3 s s"]) -> Float[np.ndarray, "n d"]:
        """Embeddings of single views; see `EmbeddingEngine.embed`."""
        in_use("openvino")
        try:
            with self._turn:
                return np.concatenate([self._run(part) for part in _parts(views)])
        except RuntimeError as error:
            message = " ".join(str(error).split())[:300]
            raise EngineError(f"OpenVINO failed to run the router: {message}") from error

    def _run(self, views: np.ndarray) -> np.ndarray:
        from urushi.inference.engines.openvino_engine import IMAGE_INPUT

        self._request.infer({IMAGE_INPUT: np.ascontiguousarray(views)})
        return self._request.get_output_tensor(0).data.copy()


class TorchEncoder:
    """Executes any encoder with torch; see `EmbeddingEngine`.

    Args:
        stored: a checked router file.
        device: by torch's name.
        clip, download: see `urushi.routing.encoders.create_encoder`.

    Raises:
        AdapterError, MissingExtraError: see `urushi.routing.router.load_router`.
    """

    name = "torch"

    def __init__(
        self,
        stored: LoadedRouter,
        *,
        device: str = "cpu",
        clip: str | None = None,
        download: bool = False,
    ) -> None:
        from urushi.routing.router import load_router

        in_use("torch")
        self.device = device
        self.encoder = load_router(stored, clip=clip, download=download).encoder.to(device)

    def embed(self, views: Float[np.ndarray, "n 3 s s"]) -> Float[np.ndarray, "n d"]:
        """Embeddings of single views; see `EmbeddingEngine.embed`."""
        import torch

        in_use("torch")
        try:
            with torch.inference_mode():
                parts = [torch.tensor(part, device=self.device) for part in _parts(views)]
                return torch.cat([self.encoder.embed(part) for part in parts]).cpu().numpy()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise EngineError(
                f"torch failed to run the router on {self.device}: {reason}"
            ) from error


def compare_with_torch(stored: LoadedRouter) -> None:
    """Raise `EngineError` where the graph beside a router gives other embeddings than torch."""
    size = stored.header.views.size
    views = np.random.default_rng(0).random((3, 3, size, size), dtype=np.float32)
    expected = TorchEncoder(stored).embed(views)
    found = OpenVINOEncoder(stored).embed(views)
    off = np.inf if found.shape != expected.shape else np.abs(found - expected).max()
    if not off <= _TOLERANCE * max(1.0, np.abs(expected).max()):
        raise EngineError(f"{stored.path}: its graph differs from torch: use engine torch")


def as_model(stored: LoadedRouter) -> LoadedModel:
    """The encoder as what the engine of networks reads: tensors, configuration, graph."""
    config: dict[str, Any] = stored.header.encoder.model_dump(mode="json")
    named = stored.header.graph_hash
    header = ModelHeader(backbone="router-encoder", config=config, graph_hash=named)
    encoder, named = stored.part("encoder"), identity_of(stored.tensors)
    known = encoder if named is None else Tensors.made(named, encoder)
    return LoadedModel(header, known, stored.path, stored.graph)


def _parts(views: np.ndarray) -> list[np.ndarray]:
    return [views[start : start + _AT_ONCE] for start in range(0, len(views), _AT_ONCE)]
