"""Router files: what reads a picture's degradation, in one file, read without torch.

A file of a router with an encoder of ours holds everything. With CLIP it holds the head alone and
names the encoder, whose weights are a gigabyte and belong to others. The container is that of
`urushi.files.container`; tensors are `head.*` and, of an encoder of ours, `encoder.*`. In a file
that tries its experts there is `evidence.*`, which judges by what they change. A memory of
validation pictures may be there as well, `memory.*`: what is made of them, so that a class can be
added later without them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict, Field, JsonValue, model_validator

from urushi.errors import FileFormatError
from urushi.files.adapter import BaseFacts
from urushi.files.container import (
    Header,
    Kind,
    Storage,
    open_checked,
    read_tensors,
    to_storage,
    weights_hash,
    write_container,
)
from urushi.files.model import hash_of_graph, read_graph_file
from urushi.files.router_facts import (
    ClipFacts,
    CompactFacts,
    EncoderFacts,
    EvidenceFacts,
    FeatureFacts,
    Member,
    ViewGeometry,
    VisionFacts,
)
from urushi.files.tensors import Tensors
from urushi.names import counted
from urushi.version import __version__

__all__ = [
    "CLEAN",
    "ClipFacts",
    "CompactFacts",
    "EncoderFacts",
    "EvidenceFacts",
    "FeatureFacts",
    "LoadedRouter",
    "Member",
    "Mode",
    "RouterHeader",
    "RouterMemory",
    "ViewGeometry",
    "VisionFacts",
    "evidence_shapes",
    "head_shapes",
    "name_router_graph",
    "read_router",
    "read_router_header",
    "router_graph_path",
    "write_router",
]

FORMAT = "urushi-router"
VERSION = 1
CLEAN = "clean"
"""The class of pictures that need no expert."""

Mode = Literal["single", "multi"]
_MEMORY = {"memory.vectors", "memory.truths"}
_MEMORY_LOGITS = "memory.logits"
_COUNTERS = ".num_batches_tracked"  # of batch normalisation; of no use once trained
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class RouterHeader(Header):
    """What a router file says about itself.

    Attributes:
        format: always `urushi-router`.
        version: version of the file format.
        classes: degradations it tells apart, in the order of its logits; `clean` needs no expert.
        added: the last of the classes, which came later. One that does not win counts for nothing:
            see `urushi.routing.decision`.
        mode: `single`: exactly one class is true (softmax); `multi`: any number (sigmoid).
        views: what it looks at.
        encoder: what turns views into embeddings.
        temperature: logits are divided by it, fitted on validation pictures.
        threshold: it abstains where the largest probability is below.
        thresholds: lower ones of classes whose experts do little harm where they are not needed;
            of routers of mode `single`. See `urushi.routing.decision`.
        again: of an all-in-one file, how probable the kind of damage seen first has to be, and at a
            second look at what its expert has made of a picture another one, for the experts of
            both to act; null for one look alone. Of routers of mode `single`. See
            `urushi.inference.second_look`.
        base: of an all-in-one file, the model that its members are for; else null.
        guidance: of an all-in-one file, the adapter that its degradation vector guides; or null.
        experts: of an all-in-one file, the adapters of the classes; a class may have none. Together
            with the router they choose by themselves: see `urushi.files.all_in_one_file`.
        evidence: of an all-in-one file, which experts are tried before it is decided; null where
            the head's logits are the last word. See `urushi.routing.probe`.
        tensors_hash: `weights_hash` of the stored tensors; filled in by `write_router`.
        graph_hash: SHA-256 of the encoder's exported graph; filled in by `name_router_graph`, empty
            as long as there is none.
        name: what people call it; empty for the name of the file.
        description: one or two sentences for people.
        recipe: the resolved recipe of the training.
        scores: measured scores, such as accuracy and calibration error.
        licence: licence of the weights, preferably an SPDX identifier.
        data: statement about the training data and its terms.
        created_by: program and version that wrote the file.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    format: Literal["urushi-router"] = FORMAT
    version: Literal[1] = VERSION
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=1000)]
    added: tuple[ClassName, ...] = ()
    mode: Mode = "single"
    views: ViewGeometry
    encoder: EncoderFacts
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    thresholds: dict[ClassName, Annotated[float, Field(ge=0, le=1)]] = {}
    again: Annotated[float, Field(ge=0, le=1)] | None = None
    base: BaseFacts | None = None
    guidance: Member | None = None
    experts: dict[ClassName, Member] = {}
    evidence: EvidenceFacts | None = None
    tensors_hash: str = ""
    graph_hash: str = ""
    name: str = ""
    description: str = ""
    recipe: dict[str, JsonValue] | None = None
    scores: dict[str, JsonValue] = {}
    licence: str = ""
    data: str = ""
    created_by: str = f"urushi {__version__}"

    @model_validator(mode="after")
    def _classes_differ(self) -> "RouterHeader":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is named twice")
        first = len(self.classes) - len(self.added)
        if self.added and (first < 1 or self.classes[first:] != self.added):
            raise ValueError("added classes must be the last of the classes, behind others")
        return self

    @model_validator(mode="after")
    def _members_belong(self) -> "RouterHeader":
        for name in self.experts:
            if name not in self.classes or name == CLEAN:
                raise ValueError(f"an expert is named for {name}, which no class needs one for")
        for name, own in self.thresholds.items():
            if name not in self.classes or name == CLEAN or own > self.threshold:
                raise ValueError(f"thresholds has {name!r}: expected kinds of damage, none higher")
        if self.again is not None and self.mode != "single":
            raise ValueError("a second look is for mode single")
        if self.thresholds and self.mode != "single":
            raise ValueError("thresholds of single classes are for mode single")
        if (self.base is None) != (self.guidance is None and not self.experts):
            raise ValueError("a base goes with members, and members with a base")
        if self.evidence is not None:
            tried = {*self.evidence.experts, *self.evidence.own}
            if missing := tried - set(self.experts):
                raise ValueError(f"the expert {min(missing)!r} is tried, but is no member")
            if not set(self.evidence.own) <= set(self.added):
                raise ValueError("what counts for its own class alone must be an added one")
            if self.guidance is not None:
                raise ValueError("experts of a guided base cannot be tried")
        return self

    @property
    def is_all_in_one(self) -> bool:
        """Whether it names members."""
        return self.base is not None


