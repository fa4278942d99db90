"""A router at work on pictures: views, embeddings, reading, decision; on arrays, without torch."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from urushi.errors import EngineError
from urushi.files.router_file import LoadedRouter, RouterHeader
from urushi.routing.decision import Decision, decide
from urushi.routing.head import Reading, read_embeddings
from urushi.routing.probe import (
    Evidence,
    describe_trials,
    evidence_looks,
    judged,
    trial_views,
)
from urushi.routing.views import Look, view_rows, views_of

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
        evidence: tries its experts, where the file says so; without it the head alone decides.
    """

    def __init__(
        self, stored: LoadedRouter, engine: EmbeddingEngine, evidence: Evidence | None = None
    ) -> None:
        facts, header = stored.header.evidence, stored.header
        assert evidence is None or facts is not None, stored.path
        self.stored = stored
        self.engine = engine
        self.evidence = evidence
        self.header: RouterHeader = header
        """What the router's file says about it; its temperature is that of what decides here."""
        if evidence is None and facts is not None:
            self.header = header.model_copy(update={"temperature": facts.temperature})
        self._head = stored.part("head")

    @property
    def looks(self) -> list[Look]:
        """The views it looks at: the encoder's, then those that experts are tried on."""
        tried = [] if self.evidence is None else evidence_looks(self.evidence.facts)
        return [Look(self.header.views), *tried]

    def read(self, picture: np.ndarray) -> Reading:
        """Logits and degradation vector of a picture.

        Args:
            picture: the whole of it, `(H, W, 3)` in [0, 1] (or grey) and of any size.

        Raises:
            PictureError: it is no picture.
            EngineError: an engine failed, or gave something that is not finite.
        """
        return self.read_views(views_of(picture, self.looks))

    def read_rows(self, read: Callable[[int], np.ndarray], height: int, width: int) -> Reading:
        """The same for a picture that is read a few rows at a time; see `PictureReader.read`."""
        return self.read_views(view_rows(read, self.looks, height, width))

    def read_views(self, views: Sequence[Float[np.ndarray, "_ 3 _ _"]]) -> Reading:
        """The same from a picture's views, by each of its looks."""
        reading = read_embeddings(self._head, self.engine.embed(views[0]))
        if self.evidence is not None:
            facts, engine = self.evidence.facts, self.evidence.engine
            found = describe_trials(facts, trial_views(facts, views[1:]), engine)
            reading = judged(self.evidence, found, reading)
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
