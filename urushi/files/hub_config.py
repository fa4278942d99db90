"""What a repository of the Hugging Face hub says of our files in it: its `config.json`.

The hub counts downloads by that name, and takes a repository for one of `library_name`. All of ours
stands under the key `urushi`: which file is meant, the SHA-256 of each, and the base of an adapter.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from urushi.errors import FileFormatError
from urushi.files.container import Header, refuse_json_constant

__all__ = ["CONFIG_NAME", "HubBase", "HubConfig", "HubFile", "config_text", "read_hub_config"]

CONFIG_NAME = "config.json"
_LARGEST = 1_000_000

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._ -]{0,199}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Kind = Literal["model", "adapter", "router"]


class HubFile(Header):
    """A file of a repository.

    Attributes:
        sha256: of its content.
        size: in bytes.
    """

    sha256: Digest
    size: int = Field(ge=0)


class HubBase(Header):
    """The model that an adapter, or the members of an all-in-one file, belong to.

    Attributes:
        name: what people call it.
        weights_hash: by which it is told from others.
        repository: where on the hub it lies, `owner/name`; None where nobody said.
    """

    name: str
    weights_hash: Digest
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None


class HubConfig(Header):
    """What stands under `urushi`.

    Attributes:
        version: of this description.
        kind: of the file that is meant.
        file: its name.
        files: all files that belong together, by name; they lie at the top.
        base: None for a model, or a router alone.
    """

    version: Literal[1] = 1
    kind: Kind
    file: FileName
    files: dict[FileName, HubFile]
    base: HubBase | None = None

    @model_validator(mode="after")
    def _file_is_there(self) -> "HubConfig":
        if self.file not in self.files:
            raise ValueError(f"{self.file} is not among its files")
        if CONFIG_NAME in self.files:
            raise ValueError(f"{CONFIG_NAME} cannot state its own hash")
        if self.kind == "adapter" and self.base is None:
            raise ValueError("an adapter without its base")
        return self


def config_text(config: HubConfig) -> str:
    """The `config.json` that says this."""
    content = {"library_name": "urushi", "urushi": config.model_dump(mode="json")}
    return json.dumps(content, indent=2) + "\n"


def read_hub_config(path: Path) -> HubConfig | None:
    """Read a `config.json`; None where it is another program's.

    Raises:
        FileFormatError: it says that it is of Urushi, and is damaged or of a newer version.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        content: Any = json.loads(raw, parse_constant=refuse_json_constant)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "urushi" not in content:
        return None
    try:
        return HubConfig.model_validate(content["urushi"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:100] or "it"
        raise FileFormatError(
            f"{path}: {where}: {first['msg']:.150}: the repository is damaged, or made by a newer "
            "Urushi: update this one"
        ) from error
