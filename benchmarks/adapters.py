"""What adapters cost in time and memory, as ratios within one run.

    python benchmarks/adapters.py [--threads 1] [--rounds 5] [--profile FILE]

Every row is measured in a process of its own, in rounds, because the speed of a shared machine
drifts; a row is compared with the first of its kind in the same round, and the median ratio counts.

* `training`: one step, forward, backward and AdamW, of 8 patches of 128x128 pixels, in the
  precision that `urushi adapt` takes on this machine; beside full fine-tuning. Memory is the peak
  beyond what the process held when network and batch were ready.
* `network`: one forward pass over 384x384 pixels in torch, float32; beside the frozen base.
* `picture`: `Restorer.restore` of 1536x1024 pixels, with its tiles; beside the frozen base.

Low-rank ranks come from the profile beside the base, or from `--profile`; without one all layers
count alike, and rows that need one are left out.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import in_own_process, middle, write_report

MODEL = "base"
PATCH, BATCH, SIDE = 128, 8, 384
PICTURE = (1024, 1536)
BUDGET = "7%"


def main() -> None:
    parser = argparse.ArgumentParser(description="What adapters cost in time and memory.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", type=Path, help="of the base")
    parser.add_argument("--only", choices=("training", "network", "picture"))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(json.loads(arguments.row))))
        return
    plans = [
        {**plan, "threads": arguments.threads}
        for plan in all_plans(find_profile(arguments.profile))
        if arguments.only in (None, plan["kind"])
    ]
    rows = list(all_rows(plans, arguments.rounds))
    facts = {"what": "adapters", "model": MODEL, "threads": arguments.threads, "budget": BUDGET}
    facts |= {"rounds": arguments.rounds, "patch": PATCH, "batch": BATCH, "side": SIDE}
    write_report("adapters", facts, ("torch", "openvino"), rows)
    print(table(rows))


def find_profile(given: Path | None) -> Path | None:
    from urushi.adapters.contribution_profile import profile_path
    from urushi.inference.zoo import find_model

    found = given or profile_path(find_model(MODEL))
    return found if found.is_file() else None


def all_plans(profile: Path | None) -> Iterator[dict[str, Any]]:
    flat = {"method": "colora", "budget": BUDGET}
    measured = {**flat, "profile": str(profile)}
    full = {"method": "full"}
    training: dict[str, Any] = {"full": full, "lora, uniform": flat}
    if profile is not None:
        training["colora"] = measured
        for reach in (0.8, 0.6, 0.4):
            training[f"colora, reach {reach}"] = {**measured, "reach": reach}
    training |= {name: {"method": name} for name in ("decoder", "ssf", "adaptformer", "adaptir")}
    for name, adapter in training.items():
        yield {"kind": "training", "name": name, "adapter": adapter}
    for name in ("full", "lora, uniform"):
        plan = {"kind": "training", "name": f"{name}, saving memory", "adapter": training[name]}
        yield {**plan, "save_memory": True}
    for name, adapter in {
        "base": None,
        "lora, merged": {**flat, "merged": True},
        "lora": flat,
        "ssf": {"method": "ssf"},
        "adaptformer": {"method": "adaptformer"},
        "adaptir": {"method": "adaptir"},
    }.items():
        yield {"kind": "network", "name": name, "adapter": adapter}
    for engine in ("torch", "openvino"):
        for name, adapter in {"base": None, "lora": flat}.items():
            plan = {"kind": "picture", "name": f"{engine}, {name}", "engine": engine}
            yield {**plan, "adapter": adapter}


def all_rows(plans: list[dict], rounds: int) -> Iterator[dict]:
    measured = [[one_row(plan) for plan in plans] for _ in range(rounds)]
    first = {}
    for index, plan in enumerate(plans):
        kind = plan["name"].split(",")[0] if plan["kind"] == "picture" else plan["kind"]
        beside = first.setdefault(kind, index)
        ratios = [row[index]["seconds"] / row[beside]["seconds"] for row in measured]
        chosen = middle(ratios)
        row = {**measured[chosen][index], "ratio": round(ratios[chosen], 3)}
        if "peak_megabytes" in row:
            peaks = [m[index]["peak_megabytes"] / m[beside]["peak_megabytes"] for m in measured]
            row["peak_ratio"] = round(statistics.median(peaks), 3)
        yield {
            "kind": plan["kind"],
            "name": plan["name"],
            **row,
            "ratios": [round(ratio, 3) for ratio in ratios],
        }


def one_row(plan: dict) -> dict:
    row = in_own_process(__file__, plan)
    print(f"{plan['kind']}, {plan['name']}: {row['seconds']:.3f} s", file=sys.stderr)
    return row


def measure(plan: dict) -> dict:
    import torch

    from urushi.inference.hardware import keep_freed_memory

    torch.set_num_threads(plan["threads"])
    torch.manual_seed(0)
    keep_freed_memory()
    if plan["kind"] == "training":
        return measure_training(plan)
    return measure_network(plan) if plan["kind"] == "network" else measure_picture(plan)


def load_base() -> Any:
    from urushi.files.model import read_model
    from urushi.inference.engines.torch_engine import build_network
    from urushi.inference.zoo import find_model

    return build_network(read_model(find_model(MODEL)))


def measure_training(plan: dict) -> dict:
    import torch
    from measuring import resident

    from urushi.adapters import attach, create_adapter
    from urushi.training.adaptation import prefers_bf16

    base = load_base()
    network = attach(
        base, create_adapter(base, plan["adapter"]), save_memory=plan.get("save_memory", False)
    ).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    clean = torch.rand(BATCH, 3, PATCH, PATCH)
    degraded = clean.contiguous(memory_format=torch.channels_last)
    bf16 = prefers_bf16("cpu")
    before = resident("VmRSS")
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            restored = network(degraded)
        (restored.float() - clean).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": round(statistics.median(seconds[2:]), 4),
        "parameters": network.report().trainable,
        "precision": "bf16" if bf16 else "float32",
        "peak_megabytes": round((resident("VmHWM") - before) / 1e6),
    }


def measure_network(plan: dict) -> dict:
    import torch

    from urushi.adapters import attach, create_adapter

    network = load_base()
    adapter = dict(plan["adapter"] or {})
    merged = adapter.pop("merged", False)
    if adapter:
        network = attach(network, create_adapter(network, adapter)).eval()
        if merged:
            network = network.merge()
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    picture = torch.rand(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    seconds = []
    with torch.inference_mode():
        for _ in range(9):
            start = time.perf_counter()
            network(picture)
            seconds.append(time.perf_counter() - start)
    return {"seconds": round(statistics.median(seconds[2:]), 4)}


def measure_picture(plan: dict) -> dict:
    import numpy as np

    from urushi.inference.restorer import Restorer

    adapters = [made_up_adapter(plan["adapter"])] if plan["adapter"] else []
    restorer = Restorer(
        MODEL, adapters=adapters, engine=plan["engine"], threads=plan["threads"], device="cpu"
    )
    picture = np.random.default_rng(0).random((*PICTURE, 3), np.float32)
    restorer.restore(picture)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        restorer.restore(picture)
        seconds.append(time.perf_counter() - start)
    return {"seconds": round(min(seconds), 4)}


def made_up_adapter(config: dict) -> Any:
    """An adapter that does something, as if read from its file."""
    import torch

    from urushi.adapters import create_adapter
    from urushi.adapters.stored import header_of, tensors_of
    from urushi.files.adapter import LoadedAdapter
    from urushi.files.model import read_model
    from urushi.inference.zoo import find_model

    model, network = read_model(find_model(MODEL)), load_base()
    adapter = create_adapter(network, config)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += 1e-3 * torch.randn_like(parameter)
    header = header_of(adapter, model, name="benchmark")
    return LoadedAdapter(header, tensors_of(adapter), Path("benchmark.safetensors"))


def table(rows: list[dict]) -> str:
    lines = [f"{'row':<34}{'s':>9}{'ratio':>8}{'peak MB':>9}{'ratio':>8}{'parameters':>12}"]
    for row in rows:
        name = f"{row['kind']}: {row['name']}"
        lines.append(
            f"{name:<34}{row['seconds']:>9.3f}{row['ratio']:>8.2f}"
            f"{row.get('peak_megabytes', ''):>9}{row.get('peak_ratio', ''):>8}"
            f"{row.get('parameters', ''):>12}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
