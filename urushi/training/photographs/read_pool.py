"""What a frozen network reads from pictures, calculated once and kept in files.

Pictures have any size, and so any number of views; of the windows the mean is kept, since the head
takes the mean of their embeddings and the projection is linear.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from urushi.files.router_file import ViewGeometry
from urushi.routing.encoder import FrozenEncoder
from urushi.routing.views import make_views
from urushi.training.kept_parts import OnPictures, Part, gather

__all__ = ["Pool", "Rows", "reduced_rows", "standards"]

_TOGETHER = 32


@runtime_checkable
class _Pictures(Protocol):
    def __len__(self) -> int: ...

    def draw(self, number: int) -> tuple[np.ndarray, tuple[str, ...]]: ...


@dataclass(frozen=True)
class Rows:
    """What was read from pictures.

    Attributes:
        views: statistics of the views of all pictures, one after another; of each that of the whole
            picture first.
        counts: views of each picture.
        truths: the classes of each.
    """

    views: Float[np.ndarray, "v k"]
    counts: np.ndarray
    truths: Float[np.ndarray, "b n"]


@dataclass
class Pool:
    """Reads pictures, once.

    Args:
        folder: where the files go; several processes may share it.
        encoder: reads the views.
        geometry: of the views.
        pictures: by number.
        classes: in the order of the truths.
        key: whatever the pictures hang on; files of another key are not taken.
    """

    folder: Path
    encoder: FrozenEncoder
    geometry: ViewGeometry
    pictures: _Pictures
    classes: tuple[str, ...]
    key: object

    def fill(
        self, stopped: Callable[[], bool], on_pictures: OnPictures | None = None
    ) -> Rows | None:
        """Reads what is missing; None where it was stopped; see `kept_parts.gather`."""
        firsts = range(0, len(self.pictures), _TOGETHER)
        counts = [min(_TOGETHER, len(self.pictures) - first) for first in firsts]
        parts = gather(
            self.folder / f"read-{self._digest()}",
            {f"{first:06d}-{n}": n for first, n in zip(firsts, counts, strict=True)},
            lambda index: self._read(firsts[index], counts[index]),
            stopped,
            on_pictures,
        )
        if parts is None:
            return None
        views, counts, truths = (
            np.concatenate([part[name] for part in parts]) for name in ("views", "counts", "truths")
        )
        return Rows(views.astype(np.float32), counts, truths)

    def _read(self, first: int, count: int) -> Part:
        views, counts, truths = [], [], []
        for number in range(first, first + count):
            pixels, classes = self.pictures.draw(number)
            made = make_views(pixels.astype(np.float32) / 255, self.geometry)
            rows = self.encoder.read(torch.from_numpy(made)).statistics.numpy()
            # What bounds the range in half precision bounds the network, too.
            views.append(np.clip(np.nan_to_num(rows), -60000, 60000).astype(np.float16))
            counts.append(len(rows))
            truths.append([float(name in classes) for name in self.classes])
        return {
            "views": np.concatenate(views),
            "counts": np.array(counts, np.int64),
            "truths": np.array(truths, np.float32),
        }

    def _digest(self) -> str:
        stated = [self.key, self.geometry.model_dump(mode="json"), self.classes]
        digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
        for name, tensor in sorted(self.encoder.frozen.items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


def standards(rows: Rows) -> tuple[Tensor, Tensor]:
    """Mean and spread of all views, by which they are standardised."""
    views = torch.from_numpy(rows.views)
    return views.mean(0), views.std(0)


def reduced_rows(rows: Rows, encoder: FrozenEncoder) -> Float[Tensor, "b 2 k"]:
    """The standardised statistics of each whole picture, and their mean over its windows."""
    known = encoder.standard(torch.from_numpy(rows.views), encoder.centre, encoder.spread)
    ends = np.cumsum(rows.counts)
    pairs = [
        torch.stack([known[end - count], known[end - count + 1 : end].mean(0)])
        for end, count in zip(ends, rows.counts, strict=True)
    ]
    return torch.stack(pairs)
