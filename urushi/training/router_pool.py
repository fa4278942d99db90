"""Statistics of pictures, calculated once, from which a router learns many times.

An encoder that reads the features of a frozen network (`urushi.routing.features`) always makes the
same of a picture. So pictures are drawn as for any router, what the encoder reads is kept in files,
and the projection and the head, which cost next to nothing, learn from these.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from torch import Tensor

from urushi.files.router import ViewGeometry
from urushi.routing.batch_views import batch_views
from urushi.routing.features import FeatureEncoder
from urushi.training.batches import Batch, step_generator

__all__ = ["Rows", "StatisticsPool"]


@dataclass(frozen=True)
class Rows:
    """Statistics of pictures with as many views.

    Attributes:
        statistics: of every view, that of the whole picture first.
        truths: the classes of each picture.
    """

    statistics: Float[Tensor, "b v k"]
    truths: Tensor


@dataclass
class StatisticsPool:
    """What an encoder reads from pictures that are drawn once.

    Args:
        folder: where the files go.
        encoder: reads the pictures.
        views: of a picture.
        draw: makes the pictures of a step, and their classes.
        pictures: how many at least.
        key: whatever else the pictures hang on; files of another key are not taken.
        bf16: whether the network calculates in bfloat16.
    """

    folder: Path
    encoder: FeatureEncoder
    views: ViewGeometry
    draw: Callable[[int], Batch]
    pictures: int
    key: object
    bf16: bool
    _groups: list[Rows] = field(default_factory=list, init=False)

    def fill(self, on_step: Callable[[int, int], None], stopped: Callable[[], bool]) -> bool:
        """Calculates what is missing; files that are there stay.

        Args:
            on_step: told after each file how many pictures there are, and how many there will be.
            stopped: asked before each file.

        Returns:
            Whether all are there.
        """
        place = self.folder / f"statistics-{self._digest()}"
        place.mkdir(parents=True, exist_ok=True)
        found: list[Rows] = []
        count, step = 0, 0
        while count < self.pictures:
            if stopped():
                return False
            path = place / f"{step:05d}.safetensors"
            if not path.exists():
                part = path.with_suffix(".part")
                save_file(self._read(step), part)
                part.replace(path)
            loaded = load_file(path)
            statistics = torch.from_numpy(loaded["statistics"])
            found.append(Rows(statistics, torch.from_numpy(loaded["truths"])))
            count, step = count + len(statistics), step + 1
            on_step(count, self.pictures)
        self._groups = _grouped(found)
        return True

    @property
    def all_views(self) -> Float[Tensor, "n k"]:
        """The statistics of all views of all pictures."""
        return torch.cat([rows.statistics.flatten(0, 1) for rows in self._groups])

    @property
    def groups(self) -> list[Rows]:
        """All pictures, those with as many views together."""
        return self._groups

    def some(self, count: int, seed: int, step: int) -> Rows:
        """Pictures for an optimizer step, all with as many views; a function of seed and step."""
        generator = step_generator(seed, step)
        sizes = torch.tensor([len(rows.truths) for rows in self._groups], dtype=torch.float64)
        rows = self._groups[int(torch.multinomial(sizes, 1, generator=generator))]
        chosen = torch.randint(len(rows.truths), (count,), generator=generator)
        return Rows(rows.statistics[chosen], rows.truths[chosen])

    @torch.no_grad()
    def _read(self, step: int) -> dict[str, np.ndarray]:
        batch = self.draw(step)
        views = batch_views(batch.degraded, self.views)
        with torch.autocast(views.device.type, torch.bfloat16, enabled=self.bf16):
            statistics = self.encoder.statistics(views.flatten(0, 1))
        statistics = statistics.float().unflatten(0, views.shape[:2])
        return {"statistics": statistics.cpu().numpy(), "truths": batch.applied.cpu().numpy()}

    def _digest(self) -> str:
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode())
        digest.update(f"{self.views.model_dump()} {self.bf16}".encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            if not name.startswith(("project.", "centre", "spread")):
                digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]


def _grouped(found: list[Rows]) -> list[Rows]:
    groups = []
    for views in sorted({rows.statistics.shape[1] for rows in found}):
        own = [rows for rows in found if rows.statistics.shape[1] == views]
        groups.append(
            Rows(
                torch.cat([rows.statistics for rows in own]),
                torch.cat([rows.truths for rows in own]),
            )
        )
    return groups
