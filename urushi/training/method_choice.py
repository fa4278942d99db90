"""A method as users choose it for their own pictures: its name and settings, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from urushi.adapters import METHODS
from urushi.adapters.contribution_profile import BESIDE, profile_path
from urushi.errors import AdapterError
from urushi.inference.zoo import find_model

__all__ = ["choose_method"]


def choose_method(
    method: str, model: str | Path, values: Mapping[str, Any], budget: str | None = None
) -> dict[str, Any]:
    """The `adapter` of a recipe: `{"method": ..., ...}`.

    Args:
        method: its name in the table of methods.
        model: what is adapted; the profile beside it decides the ranks, where the method has
            ranks and `values` names none.
        values: settings of the method.
        budget: trained parameters relative to those of the model, such as `7%`.

    Raises:
        AdapterError: the method is unknown, cannot learn from pairs, or takes no budget.
    """
    settings = METHODS.find(method, AdapterError).settings
    if method == "frozen":
        raise AdapterError("method frozen trains nothing: choose another one", usage=True)
    if method in ("guidance", "experts"):
        raise AdapterError(
            f"method {method} does nothing without a router, and adapt trains none: choose "
            "another one, or train all of it with  urushi train all-in-one-cpu",
            usage=True,
        )
    if budget is not None and "budget" not in settings.model_fields:
        raise AdapterError(
            f"method {method} takes no budget: use colora, or its own settings", usage=True
        )
    content: dict[str, Any] = {"method": method}
    if budget is not None:
        content["budget"] = budget
    content.update(values)
    if "profile" in settings.model_fields:
        decided = {"profile", "ranks", "dense"} & set(content)
        if not decided and profile_path(find_model(model)).is_file():
            content["profile"] = BESIDE
    return content
