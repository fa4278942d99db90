"""All-in-one files: a router that names its experts, each an adapter file beside it.

Every expert stays an ordinary adapter of the base, of any method, and works alone as well. The file
that names them is a router file (see `urushi.files.router_file`) whose header tells the base, the
experts by class, and the guidance if there is one, each by name and by the hash of its tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from urushi.errors import AdapterError, FileFormatError
from urushi.files.adapter import BaseFacts, LoadedAdapter, check_base, read_adapter
from urushi.files.model import LoadedModel
from urushi.files.router_file import LoadedRouter, Member, read_router

__all__ = ["AllInOne", "Expert", "beside", "member_of", "read_all_in_one"]

_NO_EXPERTS = ("experts", "guidance")


@dataclass(frozen=True)
class Expert:
    """A member of an all-in-one file.

    Attributes:
        adapter: the checked file.
        strength: factor of its effect at the whole weight.
    """

    adapter: LoadedAdapter
    strength: float


@dataclass(frozen=True)
class AllInOne:
    """A checked all-in-one file with its members.

    Attributes:
        router: the file itself.
        base: what all members belong to.
        experts: by class, in the order of the router's classes.
        guidance: the adapter that the degradation vector guides, or None.
    """

    router: LoadedRouter
    base: BaseFacts
    experts: Mapping[str, Expert]
    guidance: Expert | None = None

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.router.path

    def check_model(self, model: LoadedModel) -> None:
        """Check that a model is the base of all members.

        Raises:
            AdapterError: it is another one; the sentence names both.
        """
        for member in (*self.experts.values(), *filter(None, [self.guidance])):
            check_base(member.adapter, model)


def member_of(adapter: LoadedAdapter, strength: float = 1.0) -> Member:
    """Return what an all-in-one file says of an adapter file beside it.

    Raises:
        FileFormatError: its name cannot be that of a member.
    """
    try:
        return Member(
            file=adapter.path.name,
            tensors_hash=adapter.header.tensors_hash,
            strength=strength,
        )
    except ValueError as error:
        raise FileFormatError(
            f"{adapter.path}: no name for a member of an all-in-one file: choose a plain one that "
            "ends in .safetensors"
        ) from error


def read_all_in_one(path: Path, *, lazily: bool = False) -> AllInOne:
    """Read an all-in-one file and its members, and check all of them.

    Args:
        path: the file.
        lazily: read and check the tensors of a member when they are used first.

    Raises:
        FileFormatError: it is no sound router file, names no experts, or a member is missing, not
            sound, another one than is meant, or not beside it.
        AdapterError: a member belongs to another base.
    """
    router = read_router(path)
    header = router.header
    if header.base is None:
        raise FileFormatError(
            f"{router.path}: a router alone, without experts: give an all-in-one file, or the "
            "experts with --adapter"
        )
    experts = {
        name: _read_member(router.path, header.experts[name], header.base, lazily)
        for name in header.classes
        if name in header.experts
    }
    for name, expert in experts.items():
        if expert.adapter.header.method in _NO_EXPERTS:
            raise AdapterError(
                f"{router.path}: its expert for {name} is of method "
                f"{expert.adapter.header.method!r}, which does nothing alone: name single adapters"
            )
    guidance = None
    if header.guidance is not None:
        guidance = _read_member(router.path, header.guidance, header.base, lazily)
        _check_guidance(guidance, router)
    return AllInOne(router, header.base, experts, guidance)


def beside(path: Path, name: str) -> Path:
    """Return where a file lies that `path` names as standing beside it.

    Raises:
        FileFormatError: it is not there, or a link leads to another folder.
    """
    found = path.parent / name
    if not found.is_file():
        raise FileFormatError(f"{path}: names {name!r}, which is not beside it: get that file, too")
    if found.resolve().parent != path.parent.resolve():
        raise FileFormatError(
            f"{path}: names {name!r}, which is a link out of its folder: put the file itself there"
        )
    return found


def _read_member(path: Path, member: Member, base: BaseFacts, lazily: bool) -> Expert:
    adapter = read_adapter(beside(path, member.file), lazily=lazily)
    if adapter.header.tensors_hash != member.tensors_hash:
        raise FileFormatError(
            f"{path}: names {member.file!r} with tensors {member.tensors_hash[:12]}, the file "
            f"there has {adapter.header.tensors_hash[:12]}: get both from one place"
        )
    own = adapter.header.base
    if (own.architecture_hash, own.weights_hash) != (base.architecture_hash, base.weights_hash):
        raise AdapterError(
            f"{path}: its base is {base.name!r} (weights {base.weights_hash[:12]}), but its member "
            f"{member.file!r} was made for {own.name!r} (weights {own.weights_hash[:12]}): get "
            "both from one place"
        )
    return Expert(adapter, member.strength)


def _check_guidance(guidance: Expert, router: LoadedRouter) -> None:
    """The guidance must be one, and for vectors of this router."""
    header, length = guidance.adapter.header, router.header.encoder.width // 2
    if header.method != "guidance" or header.config.get("vector") != length:
        raise AdapterError(
            f"{guidance.adapter.path}: not a guidance by vectors of {length} numbers, which the "
            f"router {router.path.name} has: get both from one place"
        )
