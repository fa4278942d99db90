"""What libraries would give in place of code of ours: figures for docs/decisions/0037.

    python benchmarks/libraries.py [ROW ...]

Every row is measured in a process of its own, on inputs made here, and printed. Where tifffile is
not installed, its row says so. Times are the best of three on one thread; memory is the peak beyond
what the process held before.
"""

import argparse
import importlib
import json
import logging
import os
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from libraries_training import averages, classifier, graph_frame, schedules
from measuring import best, resident

Row = dict[str, Any]
SEED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Libraries in place of code of ours.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(ROWS[options.row]()))
        return
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"{min(unknown)!r} is no row: expected some of {', '.join(ROWS)}")
    for name in options.rows or ROWS:
        words = [sys.executable, __file__, "--row", name]
        own = {**os.environ, "OMP_NUM_THREADS": "1", "VIPS_CONCURRENCY": "1"}
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=own, check=True)
        print(name, done.stdout.splitlines()[-1], flush=True)


# --- pictures ---


def spooled(raw: bool) -> Row:
    """Rows in a file, as libvips' raw loader reads them and as its TIFF loader does."""
    import pyvips

    width, height = 6000, 8000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        if raw:
            row = np.random.default_rng(SEED).integers(0, 65536, width * 3, np.uint16).tobytes()
            with path.open("wb") as file:
                for _ in range(height):
                    file.write(row)
        else:
            row = np.random.default_rng(SEED).integers(0, 65536, (1, width, 3), np.uint16)
            image = pyvips.Image.new_from_array(row).replicate(1, height)
            image.copy(interpretation="rgb16").tiffsave(str(path), bigtiff=True)
        before, start = resident("VmRSS"), time.perf_counter()
        if raw:
            given: dict[str, Any] = {
                "format": "ushort",
                "interpretation": "rgb16",
                "access": "sequential",
            }
            image = pyvips.Image.rawload(str(path), width, height, 3, **given)
        else:
            image = pyvips.Image.tiffload(str(path), access="sequential")
        options: dict[str, Any] = {"compression": "deflate", "predictor": "horizontal"}
        image.tiffsave(str(Path(folder) / "out.tif"), **options)
        seconds = round(time.perf_counter() - start, 2)
    return {"seconds": seconds, "peak_megabytes": round((resident("VmHWM") - before) / 1e6)}


def colours() -> Row:
    """Profiles of primaries and curves: libvips and LittleCMS, and ours."""
    from urushi.image.colour.conversion import ProfiledColours
    from urushi.image.colour.primaries import ADOBE_RGB, REC2020, SRGB_PRIMARIES
    from urushi.image.colour.profiles import matrix_colours
    from urushi.image.colour.stated import Stated

    rng = np.random.default_rng(SEED)
    vivid = rng.integers(0, 256, (512, 1024, 3), np.uint8)
    found: Row = {}
    p3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *SRGB_PRIMARIES[6:])
    for name, primaries in {"P3": p3, "Adobe RGB": ADOBE_RGB, "BT.2020": REC2020}.items():
        profile = Stated("test", primaries, (2.2,)).profile("rgb")
        assert profile is not None
        own = matrix_colours(profile)
        assert own is not None
        ways: dict[str, Any] = {"ours": own, "LittleCMS": ProfiledColours("rgb", profile)}
        for way, colour in ways.items():
            pixels = colour.to_working(vivid)
            back = np.rint(colour.from_working(pixels) * 255)
            found[f"{name}, {way}"] = {
                "changed_samples": round(float((back != vivid).mean()), 5),
                "greatest_change": int(np.abs(back - vivid).max()),
                "least_value": round(float(pixels.min()), 3),
                "seconds": best(lambda c=colour: c.from_working(c.to_working(vivid))),
            }
    return found


def enlarging() -> Row:
    """Bicubic enlarging by libvips and by Pillow, beside ours."""
    import pyvips
    from PIL import Image

    from urushi.image.enlarge import enlarge

    picture = np.random.default_rng(SEED).random((256, 384, 3), np.float32)
    found: Row = {}
    for scale in (2, 3, 4):
        expected, inner = enlarge(picture, scale), slice(4 * scale, -4 * scale)

        def by_resize(scale: int = scale) -> np.ndarray:
            return pyvips.Image.new_from_array(picture).resize(scale, kernel="cubic").numpy()

        def by_affine(scale: int = scale) -> np.ndarray:
            image, place = pyvips.Image.new_from_array(picture), (scale - 1) / (2 * scale)
            way = pyvips.Interpolate.new("bicubic")
            area = [0, 0, scale * image.width, scale * image.height]
            shift: dict[str, Any] = {"idx": place, "idy": place, "oarea": area, "extend": "mirror"}
            return image.affine([scale, 0, 0, scale], interpolate=way, **shift).numpy()

        def by_pillow(scale: int = scale) -> np.ndarray:
            size = (scale * picture.shape[1], scale * picture.shape[0])
            planes = [Image.fromarray(np.ascontiguousarray(picture[..., c])) for c in range(3)]
            resized = [plane.resize(size, Image.Resampling.BICUBIC) for plane in planes]
            return np.stack([np.asarray(plane) for plane in resized], axis=-1)

        row: Row = {"ours_seconds": best(lambda scale=scale: enlarge(picture, scale))}
        for name, way in {"resize": by_resize, "affine": by_affine, "Pillow": by_pillow}.items():
            error = np.abs(way() - expected) * 255
            row |= {
                f"{name}_levels_inside": round(float(error[inner, inner].max()), 4),
                f"{name}_levels": round(float(error.max()), 2),
                f"{name}_seconds": best(way),
            }
        found[f"x{scale}"] = row
    return found


