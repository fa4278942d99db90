"""The graph of a router's encoder, exported beside the router's file."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from urushi.convert.graph_checks import quiet, require_exporting, trim
from urushi.errors import AdapterError, EngineError, FileFormatError
from urushi.files.model import LoadedModel, architecture_hash, hash_of_graph
from urushi.files.router_file import name_router_graph, read_router, router_graph_path
from urushi.inference.router_engine import TorchEncoder, as_model, compare_with_torch

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["export_router"]


def export_router(path: Path) -> Path:
    """Exports the encoder of a router file to `NAME.onnx` beside it; one that is there is replaced.

    Weights are inputs of the graph, as in `urushi.convert.graphs`; the number of views is open.

    Returns:
        The graph's path.

    Raises:
        FileFormatError: the router file is not sound, or the target cannot be written.
        EngineError: its encoder is a CLIP, or graph and torch differ.
        MissingExtraError: torch, onnx, onnxscript or openvino is not installed.
    """
    require_exporting()
    stored = read_router(path)
    if not stored.header.encoder.own:
        raise EngineError(f"{path}: the encoder is a CLIP, which only torch runs: use engine torch")
    graph = _trace(TorchEncoder(stored).encoder, stored.header.views.size, as_model(stored))
    target = router_graph_path(stored.path)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part.onnx")
    try:
        content = graph.SerializeToString(deterministic=True)
        part.write_bytes(content)
        header = stored.header.model_copy(update={"graph_hash": hash_of_graph(content)})
        compare_with_torch(replace(stored, header=header, graph=part))
        part.replace(target)
        name_router_graph(stored.path)
    except OSError as error:
        raise FileFormatError(f"{target} cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _trace(encoder: "torch.nn.Module", size: int, model: LoadedModel) -> "onnx.ModelProto":
    """Export `encoder` as a function of views and of its weights."""
    import torch
    from torch.export import Dim
    from torch.func import functional_call

    from urushi.inference.engines.graph_trust import ARCHITECTURE_KEY, SIZE_MULTIPLE_KEY
    from urushi.inference.engines.openvino_engine import IMAGE_INPUT

    names = list(model.tensors)
    state = encoder.state_dict()
    values = [state[name].detach().clone() for name in names]

    class Embed(torch.nn.Module):
        def __init__(self, inner: "torch.nn.Module") -> None:
            super().__init__()
            self.inner = inner

        def forward(self, views: torch.Tensor) -> torch.Tensor:
            return self.inner.embed(views)  # pyright: ignore[reportCallIssue]

    network = Embed(encoder).eval()

    class Function(torch.nn.Module):
        def forward(self, image: torch.Tensor, values: list[torch.Tensor]) -> torch.Tensor:
            named = {f"inner.{name}": value for name, value in zip(names, values, strict=True)}
            return functional_call(network, named, (image,))

    with quiet():
        program = torch.export.export(
            Function().eval(),
            (torch.zeros(2, 3, size, size), values),
            dynamic_shapes=({0: Dim("views")}, [None for _ in values]),
        )
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[IMAGE_INPUT, *names],
            output_names=["embeddings"],
            external_data=False,
            verbose=False,
        )
    if exported is None:
        raise AdapterError("the encoder cannot be exported: use engine torch")
    graph = exported.model_proto
    trim(graph)
    graph.metadata_props.add(key=ARCHITECTURE_KEY, value=architecture_hash(model.header))
    graph.metadata_props.add(key=SIZE_MULTIPLE_KEY, value="1")
    return graph
