"""What is read from pictures, calculated once, from which a router learns many times.

An encoder that reads the features of a frozen network (`urushi.routing.features`) always makes the
same of a picture. So pictures are drawn as for any router, what the encoder reads is kept in files,
and the projection and the head, which cost next to nothing, learn from these.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from urushi.files.router_file import ViewGeometry
from urushi.routing.features import FeatureEncoder
from urushi.routing.router import batch_views
from urushi.training.batches import step_generator
from urushi.training.kept_parts import OnPictures, Part, gather
from urushi.training.router.router_batches import RouterBatches

__all__ = ["Rows", "StatisticsPool"]


@dataclass(frozen=True)
class Rows:
    """What was read from pictures with as many views.

    Attributes:
        statistics: of every view, that of the whole picture first.
        places: float16 features of every place of every view; None where these are not read.
        truths: the classes of each picture.
    """

    statistics: Float[Tensor, "b v k"]
    places: Float16[Tensor, "b v c p"] | None
    truths: Tensor

    def of(self, chosen: Tensor, places: Tensor | None = None) -> "Rows":
        """Some of the pictures, and of their places."""
        own = self.places
        if own is not None:
            own = own[chosen] if places is None else own[chosen][..., places]
        return Rows(self.statistics[chosen], own, self.truths[chosen])


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
        windows: local views of a picture at most, where places are read; of more, these are drawn.
    """

    folder: Path
    encoder: FeatureEncoder
    views: ViewGeometry
    draw: RouterBatches
    pictures: int
    key: object
    bf16: bool
    windows: int | None = None
    _groups: list[Rows] = field(default_factory=list, init=False)

    def fill(self, stopped: Callable[[], bool], on_pictures: OnPictures | None = None) -> bool:
        """Calculates what is missing, see `kept_parts.gather`; says whether all are there."""
        steps = range(math.ceil(self.pictures / self.draw.batch))
        parts = gather(
            self.folder / f"statistics-{self._digest()}",
            {f"{step:05d}": self.draw.batch for step in steps},
            self._read,
            stopped,
            on_pictures,
        )
        if parts is None:
            return False
        read = [{name: torch.from_numpy(own) for name, own in part.items()} for part in parts]
        self._groups = _grouped(
            [Rows(part["statistics"], part.get("places"), part["truths"]) for part in read]
        )
        return True

    @property
    def all_views(self) -> Float[Tensor, "n k"]:
        """The statistics of all views of all pictures."""
        return torch.cat([rows.statistics.flatten(0, 1) for rows in self._groups])

    @property
    def all_places(self) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]] | None:
        """Mean and deviation of the features of all places; None where these are not read."""
        total = square = torch.zeros(1, dtype=torch.float64)
        count = 0
        for rows in self._groups:
            if rows.places is None:
                return None
            # Picture by picture: all of them in a wider format would not go into memory.
            for own in rows.places:
                values = own.double()
                total = total + values.sum((0, 2))
                square = square + values.square().sum((0, 2))
                count += values.shape[0] * values.shape[2]
        mean = total / count
        return mean.float(), (square / count - mean.square()).clamp_min(0).sqrt().float()

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
        if rows.places is None:
            return rows.of(chosen)
        # Half of the places: as good to learn from as all, in half of the time.
        places = torch.randperm(rows.places.shape[-1], generator=generator)
        return rows.of(chosen, places[: math.ceil(len(places) / 2)])

    @torch.no_grad()
    def _read(self, step: int) -> Part:
        batch = self.draw(step)
        views = self._views(batch.degraded, step)
        with torch.autocast(views.device.type, torch.bfloat16, enabled=self.bf16):
            read = self.encoder.read(views.flatten(0, 1))
        found = {"statistics": read.statistics.float(), "truths": batch.applied}
        if read.places is not None:
            found["places"] = read.places.half()
        for name in found.keys() - {"truths"}:
            found[name] = found[name].unflatten(0, views.shape[:2])
        return {name: tensor.cpu().contiguous().numpy() for name, tensor in found.items()}

    def _views(self, images: Tensor, step: int) -> Tensor:
        views = batch_views(images, self.views)
        if self.windows is None or views.shape[1] <= self.windows + 1:
            return views
        generator = step_generator(0, step)
        drawn = torch.randperm(views.shape[1] - 1, generator=generator)[: self.windows] + 1
        return views[:, [0, *drawn.tolist()]]

    def _digest(self) -> str:
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode())
        reads = (self.encoder.numbers, self.windows)
        digest.update(f"{self.views.model_dump()} {self.bf16} {reads}".encode())
        for _, tensor in sorted(self.encoder.frozen.items()):
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]


def _grouped(found: list[Rows]) -> list[Rows]:
    groups = []
    for views in sorted({rows.statistics.shape[1] for rows in found}):
        own = [rows for rows in found if rows.statistics.shape[1] == views]
        places = [rows.places for rows in own if rows.places is not None]
        groups.append(
            Rows(
                torch.cat([rows.statistics for rows in own]),
                torch.cat(places) if places else None,
                torch.cat([rows.truths for rows in own]),
            )
        )
    return groups
