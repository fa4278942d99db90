"""Mend one picture: as an array, and as a file.

python examples/restore_picture.py [PICTURE]
"""

import sys
from pathlib import Path

import urushi

HAZY = Path(__file__).resolve().parents[1] / "demo" / "pictures" / "input" / "haze.webp"


def main(picture: Path) -> None:
    # An array comes back with the dtype and the shape that it had.
    pixels = urushi.read_picture(picture)
    mended = urushi.restore(pixels)
    print(f"{pixels.shape}, {pixels.dtype} -> {mended.shape}, {mended.dtype}")

    # A file comes back with its colour profile, metadata, depth and transparency.
    result = urushi.restore(picture, "mended.png", overwrite=True)
    assert result.choice is not None
    print(f"{result.target}: {result.choice.reason}")
    for note in result.notes:
        print(f"note: {note}")

    # The router decides by itself; a task decides for it, and "none" takes the base alone.
    urushi.restore(pixels, task="haze")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HAZY)
