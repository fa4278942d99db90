"""A profile: how much each parameter of a base contributes, measured once, used for every task.

CoLoRA (ECCV 2024, arXiv 2408.01099) gives ranks to layers by it. It belongs to the base it was
measured on, and is stored beside it as a JSON file.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from urushi.adapters.attribution import Rule
from urushi.adapters.layers import KINDS, ParameterKind
from urushi.errors import AdapterError, FileFormatError
from urushi.files.adapter import BaseFacts
from urushi.files.container import Header, refuse_json_constant, write_whole
from urushi.version import __version__

__all__ = [
    "BESIDE",
    "Normalise",
    "ParameterScore",
    "Profile",
    "Role",
    "TaskFacts",
    "Unit",
    "locate_profile",
    "profile_path",
    "read_profile",
    "write_profile",
]

FORMAT = "urushi-profile"
# In settings: the profile that stands beside the model file.
BESIDE = "base"
VERSION = 1
# A hundred bytes for every parameter: the largest networks of this field stay far below.
_LARGEST_FILE = 8_000_000

Role = Literal["encoder", "middle", "decoder"]
Normalise = Literal["sum", "mean", "task"]
Score = Annotated[float, Field(ge=0)]


class _Part(Header):
    model_config = ConfigDict(allow_inf_nan=False)


class ParameterScore(_Part):
    """Contribution of one parameter of the base.

    Attributes:
        kind: see `urushi.adapters.layers.parameter_kinds`.
        count: how many numbers it holds.
        mean: absolute attribution, mean over its numbers, the pictures and the tasks.
    """

    kind: ParameterKind
    count: Annotated[int, Field(ge=1)]
    mean: Score


class Unit(_Part):
    """A block of the base, or a layer that stands outside of all blocks: a bar of the figure.

    Attributes:
        name: dotted path.
        role: side of the U-shape on which it lies.
        stage: name of its stage; empty for a layer outside of all stages.
        parameters: names of its parameters.
    """

    name: str
    role: Role
    stage: str
    parameters: Annotated[list[str], Field(min_length=1)]


class TaskFacts(_Part):
    """What a profile was measured on.

    Attributes:
        name: what the task is called.
        data: what its pictures are.
        target: what tuned the network for it.
        pictures: how many.
        psnr_baseline, psnr_target: PSNR in dB of the base and of the target on these pictures.
        accounted: sum of all attributions relative to the difference of the losses; 1 for an exact
            integral.
    """

    name: str
    data: str
    target: str
    pictures: Annotated[int, Field(ge=1)]
    psnr_baseline: float
    psnr_target: float
    accounted: float


class Profile(_Part):
    """What a profile file holds.

    Attributes:
        format, version: of the file.
        base: the model it belongs to.
        steps, rule: of the path integral; see `urushi.adapters.attribution.attribute`.
        normalise: what a score is a part of. `sum`: the summed squared error, as in FAIG; `mean`:
            the mean squared error, so that large pictures count no more than small ones; `task`:
            that, divided by its mean over the network, so that every task counts alike.
        tasks: what it was measured on.
        units: in the order of execution.
        parameters: all of the base, by name, in the order of execution.
        created_by: program and version that wrote the file.
    """

    format: Literal["urushi-profile"] = FORMAT
    version: Literal[1] = VERSION
    base: BaseFacts
    steps: Annotated[int, Field(ge=1)]
    rule: Rule
    normalise: Normalise
    tasks: list[TaskFacts]
    units: list[Unit]
    parameters: dict[str, ParameterScore]
    created_by: str = f"urushi {__version__}"

    @model_validator(mode="after")
    def _each_parameter_in_one_unit(self) -> "Profile":
        listed = [name for unit in self.units for name in unit.parameters]
        if sorted(listed) != sorted(self.parameters):
            raise ValueError("the parameters of the units are not those that have scores")
        return self

    def mean(self, names: Iterable[str]) -> float:
        """Contribution of one number among these parameters, on average."""
        scores = [self.parameters[name] for name in names]
        return sum(s.mean * s.count for s in scores) / sum(s.count for s in scores)

    def of_kinds(self) -> dict[ParameterKind, float]:
        """Mean contribution of weights, biases, norms and scales, of those there are."""
        found: dict[ParameterKind, float] = {}
        for kind in KINDS:
            names = [name for name, score in self.parameters.items() if score.kind == kind]
            if names:
                found[kind] = self.mean(names)
        return found

    def of_units(self) -> dict[str, float]:
        """Mean contribution of every unit, in the order of execution."""
        return {unit.name: self.mean(unit.parameters) for unit in self.units}

    def of_stages(self) -> dict[str, float]:
        """Mean contribution of every stage; layers outside of all stages are left out."""
        names: dict[str, list[str]] = {}
        for unit in self.units:
            if unit.stage:
                names.setdefault(unit.stage, []).extend(unit.parameters)
        return {stage: self.mean(members) for stage, members in names.items()}

    def of_weights(self, by: Literal["layer", "block"]) -> dict[str, float]:
        """Contribution of every layer's weight, by the name of the layer.

        Args:
            by: `layer`: that of the weight itself; `block`: that of the unit it lies in, as the
                figure of CoLoRA has it.
        """
        unit_of = {name: unit for unit in self.units for name in unit.parameters}
        units = self.of_units()
        return {
            name.removesuffix(".weight"): score.mean if by == "layer" else units[unit_of[name].name]
            for name, score in self.parameters.items()
            if score.kind == "weight"
        }


def profile_path(model: Path) -> Path:
    """Return where the profile of the model file `model` stands, or would stand."""
    return model.with_suffix(".profile.json")


def locate_profile(config: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """Return settings of a method with the place of the profile, where they say `base`.

    Args:
        config: `{"method": ..., ...}`; `profile: base` stands for the profile beside the model.
        model: the file of the base.

    Raises:
        AdapterError: there is none.
    """
    located = dict(config)
    if located.get("profile") != BESIDE:
        return located
    path = profile_path(model)
    if not path.is_file():
        raise AdapterError(
            f"profile is {BESIDE!r}, but no {path.name} stands beside the base {model.name}: "
            f"measure one with  urushi profile --base {model.name} -o {path.name}"
        )
    return {**located, "profile": str(path)}


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile whole or not at all; a file that is there is replaced.

    Raises:
        FileFormatError: the disk refuses.
    """
    content: Mapping[str, object] = profile.model_dump(mode="json")
    write_whole(Path(path), (json.dumps(content, indent=1) + "\n").encode())


def read_profile(path: Path) -> Profile:
    """Read and check a profile.

    Raises:
        FileFormatError: there is no such file, or it is not a sound profile of a version known
            here.
    """
    path = Path(path)
    way_out = "measure one with  urushi profile"
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror or error}), expected a profile: {way_out}"
        ) from error
    if len(content) > _LARGEST_FILE:
        raise FileFormatError(f"{path}: larger than any profile, expected one: {way_out}")
    try:
        raw = json.loads(content, parse_constant=refuse_json_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: no valid JSON, expected a profile: {way_out}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise FileFormatError(f"{path}: not a profile: {way_out}")
    version = raw.get("version")
    if isinstance(version, int) and version > VERSION:
        raise FileFormatError(
            f"{path}: format version {version} is newer than {VERSION}, the newest known here: "
            "upgrade Urushi"
        )
    try:
        return Profile.model_validate(raw)
    except (ValidationError, RecursionError) as error:
        where, said = "the whole", "nested too deeply"
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:80] or where
            said = first["msg"].removeprefix("Value error, ").lower()
        raise FileFormatError(
            f"{path}: the profile is wrong at {where!r}: {said}: {way_out}"
        ) from error
