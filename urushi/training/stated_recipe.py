"""The file `recipe.yaml` in the folder of a training: what is trained, with every default."""

from pathlib import Path

import yaml
from pydantic import BaseModel

from urushi.errors import TakenError, TargetError
from urushi.writing import whole_file

__all__ = ["RECIPE_NAME", "write_recipe"]

RECIPE_NAME = "recipe.yaml"


def write_recipe(run: Path, recipe: BaseModel, *, ours: bool = False) -> None:
    """Makes the folder of a training and writes its recipe there.

    Args:
        run: the folder.
        recipe: what is trained; it has a `name`.
        ours: whether the folder is known to be of this training.

    Raises:
        TakenError: another recipe is there already.
        TargetError: the disk refuses.
    """
    content = recipe.model_dump(mode="json")
    path = run / RECIPE_NAME
    if not ours and path.exists() and not _same_kind(path, content):
        raise TakenError(
            f"'{path}' belongs to another training and was not touched: choose another folder"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
        with whole_file(path, overwrite=True) as part:
            part.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise TargetError(
            f"'{path}' cannot be written ({error.strerror or error}): choose a writable folder, "
            "with space left"
        ) from error


def _same_kind(path: Path, content: dict[str, object]) -> bool:
    """Whether a recipe is there of that name and of keys that this one has."""
    try:
        there = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
    if not isinstance(there, dict) or there.get("name") != content.get("name"):
        return False
    # What `urushi train` reads leaves defaults out; what it leaves has every key.
    return "seed" in there and set(there) <= set(content)
