"""Files for other programs, by the name of the program: `urushi export --for HOST`.

What each asks for is in `HOSTS` and in docs/hosts.md. A file leaves behind what those programs have
no place for: the router, colour profiles, and whatever is not eight bits where they know no more.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from urushi.convert.dtmodel import darktable_package
from urushi.convert.graph_checks import require_exporting
from urushi.convert.standalone import check_onnx_target, describe_graph
from urushi.errors import AdapterError, BackboneError, FileFormatError, nearest
from urushi.files.model import LoadedModel, write_model
from urushi.inference.adapted_weights import (
    AdapterLike,
    AppliedAdapter,
    apply_adapters,
    notes_of_graphs,
)
from urushi.writing import refuse_taken, whole_file

if TYPE_CHECKING:
    from urushi.convert.host_graphs import HostGraph

__all__ = [
    "HOSTS",
    "STATIC",
    "Host",
    "HostExport",
    "default_target",
    "export_for_host",
    "find_host",
]

# Sides of a graph of one size.
_LARGEST = 1 << 14
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# chaiNNer asks for shapes at this size first, and takes it for what sides must be multiples of.
CHAINNER_SIDE = 16
_IMAGETOOLBOX_MULTIPLE = 8
# darktable's tiles: their sides are multiples of the first and at least the second, and neighbours
# share the third.
_DARKTABLE_MULTIPLE, _DARKTABLE_SMALLEST, _DARKTABLE_OVERLAP = 64, 256, 64


class Host(NamedTuple):
    """A program, or a family of them, that loads restoration networks.

    Attributes:
        name: as it is given to `--for`.
        programs: for people.
        ending: of its files.
        where: what is to be done with the file.
        also: other names of it.
        static: the size of its graphs where none is told; None leaves it open.
        prefix: how the names of its files begin.
    """

    name: str
    programs: str
    ending: str
    where: str
    also: tuple[str, ...] = ()
    static: tuple[int, int] | None = None
    prefix: str = ""


HOSTS: Mapping[str, Host] = {
    host.name: host
    for host in (
        Host(
            "spandrel",
            "ComfyUI, chaiNNer (PyTorch), A1111, Forge, InvokeAI",
            ".safetensors",
            "put it where the program keeps upscale models, in ComfyUI models/upscale_models",
            ("comfyui", "a1111", "forge", "invokeai", "pytorch"),
        ),
        Host(
            "opencv",
            "OpenCV's DNN module",
            ".onnx",
            "read it with cv2.dnn.readNetFromONNX",
            ("cv2", "opencv-dnn"),
            (512, 512),
        ),
        Host(
            "darktable",
            "darktable 5.6 and later, neural restore",
            ".dtmodel",
            "install it from file in darktable's preferences",
        ),
        Host("chainner", "chaiNNer (ONNX)", ".onnx", "open it with the node Load Model of ONNX"),
        Host(
            "imagetoolbox",
            "ImageToolbox for Android",
            ".onnx",
            "import it among the AI tools, under this name: it tells the scale",
        ),
        Host(
            "vs-mlrt",
            "vs-mlrt for VapourSynth",
            ".onnx",
            "give it to vsmlrt.inference",
            ("vsmlrt", "vapoursynth"),
        ),
    )
}
STATIC = Host("static", "CoreML, MIGraphX, TensorRT, ncnn", ".onnx", "convert it with their tools")
"""A graph of one size for programs without a name here: `--static` alone."""


class HostExport(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        host: name of the program.
        adapters: those in it, as people know them.
        scale: sides of a result divided by those of the picture.
        static: height and width of the only pictures that it takes, or None.
        multiple: what the sides of pictures must be multiples of.
        checked_with: the engines that ran the graph and gave what torch gives.
        notes: sentences about what is to be known.
    """

    path: Path
    host: str
    adapters: tuple[str, ...]
    scale: int
    static: tuple[int, int] | None
    multiple: int
    checked_with: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_host(name: str) -> Host:
    """Return the host of that name, or one of its other names.

    Raises:
        BackboneError: there is none.
    """
    asked = name.lower()
    for host in HOSTS.values():
        if asked == host.name or asked in host.also:
            return host
    known = [*HOSTS, "browser", *(other for host in HOSTS.values() for other in host.also)]
    raise BackboneError(
        f"--for {name!r} is none of {', '.join([*HOSTS, 'browser'])}{nearest(asked, known)}",
        usage=True,
    )


def default_target(host: Host, model: LoadedModel, adapters: Sequence[AppliedAdapter]) -> Path:
    """Return the name that a file gets where none is told, in the current folder."""
    parts = [model.path.stem, *(item.adapter.name for item in adapters)]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(["urushi", *parts, *_told_host(host)]))
    return Path(f"{stem}{host.ending}")


def _told_host(host: Host) -> list[str]:
    # The others differ by their endings, or say so by their prefix.
    return [host.name] if host.ending == ".onnx" else []


