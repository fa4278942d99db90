"""What the adapters of one pass know besides their feature maps."""

from dataclasses import dataclass

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """One batch, as it goes through a backbone.

    Attributes:
        sides: height and width in pixels of the pictures, padded to what the backbone needs.
        again: the pass is calculated a second time, to save memory: running statistics have seen
            it already.
    """

    sides: tuple[int, int]
    again: bool = False
