"""Size, arithmetic and speed of candidate networks, before any of them is trained.

    python benchmarks/architectures.py [--threads 1] [--rounds 5]

Random weights; what is measured does not depend on them. `gmacs` are multiplications of 256x256
pixels, counted by torch in convolutions and matrix products. Seconds are of one tile of 384x384
pixels on the OpenVINO engine, and of one training step of 8 patches of 128x128 in torch (bf16
where the processor has it, not compiled), each the best of its rounds; `ratio` is to the first.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import write_report

TILE, PATCH, BATCH = 384, 128, 8
# Width, blocks of the encoder, the middle and the decoder.
CANDIDATES = (
    (16, (1, 2, 4), 8, (2, 1, 1)),
    (16, (0, 2, 4), 8, (2, 2, 0)),
    (24, (1, 2, 4), 8, (2, 1, 1)),
    (24, (0, 2, 4), 8, (2, 2, 0)),
    (24, (0, 2, 4), 16, (2, 2, 0)),
    (24, (0, 0, 4, 8), 4, (2, 2, 2, 0)),
    (32, (0, 2, 4), 6, (2, 2, 0)),
    (32, (0, 1, 2), 4, (1, 1, 0)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Size, arithmetic and speed of networks.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    import torch

    from urushi.inference.allocator import keep_freed_memory

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    rows = [measure(*c, arguments.threads, arguments.rounds) for c in CANDIDATES]
    for row in rows:
        for key in ("openvino_seconds", "openvino_bf16_seconds", "step_seconds"):
            row[key.replace("seconds", "ratio")] = round(row[key] / rows[0][key], 2)
    facts = {"what": "NAFNets", "threads": arguments.threads, "rounds": arguments.rounds}
    write_report("architectures", facts, ("torch", "openvino"), rows)
    print(json.dumps(rows, indent=1))


def measure(
    width: int, encoder: tuple, middle: int, decoder: tuple, threads: int, rounds: int
) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from urushi.backbones import create_backbone

    config = {
        "width": width,
        "enc_blk_nums": list(encoder),
        "middle_blk_num": middle,
        "dec_blk_nums": list(decoder),
    }
    torch.manual_seed(0)
    network = create_backbone("nafnet", config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, 3, 256, 256))
    names = ("-".join(map(str, encoder)), str(middle), "-".join(map(str, decoder)))
    row = {
        "name": f"w{width} {'|'.join(names)}",
        "config": config,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gmacs": round(counter.get_total_flops() / 2e9, 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = exported(network, config, Path(folder))
        row["openvino_seconds"] = tile_seconds(path, "float32", threads, rounds)
        row["openvino_bf16_seconds"] = tile_seconds(path, "bf16", threads, rounds)
    row["step_seconds"] = step_seconds(network, rounds)
    return row


def exported(network: Any, config: dict, folder: Path) -> Path:
    from urushi.files.model import ModelHeader, write_model
    from urushi.inference.export import export_graph

    path = folder / "network.safetensors"
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    write_model(path, state, ModelHeader(backbone="nafnet", config=config), "float32")
    export_graph(path)
    return path


def tile_seconds(path: Path, precision: str, threads: int, rounds: int) -> float:
    import numpy as np

    from urushi.files.model import read_model
    from urushi.inference.engines import create_engine

    engine = create_engine(
        read_model(path), engine="openvino", precision=precision, threads=threads, device="cpu"
    )
    tile = np.random.default_rng(0).random((1, 3, TILE, TILE), np.float32)
    return best(lambda: engine.run(tile), rounds)


def step_seconds(network: Any, rounds: int) -> float:
    import torch

    network = network.to(memory_format=torch.channels_last)
    clean = torch.rand(BATCH, 3, PATCH, PATCH).contiguous(memory_format=torch.channels_last)
    bf16 = torch.cpu._is_amx_tile_supported()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            restored = network(clean)
        (restored.float() - clean).square().mean().backward()
        network.zero_grad()

    return best(step, rounds)


def best(run: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of some rounds; the first one warms up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return round(min(seconds[1:]), 4)


if __name__ == "__main__":
    main()
