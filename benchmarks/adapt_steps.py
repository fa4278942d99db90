"""Training steps of an adapter beside those of the whole network, as `urushi adapt` makes them.

    python benchmarks/adapt_steps.py [--batch 8] [--steps 5] [--before CHECKOUT]

Every variant of a round takes one step after the other, so that what else the machine does meets
all of them; the medians are compared, in seconds of the thread that calculates, which is one.
With `--before` the same is measured in a process of its own with the code of another checkout.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measuring import run_script, write_report

PATCH = 128
VARIANTS: dict[str, dict | None] = {
    "full": None,
    "colora": {"method": "colora", "profile": "base"},
    "colora reach=0.8": {"method": "colora", "profile": "base", "reach": 0.8},
    "colora reach=0.6": {"method": "colora", "profile": "base", "reach": 0.6},
}


def main() -> None:
    """Reads the command line and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--name", default="adapt_steps", help="of the report")
    options = parser.parse_args()
    plan = {"batch": options.batch, "steps": options.steps}
    if options.row:
        print(json.dumps(measure(**options.row)))
        return
    here = Path(__file__).resolve().parent.parent
    rows = []
    for code, root in (("before", options.before), ("now", here)):
        if root is not None:
            rows += [{"code": code, **row} for row in run(root, plan)]
    full = next(row["seconds"] for row in rows if row["variant"] == "full")
    for row in rows:
        row["to_first_full"] = round(row["seconds"] / full, 3)
        print(row)
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "native")
    write_report(options.name, {**plan, "patch": PATCH, "isa": isa}, ("torch",), rows)


def run(root: Path, plan: dict) -> list[dict]:
    """The rows of one checkout, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--row", json.dumps(plan)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)


def measure(batch: int, steps: int) -> list[dict]:
    """Times all variants in turn."""
    import torch

    from urushi.adapters import attach, create_adapter
    from urushi.adapters.contribution_profile import locate_profile
    from urushi.backbones.claims import create_claimed
    from urushi.files.model import read_model
    from urushi.inference.hardware import keep_freed_memory
    from urushi.inference.zoo import find_model
    from urushi.training.start import load_start

    torch.set_num_threads(1)
    keep_freed_memory()
    model = read_model(find_model("base"))
    networks = {}
    for name, settings in VARIANTS.items():
        network = create_claimed(model)
        load_start(network, "base")
        if settings is not None:
            network = attach(
                network, create_adapter(network, locate_profile(dict(settings), model.path))
            )
        networks[name] = network.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    x = torch.rand(batch, 3, PATCH, PATCH).contiguous(memory_format=torch.channels_last)
    target = torch.rand(batch, 3, PATCH, PATCH)
    optimizers = {n: torch.optim.AdamW(net.parameters(), 1e-6) for n, net in networks.items()}
    taken = {name: [] for name in networks}
    for step in range(steps + 1):
        for name, network in networks.items():
            start = time.thread_time()
            (network(x) - target).square().mean().backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            if step:
                taken[name].append(time.thread_time() - start)
    middle = {name: statistics.median(times) for name, times in taken.items()}
    return [
        {"variant": name, "seconds": round(own, 4), "to_full": round(own / middle["full"], 3)}
        for name, own in middle.items()
    ]


if __name__ == "__main__":
    run_script(main)
