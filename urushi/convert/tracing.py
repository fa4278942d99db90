"""A network as an ONNX graph: a function of pictures and of weights, by torch's exporter."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call

from urushi.convert.graph_checks import quiet, trim
from urushi.convert.traced_forms import ADAPTER_FORMS, in_export_form
from urushi.errors import BackboneError
from urushi.files.model import LoadedModel
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.base import picture_channels
from urushi.inference.engines.openvino_engine import IMAGE_INPUT
from urushi.inference.engines.torch_engine import build_network

if TYPE_CHECKING:
    import onnx

__all__ = ["RESULT", "traced", "traced_with_weights"]

Weights = dict[str, Tensor]
Restored = Callable[[Tensor, list[Tensor]], Tensor]

RESULT = "restored"
# No tile is larger; torch wants to be told some bound.
_LARGEST_SIDE = 1 << 16


def traced(
    model: LoadedModel, size_multiple: int, attached: Sequence[AppliedAdapter] = ()
) -> "onnx.ModelProto":
    """Export the network of a model as a function of pictures and of its weights.

    Batch, height and width are left open; height and width must be multiples of `size_multiple`.

    Args:
        model: a checked model file; its weights are not in the graph but inputs, by their names.
        size_multiple: that of its network.
        attached: adapters that are to be part of the graph; their weights, and those of the
            network, are then in it.

    Raises:
        BackboneError: the network, or an adapter on it, cannot be a graph.
    """
    weights, restored = _with_adapters(model, attached) if attached else _plain(model)
    # Sides that differ, and more than one picture: equal or single ones would be taken as fixed.
    example = torch.zeros(2, 3, 3 * size_multiple, 5 * size_multiple)
    subject = _subject(model, attached)
    with quiet(), torch.no_grad():
        graph = _exported(
            _function(model, restored),
            (example, list(weights.values())),
            _open_shape(size_multiple),
            list(weights),
            subject,
        )
    trim(graph)
    return graph


def traced_with_weights(
    model: LoadedModel,
    size_multiple: int,
    attached: Sequence[AppliedAdapter] = (),
    *,
    size: Sequence[int] | None = None,
) -> "onnx.ModelProto":
    """Export the network of a model with its weights inside, in the layers as they are trained.

    Many programs know those layers, and none of them asks for a size.

    Args:
        model, size_multiple, attached: as for `traced`.
        size: height and width of the only pictures it takes, one at a time; None leaves batch,
            height and width open, as `traced` does.

    Raises:
        BackboneError: the network, or an adapter on it, cannot be a graph.
    """
    if attached:
        _, restored = _with_adapters(model, attached)
    else:
        network = build_network(model).eval().requires_grad_(False)

        def restored(x: Tensor, values: list[Tensor], /) -> Tensor:
            return network(x)

    function, shape = _function(model, restored), _open_shape(size_multiple)
    example = torch.zeros(2, 3, 3 * size_multiple, 5 * size_multiple)
    if size is not None:
        example, shape = torch.zeros(1, 3, *size), None
    with quiet(), torch.no_grad():
        graph = _exported(function, (example, []), shape, [], _subject(model, attached))
    trim(graph)
    return graph


def _function(model: LoadedModel, restored: Restored) -> nn.Module:
    """A network as a module that takes pictures of three colours, and lists of weights."""
    grey = picture_channels(model) == 1

    class Function(nn.Module):
        def forward(self, image: Tensor, values: list[Tensor]) -> Tensor:
            if not grey:
                return restored(image, values)
            return restored(image.flatten(0, 1)[:, None], values).unflatten(0, (-1, 3))[:, :, 0]

    return Function().eval()


def _open_shape(size_multiple: int) -> dict:
    """Any batch, and any sides that are multiples."""
    largest = _LARGEST_SIDE // size_multiple
    return {
        0: Dim("batch"),
        2: size_multiple * Dim("rows", min=1, max=largest),
        3: size_multiple * Dim("columns", min=1, max=largest),
    }


def _subject(model: LoadedModel, attached: Sequence[AppliedAdapter]) -> str:
    """How people are told of what is exported."""
    subject = f"{model.path}: this {model.header.backbone}"
    if not attached:
        return subject
    told = " and ".join(f"{item.told} ({item.adapter.header.method})" for item in attached)
    return f"{subject} with {told}"


def _plain(model: LoadedModel) -> tuple[Weights, Restored]:
    """The network as a function of its weights."""
    network = in_export_form(build_network(model))
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}

    def restored(x: Tensor, values: list[Tensor]) -> Tensor:
        return functional_call(network, dict(zip(weights, values, strict=True)), (x,))

    return weights, restored


def _with_adapters(
    model: LoadedModel, attached: Sequence[AppliedAdapter]
) -> tuple[Weights, Restored]:
    """The network with adapters, all weights of which are fixed."""
    from urushi.adapters import attach
    from urushi.adapters.stored import load_adapter

    # Not in its export form, which passes by the places where adapters stand.
    backbone = build_network(model)
    loaded = [load_adapter(backbone, item.adapter, item.strength) for item in attached]
    adapted = attach(backbone, *loaded).eval().requires_grad_(False)
    in_export_form(adapted, ADAPTER_FORMS)
    # Of a fixed route, because what divides batches by their routes must know how many there are.
    fixed = adapted.fixed()
    return {}, lambda x, values: fixed(x)


def _exported(
    function: nn.Module, arguments: tuple, shape: dict | None, names: list[str], subject: str
) -> "onnx.ModelProto":
    try:
        shapes = None if shape is None else (shape, [None for _ in names])
        program = torch.export.export(function, arguments, dynamic_shapes=shapes)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[IMAGE_INPUT, *names],
            output_names=[RESULT],
            external_data=False,
            verbose=False,
        )
    # Whatever torch's exporter raises; which errors these are it does not say.
    except Exception as error:
        raise BackboneError(f"{subject} cannot be exported as a graph: {_reason(error)}") from error
    assert exported is not None
    return exported.model_proto


def _reason(error: Exception) -> str:
    """What torch complains of, in a line."""
    from torch._dynamo.exc import UserError

    if isinstance(error, UserError):
        return (
            "it depends on the size of the picture in a way that a graph cannot hold: use engine "
            "torch"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0][:200] if lines else type(error).__name__
    return f"torch's exporter does not know how to write it ({said}): use engine torch"
