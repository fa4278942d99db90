"""The table of networks and methods in docs/measured.md: what each method trains on each of them.

python benchmarks/methods.py            # prints it
python benchmarks/methods.py --write    # puts it into the page, between its two markers

It comes from `BACKBONES` and `METHODS` alone; `PUBLISHED` adds a size for every network. Networks
are built without weights, so that even the largest takes no memory.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from urushi.adapters import METHODS, create_adapter
from urushi.backbones import BACKBONES, RestorationNetwork, create_backbone
from urushi.errors import AdapterError

__all__ = ["BEGIN", "END", "PAGE", "PUBLISHED", "replaced", "table"]

PAGE = Path(__file__).resolve().parents[1] / "docs/measured.md"
BEGIN = "<!-- made by  python benchmarks/methods.py --write -->"
END = "<!-- until here -->"

# Of each network, one that its authors released: how they call it, and its configuration.
PUBLISHED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "nafnet": (
        "NAFNet-SIDD-width64",
        {
            "width": 64,
            "enc_blk_nums": [2, 2, 4, 8],
            "middle_blk_num": 12,
            "dec_blk_nums": [2, 2, 2, 2],
        },
    ),
    "restormer": ("Restormer, deraining", {}),
    "swinir": (
        "SwinIR-M, colour denoising",
        {"depths": [6] * 6, "embed_dim": 180, "num_heads": [6] * 6},
    ),
    "ipt": ("IPT, six heads", {}),
    "edt": (
        "EDT-B, SR x2",
        {"num_feat": 32, "embed_dim": 180, "depths": [6] * 6, "heads": ["sr_x2"]},
    ),
}


def table() -> str:
    """The table and the sentences below it, in Markdown."""
    with torch.device("meta"):
        networks = {name: create_backbone(name, PUBLISHED[name][1]) for name in BACKBONES}
    sizes = {name: _count(network) for name, network in networks.items()}
    reasons: dict[str, list[str]] = {}
    rows = [_row(method, networks, sizes, reasons) for method in METHODS]
    titles = [f"{PUBLISHED[name][0]} ({size:,})" for name, size in sizes.items()]
    lines = [f"| method | {' | '.join(titles)} | merges |", "|---" * (len(titles) + 2) + "|", *rows]
    if reasons:
        lines.append("")
    for number, (reason, where) in enumerate(reasons.items(), start=1):
        lines.append(f"{number}. {reason} ({', '.join(where)})")
    return "\n".join(lines)


def replaced(text: str, content: str) -> str:
    """A text with other content between the two markers.

    Raises:
        ValueError: they are not there, once each and in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(f"expected {BEGIN} and {END}, once each and in this order")
    return f"{before}{begin}\n{content}\n{end}{after}"


def _row(
    method: str,
    networks: Mapping[str, RestorationNetwork],
    sizes: Mapping[str, int],
    reasons: dict[str, list[str]],
) -> str:
    """One method on all networks; why it cannot go onto one is noted in `reasons`."""
    cells = []
    for name, network in networks.items():
        try:
            with torch.device("meta"):
                adapter = create_adapter(network, {"method": method})
        except AdapterError as error:
            reasons.setdefault(str(error), []).append(name)
            cells.append(f"– [{list(reasons).index(str(error)) + 1}]")
            continue
        trained = _count(adapter)
        cells.append(f"{trained:,}{_share(trained / sizes[name])}")
    merges = "yes" if METHODS[method].mergeable else "no"
    return f"| `{method}` | {' | '.join(cells)} | {merges} |"


def _share(part: float) -> str:
    percent = 100 * part
    return f" ({percent:.0f} %)" if percent >= 10 else f" ({percent:.2g} %)" if part else ""


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main(write: bool) -> None:
    if write:
        PAGE.write_text(replaced(PAGE.read_text("utf-8"), table()), "utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main(write="--write" in sys.argv[1:])
