"""The views of a picture: one of the whole, and local windows.

LoRA-IR's geometry (arXiv 2410.15385; layout `squashed`) gives CLIP the whole picture at its own
input size, and windows of the picture at twice that: both squashed to squares by Pillow's bicubic
filter on 8-bit pixels. With `aspect` nothing is squashed. With `native` the windows are crops of
the picture itself, because noise, compression and the grain of a sensor are gone once a picture
was reduced. A picture is looked at once, whole, never per tile; its rows may come a few at a time.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from urushi.errors import PictureError
from urushi.files.router_file import ViewGeometry

__all__ = [
    "Look",
    "Plan",
    "Views",
    "global_size",
    "local_size",
    "make_views",
    "plan_views",
    "view_rows",
    "views_of",
]

# The longer side is at most this many times what the shorter one should be (layout `aspect`), so
# that a strip of one pixel does not become a picture of gigabytes.
_LONGEST = 16


class Plan(NamedTuple):
    """Where the views of a picture of one size lie.

    Attributes:
        whole: height and width to which the picture is resized for the global view.
        local: height and width to which it is resized for local windows; those of the picture
            where they are cut from itself.
        windows: top and left of each local window there, row by row.
        size: side of a view.
    """

    whole: tuple[int, int]
    local: tuple[int, int]
    windows: tuple[tuple[int, int], ...]
    size: int


def global_size(geometry: ViewGeometry, height: int, width: int) -> tuple[int, int]:
    """Height and width to which a picture is resized for the global view."""
    size = geometry.size
    if geometry.layout == "squashed":
        return size, size
    scale = size / max(height, width)
    if geometry.layout == "native":
        scale = min(1.0, scale)  # enlarging shows nothing that was not there
    return _scaled(height, scale), _scaled(width, scale)


def local_size(geometry: ViewGeometry, height: int, width: int) -> tuple[int, int]:
    """Height and width to which a picture is resized before local windows are cut."""
    if geometry.grid is None:
        return height, width
    side = geometry.grid * geometry.size
    if geometry.layout == "squashed":
        return side, side
    scale = min(side / min(height, width), _LONGEST * side / max(height, width))
    return _scaled(height, scale), _scaled(width, scale)


def plan_views(geometry: ViewGeometry, height: int, width: int) -> Plan:
    """Where the views of a picture of `height` and `width` pixels lie."""
    whole = global_size(geometry, height, width)
    local = local_size(geometry, height, width)
    size = geometry.size
    stride = max(1, size - int(size * geometry.overlap))
    counts = [max(0, side - size) // stride + 1 for side in local]
    rows, columns = counts
    if geometry.most is not None and rows * columns > geometry.most:
        # As many down and across as the picture's shape has it, spread from edge to edge.
        rows = min(rows, max(1, int((geometry.most * local[0] / local[1]) ** 0.5)), geometry.most)
        columns = min(columns, geometry.most // rows)
        rows = min(counts[0], geometry.most // columns)
        tops, lefts = (
            _spread(side - size, n) for side, n in zip(local, (rows, columns), strict=True)
        )
    else:
        tops, lefts = (
            _centred(side - size, n, stride) for side, n in zip(local, counts, strict=True)
        )
    return Plan(whole, local, tuple((top, left) for top in tops for left in lefts), size)


class Look(NamedTuple):
    """Which views of a picture are wanted.

    Attributes:
        geometry: where they lie.
        whole: whether that of the whole picture is wanted, which then is the first.
    """

    geometry: ViewGeometry
    whole: bool = True


class Views:
    """Collects the views of one picture whose rows are given from top to bottom.

    Memory is proportional to the picture's height, and for layout `native` less.

    Args:
        geometry: which views.
        height, width: of the picture, in pixels.
        whole: whether that of the whole picture is wanted.
    """

    def __init__(
        self, geometry: ViewGeometry, height: int, width: int, *, whole: bool = True
    ) -> None:
        if height < 1 or width < 1:
            raise PictureError(
                f"a picture of {width}x{height} pixels is empty: give one of at least one pixel"
            )
        self.plan = plan_views(geometry, height, width)
        self._sides = (height, width)
        self._native = geometry.layout == "native"
        self._row = 0
        self._whole = _Resized(self.plan.whole, self._sides) if whole else None
        self._local = None if self._native else _Resized(self.plan.local, self._sides)
        size = self.plan.size
        self._crops = [
            np.zeros((min(size, height), min(size, width), 3), np.float32)
            for _ in (self.plan.windows if self._native else ())
        ]

    def add(self, rows: Float[np.ndarray, "h w 3"]) -> None:
        """Takes the next rows, in [0, 1]; what is outside is clipped, NaN counts as black."""
        assert rows.shape[1] == self._sides[1], rows.shape
        rows = np.clip(np.nan_to_num(rows), 0.0, 1.0)
        resized = [part for part in (self._whole, self._local) if part is not None]
        if resized:
            coded = np.ascontiguousarray(np.rint(rows * 255.0), np.uint8)
            for part in resized:
                part.add(coded)
        for (top, left), crop in zip(self.plan.windows, self._crops, strict=False):
            first, last = max(self._row, top), min(self._row + len(rows), top + len(crop))
            if first < last:
                part = rows[first - self._row : last - self._row, left : left + crop.shape[1]]
                crop[first - top : last - top] = part
        self._row += len(rows)

    def finish(self) -> Float[np.ndarray, "v 3 s s"]:
        """The views in [0, 1]: the global one if it is wanted, then the local ones row by row."""
        assert self._row == self._sides[0], (self._row, self._sides)
        size = self.plan.size
        views = [] if self._whole is None else [_squared(self._whole.finish(), size)]
        if self._local is None:
            views += [_squared(crop, size) for crop in self._crops]
        else:
            large = self._local.finish()
            views += [
                _squared(large[top : top + size, left : left + size], size)
                for top, left in self.plan.windows
            ]
        return np.ascontiguousarray(np.stack(views).transpose(0, 3, 1, 2))


def make_views(picture: np.ndarray, geometry: ViewGeometry) -> Float[np.ndarray, "v 3 s s"]:
    """The views of a picture: the global one, then the local ones row by row.

    Args:
        picture: `(H, W, 3)` in [0, 1]; a grey one may be `(H, W)` or `(H, W, 1)`.
        geometry: which views.

    Raises:
        PictureError: it has another shape, or no pixel.
    """
    return views_of(picture, [Look(geometry)])[0]


def views_of(picture: np.ndarray, looks: Sequence[Look]) -> list[Float[np.ndarray, "_ 3 _ _"]]:
    """The views of a picture by several looks at it; see `make_views`."""
    picture = np.asarray(picture)
    if picture.ndim == 2:
        picture = picture[..., None]
    if (
        picture.ndim != 3
        or picture.shape[2] not in (1, 3)
        or not np.issubdtype(picture.dtype, np.floating)
    ):
        raise PictureError(
            f"an array of {picture.dtype} {picture.shape} is not a picture: expected "
            "floats (H, W, 3) in [0, 1]"
        )
    coloured = np.broadcast_to(picture, (*picture.shape[:2], 3)).astype(np.float32, copy=False)
    return view_rows(lambda _: coloured, looks, *picture.shape[:2])


def view_rows(
    read: Callable[[int], np.ndarray],
    looks: Sequence[Look],
    height: int,
    width: int,
    rows: int = 256,
) -> list[Float[np.ndarray, "_ 3 _ _"]]:
    """The views of a picture that is read a few rows at a time, once, by several looks at it.

    Args:
        read: gives the next rows `(n, W, 3)`, as `PictureReader.read`.
        looks: which views.
        height, width: of the picture, in pixels.
        rows: read at a time.
    """
    collected = [Views(look.geometry, height, width, whole=look.whole) for look in looks]
    left = height
    while left > 0:
        band = read(min(rows, left))
        for views in collected:
            views.add(band)
        left -= len(band)
    return [views.finish() for views in collected]


class _Resized:
    """Pillow's bicubic resizing of 8-bit rows that come one band after another.

    Pillow resizes along rows first, rounds to 8 bits, and then along columns. So the first half can
    be done band by band, and the result is that of the whole picture at once, bit by bit.
    """

    def __init__(self, target: tuple[int, int], source: tuple[int, int]) -> None:
        self._target = target
        self._rows = np.empty((source[0], target[1], 3), np.uint8)
        self._row = 0

    def add(self, rows: np.ndarray) -> None:
        narrowed = _pillow(rows, (len(rows), self._target[1]))
        self._rows[self._row : self._row + len(rows)] = narrowed
        self._row += len(rows)

    def finish(self) -> np.ndarray:
        return _pillow(self._rows, self._target).astype(np.float32) / np.float32(255)


def _pillow(pixels: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    if pixels.shape[:2] == target:
        return pixels
    height, width = target
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _centred(room: int, count: int, stride: int) -> list[int]:
    """Positions a stride apart; what remains is left free in equal parts on both sides."""
    first = max(0, room - (count - 1) * stride) // 2
    return [first + index * stride for index in range(count)]


def _spread(room: int, count: int) -> list[int]:
    """Positions at equal distances from edge to edge; a single one in the middle."""
    room = max(0, room)
    if count == 1:
        return [room // 2]
    return [round(index * room / (count - 1)) for index in range(count)]


def _squared(pixels: np.ndarray, size: int) -> np.ndarray:
    """Filled up below and on the right with its mirror image: a border would look like damage."""
    missing = [(0, size - side) for side in pixels.shape[:2]]
    return np.pad(pixels, [*missing, (0, 0)], mode="symmetric")
