"""Files for other programs, run by their own loaders: rows of docs/hosts.md.

    python benchmarks/hosts.py PICTURE [--files FOLDER] [--sheet SHEET.jpg] [HOST ...]

A picture is given noise and restored by `urushi restore` and through each host, with the base and
the expert for noise; rows say the largest difference. OpenCV, ncnn and pnnx are used where they can
be imported. spandrel is put into an environment of its own, below a temporary folder, because it
wants torchvision, which nothing else here may depend on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RESULTS, processor, run_script

Run = Callable[[np.ndarray], np.ndarray]
SIGMA, SEED, STATIC = 25, 5, (512, 512)
SPANDREL, TORCHVISION = "0.4.2", "0.28.0"


# What spandrel's environment runs. A torchvision built for CUDA does not find its operators beside
# a torch for CPUs; none is used by a NAFNet, so they are named and left empty.
IN_SPANDREL = """
import sys, warnings
warnings.filterwarnings("ignore")
import numpy, torch
empty = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    empty.define(name + "(Tensor a) -> Tensor")
import spandrel
loaded = spandrel.ModelLoader(device="cpu").load_from_file(sys.argv[1])
assert loaded.architecture.id == "NAFNet" and loaded.scale == 1, loaded
with torch.no_grad():
    for number, piece in enumerate(numpy.load(sys.argv[2]).values()):
        result = loaded(torch.from_numpy(piece)[None])[0].numpy()
        numpy.save(f"{sys.argv[3]}-{number}.npy", result)
print(loaded.tiling.name)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Files for other programs.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--files", type=Path, help="where exported files are, or are put")
    parser.add_argument("--sheet", type=Path, help="the noisy picture and what hosts make of it")
    parser.add_argument("--large", action="store_true", help="measure alone what tiles of 512 cost")
    parser.add_argument("hosts", nargs="*", metavar="HOST")
    options = parser.parse_args()
    if unknown := set(options.hosts) - set(ROWS):
        parser.error(f"{min(unknown)!r} is no row: expected some of {', '.join(ROWS)}")
    with tempfile.TemporaryDirectory() as made:
        (cut if options.large else measure)(options, options.files or Path(made))


def measure(options: argparse.Namespace, folder: Path) -> None:
    from urushi.inference.restorer import Restorer

    clean, noisy = pictures(options.picture)
    ours = Restorer("base", adapters=["noise"]).restore(noisy)
    shown = {"noisy": noisy, "urushi restore": ours}
    target = RESULTS / "hosts.json"
    table: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {"rows": {}}
    table |= {"processor": processor(), "size": noisy.shape[:2], "sigma_255": SIGMA}
    table["psnr"] = {"noisy": psnr(noisy, clean), "urushi restore": psnr(ours, clean)}
    for name in options.hosts or ROWS:
        try:
            told, run, tile, overlap = ROWS[name](folder)
        except ImportError as error:
            print(f"{name}: not run ({error})", flush=True)
            continue
        # As programs write it, and `urushi restore` does.
        result = np.clip(tiled(run, noisy, tile, overlap), 0, 1)
        shown[name] = result
        row = {
            "run": told,
            "on_one_tile": on_one_tile(run, tile or STATIC[0]),
            "tile": tile,
            "overlap": overlap,
            "largest_difference": float(np.abs(result - ours).max()),
            "mean_difference": float(np.abs(result - ours).mean()),
            "psnr": psnr(result, clean),
        }
        table["rows"][name] = row
        print(name, json.dumps(row), flush=True)
        target.write_text(json.dumps(table, indent=1) + "\n")
    print(markdown(table["rows"]))
    if options.sheet:
        write_sheet(shown, options.sheet)


