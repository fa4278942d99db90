"""The models that ship, by name."""

import os
from pathlib import Path

from urushi.errors import FileFormatError, is_bare_name
from urushi.files.stated_format import stated_format

__all__ = [
    "ALL_IN_ONE",
    "ZOO",
    "find_adapter",
    "find_all_in_one",
    "find_model",
    "zoo_experts",
    "zoo_names",
]

ZOO = Path(__file__).resolve().parents[1] / "zoo"
ALL_IN_ONE = "all-in-one"
"""Name of the file that chooses by itself, if one ships."""


def zoo_names() -> list[str]:
    """Names of the models that ship with this installation, sorted."""
    return _names("urushi-model")


def zoo_experts() -> list[str]:
    """Names of the adapters that ship with this installation, sorted."""
    return _names("urushi-adapter")


def _names(kind: str) -> list[str]:
    paths = sorted(ZOO.glob("*.safetensors"))
    return [path.stem for path in paths if stated_format(path) == kind]


def find_adapter(adapter: str | Path) -> Path:
    """Where an adapter lies that is given as a path, or as the name of one that ships.

    A file goes before a name, and so does a folder that PEFT wrote; one of pictures, called `rain`
    after what they show, does not. Where there is neither, the path, for whoever reads it to say
    so.
    """
    text = os.fspath(adapter)
    path, shipped = Path(text), ZOO / f"{text}.safetensors"
    taken = (path / "adapter_config.json").exists() if path.is_dir() else path.exists()
    if text == path.name and not taken and shipped.is_file():
        return shipped
    return path


def find_all_in_one(name: str | Path | None = None) -> Path | None:
    """Where an all-in-one file lies.

    Args:
        name: a path, or a name in the zoo; None asks for the one that ships.

    Returns:
        None where none was named and none ships.

    Raises:
        FileFormatError: what was named is neither a file nor in the zoo.
    """
    if name is None:
        shipped = ZOO / f"{ALL_IN_ONE}.safetensors"
        return shipped if shipped.is_file() else None
    text = os.fspath(name)
    shipped = ZOO / f"{text}.safetensors"
    if isinstance(name, str) and text == Path(text).name and shipped.is_file():
        return shipped
    if text and Path(text).exists():
        return Path(text)
    raise FileFormatError(
        f"{text!r} is neither a file nor a name in the zoo: give an all-in-one file, such as "
        f"{ALL_IN_ONE}.safetensors",
        usage=is_bare_name(text),
    )


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
        f"model {text!r}: is neither a file nor a name in the zoo; the names are: {names}",
        usage=is_bare_name(text),
    )
