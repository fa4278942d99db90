"""Degradations: a picture and some numbers in, a worse picture out.

`DEGRADATIONS` is the table. Each separates drawing its numbers
(`sample`) from using them (`apply`), so that every pair can be made again from a row of numbers.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from urushi.degradations.base import Degradation, Parameters
from urushi.degradations.blur import DefocusBlur, GaussianBlur, MotionBlur
from urushi.degradations.camera import CameraNoise
from urushi.degradations.chain import Chain
from urushi.degradations.develop import Develop
from urushi.degradations.developed import DevelopedNoise
from urushi.degradations.fading import Fading
from urushi.degradations.film import FilmDamage
from urushi.degradations.haze import Haze
from urushi.degradations.holes import Holes
from urushi.degradations.hybrid import DownsampleJPEG, DownsampleNoise
from urushi.degradations.jpeg import JPEGCompression
from urushi.degradations.light import LowLight
from urushi.degradations.noise import GaussianNoise, PoissonNoise, SpeckleNoise
from urushi.degradations.rain import RainStreaks, RainVeil
from urushi.degradations.raindrops import Raindrops
from urushi.degradations.regions import Regions
from urushi.degradations.rehaze import Rehaze
from urushi.degradations.rerain import Rerain
from urushi.degradations.resize import Downsample
from urushi.degradations.snow import Snow
from urushi.degradations.web import Web
from urushi.degradations.window import WindowDrops
from urushi.errors import DegradationError, nearest
from urushi.plugins import Table

__all__ = [
    "DEGRADATIONS",
    "Chain",
    "Degradation",
    "Parameters",
    "Regions",
    "Rehaze",
    "Rerain",
    "create_degradation",
    "create_rehaze",
    "create_rerain",
    "degradation_of",
]


_BUILT_IN: Mapping[str, type[Degradation]] = {
    "gaussian_noise": GaussianNoise,
    "poisson_noise": PoissonNoise,
    "speckle_noise": SpeckleNoise,
    "camera_noise": CameraNoise,
    "developed_noise": DevelopedNoise,
    "gaussian_blur": GaussianBlur,
    "defocus_blur": DefocusBlur,
    "motion_blur": MotionBlur,
    "jpeg": JPEGCompression,
    "downsample": Downsample,
    "downsample_noise": DownsampleNoise,
    "downsample_jpeg": DownsampleJPEG,
    "rain_streaks": RainStreaks,
    "rain_veil": RainVeil,
    "haze": Haze,
    "snow": Snow,
    "raindrops": Raindrops,
    "window_drops": WindowDrops,
    "low_light": LowLight,
    "holes": Holes,
    "develop": Develop,
    "film_damage": FilmDamage,
    "fading": Fading,
    "web": Web,
}


def _is_degradation(entry: object, name: str) -> bool:
    return isinstance(entry, type) and issubclass(entry, Degradation) and entry.name == name


DEGRADATIONS: Table[type[Degradation]] = Table(
    "degradation",
    "urushi.degradations",
    _BUILT_IN,
    fits=_is_degradation,
    expected="a class of that name below urushi.degradations.Degradation",
    reserved=(Chain.name, Regions.name),
)


def create_degradation(name: str, **options: Any) -> Degradation:
    """Builds a degradation, or a chain of them, from plain values such as a recipe's.

    Args:
        name: an entry of `DEGRADATIONS`, or `chain`, or `regions`.
        options: its ranges; lists stand for tuples. The `steps` of a chain are mappings
            `{name: ..., weight: ..., ...}`; `weight` is optional, 1 by default, and becomes one of
            the chain's `weights`. The `degradation` of regions is a mapping of the same form.

    Raises:
        DegradationError: the name or an option is unknown, or a value is out of range.
    """
    if name == Chain.name:
        return _create_chain(options)
    if name == Regions.name:
        return _create_regions(options)
    build = DEGRADATIONS.find(name, DegradationError)
    _refuse_unknown(name, options, build)
    return _built(name, build, {key: _as_tuple(value) for key, value in options.items()})


def degradation_of(options: Mapping[str, Any]) -> Degradation:
    """Builds what is stated as `{name: ..., ...}`; see `create_degradation`.

    Raises:
        DegradationError: the name or an option is unknown, or a value is out of range.
    """
    rest = {key: value for key, value in options.items() if key != "name"}
    return create_degradation(str(options.get("name", "")), **rest)


def create_rehaze(**options: Any) -> Rehaze:
    """Builds what lays other haze over pairs, from plain values such as a recipe's.

    Raises:
        DegradationError: an option is unknown, or a value is out of range.
    """
    _refuse_unknown("rehaze", options, Rehaze)
    return _built("rehaze", Rehaze, {key: _as_tuple(value) for key, value in options.items()})


def create_rerain(**options: Any) -> Rerain:
    """Builds what lays other rain over pairs, from plain values such as a recipe's.

    Raises:
        DegradationError: an option is unknown, or a value is out of range.
    """
    _refuse_unknown("rerain", options, Rerain)
    return _built("rerain", Rerain, {key: _as_tuple(value) for key, value in options.items()})


def _built(name: str, build: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Builds; values of a type that nothing foresaw are refused in words, too."""
    try:
        return build(**options)
    except (TypeError, ValueError) as error:
        told = ", ".join(f"{key}={value!r}" for key, value in options.items())
        reason = str(error).partition("\n")[0]
        raise DegradationError(f"{name}: {told} cannot be used: {reason}") from error


def _create_chain(options: dict[str, Any]) -> Chain:
    _refuse_unknown(Chain.name, options, Chain, without={"weights"})
    steps, weights = [], []
    listed = options.get("steps") or []
    if not isinstance(listed, list):
        raise DegradationError(f"the steps of a chain are {listed!r}: expected a list")
    for given in listed:
        own = _named("a step of a chain", given)
        weights.append(_number("weight", own.pop("weight", 1.0)))
        steps.append(create_degradation(own.pop("name"), **own))
    rest = {key: _as_tuple(value) for key, value in options.items() if key != "steps"}
    rest |= {"steps": tuple(steps), "weights": tuple(weights) if weights else None}
    return _built(Chain.name, Chain, rest)


def _create_regions(options: dict[str, Any]) -> Regions:
    _refuse_unknown(Regions.name, options, Regions)
    own = _named("the degradation of regions", options.get("degradation"))
    rest = {key: _as_tuple(value) for key, value in options.items() if key != "degradation"}
    rest["degradation"] = create_degradation(own.pop("name"), **own)
    return _built(Regions.name, Regions, rest)


def _named(what: str, given: Any) -> dict[str, Any]:
    """A copy of a mapping that names a degradation."""
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise DegradationError(
            f"{what} is {given!r}: expected a mapping with a name, such as "
            "{name: gaussian_noise, sigma_255: [0, 50]}"
        )
    return dict(given)


def _refuse_unknown(
    name: str, options: Mapping[str, Any], build: type, without: set[str] | None = None
) -> None:
    known = [key for key in inspect.signature(build).parameters if key not in (without or set())]
    for key in options:
        if key not in known:
            hint = nearest(key, known) or f": known are {', '.join(known)}"
            raise DegradationError(f"{name} has no option {key!r}{hint}")


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list) else value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DegradationError(f"{name} is {value!r}: a number was expected")
    return float(value)
