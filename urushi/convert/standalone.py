"""Writes a model, with adapters or without, as one ONNX file that needs nothing of Urushi.

The weights are inside, and so is the padding: such a file takes a batch of pictures of any size.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from urushi.convert.graph_checks import (
    Agreement,
    import_onnxruntime,
    longest_side,
    require_exporting,
)
from urushi.errors import BackboneError, FileFormatError, UrushiError
from urushi.files.container import stated_format
from urushi.files.model import LoadedModel, architecture_hash
from urushi.inference.adapted_weights import (
    AdapterLike,
    AppliedAdapter,
    apply_adapters,
    notes_of_graphs,
)
from urushi.inference.engines.graph_trust import ARCHITECTURE_KEY
from urushi.inference.engines.openvino_engine import (
    IMAGE_INPUT,
    openvino_core,
)
from urushi.inference.hardware import in_use, is_installed
from urushi.inference.tiling import TilePlan, pad_tile, stream_tiles
from urushi.version import __version__
from urushi.writing import whole_file

if TYPE_CHECKING:
    import onnx

    from urushi.inference.engines.torch_engine import TorchEngine

__all__ = [
    "StandaloneExport",
    "check_onnx_target",
    "describe_graph",
    "export_standalone",
    "licences_of",
]

Run = Callable[[np.ndarray], np.ndarray]

# Files of protobuf end here.
_LARGEST = (1 << 31) - 1


class StandaloneExport(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        adapters: those in it, as people know them.
        scale: sides of a result divided by those of the picture.
        checked_with: what ran it, and gave what torch gives: `onnxruntime` where it is installed,
            and `openvino`.
        notes: sentences about what does not run it.
    """

    path: Path
    adapters: tuple[str, ...]
    scale: int
    checked_with: tuple[str, ...]
    notes: tuple[str, ...] = ()


def export_standalone(
    model: LoadedModel, target: Path, adapters: Sequence[AdapterLike] = ()
) -> StandaloneExport:
    """Write a network with its weights as one ONNX file; one that is there is replaced.

    Its input `image` and its output `restored` are RGB, float32, 0 to 1 (the output is not
    clipped), `(batch, 3, height, width)` with any batch, height and width. The picture is filled up
    inside as `Restorer` does it, and is restored whole: nothing in the file cuts a large one into
    tiles. Only a network of fixed squares (IPT) cuts it, into squares that overlap by a third.
    The file is kept if it gives what torch gives at three odd sizes, in ONNX Runtime and in
    OpenVINO; without the latter only where ONNX Runtime vouches for it, and with a note.

    Args:
        model: a checked model file.
        target: `NAME.onnx`.
        adapters: as for `Restorer`. Those that weights can hold are merged into them, others, such
            as AdaptIR, are branches of the graph.

    Raises:
        AdapterError: an adapter belongs to another base, or is not sound.
        BackboneError: the network or an adapter cannot be a graph, or the graph gives other results
            than torch.
        EngineError: the network takes other pictures than grey ones or those of three colours.
        FileFormatError: the name is not one for it, or the target cannot be written.
        MissingExtraError: torch, onnx or onnxscript is not installed.
    """
    target = Path(target)
    check_onnx_target(target)
    require_exporting()
    ready, applied, attached = apply_adapters(model, adapters)
    from urushi.inference.engines.torch_engine import TorchEngine

    reference = TorchEngine(ready, device="cpu", adapters=attached)
    graph = _whole_graph(ready, reference, attached)
    describe_graph(graph, ready, applied, attached, reference.scale)
    try:
        with whole_file(target, overwrite=True) as part:
            part.write_bytes(_serialized(graph, target))
            del graph
            ran, notes = _verified(part, reference, target)
    except OSError as error:
        raise FileFormatError(f"{target} cannot be written ({error.strerror or error})") from error
    notes = (*notes_of_graphs(applied), *notes)
    return StandaloneExport(target, tuple(a.told for a in applied), reference.scale, ran, notes)


