"""Packages of darktable: a model with a card, in the fields of darktable's `config.json`."""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from urushi.convert.standalone import licences_of
from urushi.files.model import LoadedModel
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.version import __version__

if TYPE_CHECKING:
    from urushi.convert.host_graphs import HostGraph

__all__ = ["darktable_package"]


def darktable_package(
    graph_bytes: bytes,
    name: str,
    model: LoadedModel,
    applied: Sequence[AppliedAdapter],
    attached: Sequence[AppliedAdapter],
    graph: "HostGraph",
) -> bytes:
    """Return a `.dtmodel`: one folder named as the id, with `config.json` and the graph.

    Args:
        graph_bytes: the graph as it is to be in the file.
        name: the id.
        model: with adapters in its weights.
        applied, attached: all adapters, and those that are not in the weights.
        graph: what it takes.
    """
    header = model.header
    mended = dict.fromkeys(d for item in applied for d in item.adapter.header.degradations)
    description = ", ".join(mended or header.degradations) or header.description or header.backbone
    # What adapters in the weights say is in the header already.
    data = [header.data, *(item.adapter.header.data for item in attached)]
    card = {
        "long_description": header.description,
        "scope": f"Developed pictures with: {description}." if mended else "",
        "author": header.created_by,
        "paper": _paper(header.backbone),
        "license": licences_of(model, attached),
        "training_data": " ".join(dict.fromkeys(text for text in data if text)),
        "notes": "No colours are managed and no router chooses in this file; one network restores "
        "every picture.",
    }
    config: dict[str, Any] = {
        "id": name,
        "name": name.replace("-", " "),
        "description": f"Restores pictures: {description}",
        "task": "denoise",
        "backend": "onnx",
        "version": __version__,
        "arch": header.backbone,
        "tiling": True,
        "num_inputs": 1,
        "spatial_dims": ["height", "width"],
        "model_card": {key: text for key, text in card.items() if text},
        "attributes": {"size_multiple": graph.multiple},
    }
    if graph.size is not None:
        config["attributes"] = {"input_sizes": [graph.size[0]]}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        text = json.dumps(config, indent=4, ensure_ascii=False) + "\n"
        for inside, content in (("config.json", text.encode()), ("model.onnx", graph_bytes)):
            # The same file at any time.
            entry = zipfile.ZipInfo(f"{name}/{inside}", (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _paper(backbone: str) -> str:
    from urushi.backbones import BACKBONES

    return BACKBONES[backbone].paper if backbone in BACKBONES else ""
