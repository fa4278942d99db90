"""What a router file says about its views, its encoder, its trials and its members."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_serializer, model_validator

from urushi.settings import Settings

__all__ = [
    "MOST_STRENGTH",
    "ClipFacts",
    "CompactFacts",
    "EncoderFacts",
    "EvidenceFacts",
    "FeatureFacts",
    "Member",
    "Scale",
    "ViewGeometry",
    "VisionFacts",
]

Scale = Literal["whole", "reduced", "native"]

MOST_STRENGTH = 2.0
"""Of an adapter, as a factor of what it was trained for; above it all that ship spoil pictures."""


class ViewGeometry(Settings):
    """Which parts of a picture a router looks at, and at what scale; see `urushi.routing.views`.

    Attributes:
        layout: `squashed`, LoRA-IR's: the picture resized to a square, its aspect ratio lost, and
            local windows of a larger square. `aspect`: the same with the aspect ratio kept.
            `native`: the same with local windows of the picture itself, at its own resolution.
        size: side of a view in pixels.
        grid: side of the picture (its shorter one with `aspect`) of which local windows are cut,
            as a multiple of `size`; null with `native`.
        overlap: share of a window that the next one repeats.
        most: local windows at most, spread evenly where more would fit; null with `squashed`,
            whose `grid` and `overlap` say how many there are.
    """

    layout: Literal["squashed", "aspect", "native"] = "squashed"
    size: Annotated[int, Field(ge=16, le=1024)] = 336
    grid: Annotated[int, Field(ge=1, le=8)] | None = None
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    most: Annotated[int, Field(ge=1, le=64)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: object) -> object:
        """Defaults that depend on the layout, written out so that files state them."""
        if not isinstance(given, dict):
            return given
        layout = given.get("layout", "squashed")
        filled = dict(given)
        if layout in ("squashed", "aspect") and filled.get("grid") is None:
            filled["grid"] = 2
        if layout in ("aspect", "native") and filled.get("most") is None:
            filled["most"] = 9
        return filled

    @model_validator(mode="after")
    def _no_idle_option(self) -> "ViewGeometry":
        if self.layout == "native" and self.grid is not None:
            raise ValueError("grid has no effect with layout native: leave it out")
        if self.layout == "squashed" and self.most is not None:
            raise ValueError("most has no effect with layout squashed: leave it out")
        return self


class CompactFacts(Settings):
    """A compact encoder; see `urushi.routing.encoders.CompactEncoder`.

    Attributes:
        kind: always `compact`.
        widths: channels of its stages, from full resolution down; each halves the resolution.
        blocks: residual blocks of each stage but the first.
        width: numbers of an embedding.
    """

    own: ClassVar[bool] = True
    """Whether the file holds its weights."""

    kind: Literal["compact"] = "compact"
    widths: Annotated[list[Annotated[int, Field(ge=1, le=512)]], Field(min_length=1, max_length=6)]
    blocks: Annotated[int, Field(ge=0, le=8)] = 1
    width: Annotated[int, Field(ge=2, le=4096, multiple_of=2)]


class FeatureFacts(Settings):
    """The first part of a restoration network; see `urushi.routing.features.FeatureEncoder`.

    Attributes:
        kind: always `features`.
        channels: of the NAFNet at full resolution; doubled by every level.
        levels: its blocks of each encoder level, from full resolution down.
        middle: its first blocks at the lowest resolution.
        places: how many numbers are made of the features of every place, beside the statistics of
            all; null makes none.
        width: numbers of an embedding.
    """

    own: ClassVar[bool] = True

    kind: Literal["features"] = "features"
    channels: Annotated[int, Field(ge=1, le=256)]
    levels: Annotated[list[Annotated[int, Field(ge=0, le=64)]], Field(min_length=1, max_length=6)]
    middle: Annotated[int, Field(ge=1, le=64)]
    places: Annotated[int, Field(ge=1, le=1024)] | None = None
    width: Annotated[int, Field(ge=2, le=4096, multiple_of=2)]


class ClipFacts(Settings):
    """The vision tower of a CLIP, which the file names and does not hold.

    Attributes:
        kind: always `clip`.
        name: of the checkpoint, as `transformers` knows it: a name on the hub or a folder.
        width: numbers of an embedding, after the projection.
        projection_hash: SHA-256 of the projection's weights: tells checkpoints apart.
    """

    own: ClassVar[bool] = False

    kind: Literal["clip"] = "clip"
    name: Annotated[str, Field(min_length=1, max_length=500)]
    width: Annotated[int, Field(ge=2, le=4096, multiple_of=2)]
    projection_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class VisionFacts(Settings):
    """The first stages of an image classifier; see `urushi.routing.vision.VisionEncoder`.

    Attributes:
        kind: always `vision`.
        network: whose stages these are.
        read: stages whose statistics are read, counted from 1; those behind the last are not there.
        tones: whether tones and detail of the pixels are read, too; see `urushi.routing.tones`.
        width: numbers of an embedding.
    """

    own: ClassVar[bool] = True

    kind: Literal["vision"] = "vision"
    network: Literal["efficientnet-lite0"] = "efficientnet-lite0"
    read: Annotated[
        tuple[Annotated[int, Field(ge=1, le=7)], ...], Field(min_length=1, max_length=7)
    ]
    tones: bool = False
    width: Annotated[int, Field(ge=2, le=4096, multiple_of=2)]

    @model_validator(mode="after")
    def _in_order(self) -> "VisionFacts":
        if list(self.read) != sorted(set(self.read)):
            raise ValueError("the stages are not in ascending order, each once")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dump: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        """Without tones as files of before have it: their graphs name a hash of it."""
        found = dump(self)
        if not self.tones:
            found.pop("tones", None)
        return found


EncoderFacts = Annotated[
    CompactFacts | FeatureFacts | VisionFacts | ClipFacts, Field(discriminator="kind")
]


class EvidenceFacts(Settings):
    """What a router tries its experts on before it decides; see `urushi.routing.probe`.

    Attributes:
        experts: classes whose experts are tried, in the order of their numbers.
        own: classes that were added later and whose experts are tried as well; what these change
            counts for their own class alone.
        scales: views that they are tried on: the `whole` picture reduced to one view, windows of
            the picture `reduced` to twice a view's side, and windows of it at its `native`
            resolution.
        size: side of a view in pixels.
        windows: of a picture at most, at each of the latter two scales.
        share: of the head's logits, which are added to those of the evidence.
        temperature: the router's where no expert is tried; the header's is for both together.
    """

    numbers: ClassVar[int] = 23
    """Statistics of what one expert changes in one view."""

    experts: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    own: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = ("native",)
    size: Annotated[int, Field(ge=32, le=512, multiple_of=32)] = 128
    windows: Annotated[int, Field(ge=1, le=16)] = 4
    share: Annotated[float, Field(ge=0, le=1e3)] = 1.0
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0

    @property
    def each(self) -> int:
        """Numbers of one expert for one picture: mean and maximum over the windows of a scale."""
        return self.numbers * sum(1 if scale == "whole" else 2 for scale in self.scales)

    @property
    def width(self) -> int:
        """Numbers of the base and of all experts, but for those of added classes."""
        return (1 + len(self.experts)) * self.each

    @model_validator(mode="after")
    def _nothing_twice(self) -> "EvidenceFacts":
        for named in ((*self.experts, *self.own), self.scales):
            if len(set(named)) < len(named):
                raise ValueError("an expert or a scale is named twice")
        return self


class Member(Settings):
    """An adapter file that stands beside the file of a router that names it.

    Attributes:
        file: its name, without a folder.
        tensors_hash: what its header says of its tensors; tells whether it is the one meant.
        strength: factor of its effect at the whole weight, from 0 to `MOST_STRENGTH`.
    """

    file: Annotated[
        str,
        Field(
            min_length=13, max_length=200, pattern=r"^[^./\\:\x00-\x1f\x7f][^/\\:\x00-\x1f\x7f]*$"
        ),
    ]
    tensors_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    strength: Annotated[float, Field(ge=0, le=MOST_STRENGTH)] = 1.0

    @model_validator(mode="after")
    def _of_safetensors(self) -> "Member":
        if not self.file.endswith(".safetensors"):
            raise ValueError("the name of a member must end in .safetensors")
        return self
