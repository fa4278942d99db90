"""Tries experts on a few views of a picture, which is what a router may decide by.

On OpenVINO the base's graph is compiled once, for one view, with weights that are handed in: nine
networks then take the time and memory of compiling one. On torch every network is an engine.
"""

import threading
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from urushi.adapters.fold import fold, folded_weights, is_foldable
from urushi.errors import EngineError, MissingExtraError
from urushi.files.adapter import check_base
from urushi.files.all_in_one_file import AllInOne, Expert
from urushi.files.model import LoadedModel
from urushi.files.router_file import EvidenceFacts
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.base import Engine
from urushi.inference.hardware import choose_device, in_use, is_installed
from urushi.inference.router_engine import open_router
from urushi.routing.probe import Evidence
from urushi.routing.running import PictureRouter

__all__ = ["GraphTrials", "TorchTrials", "open_all_in_one_router", "open_evidence"]


def open_all_in_one_router(
    members: AllInOne,
    model: LoadedModel,
    *,
    quick: bool = False,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    clip: str | None = None,
) -> PictureRouter:
    """Makes the router of an all-in-one file ready, with the experts that it tries, if any.

    Args:
        members: the file.
        model: its base.
        quick: try none.
        engine: what restores: the router and its trials run on torch where that does; else on
            OpenVINO where they can.
        device, threads, clip: as `urushi.inference.router_engine.open_router` takes them.
        precision: that experts are tried in; see `open_evidence`.

    Raises:
        UrushiError: see `open_router` and `open_evidence`.
    """
    facts, evidence = members.router.header.evidence, None
    engine = "torch" if engine == "torch" else "auto"
    if facts is not None and not quick:
        tried = {name: members.experts[name] for name in (*facts.experts, *facts.own)}
        evidence = open_evidence(
            facts,
            model,
            tried,
            members.router.part("evidence"),
            engine=engine,
            device=device,
            threads=threads,
            precision=precision,
        )
        places = map(members.router.header.classes.index, facts.own)
        evidence = evidence._replace(own=tuple(places))
    return open_router(
        members.router, engine=engine, device=device, threads=threads, clip=clip, evidence=evidence
    )


def open_evidence(
    facts: EvidenceFacts,
    model: LoadedModel,
    experts: Mapping[str, Expert],
    tensors: Mapping[str, np.ndarray],
    *,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: Literal["float32", "bf16"] = "float32",
) -> Evidence:
    """Makes experts ready to be tried.

    Args:
        facts: what is tried.
        model: the base.
        experts: by class, in the order of the facts.
        tensors: what judges by what they change; empty where only the evidence is wanted.
        engine: `torch`, or `auto`: OpenVINO where it can, else torch.
        device: as `urushi.inference.engines.create_engine` takes it.
        threads: of the CPU; None leaves it to the engine.
        precision: bf16 where that can be had, which is faster; a decision should be float32's.

    Raises:
        EngineError: views do not fit the network, which may also enlarge; or an engine cannot be
            had.
        MissingExtraError: torch is needed and not installed.
        AdapterError: an expert is not sound.
    """
    assert tuple(experts) == (*facts.experts, *facts.own), (tuple(experts), facts)
    able = model.graph is not None and is_installed("openvino") and device in ("auto", "cpu")
    foldable = all(is_foldable(expert.adapter) for expert in experts.values())
    trials: GraphTrials | TorchTrials
    if able and foldable and engine != "torch":
        trials = GraphTrials(model, experts, facts.size, threads, precision)
    elif is_installed("torch"):
        trials = TorchTrials(model, experts, device=device, threads=threads, precision=precision)
    else:
        raise MissingExtraError("torch, which probing these experts needs,", "torch")
    if facts.size % trials.size_multiple:
        raise EngineError(
            f"experts are probed on views of {facts.size} pixels, but this network takes multiples "
            f"of {trials.size_multiple}: fit the probe with views of such a size"
        )
    if trials.scale != 1:
        raise EngineError(
            f"{model.path} enlarges {trials.scale} times: probing experts needs a network that "
            "keeps the size: leave evidence out of the recipe"
        )
    return Evidence(facts, trials, tensors)


