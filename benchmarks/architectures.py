"""Size, arithmetic and speed of candidate networks, before any of them is trained.

    python benchmarks/architectures.py [--rounds 5] [--isa avx2] [--only NAME ...]

Random weights; what is measured does not depend on them. `gmacs` are multiplications of 256x256
pixels, counted by torch in convolutions and matrix products. Seconds are processor time of one
thread, the medians of rounds in which all candidates take their turns: of one tile of 384x384 on
the OpenVINO engine, and of one training step of 8 patches of 128x128 in torch (bf16 where the
processor has it, not compiled). Ratios are to the first candidate, the base that ships, round by
round. `--isa avx2` keeps both from wider instructions: most people's processors have none. What is
measured with `--only` is printed, and not written over the committed rows.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import write_report

TILE, PATCH, BATCH = 384, 128, 8
# Width, blocks of the encoder, the middle and the decoder; the first is what ships.
CANDIDATES = (
    (24, (0, 2, 4), 8, (2, 2, 0)),
    (24, (0, 2, 4, 4), 2, (4, 2, 2, 0)),
    (24, (0, 2, 4, 2), 3, (2, 2, 2, 0)),
    (24, (0, 2, 4, 2), 4, (2, 2, 2, 0)),
    (24, (0, 2, 2, 4), 4, (2, 2, 2, 0)),
    (24, (0, 0, 4, 8), 4, (2, 2, 2, 0)),
    (24, (0, 1, 2, 4), 6, (2, 2, 1, 0)),
    (24, (1, 1, 2, 4), 4, (2, 2, 1, 1)),
    (16, (1, 2, 4), 8, (2, 1, 1)),
    (16, (1, 1, 2, 4), 6, (2, 2, 1, 1)),
    (16, (1, 1, 4, 6), 6, (2, 2, 1, 1)),
    (16, (1, 2, 4, 8), 4, (2, 2, 2, 1)),
    (20, (1, 1, 2, 4), 4, (2, 2, 1, 1)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Size, arithmetic and speed of networks.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--isa", choices=("avx2", "avx512_core"), help="limit OpenVINO and oneDNN to this"
    )
    parser.add_argument("--only", nargs="*", help="names of candidates beside the first")
    parser.add_argument("--no-steps", action="store_true", help="leave training steps out")
    arguments = parser.parse_args()
    if arguments.isa and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        # Read once, when the libraries are loaded.
        os.environ["ONEDNN_MAX_CPU_ISA"] = os.environ["OV_CPU_MAX_ISA"] = arguments.isa.upper()
        os.execv(sys.executable, [sys.executable, *sys.argv])
    import torch

    from urushi.inference.hardware import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    known = [name_of(c) for c in CANDIDATES]
    unknown = set(arguments.only or []) - set(known)
    if unknown:
        parser.error(f"--only is {min(unknown)!r}: expected some of {', '.join(known)}")
    chosen = [
        c
        for i, c in enumerate(CANDIDATES)
        if i == 0 or not arguments.only or name_of(c) in arguments.only
    ]
    with tempfile.TemporaryDirectory() as folder:
        candidates = [prepare(c, Path(folder), not arguments.no_steps) for c in chosen]
        rows = measure(candidates, arguments.rounds)
    facts = {"what": "NAFNets", "threads": 1, "rounds": arguments.rounds, "isa": arguments.isa}
    name = "architectures" + (f"-{arguments.isa}" if arguments.isa else "")
    if not arguments.only:
        write_report(name, facts, ("torch", "openvino"), rows)
    for row in rows:
        print(json.dumps({k: v for k, v in row.items() if k != "config"}))


def limited() -> bool:
    """Whether processors are played that have no arithmetic for bf16."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "").startswith("AVX2")


def name_of(candidate: tuple) -> str:
    width, encoder, middle, decoder = candidate
    return f"w{width} {'-'.join(map(str, encoder))}|{middle}|{'-'.join(map(str, decoder))}"


def prepare(candidate: tuple, folder: Path, steps: bool) -> tuple[dict[str, Any], dict]:
    """A row without times, and what is to be timed."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from urushi.backbones import create_backbone

    width, encoder, middle, decoder = candidate
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
    row = {
        "name": name_of(candidate),
        "config": config,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gmacs": round(counter.get_total_flops() / 2e9, 2),
    }
    path = exported(network, config, folder / f"{len(list(folder.iterdir()))}.safetensors")
    tile = np.random.default_rng(0).random((1, 3, TILE, TILE), np.float32)
    runs: dict[str, Callable[[], object]] = {}
    for precision in ("float32",) if limited() else ("float32", "bf16"):
        engine = engine_of(path, precision)
        runs[f"openvino_{precision}"] = lambda engine=engine: engine.run(tile)
    if steps:
        runs["step"] = step_of(network)
    return row, runs


def exported(network: Any, config: dict, path: Path) -> Path:
    from urushi.convert.graphs import export_graph
    from urushi.files.model import ModelHeader, write_model

    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    write_model(path, state, ModelHeader(backbone="nafnet", config=config), "float32")
    export_graph(path)
    return path


def engine_of(path: Path, precision: str) -> Any:
    from urushi.files.model import read_model
    from urushi.inference.engines import create_engine

    model = read_model(path)
    return create_engine(model, engine="openvino", precision=precision, threads=1, device="cpu")


def step_of(network: Any) -> Callable[[], None]:
    import torch

    network = network.to(memory_format=torch.channels_last)
    clean = torch.rand(BATCH, 3, PATCH, PATCH).contiguous(memory_format=torch.channels_last)
    bf16 = torch.cpu._is_avx512_bf16_supported()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            restored = network(clean)
        (restored.float() - clean).square().mean().backward()
        network.zero_grad()

    return step


def measure(candidates: list[tuple[dict, dict]], rounds: int) -> list[dict[str, Any]]:
    """The rows with their times."""
    kinds = list(candidates[0][1])
    times: dict[str, list[list[float]]] = {kind: [[] for _ in candidates] for kind in kinds}
    for turn in range(rounds + 1):  # the first one warms up
        for index, (_, runs) in enumerate(candidates):
            for kind in kinds:
                start = time.process_time()
                runs[kind]()
                if turn:
                    times[kind][index].append(time.process_time() - start)
    rows = [row for row, _ in candidates]
    for kind in kinds:
        for row, own in zip(rows, times[kind], strict=True):
            ratios = [a / b for a, b in zip(own, times[kind][0], strict=True)]
            row[f"{kind}_seconds"] = round(statistics.median(own), 4)
            row[f"{kind}_ratio"] = round(statistics.median(ratios), 3)
    return rows


if __name__ == "__main__":
    main()
