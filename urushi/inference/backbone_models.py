"""The model that is meant where someone names a kind of network alone, as `--backbone` does.

Weights decide what a frozen network knows; one with random weights would be of no use. So a kind of
network stands for a model file of it: one of that name in the current folder, where `urushi import`
and `urushi fetch` are told to put it, or else the one that ships.
"""

from pathlib import Path

from urushi.errors import BackboneError
from urushi.files.model import read_header
from urushi.inference.fetch import RELEASES
from urushi.inference.zoo import find_model, zoo_names

__all__ = ["model_of_backbone"]


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
        f"no weights of a {backbone} are here, and without weights there is nothing to adapt: "
        f"{_way_out(backbone)}, or give a model file with --model"
    )


def _checked(model: str, backbone: str, way_out: str) -> str:
    own = read_header(find_model(model)).backbone
    if own != backbone:
        raise BackboneError(f"{model} is a {own}, not a {backbone}: {way_out}")
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