_KIND = Kind(FORMAT, VERSION, "a router file", RouterHeader)


class RouterMemory(NamedTuple):
    """What a router makes of pictures that it did not learn from.

    Attributes:
        vectors: the degradation vector of each.
        truths: 1 for what is true of each, else 0; one for each class.
        logits: of each and each class, where evidence has a say in them; None where the vectors
            alone give them.
    """

    vectors: Float[np.ndarray, "m half"]
    truths: Float[np.ndarray, "m n"]
    logits: Float[np.ndarray, "m n"] | None = None

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """As a file of a router holds them."""
        found = self._asdict().items()
        return {f"memory.{name}": array for name, array in found if array is not None}


@dataclass(frozen=True)
class LoadedRouter:
    """A checked router file.

    Attributes:
        header: what the file says about itself.
        tensors: float32, by name under `head.`, `encoder.`, `evidence.` and `memory.`.
        path: the file they came from.
        graph: the encoder's exported graph beside the file, or None.
        storage: dtype of its tensors on disk.
    """

    header: RouterHeader
    tensors: Mapping[str, np.ndarray]
    path: Path
    graph: Path | None = None
    storage: Storage = "float32"

    @property
    def name(self) -> str:
        """What people call it."""
        return self.header.name or self.path.stem

    def part(self, name: str) -> dict[str, np.ndarray]:
        """Return the tensors of `head`, `encoder` or `evidence`, by the names they have there."""
        start = f"{name}."
        found = {k: v for k, v in self.tensors.items() if k.startswith(start)}
        return {key.removeprefix(start): tensor for key, tensor in found.items()}

    def alone(self) -> "LoadedRouter":
        """Return it without members, and without what was fitted to them."""
        fitted = self.header.evidence
        left = {"base": None, "guidance": None, "experts": {}, "evidence": None, "thresholds": {}}
        left["again"] = None
        if fitted is not None:
            left["temperature"] = fitted.temperature
        tensors = {
            name: tensor
            for name, tensor in self.tensors.items()
            if not name.startswith("evidence.") and name != _MEMORY_LOGITS
        }
        return replace(self, header=self.header.model_copy(update=left), tensors=tensors)

    @property
    def memory(self) -> RouterMemory | None:
        """What it makes of pictures it did not learn from; None where the file has none."""
        return RouterMemory(**self.part("memory")) if self.tensors.keys() >= _MEMORY else None


def router_graph_path(path: Path) -> Path:
    """Return where the exported graph of a router's encoder stands (or would stand)."""
    return path.with_suffix(".onnx")


def name_router_graph(path: Path) -> None:
    """Write the hash of the graph beside a router file into that file, whose tensors stay.

    Raises:
        FileFormatError: the file or its graph cannot be read, or the disk refuses.
    """
    path = Path(path)
    header = read_router_header(path)
    named = hash_of_graph(read_graph_file(router_graph_path(path)))
    if header.graph_hash != named:
        stored = read_tensors(path, header.tensors_hash)
        write_container(path, stored, header.model_copy(update={"graph_hash": named}))


