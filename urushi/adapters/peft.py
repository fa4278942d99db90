"""Low-rank adapters to and from the format of Hugging Face PEFT.

A folder of `adapter_config.json` and `adapter_model.safetensors`. A layer's delta is there, too,
`scale * B @ A`, with A a convolution to r channels and B a 1x1 convolution behind it, which is the
flat layout. There is a rank and an alpha for every layer, and no place for deltas of whole
parameters; on grouped convolutions PEFT does something else. Neither is translated.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from urushi.adapters.layers import WeightLayer, weight_layers
from urushi.adapters.low_rank import LowRank
from urushi.adapters.low_rank_formula import LowRankSettings, scale_of
from urushi.adapters.peft_patterns import first_key
from urushi.adapters.stored import load_adapter
from urushi.backbones import create_backbone
from urushi.backbones.claims import create_claimed
from urushi.errors import AdapterError, FileFormatError
from urushi.files.adapter import AdapterHeader, LoadedAdapter, base_facts
from urushi.files.container import refuse_json_constant, write_whole
from urushi.files.model import LoadedModel

__all__ = ["CONFIG_NAME", "TENSORS_NAME", "read_peft", "write_peft"]

CONFIG_NAME = "adapter_config.json"
TENSORS_NAME = "adapter_model.safetensors"
_START = "base_model.model."
_LARGEST_CONFIG = 4_000_000
# Settings of PEFT that say how it was trained, or what it was called, and change no result.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_dropout", "megatron_config", "megatron_core", "peft_type", "peft_version",
    "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
_KNOWN = {"r", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora"}
# Ways to begin that leave the base's weights alone: what is stored is plain LoRA in the end.
_BEGINNINGS = ("gaussian", "eva", "orthogonal", "mica")
# Left by compilers and trainers in the names of layers.
_PREFIXES = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module)\.")
# PEFT leaves the adapter's name out, trainers that save all tensors do not.
_FACTOR = re.compile(r"([AB])(?:\.(\w+))?\.weight")
_MOST_WRAPPERS = 3


def write_peft(stored: LoadedAdapter, folder: Path) -> None:
    """Write a low-rank adapter in PEFT's format; files of that name are replaced.

    Args:
        stored: an adapter of method `lora` or `colora`, whose layers are linear or convolutions
            without groups.
        folder: made where it is missing.

    Raises:
        AdapterError: the adapter has something that the format has no place for.
        FileFormatError: the disk refuses.
    """
    if stored.header.gate:
        raise AdapterError(
            f"{stored.path} has a gate, for which PEFT's format has no place: use it as it is"
        )
    base = stored.header.base
    backbone = create_backbone(base.backbone, base.config)
    adapter = load_adapter(backbone, stored)
    if not isinstance(adapter, LowRank):
        raise AdapterError(
            f"{stored.path}: PEFT's format is written for method 'lora' alone, this is "
            f"{stored.header.method!r}"
        )
    layers = {layer.weight: layer for layer in weight_layers(backbone)}
    if adapter.value:
        first = next(iter(adapter.value)).replace("/", ".")
        raise AdapterError(
            f"{stored.path} holds deltas of {len(adapter.value)} whole parameters, such as "
            f"{first}, for which PEFT's format has no place: train one with  tune: []  and  "
            "dense: []"
        )
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    modules = dict(backbone.named_modules())
    for key, down in adapter.down.items():
        layer = layers[key.replace("/", ".")]
        _check_layer(layer, adapter.config, stored.path)
        _check_module(modules[layer.name], layer.name, stored.path)
        _check_places(modules[layer.name], layer.name, stored.path)
        up, rank = adapter.up[key], len(down)
        first, second = down.detach().numpy(), up.detach().numpy()
        if len(layer.shape) == 4:
            first, second = first.reshape(rank, *layer.shape[1:]), second[:, :, None, None]
        tensors[f"{_START}{layer.name}.lora_A.weight"] = np.ascontiguousarray(first)
        tensors[f"{_START}{layer.name}.lora_B.weight"] = np.ascontiguousarray(second)
        ranks[layer.name] = rank
        alphas[layer.name] = scale_of(adapter.config, rank) * rank
    targets = _targets(backbone, ranks)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileFormatError(
            f"{folder} cannot be created ({error.strerror or error}): choose another folder"
        ) from error
    write_whole(folder / TENSORS_NAME, save(tensors, metadata={"format": "pt"}))
    write_whole(
        folder / CONFIG_NAME,
        json.dumps(_config(base.name, ranks, alphas, targets), indent=2).encode(),
    )


def _config(
    base: str, ranks: dict[str, int], alphas: dict[str, float], targets: Any
) -> dict[str, Any]:
    """What `adapter_config.json` holds."""
    rank, rank_pattern = _with_pattern(ranks)
    alpha, alpha_pattern = _with_pattern(alphas)
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "target_modules": targets,
    }


def read_peft(
    folder: Path, model: LoadedModel, **facts: Any
) -> tuple[dict[str, np.ndarray], AdapterHeader]:
    """Read a low-rank adapter of PEFT's format, as what `write_adapter` takes.

    Such a folder does not say which weights it belongs to: that is taken on trust, and only the
    shapes are checked.

    Args:
        folder: of `adapter_config.json` and `adapter_model.safetensors`.
        model: the base it was trained on.
        facts: other fields of `AdapterHeader`: name, description, licence, ...

    Raises:
        FileFormatError: the folder is not one of PEFT, or damaged.
        AdapterError: it is not plain LoRA, or does not fit the model.
    """
    config = _read_config(folder)
    backbone = create_claimed(model)
    layers = {layer.name: layer for layer in weight_layers(backbone)}
    pairs, known_as = _pairs(folder, _read_tensors(folder / TENSORS_NAME))
    wrapped = "" if pairs.keys() <= layers.keys() else _wrapper(pairs, layers)
    pairs = {name[len(wrapped) :]: factors for name, factors in pairs.items()}
    known_as = {name[len(wrapped) :]: called for name, called in known_as.items()}
    for name in pairs:
        if name not in layers:
            raise AdapterError(
                f"{folder}: adapts {name!r:.200}, which {model.path.name} does not have: give the "
                "model it was trained on"
            )
    ranks = {name: len(pairs[name][0]) for name in layers if name in pairs}
    alphas = {name: _alpha(config, known_as[name], folder) for name in ranks}
    uniform = not config.get("alpha_pattern")
    settings = LowRankSettings(
        rank=0,
        ranks=ranks,
        scaling="alpha/sqrt(r)" if uniform and config.get("use_rslora") else "alpha/r",
        alpha=next(iter(alphas.values())) if uniform else None,
    )
    tensors, modules = {}, dict(backbone.named_modules())
    for name, rank in ranks.items():
        layer, (first, second) = layers[name], pairs[name]
        _check_layer(layer, settings, folder)
        _check_places(modules[name], name, folder)
        expected = [(rank, *layer.shape[1:]), (layer.rows, rank, *[1] * (len(layer.shape) - 2))]
        if [first.shape, second.shape] != expected:
            raise AdapterError(
                f"{folder}: factors of shape {first.shape} and {second.shape} for {name!r}, "
                f"expected {expected[0]} and {expected[1]}: give the model it was trained on"
            )
        if not uniform:
            root = math.sqrt(rank) if config.get("use_rslora") else rank
            second = second * np.float32(alphas[name] / root)
        key = layer.weight.replace(".", "/")
        tensors[f"down.{key}"] = first.reshape(rank, layer.columns)
        tensors[f"up.{key}"] = second.reshape(layer.rows, rank)
    header = AdapterHeader(
        method="lora", config=settings.model_dump(mode="json"), base=base_facts(model), **facts
    )
    return tensors, header


def _check_layer(layer: WeightLayer, settings: LowRankSettings, source: Path) -> None:
    if layer.groups > 1:
        raise AdapterError(
            f"{source}: {layer.name} is a convolution in {layer.groups} groups, on which LoRA is "
            "another thing for PEFT: leave such layers out (rank 0 in  ranks)"
        )
    if layer.transposed:
        raise AdapterError(
            f"{source}: {layer.name} is a transposed convolution, for which PEFT has no LoRA: "
            "leave such layers out (rank 0 in  ranks)"
        )
    if settings.layout != "flat" and layer.kernel != (1, 1):
        raise AdapterError(
            f"{source}: {layer.name} has factors of the layout {settings.layout}, PEFT's are flat: "
            "train one with  layout: flat"
        )


def _check_module(module: nn.Module, name: str, source: Path) -> None:
    """PEFT adds to what a layer returns: it cannot go onto one that is called in another way."""
    if type(module).forward not in (nn.Linear.forward, nn.Conv2d.forward):
        raise AdapterError(
            f"{source}: {name} holds several projections in one weight, which PEFT cannot run with "
            "LoRA: leave such layers out (rank 0 in  ranks)"
        )


def _check_places(module: nn.Module, name: str, source: Path) -> None:
    """PEFT's branch pads with zeros and is not dilated, whatever its layer does (as of 0.21.2).

    One that was trained as such is not what it becomes in the weights: borders differ, or sizes.
    """
    if not isinstance(module, nn.Conv2d) or module.kernel_size == (1, 1):
        return
    if module.padding_mode != "zeros" and module.padding not in ((0, 0), "valid"):
        does = f"pads by {module.padding_mode}, and PEFT's LoRA with zeros"
    elif any(step > 1 for step in module.dilation):
        does = f"is dilated by {max(module.dilation)}, and PEFT's LoRA is not"
    else:
        return
    raise AdapterError(f"{source}: {name} {does}: leave such layers out (rank 0 in  ranks)")


def _with_pattern(values: Mapping[str, float | int]) -> tuple[int | float, dict[str, int | float]]:
    """The commonest value, and all of them by name where they differ.

    PEFT takes the first key that a layer's name ends with, so longer names come first, and none is
    left to the default. Dots are any character there: where that makes a difference, they are
    escaped. (Old versions of PEFT know names alone.)
    """
    plain = {n: int(value) if float(value).is_integer() else value for n, value in values.items()}
    (common, count), *_ = Counter(plain.values()).most_common(1)
    if count == len(plain):
        return common, {}
    names = sorted(plain, key=len, reverse=True)
    if any(first_key(names, name, Path()) != name for name in names):
        return common, {f"^{name.replace('.', chr(92) + '.')}": plain[name] for name in names}
    return common, {name: plain[name] for name in names}


def _targets(backbone: nn.Module, names: Mapping[str, object]) -> list[str] | str:
    """The adapted layers' names; as a regular expression where another name ends with one.

    PEFT adapts every module whose name ends with one of a list.
    """
    ends = tuple(f".{name}" for name in names)
    others = [name for name, _ in backbone.named_modules() if name not in names]
    if any(name.endswith(ends) for name in others):
        return "|".join(name.replace(".", r"\.") for name in names)
    return list(names)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    _check_folder(folder)
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise FileFormatError(
                f"{path}: {path.stat().st_size:,} bytes are too many for settings"
            )
        config = json.loads(path.read_text("utf-8"), parse_constant=refuse_json_constant)
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror or error}), expected a folder of PEFT"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not valid JSON ({error}): get it again") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        said = config.get("peft_type") if isinstance(config, dict) else config
        raise AdapterError(f"{path}: peft_type is {said!r:.80}, expected 'LORA': only that is read")
    begun = config.get("init_lora_weights", True)
    if not isinstance(begun, bool) and str(begun).lower() not in _BEGINNINGS:
        raise AdapterError(
            f"{path}: init_lora_weights is {begun!r:.80}, which changes the base's weights or is "
            "unknown here: convert it to plain LoRA with PEFT first"
        )
    told = {"bias": "none", "init_lora_weights": begun}
    for name, value in config.items():
        if name not in _HARMLESS | _KNOWN and value and told.get(name) != value:
            raise AdapterError(
                f"{path}: {name} is {value!r:.80}, which is more than plain LoRA: only that is read"
            )
    return config


def _check_folder(folder: Path) -> None:
    """Names what is often given in the place of such a folder."""
    if folder.is_file():
        raise FileFormatError(
            f"{folder}: a file, expected a folder of PEFT with {CONFIG_NAME} and {TENSORS_NAME}: "
            f"give its folder, {folder.parent}"
        )
    # PEFT writes adapters of other names than "default" into folders of their own.
    named = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_NAME}"))
    if named and not (folder / CONFIG_NAME).exists():
        raise FileFormatError(
            f"{folder}: no {CONFIG_NAME}, but adapters in its folders {', '.join(named)[:200]}: "
            f"give one of them, such as {folder / named[0]}"
        )


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors as float32; through torch, because numpy has no bfloat16."""
    if not path.exists() and (pickles := sorted(path.parent.glob("adapter_model*.bin"))):
        raise FileFormatError(
            f"{path.parent}: its tensors are in {pickles[0].name}, a pickle, which is never opened "
            "because that can run code: write it again with  save_pretrained(FOLDER, "
            "safe_serialization=True)"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{path}: not a complete safetensors file ({error}): it is damaged, missing, or its "
            "download was cut short, get it again"
        ) from error
    found = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise FileFormatError(
                f"{path}: the tensor {name!r:.200} is of {tensor.dtype}, expected floats"
            )
        try:
            found[name] = tensor.float()
        except RuntimeError as error:
            raise FileFormatError(
                f"{path}: the tensor {name!r:.200} is of {tensor.dtype}, which torch cannot make "
                "float32: write it again in that"
            ) from error
        if not torch.isfinite(found[name]).all():
            raise FileFormatError(f"{path}: the tensor {name!r:.200} is not of finite floats")
    return {name: tensor.numpy() for name, tensor in found.items()}