class GraphTrials:
    """A base and its experts on OpenVINO; see `EvidenceEngine`.

    Args:
        model: with a graph.
        experts: by class; weights can hold all of them.
        size: side of a view.
        threads: CPU threads, or None for OpenVINO's choice.
        precision: bf16 where the CPU has that, or float32.

    Raises:
        FileFormatError: the graph is damaged or of another network.
        AdapterError: an expert is not sound.
        EngineError: OpenVINO cannot run the graph.
    """

    def __init__(
        self,
        model: LoadedModel,
        experts: Mapping[str, Expert],
        size: int,
        threads: int | None = None,
        precision: Literal["float32", "bf16"] = "float32",
    ) -> None:
        import openvino

        from urushi.inference.engines.openvino_engine import compile_open, openvino_core

        request, self.size_multiple, self.scale = compile_open(
            openvino_core(), model, (1, 3, size, size), threads, precision
        )
        self._turn = threading.Lock()
        base = {name: _contiguous(tensor) for name, tensor in model.tensors.items()}
        networks = [base]
        for expert in experts.values():
            check_base(expert.adapter, model)
            changed = folded_weights([(expert.adapter, expert.strength)], model.tensors)
            # What an expert does not change is not kept twice.
            networks.append({**base, **{n: _contiguous(t) for n, t in changed.items()}})
        # A request for each, which keeps its weights: to hand them in for every view takes a third
        # of the time. They share what was compiled, and the weights that they have in common.
        compiled = request.get_compiled_model()
        self._requests = []
        for weights in networks:
            own = compiled.create_infer_request()
            for name, tensor in weights.items():
                own.set_tensor(name, openvino.Tensor(tensor, shared_memory=True))
            self._requests.append(own)
        self._weights = networks  # read by the requests, which do not keep them alive

    def restore(self, view: Float[np.ndarray, "1 3 s s"]) -> Float[np.ndarray, "e 3 s s"]:
        """What the base and each expert make of a view; see `EvidenceEngine.restore`."""
        from urushi.inference.engines.openvino_engine import IMAGE_INPUT

        in_use("openvino")
        image, found = np.ascontiguousarray(view), []
        try:
            with self._turn:
                for request in self._requests:
                    request.infer({IMAGE_INPUT: image}, share_inputs=True)
                    found.append(request.get_output_tensor(0).data[0].copy())
        except RuntimeError as error:
            message = " ".join(str(error).split())[:300]
            raise EngineError(f"OpenVINO failed to probe the experts: {message}") from error
        return np.stack(found)


class TorchTrials:
    """A base and its experts on torch, of any method; see `EvidenceEngine`.

    Args:
        model: the base.
        experts: by class.
        device: `auto` or as torch names it.
        threads: CPU threads, or None.
        precision: of what engines calculate in.

    Raises:
        EngineError: there is no such device.
        AdapterError: an expert is not sound.
    """

    def __init__(
        self,
        model: LoadedModel,
        experts: Mapping[str, Expert],
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: Literal["float32", "bf16"] = "float32",
    ) -> None:
        from urushi.inference.engines.torch_engine import TorchEngine

        options: dict[str, Any] = {
            "device": choose_device(device), "threads": threads, "precision": precision,
        }  # fmt: skip
        self._engines: list[Engine] = [TorchEngine(model, **options)]
        for expert in experts.values():
            own = (expert.adapter, expert.strength)
            if is_foldable(expert.adapter):
                engine = TorchEngine(fold(model, [own]), **options)
            else:
                engine = TorchEngine(model, adapters=(AppliedAdapter(*own),), **options)
            self._engines.append(engine)
        self.size_multiple = self._engines[0].size_multiple
        self.scale = self._engines[0].scale

    def restore(self, view: Float[np.ndarray, "1 3 s s"]) -> Float[np.ndarray, "e 3 s s"]:
        """What the base and each expert make of a view; see `EvidenceEngine.restore`."""
        image = np.ascontiguousarray(view)
        return np.concatenate([engine.run(image) for engine in self._engines])


def _contiguous(tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor, np.float32)
