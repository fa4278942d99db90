"""Teach the base your own kind of bad pictures, and mend more of them.

    python examples/adapt_to_pairs.py [STEPS]

Here the bad pictures are dark copies of good ones. Yours are files: a folder that holds `input/`
and `target/`, or a list of pairs of paths.
"""

import sys
from pathlib import Path

import numpy as np

import urushi

GOOD = Path(__file__).resolve().parents[1] / "demo" / "pictures" / "reference"


def main(steps: int) -> None:
    good = [urushi.read_picture(path) for path in sorted(GOOD.iterdir())[:4]]
    dark = [np.float32(0.4) * picture for picture in good]

    adapter = urushi.adapt(zip(dark, good, strict=True), steps=steps, seed=1)
    scores = adapter.header.scores["validation"]
    assert isinstance(scores, dict)
    print(f"{scores['psnr_base']:.2f} dB with the base, {scores['psnr']:.2f} with the adapter")

    # One small file, which names the base that it belongs to.
    path = adapter.save("dark.safetensors", overwrite=True)
    adapter = urushi.Adapter.load(path)
    restorer = urushi.Restorer("base", adapters=[adapter])
    print(f"{restorer.restore(dark[0]).mean():.2f} is the mean of {dark[0].mean():.2f} mended")

    # Half as strong: the effect of an adapter is a number.
    urushi.restore(dark[0], adapters=[(adapter, 0.5)])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
