"""Files for the load on the service: pieces of pictures, all different, and bad ones."""

from pathlib import Path

import numpy as np

# Heights and widths, in turn; one is so large that the service makes a job of it.
SIZES = (
    (96, 128),
    (160, 120),
    (240, 320),
    (200, 300),
    (288, 432),
    (64, 64),
    (320, 240),
    (131, 257),
)
LARGE = (1300, 1700)
KINDS = (".jpg", ".png", ".webp", ".tif")


def make_folder(data: Path, folder: Path, count: int, bad: int) -> dict[str, tuple[int, int]]:
    """Writes pictures and bad files; returns the sizes of the pictures by name."""
    from urushi.image import is_picture_name, read_picture

    folder.mkdir()
    sources = [read_picture(path) for path in sorted(data.rglob("*")) if is_picture_name(path)]
    sources = [source for source in sources if source.ndim == 3 and source.shape[2] == 3]
    if not sources:
        raise SystemExit(f"{data} has no colour pictures")
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, int]] = {}
    for number in range(count):
        height, width = LARGE if number == count // 2 else SIZES[number % 8]
        source = sources[number % len(sources)]
        piece = _piece(source, height, width, random)
        name = f"picture{number:04}{KINDS[number // 8 % 4]}"
        _write(folder / name, piece, number, random)
        shapes[name] = (height, width)
    names = sorted(shapes)
    for number in range(bad):
        whole = (folder / names[number]).read_bytes()
        name, content = _bad(number, whole, Path(names[number]).suffix)
        (folder / name).write_bytes(content)
    return shapes


def _piece(source: np.ndarray, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A piece from anywhere in a picture, which is repeated where it is too small."""
    times = (-(-height // source.shape[0]), -(-width // source.shape[1]), 1)
    wide = np.tile(source, times)
    top = random.integers(wide.shape[0] - height + 1)
    left = random.integers(wide.shape[1] - width + 1)
    return wide[top : top + height, left : left + width]


def _write(path: Path, piece: np.ndarray, number: int, random: np.random.Generator) -> None:
    """A third is noisy, a third dark, a third as it is or as the file makes it."""
    from urushi.image import write_picture

    values = piece.astype(np.float32)
    if number % 3 == 0:
        values = values + random.normal(0, 0.1, values.shape).astype(np.float32)
    elif number % 3 == 1:
        values = values * np.float32(0.3)
    write_picture(path, values.clip(0, 1), quality=20 if path.suffix == ".jpg" else None)


def _bad(number: int, whole: bytes, suffix: str) -> tuple[str, bytes]:
    """A file that is no whole picture, though its name is that of one."""
    kind = number % 4
    if kind == 0:
        return f"text{number:02}.jpg", b"this is no picture, but a text\n" * 4
    if kind == 1:
        return f"empty{number:02}.png", b""
    if kind == 2:
        return f"head{number:02}{suffix}", whole[:40]
    return f"zeros{number:02}.webp", bytes(5000)
