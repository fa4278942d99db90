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

PACKAGES = ("jaxtyping", "wadler_lindig")
QUALITIES = (96, 94, 92, 90, 87, 84, 80)


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
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe = load_recipe(arguments.recipe, arguments.changes)
    (folder / "recipe.json").write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
    sources = [arguments.data / name for name in recipe.data.pictures]
    count, quality = pack_pictures(sources, folder / "pictures.zip", 1e6 * arguments.megabytes)
    print(f"{count} pictures as WebP of quality {quality}")
    if arguments.start:
        from urushi.files.model import read_model

        model = read_model(Path(arguments.start))
        assert recipe.backbone is not None
        if model.header.config != recipe.backbone.config:
            raise SystemExit(f"{arguments.start} is a network of another configuration")
        tensors: dict[str, Any] = {k: v.astype(np.float16) for k, v in model.tensors.items()}
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


def pack_pictures(sources: list[Path], target: Path, room: float) -> tuple[int, int]:
    """How many were packed, and with which quality: the highest at which all fit into `room`."""
    from urushi.image import is_picture_name

    paths = [p for s in sources for p in sorted(s.rglob("*")) if is_picture_name(p)]
    share = paths[:: max(1, len(paths) // 24)]  # tells the size of all closely enough
    quality = QUALITIES[-1]
    for quality in QUALITIES:
        size = sum(map(len, encoded(share, quality))) * len(paths) / len(share)
        if size * 1.03 <= room:
            break
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for index, data in enumerate(encoded(paths, quality)):
            archive.writestr(f"{index:05d}.webp", data)
    if target.stat().st_size > room:
        raise SystemExit(f"{target} has {target.stat().st_size} bytes, more than there is room for")
    return len(paths), quality


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
    main()
