"""How a decision is told to people: one clause, which names what was likeliest and how sure it is.

The second likeliest is named where it counts: where the base works alone for want of certainty, and
where it is close. What might still be done is told as the option that does it.
"""

from collections.abc import Mapping, Sequence

from urushi.files.router_file import CLEAN, Mode

__all__ = ["CLOSE", "advice", "look_like", "percent", "two_likeliest", "unsure", "what_is_seen"]

# A kind of damage that is so probable is worth a hint; see docs/decisions/0023.
CLOSE = 0.25
# Below this a second class is no alternative.
_WORTH_NAMING = 0.1

# Of each class: how pictures look that have it, and when its expert should act.
_WORDS = {
    "haze": ("hazy", "if it is hazy"),
    "rain": ("like rain", "if it rains"),
    "snow": ("like snow", "if it snows"),
    "low-light": ("too dark", "if it is too dark"),
    "raindrop": ("like drops on glass", "if there are drops on the glass"),
    "blur": ("blurred", "if it is blurred"),
    "noise": ("noisy", "if it is noisy"),
    "jpeg": ("spoilt by JPEG", "if JPEG has spoilt it"),
}


def percent(chance: float) -> str:
    """Rounded down, so that 99.9 % is not called certain."""
    return f"{int(chance * 100)} %"


def look_like(name: str) -> str:
    """How pictures of a class look, to follow `look` or `looks`."""
    return _WORDS[name][0] if name in _WORDS else f"like {name}"


def advice(name: str) -> str:
    """The option that gives a picture the expert of a class, and when that is right."""
    return f"--task {name}, {_WORDS[name][1] if name in _WORDS else 'if that is so'}"


def two_likeliest(chances: Mapping[str, float]) -> Sequence[tuple[str, float]]:
    """The two most probable classes, the likeliest first; of equals the one that comes first."""
    return sorted(chances.items(), key=lambda item: -item[1])[:2]


def unsure(chances: Mapping[str, float], threshold: float) -> str:
    """Of a picture for which no class is sure enough."""
    first, *others = two_likeliest(chances)
    said = _with_chance(first)
    if others and others[0][1] >= _WORTH_NAMING:
        said += f" or {_with_chance(others[0])}"
    else:
        said += f", less than {percent(threshold)}"
    return f"unsure: {said}, so the base works alone"


def what_is_seen(chances: Mapping[str, float], mode: Mode) -> str:
    """Of a picture whose likeliest class is sure enough."""
    first, *others = two_likeliest(chances)
    said = _with_chance(first)
    # Probabilities that do not exclude one another are no alternatives.
    if others and others[0][1] >= CLOSE and mode == "single":
        said += f" rather than {_with_chance(others[0])}"
    return f"looks {said}, so the base works alone" if first[0] == CLEAN else said


def _with_chance(item: tuple[str, float]) -> str:
    return f"{item[0]} ({percent(item[1])})"
