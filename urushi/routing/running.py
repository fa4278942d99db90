"""A router at work on pictures: views, embeddings, reading, decision; on arrays, without torch."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from urushi.errors import EngineError
from urushi.files.router import LoadedRouter, RouterHeader
from urushi.routing.decision import Decision, decide
from urushi.routing.head import Reading, read_embeddings
from urushi.routing.views import make_views, view_rows

__all__ = ["EmbeddingEngine", "PictureRouter"]


@runtime_checkable
class EmbeddingEngine(Protocol):
    """Executes an encoder.

    Attributes:
        name: `torch` or `openvino`.
        device: as an engine's of `urushi.inference.engines`.
    """

    name: str
    device: str

    def embed(self, views: np.ndarray) -> np.ndarray:
        """Embeddings `(N, d)` of single views `(N, 3, S, S)`, float32 in [0, 1].

        Raises:
            EngineError: the engine failed.
        """
        ...


class PictureRouter:
    """Reads from pictures what is wrong with them.

    Args:
        stored: a checked router file.
        engine: executes its encoder.
    """

    def __init__(self, stored: LoadedRouter, engine: EmbeddingEngine) -> None:
        self.stored = stored
        self.engine = engine
        self._head = stored.part("head")

    @property
    def header(self) -> RouterHeader:
        """What the router's file says about it."""
        return self.stored.header

    def read(self, picture: np.ndarray) -> Reading:
        """Logits and degradation vector of a picture.

        Args:
            picture: the whole of it, `(H, W, 3)` in [0, 1] (or grey) and of any size.

        Raises:
            PictureError: it is no picture.
            EngineError: the engine failed, or gave something that is not finite.
        """
        return self.read_views(make_views(picture, self.header.views))

    def read_rows(self, read: Callable[[int], np.ndarray], height: int, width: int) -> Reading:
        """The same for a picture that is read a few rows at a time; see `PictureReader.read`."""
        return self.read_views(view_rows(read, self.header.views, height, width))

    def read_views(self, views: Float[np.ndarray, "v 3 s s"]) -> Reading:
        """The same from a picture's views, the global one first."""
        reading = read_embeddings(self._head, self.engine.embed(views))
        if not np.isfinite(reading.logits).all():
            raise EngineError(
                f"the router {self.stored.name} gave logits that are not finite on "
                f"{self.engine.name}: choose the expert yourself, or another engine"
            )
        return reading

    def decide(
        self, reading: Reading, *, k: int = 1, threshold: float | int | None = None
    ) -> Decision:
        """What to do with a picture; see `urushi.routing.decision.decide`."""
        return decide(reading.logits, self.header, k=k, threshold=threshold)