def head_shapes(width: int, classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a head, for embeddings of `width` numbers."""
    return {
        "extractor.0.weight": (width, 2 * width),
        "extractor.0.bias": (width,),
        "extractor.2.weight": (width // 2, width),
        "extractor.2.bias": (width // 2,),
        "classifier.weight": (len(classes), width // 2),
        "classifier.bias": (len(classes),),
    }


def evidence_shapes(facts: EvidenceFacts, classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that judges by evidence.

    Args:
        facts: what is tried.
        classes: that were there when it was fitted.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "centre": (facts.width,),
        "spread": (facts.width,),
        "weight": (classes, facts.width),
        "bias": (classes,),
    }
    if facts.own:
        own = (len(facts.own), facts.each)
        shapes |= {"own_centre": own, "own_spread": own, "own_weight": own}
    return shapes


def write_router(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    header: RouterHeader,
    storage: Storage = "float32",
) -> RouterHeader:
    """Write a router file whole or not at all; a file that is there is replaced.

    Args:
        path: target, `NAME.safetensors`.
        tensors: by name under `head.`, `encoder.`, `evidence.` and `memory.`.
        header: description; its `tensors_hash` is replaced by that of the stored tensors.
        storage: dtype on disk.

    Returns:
        The header as written.

    Raises:
        FileFormatError: the name, a tensor or the header cannot be stored, or the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise FileFormatError(f"{path}: the name of a router file must end in .safetensors")
    stored = {
        name: to_storage(path, name, array, storage)
        for name, array in tensors.items()
        if not name.endswith(_COUNTERS)
    }
    shapes = {name: array.shape for name, array in stored.items()}
    _check_tensors(path, header, shapes)
    header = header.model_copy(update={"tensors_hash": weights_hash(stored)})
    write_container(path, stored, header)
    return header


def read_router_header(path: Path) -> RouterHeader:
    """Read and check what a router file says about itself, without reading its tensors.

    Raises:
        FileFormatError: the file is not a complete router file of a version known here.
    """
    path = Path(path)
    header, layout = open_checked(path, _KIND)
    _check_tensors(path, header, {name: shape for name, (_, shape) in layout.items()})
    return header


def read_router(path: Path) -> LoadedRouter:
    """Read a router file and check all of it, the tensors' hash and finiteness included.

    That the tensors of an encoder of ours are those its configuration asks for is checked when it
    is built, or its graph is read.

    Raises:
        FileFormatError: the file is not a sound router file of a version known here.
    """
    path = Path(path)
    header = read_router_header(path)
    stored = read_tensors(path, header.tensors_hash)
    tensors = {name: tensor.astype(np.float32, copy=False) for name, tensor in stored.items()}
    graph = router_graph_path(path)
    half = all(tensor.dtype == np.float16 for tensor in stored.values())
    return LoadedRouter(
        header,
        Tensors.made(header.tensors_hash, tensors),
        path,
        graph if graph.is_file() else None,
        "float16" if half else "float32",
    )


def _check_tensors(path: Path, header: RouterHeader, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names and shapes of all but an encoder with those the header asks for."""
    wanted = {
        f"head.{key}": shape
        for key, shape in head_shapes(header.encoder.width, header.classes).items()
    }
    if header.evidence is not None:
        own = evidence_shapes(header.evidence, len(header.classes) - len(header.added))
        wanted |= {f"evidence.{key}": shape for key, shape in own.items()}
    if _MEMORY & found.keys():
        count = (found.get("memory.vectors") or (0,))[0]
        wanted["memory.vectors"] = (count, header.encoder.width // 2)
        wanted["memory.truths"] = (count, len(header.classes))
        if header.evidence is not None:
            wanted[_MEMORY_LOGITS] = (count, len(header.classes))
    for name, shape in wanted.items():
        if found.get(name) != shape:
            what = f"has shape {found[name]}" if name in found else "is missing"
            raise FileFormatError(
                f"{path}: the tensor {name!r} {what}, a router of "
                f"{counted(len(header.classes), 'class', 'classes')} "
                f"with embeddings of {header.encoder.width} numbers has {shape}: get it again"
            )
    own = "encoder." if header.encoder.own else None
    for name in sorted(found):
        if name not in wanted and (own is None or not name.startswith(own)):
            raise FileFormatError(
                f"{path}: the tensor {name!r} is none of a router with a {header.encoder.kind} "
                "encoder: get it again"
            )
