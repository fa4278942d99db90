"""An all-in-one file and its base: where they lie, and what they hold."""

from pathlib import Path

from urushi.errors import AdapterError
from urushi.files.all_in_one_file import AllInOne, beside, read_all_in_one
from urushi.files.model import LoadedModel, read_model
from urushi.inference.zoo import ZOO, find_all_in_one, find_model

__all__ = ["find_base", "find_members", "read_members"]


def find_base(all_in_one: AllInOne, model: str | Path | LoadedModel | None = None) -> LoadedModel:
    """The base of an all-in-one file: the model given, or the one of its name beside it or shipped.

    Raises:
        FileFormatError: there is none, or it is not sound.
        AdapterError: it is another one than the members were made for.
    """
    if model is None:
        name = f"{all_in_one.base.name}.safetensors"
        # The name is from a file of anybody: it never leads out of these two folders.
        plain = name == Path(name).name and "\\" not in name
        near = plain and (all_in_one.path.parent / name).is_file()
        shipped = plain and (ZOO / name).is_file()
        if near:
            model = beside(all_in_one.path, name)
        elif shipped:
            model = ZOO / name
        else:
            raise AdapterError(
                f"{all_in_one.path}: its base {all_in_one.base.name!r:.80} is neither next to it "
                "nor in the zoo: give it with --model"
            )
    loaded = model if isinstance(model, LoadedModel) else read_model(find_model(model))
    all_in_one.check_model(loaded)
    return loaded


def read_members(source: Path | AllInOne) -> AllInOne:
    """An all-in-one file, of whose experts those are read that are chosen."""
    return source if isinstance(source, AllInOne) else read_all_in_one(source, lazily=True)


def find_members(source: str | Path | None) -> Path:
    """Where an all-in-one file lies; None takes the one that ships.

    Raises:
        AdapterError: none ships.
        FileFormatError: what was named is not there.
    """
    path = find_all_in_one(source)
    if path is None:
        raise AdapterError(
            "no all-in-one file ships with this installation: give one, or train one with  "
            "urushi train all-in-one-cpu"
        )
    return path