def _pairs(
    folder: Path, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, str]]:
    """Both factors by the name of their layer, and what PEFT called it."""
    found: dict[str, dict[str, np.ndarray]] = {}
    known_as: dict[str, str] = {}
    adapters: set[str | None] = set()
    for full, tensor in tensors.items():
        name, _, end = full.removeprefix(_START).rpartition(".lora_")
        part = _FACTOR.fullmatch(end)
        if not full.startswith(_START) or part is None or not tensor.size:
            raise AdapterError(
                f"{folder}: the tensor {full!r:.200} of shape {tensor.shape} is no factor of a "
                "layer: only plain LoRA is read"
            )
        layer = _PREFIXES.sub("", name)
        if known_as.setdefault(layer, name) != name:
            raise AdapterError(
                f"{folder}: {name!r:.200} and {known_as[layer]!r:.200} are one layer"
            )
        adapters.add(part[2])
        found.setdefault(layer, {})[part[1]] = tensor
    if len(adapters) > 1:
        told = ", ".join(sorted(name or "one without a name" for name in adapters))
        raise AdapterError(f"{folder}: it holds several adapters ({told:.100}): save each alone")
    pairs = {}
    for name, parts in found.items():
        if len(parts) != 2:
            raise AdapterError(f"{folder}: one of the two factors for {name!r} is missing")
        pairs[name] = (parts["A"], parts["B"])
    if not pairs:
        raise AdapterError(f"{folder}: it holds no factors")
    return pairs, known_as


def _wrapper(names: Iterable[str], layers: Mapping[str, object]) -> str:
    """What stands before the names of all layers where the network was a part of a trainer's."""
    split = [name.split(".") for name in names]
    for count in range(1, _MOST_WRAPPERS + 1):
        starts = {".".join([*parts[:count], ""]) for parts in split}
        if len(starts) == 1 and all(".".join(parts[count:]) in layers for parts in split):
            return starts.pop()
    return ""


def _alpha(config: Mapping[str, Any], layer: str, folder: Path) -> float:
    """The alpha of a layer, as PEFT finds it: by the first key that matches."""
    alpha, pattern = config.get("lora_alpha", 8), config.get("alpha_pattern") or {}
    if not isinstance(pattern, dict):
        raise AdapterError(
            f"{folder}: alpha_pattern is {pattern!r:.80}, expected names and numbers"
        )
    key = first_key(pattern, layer, folder)
    alpha = alpha if key is None else pattern[key]
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e30:
        option = "lora_alpha" if key is None else "alpha_pattern"
        raise AdapterError(
            f"{folder}: by {option} the alpha of {layer} is {alpha!r:.80}, expected a number "
            "above 0"
        )
    return float(alpha)
