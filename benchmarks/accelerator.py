"""Packs a training for a machine that can fetch nothing, and unpacks what comes back.

    python benchmarks/accelerator.py pack --data DATA --start runs/base-next.safetensors
    python benchmarks/accelerator.py unpack FOLDER runs/from-accelerator.safetensors

`pack` writes into `.accelerator/`: the pictures as WebP of the highest quality that fits into
`--megabytes`, the resolved recipe, the weights to begin with in float16, and the two pure-Python
packages that Urushi's networks and degradations need. There, from a copy of this checkout,

    python benchmarks/accelerator_run.py .accelerator OUT --minutes 9

trains and writes into OUT. Whatever travels beside `.accelerator/` counts, too: files that are
removed from the working tree (`git ls-files -z urushi/zoo docs demo runs benchmarks/results | xargs
-0 rm`, and afterwards `git checkout .`) make room for pictures of a higher quality.
"""

import argparse
import io
import json
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from measuring import run_script

PACKAGES = ("jaxtyping", "wadler_lindig")
QUALITIES = (96, 94, 92, 90, 87, 84, 80)
# What `pack` writes: only a folder of nothing else is emptied before.
PARTS = {"pictures.zip", "recipe.json", "start.npz", "site"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Packs a training for an accelerator.")
    actions = parser.add_subparsers(dest="action", required=True)
    pack = actions.add_parser("pack")
    pack.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    pack.add_argument("--recipe", default="base-next")
    pack.add_argument("--start", help="model file to begin with; random weights otherwise")
    pack.add_argument("--set", action="append", default=[], dest="changes")
    pack.add_argument("--megabytes", type=float, default=36.0, help="of pictures at most")
    pack.add_argument("--folder", type=Path, default=Path(".accelerator"))
    unpack = actions.add_parser("unpack")
    unpack.add_argument("folder", type=Path, help="what came back")
    unpack.add_argument("output", type=Path, help="model file to write")
    arguments = parser.parse_args()
    if arguments.action == "pack":
        write_bundle(arguments)
    else:
        write_weights(arguments.folder, arguments.output)


def write_bundle(arguments: argparse.Namespace) -> None:
    from urushi.training.recipe import load_recipe

    folder: Path = arguments.folder
    recipe = load_recipe(arguments.recipe, arguments.changes)
    tensors = start_tensors(arguments.start, recipe) if arguments.start else {}
    sources = [arguments.data / name for name in recipe.data.pictures]
    paths = pictures_in(sources)
    make_empty(folder)
    (folder / "recipe.json").write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
    quality = pack_pictures(paths, folder / "pictures.zip", 1e6 * arguments.megabytes)
    print(f"{len(paths)} pictures as WebP of quality {quality}")
    if tensors:
        np.savez(folder / "start.npz", **tensors)
    for name in PACKAGES:
        module = __import__(name)
        assert module.__file__ is not None
        package = Path(module.__file__).parent
        # They ask for their own version, which stands in what pip left beside them.
        for path in (package, *package.parent.glob(f"{name}-*.dist-info")):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, folder / "site" / path.name, ignore=ignored)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB; run there:", file=sys.stderr)
    print(f"  python benchmarks/accelerator_run.py {folder} OUT --minutes 9", file=sys.stderr)


def start_tensors(name: str, recipe: Any) -> dict[str, Any]:
    """The weights to begin with, in float16."""
    from urushi.files.model import read_model
    from urushi.inference.zoo import find_model

    model = read_model(find_model(name))
    if recipe.backbone is None or model.header.config != recipe.backbone.config:
        raise SystemExit(
            f"{name} is a network of another configuration than {recipe.name}'s: choose its own "
            "weights, or leave --start out"
        )
    return {k: v.astype(np.float16) for k, v in model.tensors.items()}


def make_empty(folder: Path) -> None:
    """Makes the folder, without what an earlier `pack` left there."""
    if folder.exists() and not folder.is_dir():
        raise SystemExit(f"{folder} is no folder: choose another --folder")
    others = {path.name for path in folder.glob("*")} - PARTS
    if others:
        raise SystemExit(f"{folder} holds {min(others)}, which is kept: choose another --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def pictures_in(sources: list[Path]) -> list[Path]:
    from urushi.image import is_picture_name

    paths = []
    for source in sources:
        found = [path for path in sorted(source.rglob("*")) if is_picture_name(path)]
        if not found:
            raise SystemExit(f"{source} holds no pictures: --data is the folder of the data sets")
        paths += found
    return paths


def pack_pictures(paths: list[Path], target: Path, room: float) -> int:
    """Packs them with the highest quality at which all fit into `room`, which is returned."""
    # A share tells the size of all closely enough, since files of one kind shrink alike.
    share = paths[:: max(1, len(paths) // 24)]
    whole, part = (sum(path.stat().st_size for path in some) for some in (paths, share))
    for quality in QUALITIES:
        size = sum(map(len, encoded(share, quality))) * whole / part
        if quality > QUALITIES[-1] and size * 1.02 > room:
            continue
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for index, data in enumerate(encoded(paths, quality)):
                archive.writestr(f"{index:05d}.webp", data)
        if target.stat().st_size <= room:
            return quality
    size = target.stat().st_size
    target.unlink()
    raise SystemExit(
        f"the pictures take {size / 1e6:.1f} MB at quality {QUALITIES[-1]}, and --megabytes leaves "
        f"{room / 1e6:.1f}: give more room, or fewer pictures"
    )


def encoded(paths: list[Path], quality: int) -> list[bytes]:
    from PIL import Image

    def one(path: Path) -> bytes:
        data = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(data, "webp", quality=quality, method=4)
        return data.getvalue()

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, paths))


def write_weights(folder: Path, output: Path) -> None:
    from urushi.files.model import ModelHeader, write_model
    from urushi.training.recipe import Recipe

    if not (folder / "facts.json").is_file():
        raise SystemExit(f"{folder} holds no facts.json: name the folder that the training wrote")
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(facts["recipe"])
    assert recipe.backbone is not None
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("weights-*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            tensors |= {name: arrays[name].astype(np.float32) for name in arrays.files}
    header = ModelHeader(
        backbone=recipe.backbone.name,
        config=recipe.backbone.config,
        description=f"{recipe.name}, {facts['steps']} steps on {facts['device']}.",
        licence=recipe.licence,
        data=recipe.data_statement,
    )
    write_model(output, tensors, header, "float16")
    print(f"{output}: {facts['steps']} steps, {facts['pixels'] / 1e9:.2f} thousand million pixels")


if __name__ == "__main__":
    run_script(main)
