"""Whether the graph beside a model file is the one that belongs to it, and what it says of itself.

The hash of a model file is that of its weights; a graph decides just as much what becomes of a
picture. So the file names the SHA-256 of its graph, and another one is not run. Files from before
that name none: their graph is compared with the network in torch, once in a process, or refused.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from urushi.errors import BackboneError, EngineError, FileFormatError
from urushi.files.model import LoadedModel, architecture_hash, hash_of_graph, read_graph_file
from urushi.inference.hardware import is_installed

__all__ = [
    "ARCHITECTURE_KEY",
    "FIXED_PATCH_KEY",
    "SCALE_KEY",
    "SIZE_MULTIPLE_KEY",
    "GraphFacts",
    "graph_facts",
    "trusted_graph",
]

# Entries of the graph's metadata.
ARCHITECTURE_KEY = "urushi_architecture_hash"
SIZE_MULTIPLE_KEY = "urushi_size_multiple"
# Where they are missing, the network keeps the size, and takes tiles of any.
SCALE_KEY = "urushi_scale"
FIXED_PATCH_KEY = "urushi_fixed_patch"

_LARGEST = {SIZE_MULTIPLE_KEY: 4096, SCALE_KEY: 16, FIXED_PATCH_KEY: 4096}
# Graphs without a name that were compared with torch in this process, or are being compared.
_compared: set[tuple[str, str]] = set()


class GraphFacts(NamedTuple):
    """What a graph says about itself.

    Attributes:
        size_multiple: sides of its pictures must be multiples of it, in pixels.
        scale: sides of a result divided by those of its picture.
        fixed_patch: side of the squares that it takes alone, in pixels; None takes any size.
    """

    size_multiple: int
    scale: int
    fixed_patch: int | None


def trusted_graph(model: LoadedModel, compare: Callable[[LoadedModel], None]) -> bytes:
    """Read the graph of a model, and make sure that it belongs to it.

    Args:
        model: a checked model file with a graph.
        compare: runs the graph beside the network in torch and raises `BackboneError` or
            `EngineError` where they differ; called only where the file names no graph.

    Returns:
        The graph as it is stored: what was checked is what is run, whatever becomes of the file.

    Raises:
        FileFormatError: it is another graph, or nothing tells whether it is.
    """
    assert model.graph is not None
    content = read_graph_file(model.graph)
    found, named = hash_of_graph(content), model.header.graph_hash
    again = f"get both files again, or export it again with  urushi export {model.path}"
    if named:
        if found != named:
            raise FileFormatError(
                f"{model.graph} has the hash {found[:12]}, but {model.path.name} names a graph "
                f"with {named[:12]}: it was changed, or belongs to another file: {again}"
            )
        return content
    key = (architecture_hash(model.header), found)
    if key in _compared:
        return content
    if not is_installed("torch"):
        raise FileFormatError(
            f"{model.path} does not name its graph, and only torch can tell whether "
            f"{model.graph.name} is the right one: {again}"
        )
    _compared.add(key)
    try:
        compare(model)
    except (BackboneError, EngineError) as error:
        _compared.discard(key)
        raise FileFormatError(
            f"{model.graph} does not compute what the network of {model.path.name} does in "
            f"torch: {again}"
        ) from error
    except BaseException:
        _compared.discard(key)
        raise
    return content


def graph_facts(metadata: Mapping[str, str], model: LoadedModel) -> GraphFacts:
    """Read what a graph says about itself.

    Args:
        metadata: its entries.
        model: whose graph it is.

    Raises:
        FileFormatError: it is of another network, or an entry is missing or no sensible number.
    """
    if metadata.get(ARCHITECTURE_KEY) != architecture_hash(model.header):
        raise FileFormatError(
            f"{model.graph}: the graph of another network than {model.path.name}: put its own "
            "graph there, or export it again"
        )
    patch = _number(metadata, FIXED_PATCH_KEY, model) if FIXED_PATCH_KEY in metadata else None
    scale = _number(metadata, SCALE_KEY, model) if SCALE_KEY in metadata else 1
    multiple = _number(metadata, SIZE_MULTIPLE_KEY, model)
    if patch is not None and patch % multiple:
        raise FileFormatError(
            f"{model.graph}: its patches of {patch} pixels are no multiple of {multiple}, which it "
            "asks for: export it again"
        )
    return GraphFacts(multiple, scale, patch)


def _number(metadata: Mapping[str, str], key: str, model: LoadedModel) -> int:
    text = metadata.get(key, "")
    if len(text) <= 4 and text.isascii() and text.isdecimal() and 0 < int(text) <= _LARGEST[key]:
        return int(text)
    raise FileFormatError(
        f"{model.graph}: its {key} is {text!r:.40}, expected a number from 1 to {_LARGEST[key]}: "
        "export it again"
    )
