"""In which numbers a picture with a wide gamut is best restored.

    python benchmarks/wide_gamut.py Kodak24/ [--limit 12] [--sigma 15 25]

The numbers of each photograph are taken as those of a wide space, so that its vivid colours lie
outside sRGB, given Gaussian noise there, and restored in several ways. PSNR is that of the encoded
numbers in that space; for the linear one, of sRGB's curve over its light.

* `clipped`: in sRGB, the result clipped to [0, 1].
* `unclipped`: the same without the clipping.
* `remainder`: in sRGB clipped to [0, 1]; what was cut off is added to the result.
* `array`: in sRGB as `Restorer.restore` takes an array: fields outside [0, 1] are seen once more.
* `numbers`: the file's own numbers, as if they were those of sRGB.
* `bt2020`: in the primaries of BT.2020 under sRGB's curve, whatever the file's are.
* `primaries`: in the file's own primaries under sRGB's curve, as `urushi restore` does.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import write_report

from urushi.evaluation.metrics import psnr
from urushi.image import is_picture_name, read_picture
from urushi.image.colour.curves import Tabulated, parametric_tag, read_curve
from urushi.image.colour.primaries import (
    ADOBE_RGB,
    PRIMARIES,
    REC2020,
    Chromaticities,
    xyz_of_primaries,
)
from urushi.image.colour.profiles import XYZ_OF_RGB, srgb_decode, srgb_encode
from urushi.inference.restorer import Restorer

SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
PROPHOTO = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001, 0.3457, 0.3585)
SPACES = {
    "Display P3": (PRIMARIES[12], SRGB_CURVE),
    "Adobe RGB": (ADOBE_RGB, (2.19921875,)),
    "ProPhoto": (PROPHOTO, (1.8,)),
    "BT.2020": (REC2020, SRGB_CURVE),
    "BT.2020, linear, 16 bits": (REC2020, (1.0,)),
}
SIDE = 256

Function = Callable[[np.ndarray], np.ndarray]


class Space:
    """Primaries and a curve, and ways to others."""

    def __init__(self, primaries: Chromaticities, numbers: tuple[float, ...]) -> None:
        curve = read_curve(parametric_tag(numbers))
        assert curve is not None
        matrix = xyz_of_primaries(primaries)
        assert matrix is not None
        self.matrix: np.ndarray = matrix
        self.decode: Function = Tabulated(curve.linear)
        self.encode: Function = Tabulated(curve.encoded)
        self.linear = numbers == (1.0,)

    def leave(self, samples: np.ndarray, xyz: np.ndarray) -> np.ndarray:
        """The colours of samples in other primaries, under sRGB's curve."""
        mixed = self.decode(samples) @ np.linalg.solve(xyz, self.matrix).T
        return srgb_encode()(mixed.astype(np.float32))

    def enter(self, pixels: np.ndarray, xyz: np.ndarray) -> np.ndarray:
        """The way back."""
        mixed = srgb_decode()(pixels) @ np.linalg.solve(self.matrix, xyz).T
        return self.encode(mixed.astype(np.float32))

    def shown(self, samples: np.ndarray) -> np.ndarray:
        """What errors are measured in."""
        samples = np.clip(samples, 0.0, 1.0)
        return srgb_encode()(samples) if self.linear else samples

    def spoilt(self, samples: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
        """With noise, in the bits of a file."""
        noise = rng.normal(0.0, sigma / 255, samples.shape)
        if self.linear:
            noisy = srgb_decode()(np.clip(srgb_encode()(samples) + noise, 0, 1).astype(np.float32))
            return np.rint(noisy * 65535).astype(np.float32) / np.float32(65535)
        return np.rint(np.clip(samples + noise, 0, 1) * 255).astype(np.float32) / np.float32(255)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where to restore wide gamuts.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--sigma", type=float, nargs="+", default=[15.0, 25.0])
    parser.add_argument("--model", default="base")
    arguments = parser.parse_args()
    restorer = Restorer(arguments.model)
    paths = sorted(path for path in arguments.folder.iterdir() if is_picture_name(path))
    scores: dict[tuple[str, float], list[dict[str, float]]] = {}
    rng = np.random.default_rng(0)
    for path in paths[: arguments.limit]:
        picture = read_picture(path)
        top, left = ((side - SIDE) // 2 for side in picture.shape[:2])
        picture = picture[top : top + SIDE, left : left + SIDE]
        for name, (primaries, numbers) in SPACES.items():
            space = Space(primaries, numbers)
            clean = space.encode(srgb_decode()(picture))
            for sigma in arguments.sigma:
                noisy = space.spoilt(clean, sigma, rng)
                row = {"noisy": noisy, **ways(restorer, space, noisy)}
                found = {
                    way: psnr(space.shown(result), space.shown(clean))
                    for way, result in row.items()
                }
                scores.setdefault((name, sigma), []).append(found)
    rows = [
        {"space": name, "sigma": sigma}
        | {way: round(float(np.mean([one[way] for one in found])), 2) for way in found[0]}
        for (name, sigma), found in scores.items()
    ]
    facts = {"what": "PSNR in the file's own space", "pictures": len(paths[: arguments.limit])}
    facts |= {"set": arguments.folder.name, "model": arguments.model, "side": SIDE}
    write_report("wide_gamut", facts, ("openvino",), rows)
    print(table(rows))


def ways(restorer: Restorer, space: Space, noisy: np.ndarray) -> dict[str, np.ndarray]:
    """What each way makes of the samples, as samples again."""

    def run(pixels: np.ndarray) -> np.ndarray:
        tile = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
        return restorer.engine.run(tile)[0].transpose(1, 2, 0)

    pixels = space.leave(noisy, XYZ_OF_RGB)
    inside = np.clip(pixels, 0, 1)
    unclipped = run(pixels)
    in_srgb = {
        "clipped": np.clip(unclipped, 0, 1),
        "unclipped": unclipped,
        "remainder": run(inside) + (pixels - inside),
        "array": restorer.restore(pixels),
    }
    wide = xyz_of_primaries(REC2020)
    assert wide is not None
    return {
        **{way: space.enter(result, XYZ_OF_RGB) for way, result in in_srgb.items()},
        "numbers": run(noisy),
        "bt2020": space.enter(run(space.leave(noisy, wide)), wide),
        "primaries": space.enter(run(space.leave(noisy, space.matrix)), space.matrix),
    }


def table(rows: list[dict]) -> str:
    """As Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
