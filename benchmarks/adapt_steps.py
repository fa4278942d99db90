"""Training steps of an adapter beside those of the whole network, as `urushi adapt` makes them.

    python benchmarks/adapt_steps.py [--batch 8] [--steps 5] [--before CHECKOUT] [--isa avx2]

Drawing the batch is left out; forward, loss, backward, clipping, optimizer and moving average are
in. Every variant of a round takes one step after the other, so that what else the machine does
meets all of them; with `--before` the code of another checkout takes turns with this one's, in a
process of its own. `cpu` is in seconds of the thread that calculates, which is one, `wall` on the
clock; both are medians. Ratios are medians of those of single rounds: `to_full` to full tuning by
the same code, `to_first_full` to that of the code before, where it is measured. `--isa avx2` keeps
torch, oneDNN and MKL from wider instructions: most people's processors have none.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measuring import LIMIT, run_script, write_report

PATCH = 128
VARIANTS: dict[str, dict | None] = {
    "full": None,
    "colora": {"method": "colora", "profile": "base"},
    "lora": {"method": "lora", "rank": 8},
    "colora reach=0.8": {"method": "colora", "profile": "base", "reach": 0.8},
    "colora reach=0.6": {"method": "colora", "profile": "base", "reach": 0.6},
}
# oneDNN's alone would leave torch's own kernels, and MKL's matrix products, as they are.
OLDER = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
}
Row = dict[str, Any]


def main() -> None:
    """Reads the command line and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--isa", choices=("avx2",), help="limit the processor to this")
    parser.add_argument("--name", default="adapt_steps", help="of the report")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.isa and not LIMIT:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **OLDER})
    here = Path(__file__).resolve().parent.parent
    roots = {} if options.before is None else {"before": options.before}
    rows = measure({**roots, "now": here}, options.batch, options.steps)
    for row in rows:
        print(row)
    facts = {"batch": options.batch, "steps": options.steps, "patch": PATCH}
    write_report(options.name, facts, ("torch",), rows)


def measure(roots: dict[str, Path], batch: int, steps: int) -> list[Row]:
    """The rows of some checkouts, whose steps take turns."""
    servers = {code: start(root, batch) for code, root in roots.items()}
    turns = [(code, name) for name in VARIANTS for code in servers]
    taken: dict[tuple[str, str], list[Row]] = {turn: [] for turn in turns}
    # What is first allocated costs more than what is used again: two rounds do not count.
    for step in range(steps + 2):
        for code, name in turns:
            found = ask(servers[code], name)
            if step > 1:
                taken[code, name].append(found)
    for server in servers.values():
        server.communicate()
    first = next(iter(servers))
    return [
        {"code": code, "variant": name, **summary(own, taken[code, "full"], taken[first, "full"])}
        for code in servers
        for name in VARIANTS
        for own in [taken[code, name]]
    ]


def summary(own: list[Row], full: list[Row], first: list[Row]) -> Row:
    """Medians of seconds, and of ratios of one round."""
    row: Row = {kind: round(statistics.median(t[kind] for t in own), 4) for kind in ("cpu", "wall")}
    for name, others in (("to_full", full), ("to_first_full", first)):
        for kind in ("cpu", "wall"):
            ratios = [a[kind] / b[kind] for a, b in zip(own, others, strict=True)]
            row[f"{name}_{kind}"] = round(statistics.median(ratios), 3)
    return row


def start(root: Path, batch: int) -> subprocess.Popen[str]:
    """A process with the code of a checkout, that takes steps when it is asked to."""
    limits = OLDER if LIMIT == "avx2" else {}
    return subprocess.Popen(
        [sys.executable, __file__, "--serve", str(batch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **limits, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )


def ask(server: subprocess.Popen[str], name: str) -> Row:
    """Lets a server take a step of that variant."""
    assert server.stdin is not None
    assert server.stdout is not None
    print(name, file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


def serve(batch: int) -> None:
    """Takes a step of every variant that is named on standard input, and says how long it took."""
    import torch

    from urushi.training.checkpoint import WeightAverage
    from urushi.training.losses import make_loss

    torch.set_num_threads(1)
    networks = made()
    x = torch.rand(batch, 3, PATCH, PATCH).contiguous(memory_format=torch.channels_last)
    target = torch.rand(batch, 3, PATCH, PATCH)
    optimizers = {n: optimizer_of(list(net.parameters())) for n, net in networks.items()}
    averages = {n: WeightAverage(net, 0.98) for n, net in networks.items()}
    loss = make_loss("psnr", floor=1e-5)
    for line in sys.stdin:
        name = line.strip()
        network, optimizer = networks[name], optimizers[name]
        wall, cpu = time.perf_counter(), time.thread_time()
        loss(network(x), target).backward()
        torch.nn.utils.clip_grad_norm_(list(network.parameters()), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        averages[name].update(network, 100)
        taken = {"cpu": time.thread_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps(taken), flush=True)


def made() -> dict[str, Any]:
    """The network of every variant."""
    import torch

    from urushi.adapters import attach, create_adapter
    from urushi.adapters.contribution_profile import locate_profile
    from urushi.backbones.claims import create_claimed
    from urushi.files.model import read_model
    from urushi.inference.hardware import keep_freed_memory
    from urushi.inference.zoo import find_model
    from urushi.training.build import load_start

    keep_freed_memory()
    model = read_model(find_model("base"))
    networks = {}
    for name, settings in VARIANTS.items():
        network = create_claimed(model)
        load_start(network, "base")
        if settings is not None:
            located = locate_profile(dict(settings), model.path)
            network = attach(network, create_adapter(network, located))
        networks[name] = network.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    return networks


def optimizer_of(parameters: list[Any]) -> Any:
    """The optimizer of a training, also of checkouts that have no function for it."""
    import torch

    try:
        from urushi.training.fitting import make_optimizer
    except ImportError:
        return torch.optim.AdamW(parameters, 1e-6)
    from urushi.training.recipe import OptimizerSettings

    return make_optimizer(parameters, OptimizerSettings(learning_rate=1e-6))


if __name__ == "__main__":
    run_script(main)
