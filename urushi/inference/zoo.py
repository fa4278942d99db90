"""The models that ship, by name."""

import os
from pathlib import Path

from urushi.errors import FileFormatError

__all__ = ["ZOO", "find_model", "zoo_names"]

ZOO = Path(__file__).resolve().parents[1] / "zoo"


def zoo_names() -> list[str]:
    """Names of the models that ship with this installation, sorted."""
    return sorted(path.stem for path in ZOO.glob("*.safetensors"))


def find_model(model: str | Path) -> Path:
    """Where a model lies that is given as a name of the zoo or as a path of its own.

    A bare name is looked up in the zoo before the current folder.

    Raises:
        FileFormatError: it is neither; the message lists the names there are.
    """
    text = os.fspath(model)
    shipped = ZOO / f"{text}.safetensors"
    if isinstance(model, str) and text == Path(text).name and shipped.is_file():
        return shipped
    path = Path(text)
    if text and path.exists():
        return path
    names = ", ".join(zoo_names()) or "none in this installation"
    raise FileFormatError(
        f"model {text!r}: neither a file nor a name of the zoo; the names are: {names}"
    )
