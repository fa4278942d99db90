"""Builds the router that a recipe describes, before it is trained."""

import torch

from urushi.errors import RecipeError
from urushi.files.model import read_model
from urushi.files.router_file import CompactFacts, ViewGeometry
from urushi.inference.zoo import find_model
from urushi.routing.encoders import ClipEncoder, CompactEncoder, Encoder
from urushi.routing.features import FeatureEncoder
from urushi.routing.router import Router, RouterHead
from urushi.training.router_recipe import COMPACT_VIEWS, FeatureSettings, RouterRecipe

__all__ = ["build_router"]


def build_router(recipe: RouterRecipe, *, download: bool = True) -> Router:
    """The router a recipe describes, with fresh weights from torch's global generator.

    Raises:
        AdapterError: the CLIP cannot be loaded, the base cannot be read, or the views do not suit
            the encoder.
        FileFormatError: there is no such base.
        RecipeError: the base is no NAFNet.
        MissingExtraError: transformers is not installed.
    """
    encoder: Encoder
    if isinstance(recipe.encoder, CompactFacts):
        facts = recipe.encoder
        encoder = CompactEncoder(facts.widths, facts.width, facts.blocks)
        views = recipe.views or COMPACT_VIEWS
    elif isinstance(recipe.encoder, FeatureSettings):
        encoder = _feature_encoder(recipe.encoder)
        views = recipe.views or COMPACT_VIEWS
    else:
        encoder = ClipEncoder(recipe.encoder.name, download=download)
        assert encoder.view_size is not None
        views = recipe.views or ViewGeometry(size=encoder.view_size)
    return Router(encoder, RouterHead(encoder.width, len(recipe.classes)), views)


def _feature_encoder(settings: FeatureSettings) -> FeatureEncoder:
    model = read_model(find_model(settings.base))
    if model.header.backbone != "nafnet":
        raise RecipeError(
            f"encoder.base {settings.base!r:.100} is a {model.header.backbone}: the features of a "
            "nafnet can be read"
        )
    state = {name: torch.tensor(tensor) for name, tensor in model.tensors.items()}
    return FeatureEncoder.of_network(
        model.header.config,
        state,
        middle=settings.middle,
        width=settings.width,
        places=settings.places,
    )
