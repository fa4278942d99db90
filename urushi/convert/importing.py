"""Released checkpoints become files of ours: recognised, checked, translated, written.

LoRA-IR is released as two checkpoints, of the router and of everything else; both become one
all-in-one file.
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from urushi.errors import BackboneError, FileFormatError, TargetError, nearest
from urushi.files.adapter import base_facts, read_adapter
from urushi.files.all_in_one_file import member_of, read_all_in_one
from urushi.files.container import stated_format
from urushi.files.model import LoadedModel
from urushi.files.router_file import CLEAN, LoadedRouter, read_router, write_router
from urushi.inference.clip_folder import clip_beside
from urushi.names import counted
from urushi.settings import shown
from urushi.writing import refuse_taken

__all__ = [
    "Imported",
    "by_class",
    "import_released",
    "router_for",
    "write_united",
]

if TYPE_CHECKING:
    from torch import Tensor, nn

    from urushi.adapters import Adapter
    from urushi.adapters.released_lora_ir import LoRAIR
    from urushi.files.container import Storage


# Names by which files say that a network pools locally, and the patches they were trained on.
_TLC = re.compile(r"gopro|reds", re.IGNORECASE)
_TLC_PATCH = 256
# Settings that are none of a backbone's configuration.
_OPTIONS = ("copy", "router", "classes", "clip")
_LORA_IR = "intro_de."
_ROUTER = ("cls_head.", "de_extractor.")
_LORA_IR_PAPER = "Ai et al., LoRA-IR, arXiv 2410.15385"


@dataclass(frozen=True)
class Imported:
    """What was made of a checkpoint.

    Attributes:
        backbone: the network it is of, or `router`.
        config: its configuration.
        parameters: how many numbers the network has.
        files: what was written, the model first.
        notes: what the user should know, a sentence each.
    """

    backbone: str
    config: dict[str, Any]
    parameters: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def import_released(
    source: Path,
    target: Path,
    *,
    options: Mapping[str, Any] | None = None,
    storage: "Storage" = "float32",
    description: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> Imported:
    """Make a model file of a checkpoint as its authors released it.

    Nothing in the checkpoint is executed, and nothing is written unless all of it fits. LoRA-IR's
    become a model, `NAME.guidance.safetensors` and `NAME.experts.safetensors`; its router becomes a
    router file, with its CLIP in a folder beside it. With the option `router`, the router's file,
    there is an expert for each of its classes instead, and `NAME.all-in-one.safetensors`, which
    restores by itself.

    Args:
        source: a file written by `torch.save`, safetensors, or the index of several of either.
        target: `NAME.safetensors`.
        options: configuration that tensors cannot tell, such as `head` or `pooling_window`, and
            `copy`, what the names of the tensors begin with where the file holds several networks
            alike ("." for those that begin with nothing else).
        storage: dtype on disk.
        description: one or two sentences for people.
        licence: of the weights; empty for that of the authors' release.
        overwrite: replace files that are there.

    Raises:
        FileFormatError: the checkpoint is damaged, or holds something else than plain tensors.
        BackboneError: it is of no known network, tensors are missing, left over or misshapen, or
            there is no such option.
        TargetError: a target is there already, or has another suffix.
    """
    from urushi.backbones.checkpoints import read_network

    if target.suffix != ".safetensors":
        raise TargetError(
            f"{target}: the name of a model file must end in .safetensors", usage=True
        )
    refuse_taken([target], overwrite)
    ours = stated_format(source)
    if ours is not None:
        raise FileFormatError(f"{source} is already a file of Urushi ({ours}): use it as it is")
    options = dict(options or {})
    _check_options(options)
    copy = options.pop("copy", None)
    state, notes = read_network(source, None if copy is None else str(copy))
    facts = {"description": description, "licence": licence}
    if any(name.startswith(_ROUTER) for name in state):
        return _import_router(source, target, options, storage, facts)
    if any(name.startswith(_LORA_IR) for name in state):
        made = _import_lora_ir(state, source, target, options, storage, facts, overwrite)
    else:
        made = _import_backbone(state, source, target, dict(options or {}), storage, facts)
    return replace(made, notes=(*notes, *made.notes))


def _import_backbone(
    state: "dict[str, Tensor]",
    source: Path,
    target: Path,
    options: dict[str, Any],
    storage: "Storage",
    facts: dict[str, str],
) -> Imported:
    from urushi.backbones import BACKBONES
    from urushi.backbones.released_networks import likenesses, recognise

    notes = []
    pools = {"pooling_window", "pooling_patch"} & set(options)
    if likenesses(state)[0][0] == "nafnet" and _TLC.search(source.name) and not pools:
        # Nothing in the tensors tells it: the authors test what was trained on patches this way.
        options["pooling_patch"] = _TLC_PATCH
        notes.append(
            f"by the name of {source.name} the network pools locally, over 1.5 times "
            f"{_TLC_PATCH} pixels; --set pooling_patch=null makes it pool globally"
        )
    backbone, config, network = recognise(state, source.name, options)
    heads = config.get("heads")
    # A Restormer's heads are numbers of heads of attention.
    if isinstance(heads, list) and len(heads) > 1 and isinstance(heads[0], str):
        notes.append(
            f"it has the heads {', '.join(heads)}, of which {config.get('head') or heads[0]} is in "
            "use; --set head=NAME chooses another"
        )
    licence = facts["licence"] or BACKBONES[backbone].licence
    said = facts["description"] or f"{source.name}, by the authors of {BACKBONES[backbone].paper}"
    _write_model(target, network, backbone, config, storage, said, licence)
    return Imported(backbone, config, _count(network), (target,), tuple(notes))


def _import_lora_ir(
    state: "dict[str, Tensor]",
    source: Path,
    target: Path,
    options: Mapping[str, Any] | None,
    storage: "Storage",
    facts: dict[str, str],
    overwrite: bool,
) -> Imported:
    from urushi.adapters.stored import header_of, tensors_of
    from urushi.convert.importing import by_class, router_for, write_united
    from urushi.files.adapter import write_adapter
    from urushi.files.model import read_model

    given = dict(options or {})
    named = given.pop("router", None)
    _refuse_options(source, given)
    router = None if named is None else router_for(named, target)
    found = _read_lora_ir(state, source)
    parts: dict[str, Adapter | None] = {"guidance": found.guidance, "experts": found.experts}
    if router is not None:
        own = [] if found.experts is None else found.experts.members
        parts = {"guidance": found.guidance, **by_class(router, own, source.name)}
    paths = {
        kind: target.with_name(f"{target.stem}.{kind}.safetensors")
        for kind, adapter in parts.items()
        if adapter is not None
    }
    united = target.with_name(f"{target.stem}.all-in-one.safetensors")
    written = [target, *paths.values(), *([] if router is None else [united])]
    refuse_taken(written[1:], overwrite)
    config = _nafnet_config(found.backbone)
    said = facts["description"] or f"{source.name}, by the authors of {_LORA_IR_PAPER}"
    licence = facts["licence"] or "not stated"

    def write() -> None:
        _write_model(target, found.backbone, "nafnet", config, storage, said, licence)
        model = read_model(target)
        for kind, path in paths.items():
            adapter = parts[kind]
            assert adapter is not None
            header = header_of(adapter, model, description=said, licence=licence)
            write_adapter(path, tensors_of(adapter), header, storage)
        if router is not None:
            write_united(united, router, model, paths)

    _all_or_nothing(written, write)
    notes = ["the model alone is not what the paper measures: it is guided by a router's vector"]
    if router is None:
        notes.append(
            "import its router, and this again with --set router=ROUTER.safetensors, to have a "
            "file for  urushi restore --router"
        )
    else:
        notes.append(f"to restore with all of them:  urushi restore PICTURES --router {united}")
    return Imported("nafnet", config, _count(found.backbone), tuple(written), tuple(notes))


def _read_lora_ir(state: "dict[str, Tensor]", source: Path) -> "LoRAIR":
    from urushi.adapters.released_lora_ir import lora_ir_from

    try:
        return lora_ir_from(state, source.name)
    except (IndexError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise BackboneError(
            f"{source.name}: a tensor that gives the sizes of a LoRA-IR has the wrong number of "
            "axes: the file is damaged, get it again"
        ) from error


def _import_router(
    source: Path,
    target: Path,
    options: Mapping[str, Any] | None,
    storage: "Storage",
    facts: dict[str, str],
) -> Imported:
    from urushi.inference.clip_folder import clip_folder, write_clip
    from urushi.routing.released import SETTING_1_CLASSES, load_released_router
    from urushi.routing.router import save_router

    given = dict(options or {})
    classes = given.pop("classes", None)
    clip = given.pop("clip", None)
    _refuse_options(source, given)
    router = load_released_router(source, clip=clip)
    count = len(router.head.classifier.weight)
    notes = []
    if classes is None and count == len(SETTING_1_CLASSES):
        classes = SETTING_1_CLASSES
        notes.append(
            f"its classes are taken to be {', '.join(classes)}; --set classes=[...] names others"
        )
    if not isinstance(classes, list | tuple) or len(classes) != count:
        raise FileFormatError(
            f"{source.name} is a router of {counted(count, 'class', 'classes')} and does not hold "
            "their names: give "
            "them with --set classes=[...]"
        )
    said = facts["description"] or f"{source.name}, by the authors of {_LORA_IR_PAPER}"
    # As released: whatever is likeliest counts.
    told = {"description": said, "licence": facts["licence"] or "not stated", "threshold": 0.0}
    folder = clip_folder(target, router.encoder.facts)
    if clip is not None and Path(clip).is_dir():
        folder = None  # that is one already
    tower = [] if folder is None else write_clip(router.encoder, folder)
    try:
        header = save_router(target, router, classes, storage, **told)
    except FileFormatError:
        if tower:
            shutil.rmtree(tower[0].parent)
        raise
    notes.append(
        "as released it always decides, however unsure it is:  urushi restore --threshold 0.5  "
        "leaves what it is unsure of to the base"
    )
    config = header.model_dump(mode="json", include={"classes", "views", "encoder"})
    return Imported("router", config, _count(router), (target, *tower), tuple(notes))


def _nafnet_config(network: "nn.Module") -> dict[str, Any]:
    from urushi.backbones.nafnet import configuration_of

    return configuration_of(network.state_dict())


def _write_model(
    target: Path,
    network: "nn.Module",
    backbone: str,
    config: dict[str, Any],
    storage: "Storage",
    description: str,
    licence: str,
) -> None:
    from urushi.files.model import ModelHeader, write_model

    tensors: dict[str, np.ndarray] = {
        name: tensor.detach().float().numpy() for name, tensor in network.state_dict().items()
    }
    header = ModelHeader(
        backbone=backbone,
        config=config,
        description=description,
        licence=licence,
        data="not stated by the checkpoint",
    )
    write_model(target, tensors, header, storage)


def _count(network: "nn.Module") -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _check_options(options: Mapping[str, Any]) -> None:
    """Options that nothing takes are named before a network is looked for."""
    from urushi.backbones import BACKBONES
    from urushi.backbones.released_networks import settings_of

    taken = [settings_of(backbone) for backbone in BACKBONES]
    known = {*_OPTIONS, *chain.from_iterable(names or () for names in taken)}
    for name in options:
        if None not in taken and name not in known:
            hint = nearest(name, known) or ": leave it out"
            raise BackboneError(f"no network takes a setting {shown(name)}{hint}", usage=True)
    copy = options.get("copy")
    if isinstance(copy, int) and not isinstance(copy, bool):
        return  # an entry of a list
    if copy is not None and (not isinstance(copy, str) or not copy.strip()):
        raise BackboneError(
            f"copy is {shown(copy)}, expected what the names of one network begin with, as in "
            "--set copy=netG, or copy=. for names that begin with nothing else",
            usage=True,
        )


def _refuse_options(source: Path, options: Mapping[str, Any] | None) -> None:
    if options:
        raise BackboneError(
            f"{source.name} takes no setting {min(options)!r}: leave it out", usage=True
        )


def _all_or_nothing(paths: list[Path], write: Callable[[], None]) -> None:
    """Removes what was written when the rest cannot be."""
    there = {path for path in paths if path.exists()}
    try:
        write()
    except BaseException:
        for path in set(paths) - there:
            path.unlink(missing_ok=True)
        raise


if TYPE_CHECKING:
    from urushi.adapters import Adapter


GUIDANCE = "guidance"


def router_for(named: object, target: Path) -> LoadedRouter:
    """The router file that an option names.

    Args:
        named: its path.
        target: the model file that goes with it.

    Raises:
        FileFormatError: it is no sound router file, is part of an all-in-one file already, or its
            CLIP would not be found beside `target`.
    """
    path = Path(str(named))
    if not path.is_file() or stated_format(path) is None:
        raise FileFormatError(
            f"router is {str(named)!r:.200}, expected a router file: make one with  urushi import "
            "ROUTER.pth -o ROUTER.safetensors"
        )
    router = read_router(path)
    if router.header.is_all_in_one:
        raise FileFormatError(f"{path} has experts already: give the router as it was imported")
    near = clip_beside(path, router.header.encoder)
    if near is not None and path.resolve().parent != target.resolve().parent:
        raise FileFormatError(
            f"{path}: its CLIP lies beside it, in {near}: write the model into that folder too"
        )
    return router


def by_class(
    router: LoadedRouter, experts: "Sequence[Adapter]", source: str
) -> "dict[str, Adapter | None]":
    """Experts by the router's classes; none at all where there are no experts yet.

    Raises:
        BackboneError: there are more or fewer experts than classes.
    """
    classes = router.header.classes
    if not experts:
        return {}
    if len(experts) != len(classes) or CLEAN in classes or GUIDANCE in classes:
        raise BackboneError(
            f"{source} has {counted(len(experts), 'expert')}, but {router.path.name} has the "
            "classes "
            f"{', '.join(classes)}: give the router they were trained with"
        )
    return dict(zip(classes, experts, strict=True))


def write_united(
    path: Path, router: LoadedRouter, model: LoadedModel, members: Mapping[str, Path]
) -> None:
    """Write the all-in-one file of a router, and check it with all its members.

    Args:
        path: target, in the folder of the members.
        router: what chooses.
        model: the base of all members.
        members: adapter files, by class, and `guidance`.

    Raises:
        FileFormatError: a file cannot be written, or is not sound.
        AdapterError: the members do not belong to this router.
    """
    found = {name: member_of(read_adapter(file)) for name, file in members.items()}
    guidance = found.pop(GUIDANCE, None)
    facts = {"base": base_facts(model), "guidance": guidance, "experts": found}
    write_router(path, router.tensors, router.header.model_copy(update=facts), router.storage)
    read_all_in_one(path).check_model(model)