def check_onnx_target(target: Path) -> None:
    """Raise `FileFormatError` where one ONNX file cannot stand."""
    if target.suffix != ".onnx":
        raise FileFormatError(f"{target}: the name of an ONNX file must end in .onnx", usage=True)
    beside = target.with_suffix(".safetensors")
    # Adapters and routers have no such graph: their names are free.
    if beside.exists() and stated_format(beside) not in ("urushi-adapter", "urushi-router"):
        raise FileFormatError(
            f"{target} is where the graph without weights belongs, of {beside.name}: "
            "choose another name",
            usage=True,
        )


def _whole_graph(
    model: LoadedModel, reference: "TorchEngine", attached: Sequence[AppliedAdapter]
) -> "onnx.ModelProto":
    """The network in its frame, with weights instead of inputs for them."""
    from onnx import numpy_helper

    from urushi.convert.standalone_frame import framed
    from urushi.convert.tracing import RESULT, traced

    graph = None if attached else _graph_beside(model)
    if graph is None:
        graph = traced(model, reference.size_multiple, attached)
    weights = [entry for entry in graph.graph.input if entry.name != IMAGE_INPUT]
    for entry in weights:
        tensor = numpy_helper.from_array(model.tensors[entry.name], entry.name)
        graph.graph.initializer.append(tensor)
        graph.graph.input.remove(entry)
    framed(
        graph,
        IMAGE_INPUT,
        RESULT,
        multiple=reference.size_multiple,
        scale=reference.scale,
        patch=reference.fixed_patch,
    )
    return graph


def _graph_beside(model: LoadedModel) -> "onnx.ModelProto | None":
    """The graph beside a model, if this very version has written it; tracing takes long."""
    import onnx
    from google.protobuf.message import DecodeError

    if model.graph is None:
        return None
    try:
        graph = onnx.load(model.graph)
    except DecodeError:
        return None
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    ours = graph.producer_name == "urushi" and graph.producer_version == __version__
    fits = metadata.get(ARCHITECTURE_KEY) == architecture_hash(model.header)
    names = {entry.name for entry in graph.graph.input} == {IMAGE_INPUT, *model.tensors}
    if not (ours and fits and names):
        return None
    graph.ClearField("metadata_props")
    return graph


def licences_of(model: LoadedModel, attached: Sequence[AppliedAdapter]) -> str:
    """The licences of a model and of adapters beside it, as far as they are stated.

    That of adapters in the weights is in the model's header already.
    """
    licences = [model.header.licence, *(item.adapter.header.licence for item in attached)]
    return "; ".join(licence for licence in dict.fromkeys(licences) if licence)


def describe_graph(
    graph: "onnx.ModelProto",
    model: LoadedModel,
    adapters: Sequence[AppliedAdapter],
    attached: Sequence[AppliedAdapter],
    scale: int,
    sizes: str = "any size",
) -> None:
    """Say in a graph what it is, and which pictures it takes (`sizes`)."""
    header = model.header
    larger = "" if scale == 1 else f"{scale} * "
    facts = {
        "name": model.path.stem,
        "version": __version__,
        "description": header.description,
        "backbone": header.backbone,
        "licence": licences_of(model, attached) or "not stated",
        "data": header.data,
        "weights_hash": header.weights_hash,
        "adapters": ", ".join(item.told for item in adapters),
        "input": f"RGB, float32, 0..1, (batch, 3, height, width), {sizes}",
        "output": f"RGB, float32, 0..1 but not clipped, (batch, 3, {larger}height, {larger}width)",
        "scale": str(scale),
    }
    for key, value in facts.items():
        if value:
            graph.metadata_props.add(key=key, value=value)
    graph.producer_name, graph.producer_version = "urushi", __version__
    graph.graph.name, graph.doc_string = model.path.stem, header.description


