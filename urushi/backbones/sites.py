"""What a backbone says, as data, about where it can be adapted.

Sites name modules by their dotted path in the backbone, so that an adapter asks for a kind of site
and never for a backbone. Weight layers are not listed: they are found by walking the modules.
"""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["bchw", "bhwc", "blc", "lbc"]


@dataclass(frozen=True)
class FeedForwardSite:
    """A feed-forward branch: what a parallel adapter stands beside.

    The branch reads the output of `norm` and its result, the output of `output`, is scaled by the
    parameter `scale` (when there is one) and added to the residual.

    Args:
        norm: module whose output is the branch's input.
        modules: the branch's own weight layers, in the order of execution.
        output: the module whose output leaves the branch.
        scale: the parameter that scales the branch before the addition, or None.
        width: channels of the branch's input and output.
        layout: order of the axes of the branch's input; b batch, c channels, l tokens, row by row.
        grid: rows and columns of the tokens, where they are the same for every picture; None lets
            them follow the picture's sides.
    """

    norm: str
    modules: tuple[str, ...]
    output: str
    scale: str | None
    width: int
    layout: Layout
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class AttentionSite:
    """Query, key and value projections, separate or packed.

    Args:
        query, key, value: `(module, first_row, last_row)` of the weight rows that project each.
        output: the output projection; a module that is called, so that its result can be changed.
        width: channels of the input and of the output projection's result.
        layout: order of the axes of the output projection's result.
    """

    query: tuple[str, int, int]
    key: tuple[str, int, int]
    value: tuple[str, int, int]
    output: str
    width: int
    layout: Layout

    @classmethod
    def packed(cls, module: str, output: str, width: int, layout: Layout) -> "AttentionSite":
        """A site whose `module` projects query, key and value, in this order."""
        query, key, value = ((module, i * width, (i + 1) * width) for i in range(3))
        return cls(query, key, value, output, width, layout)


@dataclass(frozen=True)
class TokenSite:
    """A block that takes a sequence of tokens of any length: prompts can stand in front of it.

    Its first argument and its result are sequences of the same length; it is called with
    positional arguments.

    Args:
        block: dotted path.
        width: channels of a token.
        layout: order of the axes of the sequence.
        companions: positions of further arguments that have a row for every token, such as
            position embeddings; the first argument is position 0.
    """

    block: str
    width: int
    layout: Literal["blc", "lbc"]
    companions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A run of blocks at one resolution; guidance modulates what enters it.

    Args:
        name: dotted path of the module that holds the blocks.
        role: side of the U-shape on which the stage lies.
        blocks: dotted paths of the blocks, in the order of execution.
        width: channels of the feature map.
        downscale: side of the picture divided by the side of the feature map.
        layout: order of the axes of the feature map. Tokens of a backbone with a `fixed_patch` are
            those of one square, and squares stand on the batch's axis, picture by picture.
    """

    name: str
    role: Literal["encoder", "middle", "decoder"]
    blocks: tuple[str, ...]
    width: int
    downscale: int
    layout: Layout = "bchw"


@dataclass(frozen=True)
class Sites:
    """All that one backbone offers.

    Args:
        feed_forward: feed-forward branches in the order of execution.
        attention: attention projections; empty for a convolutional backbone.
        stages: stages in the order of execution.
        decoder: dotted paths of the modules that decoder-only tuning trains.
        tokens: blocks that take prompts; empty for a backbone of convolutions or windows.
    """

    feed_forward: tuple[FeedForwardSite, ...]
    attention: tuple[AttentionSite, ...]
    stages: tuple[Stage, ...]
    decoder: tuple[str, ...]
    tokens: tuple[TokenSite, ...] = ()
