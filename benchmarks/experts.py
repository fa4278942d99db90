"""What routed experts cost, in training and at inference, as ratios within one run.

    python benchmarks/experts.py [--width 24] [--batch 8] [--experts 3] [--top 1] [--device cpu]

The network is a NAFNet of that width with the paper's depths halved, guided, with experts of rank 8
on every layer, on patches of 64 pixels. The rows, measured in turns, in one process:

* `one adapter`: the same factors once, for all pictures: what a step costs without any choice.
* `grouped`: this library: one pass for the pictures of each route.
* `dense`: the mixture of LoRA-IR's released code: every convolution and every linear layer is run
  for the base and for each expert, whatever their weights are. It is written down here for this
  comparison alone, and its result is checked against that of `grouped`.

A step is forward, back, and AdamW. Time is the median over all rounds. Memory is the peak of what
a step allocates beyond what lay there before it, from every single allocation of torch; `extra` is
what goes beyond `one adapter`.

Inference is a tile of 512 pixels: the plain backbone, the backbone with the experts of a route put
into its weights once, and the same with guidance.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.adapters import Adapted, Host, attach, create_adapter
from urushi.adapters.base import key_of
from urushi.adapters.experts import Experts, top_weights
from urushi.adapters.layers import weight_layers
from urushi.adapters.low_rank import LowRank
from urushi.backbones import RestorationNetwork, create_backbone

RESULTS = Path(__file__).parent / "results"
VECTOR = 384


def main() -> None:
    parser = argparse.ArgumentParser(description="What routed experts cost.")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--top", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    report = {
        "what": "routed experts: a step of training, and a tile at inference",
        **{name: getattr(options, name) for name in ("width", "batch", "experts", "patch", "tile")},
        "rank": 8,
        "rounds": options.rounds,
        "machine": {"device": device_name(options.device), "threads": torch.get_num_threads()},
        "torch": torch.__version__,
        "training": [row for top in options.top for row in training(options, top)],
        "inference": inference(options),
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(report, indent=1)
    (RESULTS / "experts.json").write_text(text + "\n", encoding="utf-8")
    for row in [*report["training"], *report["inference"]]:
        print(row)


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()


def build(options: argparse.Namespace) -> tuple[RestorationNetwork, Any, Experts]:
    """Backbone, guidance and experts, as if all of them were trained."""
    config = {
        "width": options.width,
        "enc_blk_nums": [1, 1, 1, 14],
        "middle_blk_num": 1,
        "dec_blk_nums": [1, 1, 1, 1],
    }
    backbone = create_backbone("nafnet", config)
    guidance = create_adapter(backbone, {"method": "guidance"})
    experts = create_adapter(
        Host(backbone, guidance), {"method": "experts", "count": options.experts}
    )
    assert isinstance(experts, Experts)
    with torch.no_grad():
        for module in (backbone, guidance, experts):
            for parameter in module.parameters():
                parameter += 0.02 * torch.randn(parameter.shape)
    return backbone, guidance, experts


class Dense:
    """Runs every layer for the base and for each expert, for all pictures, as the released code.

    Args:
        adapted: backbone, guidance and experts; it is left as it was when the `with` ends.
        weights: of the experts, `(B, n)`.
    """

    def __init__(self, adapted: Adapted, weights: Tensor) -> None:
        self._adapted, self._weights = adapted, weights

    def __enter__(self) -> None:
        guidance, experts = self._adapted.adapters
        assert isinstance(experts, Experts)
        assert experts.shared is not None
        host = Host(self._adapted.backbone, guidance)  # pyright: ignore[reportArgumentType]
        self._layers = {n: host.get_submodule(n) for n in (x.name for x in weight_layers(host))}
        shared = dict(experts.shared.deltas({}))
        for name, layer in self._layers.items():
            factors = [_factors(e, f"{name}.weight") for e in experts.members]
            layer.forward = _dense(layer, factors, shared.get(f"{name}.bias"), self._weights)
        # What is no layer has biases, too.
        self._norms: list[tuple[nn.Module, str, Tensor]] = []
        for name, delta in shared.items():
            module, _, own = name.rpartition(".")
            if module not in self._layers:
                norm = host.get_submodule(module)
                parameter = norm._parameters.pop(own)
                assert parameter is not None
                self._norms.append((norm, own, parameter))
                setattr(norm, own, parameter + delta)

    def __exit__(self, *_: object) -> None:
        for layer in self._layers.values():
            del layer.forward
        for module, name, parameter in self._norms:
            delattr(module, name)
            module.register_parameter(name, nn.Parameter(parameter, requires_grad=False))


def _factors(expert: nn.Module, weight: str) -> tuple[Tensor, Tensor]:
    assert isinstance(expert, LowRank)
    return expert.down[key_of(weight)], expert.up[key_of(weight)]


def _dense(
    layer: nn.Module,
    factors: list[tuple[Tensor, Tensor]],
    shift: Tensor | None,
    weights: Tensor,
) -> Callable[[Tensor], Tensor]:
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    run = layer._conv_forward if isinstance(layer, nn.Conv2d) else F.linear
    bias = layer.bias

    def forward(x: Tensor) -> Tensor:
        whole = bias if bias is None or shift is None else bias + shift
        result = run(x, layer.weight, whole)
        for (down, up), weight in zip(factors, weights.T, strict=True):
            delta = 2.0 * (up @ down).view(layer.weight.shape)
            own = weight.view(-1, *[1] * (result.ndim - 1))
            result = result + own * run(x, delta, None)
        return result

    return forward


def training(options: argparse.Namespace, top: int) -> list[dict[str, Any]]:
    """The rows of one number of experts for each picture."""
    backbone, guidance, experts = build(options)
    adapted = attach(backbone, guidance, experts).to(options.device)
    x = torch.rand(options.batch, 3, options.patch, options.patch, device=options.device)
    vector = torch.randn(options.batch, VECTOR, device=options.device)
    # Every expert is chosen equally often, as in a balanced batch.
    places = torch.arange(options.batch) % options.experts
    logits = torch.rand(options.batch, options.experts) + 5 * F.one_hot(places, options.experts)
    weights = top_weights(logits, top).to(options.device)
    alone = torch.zeros_like(weights)
    alone[:, 0] = 1
    optimizer = torch.optim.AdamW(experts.parameters(), 0.0, weight_decay=0.0)

    def grouped() -> Tensor:
        return adapted(x, vector=vector, weights=weights)

    def dense() -> Tensor:
        with Dense(adapted, weights):
            return adapted(x, vector=vector)

    with torch.no_grad():
        difference = float((grouped() - dense()).abs().max() / grouped().std())
    assert difference < 1e-3, f"the two mixtures differ by {difference}"
    ways = {
        "one adapter": lambda: adapted(x, vector=vector, weights=alone),
        "grouped": grouped,
        "dense": dense,
    }
    found: dict[str, dict[str, Any]] = {
        name: {"seconds": [], "peak MB": memory(way, adapted, options.device)}
        for name, way in ways.items()
    }
    for turn in range(options.rounds + 1):
        for name, way in ways.items():
            seconds = step(way, optimizer, options.device)
            if turn:  # the first warms up
                found[name]["seconds"].append(seconds)
    adapted.detach()
    return [{"top": top, "way": name, **row, "difference": difference} for name, row in rows(found)]


def rows(found: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Medians, and ratios to those of the dense mixture."""
    base = found["one adapter"]["peak MB"]
    done = []
    for name, row in found.items():
        seconds = statistics.median(row["seconds"])
        dense = found["dense"]
        ratio = statistics.median(dense["seconds"]) / seconds
        whole = {**row, "seconds": round(seconds, 4), "times faster than dense": round(ratio, 2)}
        extra, most = row["peak MB"] - base, dense["peak MB"] - base
        whole |= {"extra MB": round(extra, 1), "extra to that of dense": round(extra / most, 3)}
        done.append((name, whole))
    return done