def _serialized(graph: "onnx.ModelProto", target: Path) -> bytes:
    if graph.ByteSize() > _LARGEST:
        raise BackboneError(
            f"{target} would have {graph.ByteSize() / 1e9:.1f} GB, and one ONNX file has at most "
            "2: use engine torch"
        )
    return graph.SerializeToString(deterministic=True)


def _verified(
    path: Path, reference: "TorchEngine", target: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check a file in every engine that is installed.

    Returns:
        The engines that give what torch gives, and notes about others.

    Raises:
        BackboneError: none does, or ONNX Runtime does not.
    """
    ran = []
    if is_installed("onnxruntime"):
        _check(lambda: _in_onnxruntime(path), reference, target)
        ran.append("onnxruntime")
    try:
        _check(lambda: _in_openvino(path), reference, target)
        ran.append("openvino")
    except BackboneError as error:
        if not ran:
            raise
        return tuple(ran), (f"OpenVINO does not run this file, ONNX Runtime does: {error}",)
    return tuple(ran), ()


def _in_onnxruntime(path: Path) -> Run:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return lambda batch: np.asarray(session.run(None, {IMAGE_INPUT: batch})[0])


def _in_openvino(path: Path) -> Run:
    in_use("openvino")
    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(path.read_bytes()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return lambda batch: compiled({IMAGE_INPUT: batch})[0]


def _check(opened: Callable[[], Run], reference: "TorchEngine", target: Path) -> None:
    """Compare a file with torch at odd sizes.

    Raises:
        BackboneError: the file cannot be opened, or they differ.
    """
    try:
        run = opened()
    except UrushiError:
        raise
    # Whatever engines raise; which errors these are they do not say.
    except Exception as error:
        raise BackboneError(f"{target}: the file cannot be opened: {_one_line(error)}") from error
    unit, agreement = reference.size_multiple, Agreement(reference)
    rng = np.random.default_rng(0)
    side, length = (longest_side(reference, most, rows) for most, rows in ((20, None), (40, 2)))
    sizes = ((2, 5, 3), (1, (length * unit - 1) | 1, unit + 1 | 1), (1, side * unit - unit // 2, 7))
    for count, height, width in sizes:
        images = rng.random((count, 3, height, width), dtype=np.float32)
        expected = np.stack([_expected(reference, image) for image in images])
        try:
            well = agreement.holds(run(images), expected)
        except UrushiError:
            raise
        except Exception as error:
            raise BackboneError(
                f"{target}: at {height} x {width} pixels the file cannot be run: {_one_line(error)}"
            ) from error
        if not well:
            raise BackboneError(
                f"{target}: at {height} x {width} pixels the file gives a different result from "
                "torch: "
                "this network cannot be exported, use engine torch"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _expected(reference: "TorchEngine", image: np.ndarray) -> np.ndarray:
    """What torch makes of a picture `(3, h, w)` that is filled up, or cut into squares."""
    from urushi.convert.standalone_frame import squares

    rows, multiple, scale = image.transpose(1, 2, 0), reference.size_multiple, reference.scale
    height, width = (-(-side // multiple) * multiple for side in rows.shape[:2])
    if reference.fixed_patch is None:
        whole = reference.run(pad_tile(rows, height, width)[None])[0]
    else:
        step = squares(multiple).starts[1]
        plan = TilePlan(
            *(
                squares(multiple, 1 + max(-((multiple - side) // step), 0))
                for side in rows.shape[:2]
            )
        )
        filled = pad_tile(rows, plan.rows.length, plan.columns.length).transpose(1, 2, 0)
        position = 0

        def read(count: int) -> np.ndarray:
            nonlocal position
            position += count
            return filled[position - count : position]

        pieces = stream_tiles(read, plan, lambda t: reference.run(t[None])[0], scale=scale)
        whole = np.concatenate(list(pieces)).transpose(2, 0, 1)
    return whole[:, : image.shape[1] * scale, : image.shape[2] * scale]
