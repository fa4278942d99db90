"""Time and memory of every network on every engine, as ratios within one round.

    python benchmarks/networks.py [--threads 2] [--rounds 1] [--networks base restormer]

The networks have the configurations of their papers and random weights; what is measured does not
depend on weights. A row is one picture of 256x256 or 512x512 pixels, filled up where the network
asks for multiples of more, in a process of its own:

* `torch`: the engine torch as it comes, float32, not compiled.
* `openvino`: the engine OpenVINO, float32, from the graph beside the model.
* `onnxruntime`: the ONNX file that `urushi export MODEL -o OUT.onnx` writes, float32.

`milliseconds` is the median of a few passes behind one that warms up. `speed_to_torch` compares
with torch in the same round and at the same size; the row of the round with the median ratio
counts. Memory is the peak resident size of the process beyond what it was when the engine was ready
and had run its smallest picture: interpreter, libraries and weights are not in it.

IPT, whose 115 million parameters go over every square of 48 pixels, takes longer than all others
together, and is measured only where it is named: `--networks ipt-denoise --name networks-ipt`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from measuring import in_own_process, middle, resident, write_report

# Backbone, configuration, and where that is published; "base" is the one that ships.
NETWORKS: dict[str, tuple[str, dict, str]] = {
    "base": ("nafnet", {}, "the model that ships"),
    "nafnet-32": (
        "nafnet",
        {
            "width": 32, "enc_blk_nums": [2, 2, 4, 8], "middle_blk_num": 12,
            "dec_blk_nums": [2, 2, 2, 2],
        },
        "NAFNet of width 32 for SIDD",
    ),
    "nafnet-64": (
        "nafnet",
        {
            "width": 64, "enc_blk_nums": [1, 1, 1, 28], "middle_blk_num": 1,
            "dec_blk_nums": [1, 1, 1, 1],
        },
        "NAFNet of width 64 as LoRA-IR has it, without guidance",
    ),
    "restormer": ("restormer", {"LayerNorm_type": "BiasFree"}, "Restormer for denoising"),
    "swinir-light-x2": (
        "swinir",
        {
            "depths": [6] * 4, "embed_dim": 60, "num_heads": [6] * 4, "upscale": 2,
            "upsampler": "pixelshuffledirect",
        },
        "SwinIR, lightweight, x2",
    ),
    "edt-b-denoise": (
        "edt",
        {"num_feat": 32, "embed_dim": 180, "depths": [6] * 6, "heads": ["dn_g15"]},
        "EDT-B, sigma 15",
    ),
    "ipt-denoise": ("ipt", {"heads": ["denoise30"]}, "IPT, sigma 30"),
    # For trying this script.
    "tiny": (
        "swinir",
        {"depths": [2], "embed_dim": 8, "num_heads": [2], "window_size": 4},
        "nothing published",
    ),
}  # fmt: skip
USUAL = ("base", "nafnet-32", "restormer", "swinir-light-x2", "edt-b-denoise")
SIZES = (256, 512)
ENGINES = ("torch", "openvino", "onnxruntime")
# Passes behind the one that warms up: as many as fit into the seconds, between these.
SECONDS, FEWEST, MOST = 1.5, 1, 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of every network.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=USUAL, metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="PIXELS")
    parser.add_argument("--name", default="networks", help="of the file of results")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        plan = json.loads(arguments.row)
        print(json.dumps(exported(plan) if plan["kind"] == "export" else measured(plan)))
        return
    facts = {
        "what": "one picture through a network, float32",
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "networks": {name: NETWORKS[name][2] for name in arguments.networks},
    }
    rows: list[dict] = []
    for name in arguments.networks:
        rows += rows_of(name, arguments.sizes, arguments.threads, arguments.rounds)
        # After every network: one that takes too long must not cost what was measured.
        write_report(arguments.name, facts, ("torch", "openvino", "onnxruntime"), rows)
    print(table(rows))


def rows_of(name: str, sizes: Sequence[int], threads: int, rounds: int) -> list[dict]:
    """The rows of one network: every size on every engine."""
    with tempfile.TemporaryDirectory() as folder:
        common = {"network": name, "folder": folder, "threads": threads}
        made = in_own_process(__file__, {**common, "kind": "export"})
        print(f"{name}: exported in {made['export_seconds']:.0f} s", file=sys.stderr)
        rows = []
        for size in sizes:
            plans = [{**common, "kind": "row", "engine": e, "size": size} for e in ENGINES]
            found = [[in_own_process(__file__, plan) for plan in plans] for _ in range(rounds)]
            for index, plan in enumerate(plans):
                ratios = [r[0]["milliseconds"] / r[index]["milliseconds"] for r in found]
                at = middle(ratios)
                row = {
                    "network": name,
                    **made,
                    "size": size,
                    "engine": plan["engine"],
                    **found[at][index],
                    "speed_to_torch": round(ratios[at], 2),
                    "speeds": [round(ratio, 2) for ratio in ratios],
                }
                print(f"{name} {size} {plan['engine']}: {row['milliseconds']} ms", file=sys.stderr)
                rows.append(row)
    return rows


def exported(plan: dict) -> dict:
    """Writes the model, its graph and its ONNX file."""
    import torch

    from urushi.backbones import create_backbone
    from urushi.convert.graphs import export_graph
    from urushi.convert.standalone import export_standalone
    from urushi.files.model import ModelHeader, read_model, write_model
    from urushi.inference.zoo import find_model

    torch.set_num_threads(plan["threads"])
    torch.manual_seed(0)
    backbone, config, _ = NETWORKS[plan["network"]]
    if plan["network"] == "base":
        config = read_model(find_model("base")).header.config
    network = create_backbone(backbone, config)
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    path = Path(plan["folder"]) / "network.safetensors"
    write_model(path, state, ModelHeader(backbone=backbone, config=config))
    start = time.perf_counter()
    export_graph(path)
    export_standalone(read_model(path), path.with_name("standalone.onnx"))
    return {
        "backbone": backbone,
        "parameters": sum(p.numel() for p in network.parameters()),
        "scale": network.scale,
        "size_multiple": network.size_multiple,
        "export_seconds": round(time.perf_counter() - start, 1),
    }


def measured(plan: dict) -> dict:
    """One picture on one engine."""
    import numpy as np

    run = runner(plan)
    rng = np.random.default_rng(0)
    run(rng.random((48, 48, 3), dtype=np.float32))
    before = resident("VmRSS")
    picture = rng.random((plan["size"], plan["size"], 3), dtype=np.float32)
    seconds, begin = [], 0.0
    while len(seconds) < 1 + FEWEST or (
        time.perf_counter() - begin < SECONDS and len(seconds) < 1 + MOST
    ):
        start = time.perf_counter()
        run(picture)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            begin = time.perf_counter()
    timed = seconds[1:]
    return {
        "milliseconds": round(1000 * timed[middle(timed)], 2),
        "passes": len(timed),
        "runtime_megabytes": round(before / 1e6),
        "peak_megabytes_beyond": round((resident("VmHWM") - before) / 1e6),
    }


def runner(plan: dict) -> Callable:
    """What runs a picture `(H, W, 3)`, the filling up included."""
    folder = Path(plan["folder"])
    if plan["engine"] == "onnxruntime":
        from urushi.convert.graph_checks import import_onnxruntime

        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = plan["threads"]
        session = onnxruntime.InferenceSession(
            str(folder / "standalone.onnx"), options, providers=["CPUExecutionProvider"]
        )
        return lambda x: session.run(None, {"image": x.transpose(2, 0, 1)[None].copy()})
    from urushi.files.model import read_model
    from urushi.inference.engines import create_engine
    from urushi.inference.tiling import pad_tile

    engine = create_engine(
        read_model(folder / "network.safetensors"),
        engine=plan["engine"],
        device="cpu",
        threads=plan["threads"],
    )
    unit = engine.size_multiple

    def run(x):  # noqa: ANN001, ANN202
        height, width = (-(-side // unit) * unit for side in x.shape[:2])
        return engine.run(pad_tile(x, height, width)[None])

    return run


def table(rows: list[dict]) -> str:
    lines = [f"{'network':<18}{'size':>6}  {'engine':<14}{'ms':>10}{'x torch':>9}{'peak MB':>9}"]
    for row in rows:
        lines.append(
            f"{row['network']:<18}{row['size']:>6}  {row['engine']:<14}{row['milliseconds']:>10.1f}"
            f"{row['speed_to_torch']:>9.2f}{row['peak_megabytes_beyond']:>9}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
