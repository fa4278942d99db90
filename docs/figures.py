"""Draws the figures of the documentation, by the library itself.

    python docs/figures.py              # all of them, into docs/pictures
    python docs/figures.py tiles        # one

`routes` and `degradations` need the pictures of the demo, which are in the repository; none needs
data from elsewhere.
"""

import argparse
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from urushi.evaluation.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/pictures"
DEMO = ROOT / "demo/pictures"
INK, RED, BLUE, GREY = "#222222", "#b3261e", "#0072b2", "#7a7a7a"


def draw_layers(path: Path) -> None:
    """The layers of the package, read from the contract that the tests check."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    teaching = {"training", "adapters", "backbones", "data", "degradations"}
    both = {"evaluation", "app", "api"}
    figure, (axis,) = new_figure((7.2, 0.5 * len(layers) + 0.5))
    axis.axis("off")
    for row, layer in enumerate(layers):
        names = [name.strip() for name in layer.split("|")]
        for column, name in enumerate(names):
            width = 1 / len(names)
            colour = GREY if name in both else RED if name in teaching else BLUE
            box = {"facecolor": colour, "alpha": 0.16, "edgecolor": colour}
            _box(axis, column * width + 0.005, -row, width - 0.01, 0.72, box)
            middle = (column + 0.5) * width
            axis.text(middle, -row + 0.36, name, ha="center", va="center", color=INK)
    axis.set_xlim(0, 1)
    axis.set_ylim(-len(layers) + 0.4, 1.35)
    axis.text(0, 1.0, "mending: numpy and an engine", color=BLUE, va="bottom")
    axis.text(0.5, 1.0, "both", color=GREY, va="bottom", ha="center")
    axis.text(1, 1.0, "teaching: torch", color=RED, va="bottom", ha="right")
    save_figure(figure, path)


def _box(axis: "Axes", left: float, low: float, width: float, height: float, look: dict) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((left, low), width, height, linewidth=1, **look))


def draw_tiles(path: Path) -> None:
    """How a picture is cut, and what each tile counts where it overlaps its neighbours."""
    from urushi.inference.tiling import plan_tiles

    plan = plan_tiles(1000, 1500, tile=640, overlap=96, multiple=8)
    figure, (picture, weights) = new_figure((9.0, 3.6), (1.3, 1.0))
    for top in plan.rows.starts:
        for left in plan.columns.starts:
            box = {"facecolor": BLUE, "alpha": 0.16, "edgecolor": BLUE}
            _box(picture, left, top, plan.columns.size, plan.rows.size, box)
    picture.set_xlim(-10, 1510)
    picture.set_ylim(1010, -10)
    picture.set_aspect("equal")
    picture.grid(visible=False)
    size = f"{plan.columns.size} x {plan.rows.size}"
    picture.set_title(
        f"1500 x 1000 pixels, {plan.count} tiles of {size}\n"
        f"{plan.ratio:.2f} times the picture's pixels are computed",
        fontsize="small",
    )
    for start, weight in zip(plan.columns.starts, plan.columns.weights, strict=True):
        weights.plot(np.arange(start, start + len(weight)), weight)
    weights.set_title("what each tile counts along a row", fontsize="small")
    weights.set_xlabel("column")
    save_figure(figure, path)


def draw_routes(path: Path) -> None:
    """What the router reads from the pictures of the demo."""
    from urushi.image import read_picture
    from urushi.inference.auto import AutoRestorer

    restorer = AutoRestorer()
    names, rows, taken = [], [], []
    for source in sorted((DEMO / "input").iterdir()):
        choice = restorer.choose(read_picture(source))
        if choice.decision is None:
            continue
        names.append(source.stem)
        rows.append([choice.decision.probabilities[name] for name in restorer.classes])
        taken.append([name for name, _ in choice.route])
    figure, (axis,) = new_figure((7.6, 0.34 * len(names) + 1.3))
    axis.imshow(np.array(rows), cmap="Reds", vmin=0, vmax=1, aspect="auto")
    axis.grid(visible=False)
    for row, found in enumerate(rows):
        for column, share in enumerate(found):
            if share < 0.02:
                continue
            acts = restorer.classes[column] in taken[row]
            axis.text(
                column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize="small",
                color="white" if share > 0.6 else INK, weight="bold" if acts else "normal",
            )  # fmt: skip
            if acts:
                box = {"facecolor": "none", "edgecolor": INK}
                _box(axis, column - 0.48, row - 0.46, 0.96, 0.92, box)
    axis.set_xticks(range(len(restorer.classes)), restorer.classes, rotation=35, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(
        "how probable each class is, in percent; framed: its expert acts", fontsize="small"
    )
    save_figure(figure, path)


def draw_profile(path: Path) -> None:
    """What each layer of the base that ships contributes."""
    from urushi.adapters.contribution_profile import read_profile
    from urushi.evaluation.plots import draw_profile as draw

    draw(read_profile(ROOT / "urushi/zoo/base.profile.json"), path, log=True)


def draw_degradations(path: Path) -> None:
    """Every degradation there is, on one picture."""
    import torch

    from urushi.degradations import DEGRADATIONS, create_degradation
    from urushi.image import read_picture, write_picture
    from urushi.sheet import contact_sheet

    clean = read_picture(DEMO / "reference/haze.webp")[:192, :256]
    images = torch.from_numpy(clean.transpose(2, 0, 1).copy())[None]
    cells = [(clean, "clean")]
    for name in DEGRADATIONS:
        made = create_degradation(name)
        generator = torch.Generator().manual_seed(3)
        worse = made.apply(images, made.sample((1, 3, *clean.shape[:2]), generator))
        pixels = worse[0].permute(1, 2, 0).numpy()
        cells.append((np.ascontiguousarray(pixels), name))
    rows = [cells[i : i + 6] for i in range(0, len(cells), 6)]
    write_picture(path, contact_sheet(rows, cell_size=(192, 144)), overwrite=True, quality=82)


def draw_scaling(path: Path) -> None:
    """How cost grows, from the rows of the benchmarks."""
    figure, axes = new_figure((10.4, 3.2), (1, 1, 1))
    rows = {row["name"]: row for row in _rows("restore")}
    sizes = [rows[f"engine openvino float32, {n} MP"] for n in (12, 100)]
    pixels = [row["megapixels"] for row in sizes]
    seconds = [row["seconds"] for row in sizes]
    axes[0].loglog(pixels, seconds, "o", color=BLUE, label="seconds, two cores")
    first = seconds[0] / pixels[0]
    axes[0].loglog([6, 200], [6 * first, 200 * first], color=GREY, label="in proportion")
    memory = [row["peak_megabytes_beyond"] for row in sizes]
    axes[0].loglog(pixels, memory, "s", color=RED, label="MB beyond the runtime")
    axes[0].set_xlabel("megapixels of a picture")
    networks = [row for row in _rows("adapters") if row["kind"] == "network"]
    names = [row["name"] for row in networks]
    axes[1].barh(names[::-1], [row["ratio"] for row in networks][::-1], color=BLUE)
    axes[1].set_xlabel("time to that of the base")
    training = [row for row in _rows("adapters") if row["kind"] == "training"]
    told = [row for row in training if "saving" not in row["name"]]
    axes[2].barh([r["name"] for r in told][::-1], [r["ratio"] for r in told][::-1], color=RED)
    axes[2].set_xlabel("a step of training, to full fine-tuning")
    axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _rows(name: str) -> list[dict[str, Any]]:
    report = (ROOT / f"benchmarks/results/{name}.json").read_text("utf-8")
    return json.loads(report)["rows"]


FIGURES: Mapping[str, tuple[str, Callable[[Path], None]]] = {
    "layers": ("layers.png", draw_layers),
    "tiles": ("tiles.png", draw_tiles),
    "routes": ("routes.png", draw_routes),
    "profile": ("profile.png", draw_profile),
    "degradations": ("degradations.jpg", draw_degradations),
    "scaling": ("scaling.png", draw_scaling),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="The figures of the documentation.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    names = parser.parse_args().names or list(FIGURES)
    PICTURES.mkdir(exist_ok=True)
    for name in names:
        file, draw = FIGURES[name]
        draw(PICTURES / file)
        print(PICTURES / file)


if __name__ == "__main__":
    main()