def reducing() -> Row:
    """MATLAB's reduction by torch's own interpolation, beside ours."""
    import torch
    from torch.nn import functional as F

    from urushi.degradations.resize import resize

    picture = torch.rand(1, 3, 256, 384, generator=torch.Generator().manual_seed(SEED))
    found: Row = {}
    for scale in (2, 3, 4):
        expected = resize(picture, scale=1 / scale)
        size = expected.shape[-2:]
        given = F.interpolate(picture, size, mode="bicubic", antialias=True, align_corners=False)
        error = (given - expected).abs() * 255
        found[f"/{scale}"] = {
            "levels": round(float(error.max()), 3),
            "levels_inside": round(float(error[..., 4:-4, 4:-4].max()), 4),
        }
    return found


# --- metadata ---


def damaged_exif() -> Row:
    """Blocks of EXIF with a damaged byte or cut short, read by Pillow and by us."""
    from PIL import Image

    from urushi.image.metadata.exif import tags_of

    made = Image.Exif()
    made[271], made[282], made[296] = "Maker", 300.0, 2
    made.get_ifd(0x8769).update({0x829A: 0.01, 0x9003: "2021:03:04 05:06:07", 0x927C: b"x" * 40})
    block = made.tobytes()
    rng, found = np.random.default_rng(SEED), {"blocks": 0, "warned": 0, "raised": 0, "other": 0}
    for place in range(6, len(block)):
        for damaged in (
            block[:place],
            block[:place] + bytes([int(rng.integers(256))]) + block[place + 1 :],
        ):
            found["blocks"] += 1
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                exif = Image.Exif()
                try:
                    exif.load(damaged)
                    tags = {*exif, *exif.get_ifd(0x8769)} - {0x8769}
                except Exception as error:
                    name = f"raised_{type(error).__name__}"
                    found["raised"], found[name] = found["raised"] + 1, found.get(name, 0) + 1
                    continue
            found["warned"] += bool(told)
            found["other"] += tags != tags_of(damaged) - {0x8769}
    return found


def tiff_directories() -> Row:
    """The directories of TIFFs, by tifffile and by us."""
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ImportError:
        return {"tifffile": "not installed"}
    import pyvips

    from urushi.image.tiff.picture_directories import tiff_pages

    start = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    found: Row = {}
    words = [sys.executable, "-c", "import numpy; " + start.format("tifffile")]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found["import_seconds"] = round(float(done.stdout), 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pages.tif"
        image = pyvips.Image.black(16, 16 * 2000).copy(interpretation="b-w")
        image.set_type(pyvips.GValue.gint_type, "page-height", 16)
        image.tiffsave(str(path))

        def library() -> int:
            with tifffile.TiffFile(path) as tiff:
                return len([(page.imagewidth, page.compression) for page in tiff.pages])

        found["2000 pages, tifffile"] = best(library)

        def ours() -> int:
            os.utime(path)
            return len(tiff_pages(path).pages)

        found["2000 pages, ours"] = best(ours)
        one = Path(folder) / "one.tif"
        pyvips.Image.black(16, 16, bands=3).copy(interpretation="srgb").tiffsave(str(one))
        logging.disable()
        found |= _damaged(one, lambda p: len(tifffile.TiffFile(p).pages), "tifffile")
        found |= _damaged(one, lambda p: len(tiff_pages(p).pages), "ours")
    return found


def _damaged(path: Path, read: Callable[[Path], int], name: str) -> Row:
    """How reading ends where each byte of the directory in turn is another."""
    whole, found = path.read_bytes(), {}
    place = struct.unpack_from("<I", whole, 4)[0]
    for at in [*range(8), *range(place, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            end = f"{read(path)} pages"
        except Exception as error:
            end = type(error).__name__
        found[end] = found.get(end, 0) + 1
    path.write_bytes(whole)
    return {f"damaged, {name}": found}


ROWS: dict[str, Callable[[], Row]] = {
    "spool-raw": lambda: spooled(True),
    "spool-tiff": lambda: spooled(False),
    "colours": colours,
    "enlarging": enlarging,
    "reducing": reducing,
    "exif": damaged_exif,
    "tiff": tiff_directories,
    "averages": averages,
    "schedules": schedules,
    "classifier": classifier,
    "graph": graph_frame,
}


if __name__ == "__main__":
    main()