def markdown(rows: dict[str, dict]) -> str:
    """The table of docs/hosts.md."""
    lines = [
        "| host | what was run | tile | on one tile | largest difference | mean | PSNR |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        tile = f"{row['tile']}, margin {row['overlap']}" if row["tile"] else "none"
        lines.append(
            f"| {name} | {row['run']} | {tile} | {row['on_one_tile']:.1e} | "
            f"{row['largest_difference']:.3f} | {row['mean_difference']:.4f} | {row['psnr']:.2f} |"
        )
    return "\n".join(lines)


def on_one_tile(run: Run, side: int) -> float:
    """Largest difference from torch on one tile: what arithmetic alone makes."""
    tile, expected = reference(side)
    return float(np.abs(run(tile) - expected).max())


@cache
def reference(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A random tile, and what torch makes of it."""
    from urushi.files.model import read_model
    from urushi.inference.adapted_weights import apply_adapters
    from urushi.inference.engines.torch_engine import TorchEngine
    from urushi.inference.zoo import find_model

    ready, _, attached = apply_adapters(read_model(find_model("base")), ["noise"])
    tile = np.random.default_rng(SEED).random((3, side, side), dtype=np.float32)
    return tile, TorchEngine(ready, device="cpu", adapters=attached).run(tile[None])[0]


def cut(options: argparse.Namespace, folder: Path) -> None:
    """What it costs that averages are those of tiles of 512: a large picture whole, and cut."""
    clean, noisy = pictures(options.picture)
    run = session(exported(folder, "vs-mlrt"))
    whole, cut = (np.clip(tiled(run, noisy, tile, 16), 0, 1) for tile in (None, STATIC[0]))
    inner = np.abs(whole - cut)[64:-64, 64:-64]
    row = {
        "size": noisy.shape[:2],
        "largest_difference": float(np.abs(whole - cut).max()),
        "largest_inside": float(inner.max()),
        "mean_difference": float(np.abs(whole - cut).mean()),
        "psnr_whole": psnr(whole, clean),
        "psnr_cut": psnr(cut, clean),
    }
    target = RESULTS / "hosts.json"
    table = json.loads(target.read_text()) | {"tiles of 512": row}
    target.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(row))


def pictures(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A clean picture and a noisy one, `(h, w, 3)`, 0 to 1, with sides of multiples of eight."""
    from urushi.image import read_picture

    pixels = np.asarray(read_picture(path), np.float32)
    height, width = (side // 8 * 8 for side in pixels.shape[:2])
    clean = pixels[:height, :width]
    noise = np.random.default_rng(SEED).standard_normal(clean.shape, np.float32) * (SIGMA / 255)
    return clean, np.clip(clean + noise, 0, 1).astype(np.float32)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((np.clip(one, 0, 1).astype(np.float64) - other) ** 2)
    return round(float(-10 * np.log10(error)), 3)


def tiled(run: Run, image: np.ndarray, tile: int | None, overlap: int) -> np.ndarray:
    """Restore by squares of `tile`, mirrored beyond the edges, of which the middles are kept."""
    pixels = image.transpose(2, 0, 1)
    if tile is None:
        return run(pixels).transpose(1, 2, 0)
    height, width = image.shape[:2]
    step = tile - 2 * overlap
    far = [overlap + -side % step for side in (height, width)]
    filled = np.pad(pixels, ((0, 0), (overlap, far[0]), (overlap, far[1])), mode="symmetric")
    result = np.zeros((3, height + far[0] - overlap, width + far[1] - overlap), np.float32)
    for row, column in places(height, width, step):
        piece = run(np.ascontiguousarray(filled[:, row : row + tile, column : column + tile]))
        kept = piece[:, overlap : overlap + step, overlap : overlap + step]
        result[:, row : row + step, column : column + step] = kept
    return result[:, :height, :width].transpose(1, 2, 0)


def places(height: int, width: int, step: int) -> Iterator[tuple[int, int]]:
    for row in range(0, height, step):
        for column in range(0, width, step):
            yield row, column


def exported(folder: Path, host: str, static: tuple[int, int] | None = None) -> Path:
    """The file of a host, made where it is missing."""
    from urushi.convert.hosts import HOSTS, export_for_host
    from urushi.convert.hosts import STATIC as PLAIN
    from urushi.files.model import read_model
    from urushi.inference.zoo import find_model

    entry = HOSTS.get(host, PLAIN)
    prefix = "1x-" if host == "imagetoolbox" else ""
    path = folder / f"{prefix}urushi-base-noise-{host}{entry.ending}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        export_for_host(read_model(find_model("base")), entry, path, ["noise"], static=static)
    return path


def session(graph: Path | bytes, tile: int | None = None) -> Run:
    from urushi.convert.graph_checks import import_onnxruntime

    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    if tile is not None:
        for name, size in (("batch", 1), ("height", tile), ("width", tile)):
            options.add_free_dimension_override_by_name(name, size)
    opened = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    image, *others = opened.get_inputs()
    strength = {entry.name: np.ones((1, 1), np.float32) for entry in others}
    return lambda pixels: opened.run(None, {image.name: pixels[None], **strength})[0][0]


Row = tuple[str, Run, int | None, int]


def spandrel(folder: Path) -> Row:
    path = exported(folder, "spandrel").resolve()
    home = Path(tempfile.mkdtemp(prefix="spandrel-"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    (packages,) = (home / "venv").glob("lib/python*/site-packages")
    import torch

    (packages / "outer.pth").write_text(str(Path(torch.__file__).parents[1]))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages,
         f"spandrel=={SPANDREL}", f"torchvision=={TORCHVISION}", "einops"],
        check=True,
    )  # fmt: skip

    def run(pixels: np.ndarray) -> np.ndarray:
        np.savez(home / "given.npz", pixels)
        words = [home / "venv" / "bin" / "python", "-c", IN_SPANDREL, path, home / "given.npz"]
        subprocess.run([*words, home / "made"], check=True, stdout=subprocess.DEVNULL)
        return np.load(home / "made-0.npy")

    return f"spandrel {SPANDREL}, its ModelLoader", run, 512, 16


def opencv(engine: str) -> Callable[[Path], Row]:
    def row(folder: Path) -> Row:
        import cv2

        path = exported(folder, "opencv", STATIC)
        net = cv2.dnn.readNetFromONNX(str(path), getattr(cv2.dnn, engine))

        def run(pixels: np.ndarray) -> np.ndarray:
            net.setInput(pixels[None], "input")
            return net.forward("output")[0]

        return f"OpenCV {cv2.__version__}, {engine}", run, STATIC[0], 16

    return row


def darktable(folder: Path) -> Row:
    path = exported(folder, "darktable")
    with zipfile.ZipFile(path) as archive:
        graph = archive.read(f"{path.stem}/model.onnx")
    told = f"its binding, in ONNX Runtime {version('onnxruntime')}"
    return told, session(graph, 512), 512, 64


def chainner(folder: Path) -> Row:
    told = f"its shape inference and a tile, in ONNX Runtime {version('onnxruntime')}"
    return told, session(exported(folder, "chainner")), 256, 16


def imagetoolbox(folder: Path) -> Row:
    told = f"strength 1, in ONNX Runtime {version('onnxruntime')}"
    return told, session(exported(folder, "imagetoolbox")), 512, 16


def vs_mlrt(folder: Path) -> Row:
    told = f"whole frame, in ONNX Runtime {version('onnxruntime')}"
    return told, session(exported(folder, "vs-mlrt")), None, 0


def ncnn(folder: Path) -> Row:
    import ncnn as library  # pyright: ignore[reportMissingImports]

    path = exported(folder, "static", STATIC)
    param, weights = (path.with_suffix(f".ncnn.{ending}") for ending in ("param", "bin"))
    if not param.exists():
        import pnnx  # pyright: ignore[reportMissingImports]

        program = pnnx.EXEC_PATH
        shape = f"inputshape=[1,3,{STATIC[0]},{STATIC[1]}]"
        words = [program, path.name, shape, "fp16=0", f"ncnnparam={param.name}",
                 f"ncnnbin={weights.name}"]  # fmt: skip
        subprocess.run(words, cwd=path.parent, check=True, stdout=subprocess.DEVNULL)
    net = library.Net()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)
    net.load_param(str(param))
    net.load_model(str(weights))

    def run(pixels: np.ndarray) -> np.ndarray:
        with net.create_extractor() as extractor:
            extractor.input("in0", library.Mat(np.ascontiguousarray(pixels)))
            return np.array(extractor.extract("out0")[1])

    return f"ncnn {version('ncnn')}, converted by pnnx {version('pnnx')}", run, STATIC[0], 16


ROWS: dict[str, Callable[[Path], Row]] = {
    "spandrel": spandrel,
    "opencv-classic": opencv("ENGINE_CLASSIC"),
    "opencv-new": opencv("ENGINE_NEW"),
    "darktable": darktable,
    "chainner": chainner,
    "imagetoolbox": imagetoolbox,
    "vs-mlrt": vs_mlrt,
    "ncnn": ncnn,
}


def write_sheet(shown: dict[str, np.ndarray], target: Path) -> None:
    """A part of every result, side by side, with names."""
    from PIL import Image, ImageDraw

    height, width, columns, room = 200, 240, 5, 20
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + room)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, pixels) in enumerate(shown.items()):
        top, left = (
            max(0, (side - part) // 2)
            for side, part in zip(pixels.shape, (height, width), strict=False)
        )
        part = np.clip(pixels[top : top + height, left : left + width] * 255 + 0.5, 0, 255)
        place = (number % columns * width, number // columns * (height + room))
        sheet.paste(Image.fromarray(part.astype(np.uint8)), (place[0], place[1] + room))
        draw.text((place[0] + 6, place[1] + 4), name, fill="black")
    sheet.save(target, quality=85)


if __name__ == "__main__":
    run_script(main)
