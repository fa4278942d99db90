"""The data sets that papers train and measure on: the YAML files of ``urushi/data/catalog/sets``.

A data set is described as it is handed out: its folders and names, how many pictures each part must
have, where it comes from, and under what terms. What no source tells is left out of the file; the
description then says nothing of it, and checking it says so.

Recipes and benchmarks name a part as ``set:NAME/PART``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from urushi.data.pairs import PairedFolder
from urushi.data.set_layouts import Rule, find_pairs, matching
from urushi.errors import DataError, nearest
from urushi.settings import Settings, SettingsFolder, find_settings, shown

__all__ = [
    "CATALOG",
    "DATA_SETS",
    "SCHEME",
    "DataSet",
    "Part",
    "find_data_set",
    "find_part",
    "open_pairs",
    "open_pictures",
]

CATALOG = Path(__file__).resolve().parent / "catalog"
SCHEME = "set:"

_Count = Annotated[int, Field(ge=1)]


class Part(Settings):
    """A part of a data set, such as what is trained on.

    Paths are rules as `urushi.data.set_layouts` has them, below the folder of the data set.

    Attributes:
        input, target: of pairs.
        clean: of pictures alone, instead of both.
        listed: a text file whose words are paths below the folder: only inputs or targets that are
            among them belong to the part.
        pictures: how many inputs, or pictures alone, there must be; null where no source tells.
        targets: how many different targets, where several inputs share one; null where no source
            tells.
        scale: how many times longer the sides of a target are than those of its input.
        size: width and height of every input, or picture alone, where all have the same.
        told: who tells the numbers.
        note: what to mind.
    """

    input: str | None = None
    target: str | None = None
    clean: str | None = None
    listed: str | None = None
    pictures: _Count | None = None
    targets: _Count | None = None
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    size: tuple[_Count, _Count] | None = None
    told: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "Part":
        paired = self.input is not None and self.target is not None
        if paired == (self.clean is not None) or (self.input is None) != (self.target is None):
            raise ValueError("expected rules in input and target, or one in clean")
        rules = self.rules  # each is looked at
        if paired and not set(rules[0].names) & set(rules[1].names):
            raise ValueError(
                f"input {self.input!r} and target {self.target!r} have no name in common that "
                "would tell which belong together"
            )
        if not paired and (self.targets is not None or self.scale != 1):
            raise ValueError("targets and scale go with input and target")
        if (self.pictures or self.targets or self.size) and not self.told:
            raise ValueError("told is missing: it says who tells the numbers")
        return self

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Of inputs and targets, or of pictures alone."""
        texts = (self.input, self.target, self.clean)
        return tuple(Rule(text) for text in texts if text is not None)


class DataSet(Settings):
    """A data set; the keys of a YAML file in the catalog.

    Attributes:
        name: of the file, without suffix.
        title: what it shows, for a person.
        folder: where it lies below the place of the data.
        parts: by name.
        benchmarks: by name, what `urushi.evaluation.catalog.Benchmark` says of a `part`.
        source: where it comes from.
        licence: under what terms.
        layout: who tells the folders and names.
        note: what to mind.
        each: texts by name: a part or benchmark with `<NAME>` in its name stands for one with each
            of them, in all its texts.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    folder: Annotated[str, Field(min_length=1)]
    parts: Annotated[dict[str, Part], Field(min_length=1)]
    benchmarks: dict[str, dict[str, Any]] = {}
    source: str
    licence: str = "not stated"
    layout: str
    note: str = ""
    each: dict[str, list[str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("each"), dict):
            return content
        made = dict(content)
        for key in ("parts", "benchmarks"):
            if isinstance(made.get(key), dict):
                made[key] = _expanded(made[key], content["each"])
        return made

    @model_validator(mode="after")
    def _parts_exist(self) -> "DataSet":
        for name, plan in self.benchmarks.items():
            part = plan.get("part")
            if part not in self.parts:
                hint = nearest(str(part), self.parts)
                raise ValueError(f"benchmark {name} is of a part {shown(part)} that is none{hint}")
        return self

    def pairs(self, root: Path, part: str) -> PairedFolder:
        """The pairs of a part.

        Args:
            root: the folder of this data set.
            part: one of pairs.

        Raises:
            DataError: the part is of pictures alone, or a folder or list is missing.
        """
        plan = self.parts[part]
        if plan.clean is not None:
            raise DataError(f"{self.name}/{part} has pictures alone: pairs were asked for")
        first, second = plan.rules
        listed = None if plan.listed is None else _words(root / plan.listed)
        return find_pairs(root, first, second, listed)

    def pictures(self, root: Path, part: str) -> list[Path]:
        """The pictures of a part; of pairs, the targets.

        Raises:
            DataError: a folder is missing.
        """
        plan = self.parts[part]
        if plan.clean is None:
            return sorted({pair.target for pair in self.pairs(root, part)})
        return list(matching(root, plan.rules[0]))


def _expanded(entries: dict[str, Any], each: dict[str, Any]) -> dict[str, Any]:
    for name, texts in each.items():
        mark, made = f"<{name}>", {}
        for key, value in entries.items():
            if mark not in str(key):
                made[key] = value
                continue
            for text in texts if isinstance(texts, list) else []:
                made[str(key).replace(mark, str(text))] = _replaced(value, mark, str(text))
        entries = made
    return entries


def _replaced(value: Any, mark: str, text: str) -> Any:
    if value == mark:
        return int(text) if text.isdecimal() else text
    if isinstance(value, str):
        return value.replace(mark, text)
    if isinstance(value, dict):
        return {key: _replaced(inner, mark, text) for key, inner in value.items()}
    return [_replaced(inner, mark, text) for inner in value] if isinstance(value, list) else value


def _words(path: Path) -> frozenset[str]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"the list {path} cannot be read ({reason}): put it there") from error
    return frozenset(word.removeprefix("./") for word in text.split())


DATA_SETS: Mapping[str, DataSet] = SettingsFolder(CATALOG / "sets", DataSet, DataError)


def find_data_set(name: str) -> DataSet:
    """The data set of that name, or the one described by a YAML file of that path.

    Raises:
        DataError: there is none, or the file does not describe one.
    """
    return find_settings(name, DATA_SETS, DataSet, DataError, "data set")


def find_part(name: str) -> tuple[DataSet, str]:
    """The data set and the part that `NAME/PART` names, with `set:` before it or not.

    Raises:
        DataError: there is none.
    """
    own, _, part = name.removeprefix(SCHEME).rpartition("/")
    found = find_data_set(own or part)
    if not own or part not in found.parts:
        hint = nearest(part, found.parts) if own else ""
        raise DataError(
            f"{found.name} has no part {part if own else ''!r}{hint}: its parts are "
            f"{', '.join(found.parts)}",
            usage=True,
        )
    return found, part


def open_pairs(root: Path, name: str) -> PairedFolder:
    """Pairs that a recipe names: a folder below the place of the data, or `set:NAME/PART`.

    Raises:
        DataError: there is no such folder or part, or its pairs cannot be told.
    """
    if not name.startswith(SCHEME):
        return PairedFolder(root / name)
    data_set, part = find_part(name)
    return data_set.pairs(root / data_set.folder, part)


def open_pictures(root: Path, name: str) -> list[Path]:
    """Pictures that a recipe names: a folder of them, or the files of `set:NAME/PART`.

    Of a part with pairs these are the targets.

    Raises:
        DataError: there is no such part, or a folder of it is missing.
    """
    if not name.startswith(SCHEME):
        return [root / name]
    data_set, part = find_part(name)
    return data_set.pictures(root / data_set.folder, part)
