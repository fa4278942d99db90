"""Rows of `libraries.py`: averages, schedules, a classifier and graphs, by libraries and by us."""

import io
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from measuring import best, resident

Row = dict[str, Any]


def averages() -> Row:
    """torch's AveragedModel beside our average of the trained weights."""
    import torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from urushi.adapters import attach, create_adapter
    from urushi.files.model import read_model
    from urushi.inference.engines.torch_engine import build_network
    from urushi.inference.zoo import find_model
    from urushi.training.checkpoint import WeightAverage

    base = build_network(read_model(find_model("base")))
    network = attach(base, create_adapter(base, {"method": "lora", "rank": 4}))

    def move(averaged: Any, current: Any, step: Any) -> None:
        get_ema_multi_avg_fn(min(0.98, (1 + int(step)) / (10 + int(step))))(averaged, current, step)

    ours, library = WeightAverage(network, 0.98), AveragedModel(network, multi_avg_fn=move)
    library.n_averaged.fill_(1)
    for step in range(1, 30):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.01)
        ours.update(network, step)
        library.update_parameters(network)
    theirs = dict(library.module.named_parameters())
    same = all(torch.equal(theirs[name], value) for name, value in ours.weights.items())
    stored = io.BytesIO()
    torch.save(library.module, stored)
    return {
        "equal": same,
        "ours_bytes": sum(4 * value.numel() for value in ours.weights.values()),
        "AveragedModel_bytes": len(stored.getvalue()),
        "ours_seconds": best(lambda: ours.update(network, 40)),
        "AveragedModel_seconds": best(lambda: library.update_parameters(network)),
    }


def schedules() -> Row:
    """torch's warm-up and cosine beside ours."""
    import torch
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

    from urushi.training.fitting import learning_rate
    from urushi.training.recipe import ScheduleSettings

    settings = ScheduleSettings(steps=400, warmup=20, final_learning_rate=1e-6)
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    warm = LinearLR(sgd, 1 / 20, total_iters=19)
    fall = CosineAnnealingLR(sgd, 400 - 20 - 1, eta_min=1e-6)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        both = SequentialLR(sgd, [warm, fall], [20])
        apart = []
        for step in range(400):
            ours = learning_rate(settings, 1e-3, step)
            apart.append(abs(sgd.param_groups[0]["lr"] / ours - 1))
            sgd.step()
            both.step()
    state = both.state_dict()
    return {
        "greatest_difference": float(max(apart)),
        "at_step": int(np.argmax(apart)),
        "kept_in_a_checkpoint": len(state) + sum(map(len, state["_schedulers"])),
        "warnings": sorted({str(one.message)[:60] for one in told}),
    }  # fmt: skip


def classifier() -> Row:
    """A linear layer on evidence: dropout and AdamW, and L-BFGS with a penalty."""
    return {f"seed {seed}": _classified(seed) for seed in range(3)}


def _classified(seed: int) -> Row:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from urushi.training.fitting import fit
    from urushi.training.recipe import ScheduleSettings
    from urushi.training.router.router_recipe import RouterOptimizerSettings

    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(8, 60, generator=generator) * 0.35
    truths = torch.randint(8, (6000,), generator=generator)
    rows = centres[truths] + torch.randn(6000, 60, generator=generator)
    rows = rows * (0.4 + torch.rand(6000, 1, generator=generator))
    learned, held = (rows[:2000], truths[:2000]), (rows[2000:], truths[2000:])

    def told(layer: nn.Linear, start: float) -> tuple[float, float]:
        loss = float(F.cross_entropy(layer(held[0]), held[1]).detach())
        return round(loss, 4), round(time.perf_counter() - start, 2)

    row: Row = {}
    for dropout in (0.1, 0.3, 0.5):
        noisy, start = nn.Linear(60, 8), time.perf_counter()

        def step(_: int, noisy: nn.Linear = noisy, dropout: float = dropout) -> Tensor:
            chosen = torch.randint(2000, (256,), generator=generator)
            kept = torch.rand(256, 60, generator=generator) >= dropout
            given = learned[0][chosen] * kept / (1 - dropout)
            return F.cross_entropy(noisy(given), learned[1][chosen])

        settings = RouterOptimizerSettings(learning_rate=3e-3, weight_decay=1e-3, clip=None)
        fit(noisy.parameters(), step, settings, ScheduleSettings(steps=2000))
        row[f"dropout {dropout}"] = told(noisy, start)
    for penalty in (0.0, 3e-4, 1e-3, 3e-3, 1e-2):
        layer, start = nn.Linear(60, 8), time.perf_counter()
        options: dict[str, Any] = {"max_iter": 200, "line_search_fn": "strong_wolfe"}
        lbfgs = torch.optim.LBFGS(layer.parameters(), **options)

        def whole(layer: Any = layer, lbfgs: Any = lbfgs, penalty: float = penalty) -> float:
            lbfgs.zero_grad()
            loss = F.cross_entropy(layer(learned[0]), learned[1])
            loss = loss + penalty * layer.weight.square().sum()
            loss.backward()
            return float(loss.detach())

        lbfgs.step(whole)
        row[f"L-BFGS, {penalty:g}"] = told(layer, start)
    return row


def graph_frame() -> Row:
    """Filling up an axis in onnxscript beside ours, and a graph that goes through onnx_ir."""
    import onnx
    from onnx import helper, numpy_helper
    from onnx_ir import serde

    from urushi.convert.standalone_frame import _Nodes

    ours = _Nodes("before")
    ours.filled("image", 2, ours.length("image", 2), 16, None)
    found: Row = {"nodes_ours": len(ours.nodes), "nodes_onnxscript": len(_scripted().node)}
    found["kinds_more"] = sorted(
        {node.op_type for node in _scripted().node} - {node.op_type for node in ours.nodes}
    )
    weights = numpy_helper.from_array(np.ones((25, 2**20), np.float32), "w")
    shape = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [25, 2**20])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [25, 2**20])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [shape], [result])
    graph.initializer.append(weights)
    model = helper.make_model(graph)
    del graph, weights
    before = resident("VmRSS")
    back = serde.serialize_model(serde.deserialize_model(model))
    grown = round((resident("VmRSS") - before) / 1e6)
    return {**found, "megabytes": round(back.ByteSize() / 1e6), "megabytes_more": grown}


def _scripted() -> Any:
    import onnxscript

    text = """
from onnxscript import opset18 as op, script

@script()
def filled(x, axis: int = 2):
    side = op.Gather(op.Shape(x), axis)
    count = (side + 15) / 16
    index = op.Range(op.Constant(value_int=0), count * 16, op.Constant(value_int=1))
    period = op.Max(side * 2 - 2, op.Constant(value_int=1))
    inside = op.Mod(index, period)
    return op.Gather(x, op.Min(inside, period - inside), axis=axis)
"""
    assert onnxscript
    with tempfile.TemporaryDirectory() as folder:
        # It reads the source of its functions.
        Path(folder, "scripted.py").write_text(text)
        sys.path.insert(0, folder)
        import scripted  # type: ignore[import-not-found]

        return scripted.filled.to_function_proto()
