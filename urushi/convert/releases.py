"""Released weights by name: from the Hugging Face hub where they are there, cached and checked.

A file is looked for among those fetched before, first, so that nothing is asked of a network twice.
Where someone names a kind of network alone (`--backbone`), a model file of it is meant: one in the
current folder, where `urushi fetch` puts it, or the one that ships.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urushi.errors import BackboneError, FileFormatError, MissingExtraError, nearest
from urushi.files.model import read_header
from urushi.inference.cache_folder import CACHE_VARIABLE, cache_folder
from urushi.inference.hardware import is_installed
from urushi.inference.hub import cached_file, hub_file
from urushi.inference.zoo import find_model, zoo_names
from urushi.writing import whole_file

__all__ = [
    "RELEASES",
    "Fetched",
    "Release",
    "fetch_release",
    "find_release",
    "model_of_backbone",
]

_HASHES = "fetched.json"


@dataclass(frozen=True)
class Release:
    """An entry of `RELEASES`.

    Attributes:
        title: what it is, for people.
        licence: of the weights, as far as it is known.
        page: where the authors publish it.
        repository: on the hub; None where they publish it elsewhere, to be downloaded by hand.
        file: its name there.
        revision: of the repository.
        sha256: of the file, where it was published; else that of the first fetch counts.
        router: name of the release that holds the router which chooses among its experts.
    """

    title: str
    licence: str
    page: str
    repository: str | None = None
    file: str = ""
    revision: str | None = None
    sha256: str | None = None
    router: str | None = None


def _elsewhere(title: str, licence: str, repository: str) -> Release:
    return Release(title, licence, f"https://github.com/{repository}")


_LORA_IR = "shallowdream204/LoRA-IR"
_ACADEMIC = "Academic Public License: not commercial"
_UNKNOWN = "not known here: read the page before you use it"
_NO_LICENCE = "none stated: all rights reserved"
RELEASES: Mapping[str, Release] = {
    "lora-ir": Release(
        "LoRA-IR, Setting I (snow, rain, raindrops): network, guidance and experts",
        _UNKNOWN,
        f"https://huggingface.co/{_LORA_IR}",
        _LORA_IR,
        "setting1_ir.pth",
        router="lora-ir-router",
    ),
    "lora-ir-router": Release(
        "LoRA-IR, Setting I: router, with its CLIP",
        _UNKNOWN,
        f"https://huggingface.co/{_LORA_IR}",
        _LORA_IR,
        "setting1_router.pth",
    ),
    "nafnet": _elsewhere("NAFNet: denoising, deblurring", "MIT", "megvii-research/NAFNet"),
    "restormer": _elsewhere("Restormer: deraining, denoising, ...", _ACADEMIC, "swz30/Restormer"),
    "swinir": _elsewhere("SwinIR: x2 to x8, denoising, JPEG", "Apache-2.0", "JingyunLiang/SwinIR"),
    "ipt": _elsewhere("IPT: six tasks", "Apache-2.0", "huawei-noah/Pretrained-IPT"),
    "edt": _elsewhere("EDT: x2 to x4, denoising, deraining", _NO_LICENCE, "fenglinglwb/EDT"),
}


@dataclass(frozen=True)
class Fetched:
    """A file that is here now.

    Attributes:
        path: where.
        sha256: of its content.
        downloaded: whether it was not here before.
        known: whether its hash was compared with an earlier one, or one that was published.
    """

    path: Path
    sha256: str
    downloaded: bool
    known: bool


def find_release(name: str, releases: Mapping[str, Release] | None = None) -> Release:
    """The release of that name in `releases`, or in `RELEASES`.

    Raises:
        FileFormatError: there is none, or it is to be downloaded by hand.
    """
    releases = RELEASES if releases is None else releases
    if name not in releases:
        hint = nearest(name, releases)
        raise FileFormatError(
            f"there are no released weights {name!r}{hint}: known are {', '.join(releases)}",
            usage=True,
        )
    release = releases[name]
    if release.repository is None:
        raise FileFormatError(
            f"the weights of {name} ({release.licence}) are not on the hub: download them from "
            f"{release.page}, then  urushi import FILE.pth -o {name}.safetensors"
        )
    return release


def fetch_release(
    name: str,
    *,
    releases: Mapping[str, Release] | None = None,
    offline: bool = False,
    endpoint: str | None = None,
    on_download: Callable[[Release], None] | None = None,
) -> Fetched:
    """The file of a release: from the hub's cache, or else from the hub.

    Args:
        name: an entry of `releases`.
        releases: the table; `RELEASES` if not given.
        offline: do not ask the network.
        endpoint: address of a mirror of the hub; None for the hub, or `$HF_ENDPOINT`.
        on_download: called before anything is asked of the network.

    Raises:
        FileFormatError: there is no such release, it cannot be had, or its content has changed.
        MissingExtraError: huggingface_hub is not installed.
    """
    release = find_release(name, releases)
    if not is_installed("huggingface_hub"):
        raise MissingExtraError("huggingface_hub, which fetching needs,", "hub")
    assert release.repository is not None
    place = (release.repository, release.file, release.revision)
    path = cached_file(*place)
    downloaded = path is None
    if path is None:
        if offline:
            raise FileFormatError(
                f"{name} has not been fetched yet, and fetching needs a network: leave out "
                "--offline once"
            )
        if on_download is not None:
            on_download(release)
        path = hub_file(*place, page=release.page, endpoint=endpoint)
        assert path is not None
    digest = _sha256(path)
    known = release.sha256 or _recorded().get(_key(release))
    if known is None:
        _record(release, digest)
    elif known != digest:
        raise FileFormatError(
            f"{path} has the SHA-256 {digest[:16]}..., expected {known[:16]}...: it is damaged or "
            f"was replaced at {release.page}; delete it, and check there what changed"
        )
    return Fetched(path, digest, downloaded, known is not None)


def _key(release: Release) -> str:
    return f"{release.repository}/{release.file}@{release.revision or 'main'}"


def _recorded() -> dict[str, Any]:
    """Hashes of what was fetched before."""
    path = cache_folder() / _HASHES
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FileFormatError(
            f"{path}, which keeps the hashes of fetched files, cannot be read: delete it"
        ) from error
    return content if isinstance(content, dict) else {}


def _record(release: Release, digest: str) -> None:
    path = cache_folder() / _HASHES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, overwrite=True) as part:
            part.write_text(json.dumps({**_recorded(), _key(release): digest}, indent=2))
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be written ({error.strerror or error}), and the hash of the fetched "
            f"file belongs there: set {CACHE_VARIABLE} to a writable folder"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_of_backbone(backbone: str, model: str | Path | None = None) -> str:
    """Name or path of the model that a kind of network stands for.

    Args:
        backbone: name of the network in the table of backbones.
        model: one that is given as well; it must be of that kind.

    Raises:
        BackboneError: there is no such network, no model of it, or the model given is another.
        FileFormatError: a model file is not sound.
    """
    from urushi.backbones import BACKBONES

    BACKBONES.find(backbone, BackboneError)
    here = Path(f"{backbone}.safetensors")
    if model is not None:
        return _checked(str(model), backbone, f"give --model a {backbone}, or leave --backbone out")
    if here.is_file():
        return _checked(str(here), backbone, "give the one that is meant with --model")
    for name in sorted(zoo_names(), key=lambda name: name != "base"):
        if read_header(find_model(name)).backbone == backbone:
            return name
    raise BackboneError(
        f"no weights of a {backbone} were found, and adapting needs weights: "
        f"{_way_out(backbone)}, or give a model file with --model"
    )


def _checked(model: str, backbone: str, way_out: str) -> str:
    own = read_header(find_model(model)).backbone
    if own != backbone:
        raise BackboneError(f"{model} is a {own}, not a {backbone}: {way_out}", usage=True)
    return model


def _way_out(backbone: str) -> str:
    """How the released weights come into a file that is found."""
    release = RELEASES.get(backbone)
    target = f"{backbone}.safetensors"
    if release is None:
        return f"urushi import FILE.pth -o {target}"
    if release.repository is not None:
        return f"urushi fetch {backbone} -o {target}"
    return (
        f"download them from {release.page} ({release.licence}) and  urushi import FILE.pth -o "
        f"{target}"
    )