def export_for_host(
    model: LoadedModel,
    host: Host,
    target: Path | None = None,
    adapters: Sequence[AdapterLike] = (),
    *,
    static: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> HostExport:
    """Write a network, with adapters or without, as a program of others takes it.

    Args:
        model: a checked model file.
        host: of `HOSTS`, or `STATIC`.
        target: the file; None makes up a name in the current folder.
        adapters: as for `Restorer`.
        static: height and width of the only pictures that the graph takes; None is as the host has
            it.
        overwrite: replace a file of that name.

    Raises:
        AdapterError: an adapter belongs to another base, is not sound, or is none that this host
            can hold.
        BackboneError: this network cannot go there, or the graph gives other results than torch.
        FileFormatError: the name is not one for it, or the target cannot be written.
        MissingExtraError: torch, onnx or onnxscript is not installed.
        TakenError: a file of that name is there already.
    """
    require_exporting()
    ready, applied, attached = apply_adapters(model, adapters)
    if static is None:
        static = host.static
    if static is not None and not all(1 <= side <= _LARGEST for side in static):
        raise BackboneError(
            f"--static {static[0]}x{static[1]}: a side is from 1 to {_LARGEST} pixels long",
            usage=True,
        )
    given = target is not None
    scale = _scale(ready)
    path = Path(target) if target is not None else default_target(host, model, applied)
    if host.name == "imagetoolbox" and not given:
        path = path.with_name(f"{scale}x-{re.sub(r'(?<=[0-9])x|x(?=[0-9])', '-', path.name)}")
    _check_name(host, path, model, scale)
    refuse_taken([path], overwrite)
    if host.name == "spandrel":
        return _write_spandrel(ready, host, path, applied, attached, static, overwrite)
    graph, checked, notes = _graph_for(ready, host, attached, static, path)
    notes += notes_of_graphs(applied)
    sizes = _sizes(graph)
    describe_graph(graph.model, ready, applied, attached, graph.scale, sizes)
    content = graph.model.SerializeToString(deterministic=True)
    if host.name == "darktable":
        content = darktable_package(content, path.stem, ready, applied, attached, graph)
        if not ready.header.data:
            notes.append("darktable asks for the data of the training, which this model leaves out")
    _write(path, content, overwrite)
    told = tuple(item.told for item in applied)
    return HostExport(
        path, host.name, told, graph.scale, graph.size, graph.multiple, checked, tuple(notes)
    )


def _write(path: Path, content: bytes, overwrite: bool) -> None:
    try:
        with whole_file(path, overwrite=overwrite) as part:
            part.write_bytes(content)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be written ({error.strerror or error})") from error


def _scale(model: LoadedModel) -> int:
    from urushi.inference.engines.torch_engine import build_network

    return build_network(model).scale


def _check_name(host: Host, path: Path, model: LoadedModel, scale: int) -> None:
    if path.suffix != host.ending:
        raise FileFormatError(
            f"{path}: the name of a file for {host.name} ends in {host.ending}", usage=True
        )
    if host.ending == ".onnx":
        check_onnx_target(path)
    if path.exists() and path.resolve() == model.path.resolve():
        raise FileFormatError(f"{path} would overwrite the model: choose another name", usage=True)
    if host.name == "darktable" and not _ID.fullmatch(path.stem):
        raise FileFormatError(
            f"{path}: the name is darktable's id of the model: use letters, digits, - and _ alone",
            usage=True,
        )
    if host.name == "imagetoolbox":
        told = re.findall(r"(?<![0-9])[0-9]+x|x[0-9]+", path.stem.lower())
        if told != [f"{scale}x"] or not path.stem.startswith(f"{scale}x-"):
            raise FileFormatError(
                f"{path}: ImageToolbox reads the scale from the name: begin it with {scale}x- and "
                "have no other digit beside an x",
                usage=True,
            )


def _write_spandrel(
    model: LoadedModel,
    host: Host,
    path: Path,
    applied: Sequence[AppliedAdapter],
    attached: Sequence[AppliedAdapter],
    static: tuple[int, int] | None,
    overwrite: bool,
) -> HostExport:
    """A model file in the released names, with a block on every level that is looked for."""
    if static is not None:
        raise BackboneError(
            "--static is for graphs, and spandrel reads weights: leave it out", usage=True
        )
    if attached:
        told = " and ".join(f"{item.told} ({item.adapter.header.method})" for item in attached)
        raise AdapterError(
            f"{told} cannot be put into weights, which are all that spandrel reads: choose "
            "another host or leave it out"
        )
    header = model.header
    if header.backbone != "nafnet":
        raise BackboneError(
            f"{model.path}: this is a {header.backbone}, and files for spandrel are written of a "
            "nafnet alone"
        )
    from urushi.convert.host_graphs import with_global_pooling

    pooled, local = with_global_pooling(model)
    config = {**pooled.header.config, "placeholders": True}
    from urushi.backbones import create_backbone

    blank = create_backbone("nafnet", dict(config)).state_dict()
    tensors = {
        name: model.tensors[name] if name in model.tensors else blank[name].numpy()
        for name in blank
    }
    missing = [name for name in SPANDREL_KEYS if name not in tensors]
    if missing:
        raise BackboneError(
            f"{model.path}: spandrel knows a nafnet by {missing[0]}, which this one does not have"
        )
    header = header.model_copy(update={"config": config, "graph_hash": ""})
    try:
        with whole_file(path, overwrite=overwrite, ending="part.safetensors") as part:
            write_model(part, tensors, header)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be written ({error.strerror or error})") from error
    notes = [*([_LOCAL_POOLING] if local else []), *notes_of_graphs(applied)]
    multiple = 2 ** len(config["enc_blk_nums"])
    told = tuple(item.told for item in applied)
    return HostExport(path, host.name, told, 1, None, multiple, (), tuple(notes))


SPANDREL_KEYS = (
    "intro.weight",
    "ending.weight",
    "ups.0.0.weight",
    "downs.0.weight",
    *(f"middle_blks.0.{name}" for name in ("beta", "gamma")),
    *(f"middle_blks.0.conv{number}.weight" for number in range(1, 6)),
    *(f"middle_blks.0.{name}.weight" for name in ("sca.1", "norm1", "norm2")),
    *(f"{side}.0.0.{name}" for side in ("encoders", "decoders") for name in ("beta", "gamma")),
)
"""The tensors by which spandrel 0.4.2 knows a NAFNet."""

_LOCAL_POOLING = (
    "this network averages over a window, and the file over the whole picture or tile: results "
    "differ, most in large pictures"
)


def _graph_for(
    model: LoadedModel,
    host: Host,
    attached: Sequence[AppliedAdapter],
    static: tuple[int, int] | None,
    path: Path,
) -> tuple["HostGraph", tuple[str, ...], list[str]]:
    """The graph of a host, what has run it, and what is to be known of it."""
    from urushi.convert.host_graphs import (
        check_graph,
        host_graph,
        inferred_shape,
        with_global_pooling,
        with_strength,
    )
    from urushi.inference.engines.torch_engine import TorchEngine

    pooled, local = with_global_pooling(model)
    reference = TorchEngine(pooled, device="cpu", adapters=attached)
    notes = [_LOCAL_POOLING] if local else []
    _check_sides(host, model, reference, static)
    graph = host_graph(pooled, reference, attached, static)
    if host.name == "chainner" and static is None:
        side = CHAINNER_SIDE
        if inferred_shape(graph.model, side, side) is None:
            raise BackboneError(
                f"{model.path}: chaiNNer cannot tell what this {model.header.backbone} gives: "
                "give --static HEIGHTxWIDTH"
            )
    if host.name == "imagetoolbox" and reference.scale == 1:
        with_strength(graph.model)
    if host.name in ("vs-mlrt", "chainner") and static is None and graph.multiple > 1:
        who = "frames" if host.name == "vs-mlrt" else "tiles"
        notes.append(f"sides of {who} must be multiples of {graph.multiple}")
    checked = check_graph(graph, reference, str(path))
    if not checked:
        notes.append(
            f"a picture of {_sizes(graph)} is too large to be restored for a check here: the "
            "shapes of the graph were checked alone"
        )
    return graph, checked, notes


def _check_sides(
    host: Host, model: LoadedModel, reference: Any, static: tuple[int, int] | None
) -> None:
    """Raise `BackboneError` where a host gives pictures or tiles that a network does not take."""
    what = f"{model.path}: this {model.header.backbone}"
    multiple, scale, patch = reference.size_multiple, reference.scale, reference.fixed_patch
    if host.name == "darktable":
        if scale != 1:
            raise BackboneError(f"{what} enlarges {scale} times, and darktable's slot is denoise")
        if patch is not None:
            raise BackboneError(
                f"{what} takes squares of {patch} pixels alone, and darktable's tiles overlap by "
                f"{_DARKTABLE_OVERLAP} on each side: choose another host"
            )
        if static is not None and (static[0] != static[1] or static[0] < _DARKTABLE_SMALLEST):
            raise BackboneError(
                f"--static {static[0]}x{static[1]}: darktable's tiles are squares of at least "
                f"{_DARKTABLE_SMALLEST} pixels",
                usage=True,
            )
    if static is not None or patch is not None:
        return
    limit = {
        "darktable": _DARKTABLE_MULTIPLE,
        "chainner": CHAINNER_SIDE,
        "imagetoolbox": _IMAGETOOLBOX_MULTIPLE,
    }.get(host.name)
    if limit is not None and limit % multiple:
        raise BackboneError(
            f"{what} takes multiples of {multiple} pixels, and {host.name} gives multiples of "
            f"{limit}: give --static HEIGHTxWIDTH"
        )


def _sizes(graph: "HostGraph") -> str:
    if graph.size is not None:
        return f"{graph.size[0]} x {graph.size[1]} pixels alone"
    return "any size" if graph.multiple == 1 else f"multiples of {graph.multiple}"
