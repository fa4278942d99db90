"""The last guard of the automatic route: what is no damage is not taken away.

A router is trained and can be wrong; networks that have seen photographs alone make dirt of a page.
So before anything acts, the guard asks whether there is damage of the kind that would be taken
away, by counting (`signs`) and without a network. Where there is none, the picture comes back as it
is. Where there is some, changes are held to what it explains (`holding`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from urushi.inference.guard.signs import Signs, Watcher
from urushi.inference.guard.textures import Texture

__all__ = ["KNOWN", "LOW_LIGHT", "Guard", "Limits", "Verdict", "judged"]

KNOWN = frozenset({"noise", "jpeg", "blur", "rain", "snow", "raindrop", "haze", "low-light"})
"""The classes that the guard knows the signs of; what is for others is not judged."""
LOW_LIGHT = "low-light"
_FINE = frozenset({"noise", "jpeg", "blur"})  # what the base works at as well
# Photographs have 0.31 and more, drawn pictures without damage 0.25 at most.
_ROUGH = 0.28
# Less smooth ground than this tells nothing.
_GROUND = 0.03
# Noise, in codes of 255: more than this is no texture, and nobody sees less than that.
_STRONG, _FAINT = 10, 2
_AGAINST_THE_LIGHT = 0.95
_CLEAN, _SURELY_CLEAN, _CERTAINLY_CLEAN, _DOUBT = 0.5, 0.93, 0.97, 0.05
_ALONE = ", so the base works alone"  # as decisions say it
_AS_IT_IS = "nothing is wrong with this drawn picture, so it stays as it is"


@dataclass(frozen=True)
class Limits:
    """What a change may be at most.

    Attributes:
        damage: root mean square of the damage, in codes of 255; None for no limit.
        most: that of the change of a neighbourhood at most. Where there is noise it is more, since
            the noise of a neighbourhood may be stronger than that of most; of a page that was
            compressed it is less, since networks mend little of that and harm much.
    """

    damage: float | int | None
    most: float | int = 0


@dataclass(frozen=True)
class Guard:
    """What the guard does to one picture.

    Attributes:
        strength: 0 where the picture comes back as it is, else 1.
        why: one clause for people.
        limits: of changes; None for none.
        told: whether people are told in a note what it left out; not of photographs, of which all
            are held and no surprise is meant.
    """

    strength: float | int
    why: str
    limits: Limits | None = None
    told: bool = True

    def describe(self) -> dict[str, Any]:
        """Plain JSON values: `strength`, `why`, and `damage` where changes are held to it."""
        found: dict[str, Any] = {"strength": self.strength, "why": self.why}
        if self.limits is not None and self.limits.damage is not None:
            found["damage"] = round(self.limits.damage, 2)
        return found


@dataclass(frozen=True)
class Verdict:
    """What is to be done instead of what was chosen.

    Attributes:
        withheld: classes whose experts do not act.
        guard: what is done to the picture; None for nothing.
        bright: whether low light is among `withheld` because the picture is not dark.
    """

    withheld: frozenset[str]
    guard: Guard | None
    bright: bool = False

    def reworded(self, reason: str, left: Sequence[object]) -> str:
        """The reason of a choice with what the guard did to it; `left` is what still acts."""
        if self.guard is not None and self.guard.strength == 0:
            return f"{reason.removesuffix(_ALONE)}, but {self.guard.why}"
        if not self.withheld:
            return reason
        if on_page := sorted(self.withheld - ({LOW_LIGHT} if self.bright else set())):
            reason += f"; on a page this is no {' or '.join(on_page)}"
        if self.bright:
            reason += "; most of it is not dark, so this is no low light"
        return reason if left else f"{reason}{_ALONE}"


_NOTHING = Verdict(frozenset(), None)


def judged(
    route: Sequence[str],
    watcher: Watcher,
    clean: float | int = 0,
    low_light: float | int = 0,
) -> Verdict:
    """Judges what is about to be done to a picture.

    Args:
        route: classes whose experts are about to act; empty for the base alone.
        watcher: has seen all rows of the picture.
        clean: how sure the router is that it is clean; 0 where it may be rainy. Where it is, the
            base takes no more than the noise that is measured; else it is free, since it knows
            rain as well. Experts for noise and JPEG are held where it may be clean.
        low_light: how sure it is that it is in low light. Of what is not dark in large part it has
            to be sure: a person against the light, but not a dark car on a bright day.
    """
    found = _of_damage(route, watcher, clean)
    in_doubt = LOW_LIGHT in route and low_light < _AGAINST_THE_LIGHT
    if LOW_LIGHT in found.withheld or not (in_doubt and _bright(watcher.signs())):
        return found
    others = _of_damage([name for name in route if name != LOW_LIGHT], watcher, clean)
    return replace(others, withheld=others.withheld | {LOW_LIGHT}, bright=True)


def _of_damage(route: Sequence[str], watcher: Watcher, clean: float | int) -> Verdict:
    signs = watcher.signs()
    if signs is None or not KNOWN.issuperset(route):
        return _NOTHING
    soft = signs.sharp < 0.2 and "blur" in route
    if _drawn(signs):
        if signs.edge < 0.01 and not frozenset(route) - {"blur"}:
            # So is what is all out of focus, and a slope of colours takes no harm from these.
            return _NOTHING
        if not soft:
            return Verdict(frozenset(route), Guard(0.0, _AS_IT_IS))
        why = "what is exactly flat stays as it is"
        return Verdict(frozenset(route) - _FINE, Guard(1.0, why, Limits(None)))
    page = _page(signs)
    busy = signs.bright_steps >= 0.015 or signs.edge >= 0.3
    looks_clean = clean >= _CLEAN and not route
    in_doubt = clean >= _DOUBT and bool(route) and {"noise", "jpeg"}.issuperset(route)
    mild = looks_clean or in_doubt
    if not (page or busy or mild):
        return _NOTHING
    texture = watcher.texture()
    if texture is None:
        return _NOTHING
    page = page or _crisp(signs, texture)
    # Streaks of rain are like themselves further on as well, though not as much.
    pattern = texture.repeats >= 0.97 and busy
    if pattern and texture.noise <= 2 and signs.edge >= 0.3:
        return Verdict(frozenset(route), Guard(0.0, _AS_IT_IS))
    withheld = frozenset(route) - _FINE if page or pattern else frozenset()
    left = frozenset(route) - withheld
    # The base takes away rain as well, which is stronger than anything that is measured here.
    held = page or pattern or (signs.bright_steps >= 0.015 and "noise" in left)
    # Strong noise is no texture; and where it is of colours it is measured too weak.
    strong = "noise" in left and not (page or pattern) and texture.noise > _STRONG
    if not (held or mild) or left - _FINE or soft or strong:
        return Verdict(withheld, None)
    limits = _limits(signs, texture, page or pattern) if held else _of_scenes(texture, clean, route)
    why = f"no change is stronger than the damage measured ({limits.damage:.0f} of 255)"
    return Verdict(withheld, Guard(1.0, why, limits, told=held))


def _bright(signs: Signs | None) -> bool:
    """Whether its middle is brighter than that of what is in low light, as a rule."""
    return signs is not None and signs.dim < 0.5


def _drawn(signs: Signs) -> bool:
    """Whether it is as a program drew it: its ground exactly smooth, also around edges."""
    ground = signs.smooth >= _GROUND
    return ground and signs.rough_near <= _ROUGH and signs.rough_far <= 0.25


def _page(signs: Signs) -> bool:
    """Whether it is a page or a drawing, be it damaged: its edges are high steps, as in no scene.

    Or much of it is exactly plain up to its edges, be they soft; or high steps are everywhere.
    """
    stark, bright = signs.stark_steps, signs.bright_steps
    stepped = stark >= 0.04 or (stark >= 0.01 and stark >= 0.28 * bright)
    # Skies are plain as well, where JPEG left nothing but the means of blocks.
    plain = signs.flat >= 0.3 and bright >= 0.03 and signs.rough_near <= 0.7
    clear = signs.flat >= 0.2 and signs.edge >= 0.01 and signs.rough_near <= 0.38
    return stepped or plain or clear or bright >= 0.3


def _crisp(signs: Signs, texture: Texture) -> bool:
    """Whether its edges are a pixel wide, and not those of noise: no lens draws such."""
    return signs.sharp >= 0.82 and signs.bright_steps >= 0.03 and texture.noise < 25


def _limits(signs: Signs, texture: Texture, drawing: bool) -> Limits:
    # JPEG leaves ground smooth and makes ripples beside edges; noise leaves none.
    compressed = signs.smooth >= 0.04
    if not drawing:
        damage = max(texture.noise, texture.ringing) if compressed else texture.noise
        return Limits(damage, 1.8 * damage + 1.5)
    if compressed:
        return Limits(texture.ringing, 0.5 * texture.ringing + 0.5)
    return Limits(texture.noise, 1.35 * texture.noise + 1)


def _of_scenes(texture: Texture, clean: float | int, route: Sequence[str]) -> Limits:
    """Of photographs, as docs/decisions/0064 measured them."""
    if not route and texture.parts is not None and clean < _CERTAINLY_CLEAN:
        # The router sees the whole, and may take for clean what is noisy in a part.
        return Limits(texture.parts, 1.35 * texture.parts + 1)
    if not route:
        # What is measured in a picture that surely is clean is its texture.
        noise = min(texture.noise, _FAINT) if clean >= _SURELY_CLEAN else texture.noise
        return Limits(noise, noise + 0.5)
    damage = max(texture.noise, texture.parts or 0, texture.ringing)
    return Limits(damage, 1.8 * damage + 1.5)
