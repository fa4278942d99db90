"""A router and what was imported for it as one all-in-one file, which restores by itself.

LoRA-IR is released as two checkpoints: one of the router, one of everything else, whose experts are
those of the router's classes, in their order.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from urushi.errors import BackboneError, FileFormatError
from urushi.files.adapter import base_facts, read_adapter
from urushi.files.all_in_one_file import member_of, read_all_in_one
from urushi.files.container import stated_format
from urushi.files.model import LoadedModel
from urushi.files.router_file import CLEAN, LoadedRouter, read_router, write_router
from urushi.inference.clip_folder import clip_beside

if TYPE_CHECKING:
    from urushi.adapters import Adapter

__all__ = ["by_class", "router_for", "write_united"]

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
            f"{path}: its CLIP lies beside it, in {near}: write the model into that folder, too"
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
            f"{source} has {len(experts)} experts, but {router.path.name} has the classes "
            f"{', '.join(classes)}: give the router that they were trained with"
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