def step(way: Callable[[], Tensor], optimizer: torch.optim.Optimizer, device: str) -> float:
    """Seconds of one step of training."""
    _wait(device)
    begun = time.perf_counter()
    optimizer.zero_grad()
    way().square().mean().backward()
    optimizer.step()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def memory(way: Callable[[], Tensor], adapted: Adapted, device: str) -> float:
    """Megabytes at the peak of a step, beyond what lay there before."""
    adapted.zero_grad()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way().square().mean().backward()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            way().square().mean().backward()
        peak = peak_of(profile)
    adapted.zero_grad()
    return round(peak / 1e6, 1)


def peak_of(profile: torch.profiler.profile) -> int:
    """Bytes at the peak; every allocation and release is an event of its own."""
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak = max(peak, total)
    return peak


def inference(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A tile through the plain backbone, a route's weights, and these with guidance."""
    backbone, guidance, experts = build(options)
    tile = torch.rand(1, 3, options.tile, options.tile, device=options.device)
    # As the library's engine of torch does it.
    tile = tile.contiguous(memory_format=torch.channels_last)
    backbone.to(options.device).eval().requires_grad_(False)
    route = [1.0] + [0.0] * (options.experts - 1)
    plain_experts = create_adapter(backbone, {"method": "experts", "count": options.experts})
    ways: dict[str, Callable[[], Tensor]] = {"plain": lambda: backbone(tile)}
    times: dict[str, list[float]] = {}
    folding: dict[str, float] = {}
    vector = torch.randn(1, VECTOR, device=options.device)
    for name, adapters in (
        ("experts", [plain_experts]),
        ("experts and guidance", [guidance, experts]),
    ):
        adapted = attach(backbone, *adapters).eval().to(options.device)
        begun = time.perf_counter()
        fixed = adapted.fixed(weights=route, vector=vector if len(adapters) > 1 else None)
        _wait(options.device)
        folding[name] = time.perf_counter() - begun
        ways[name] = lambda fixed=fixed: fixed(tile)
        with torch.inference_mode():
            for turn in range(4 * options.rounds + 1):
                for way in (("plain", name), (name, "plain"))[turn % 2]:
                    _wait(options.device)
                    begun = time.perf_counter()
                    ways[way]()
                    _wait(options.device)
                    if turn:
                        key = way if way == name else f"plain beside {name}"
                        times.setdefault(key, []).append(time.perf_counter() - begun)
        adapted.detach()
    return [
        {
            "way": name,
            "seconds": round(statistics.median(times[name]), 4),
            "to the plain backbone": round(
                statistics.median(times[name]) / statistics.median(times[f"plain beside {name}"]), 3
            ),
            "seconds to fold, once": round(folding[name], 4),
        }
        for name in ("experts", "experts and guidance")
    ]


if __name__ == "__main__":
    main()
