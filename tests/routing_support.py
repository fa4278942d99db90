"""A tiny router for tests, and a tiny CLIP."""

import torch

from urushi.files.router_file import ViewGeometry
from urushi.routing.encoders import CompactEncoder
from urushi.routing.router import Router, RouterHead, save_router

CLASSES = ("clean", "noise", "haze")
NATIVE = ViewGeometry(layout="native", size=16, most=4)


def tiny_router(seed=0):
    """A compact router as if it were trained: random weights and running statistics."""
    torch.manual_seed(seed)
    router = Router(CompactEncoder((3, 4), 8, 1), RouterHead(8, len(CLASSES)), NATIVE)
    router.train()
    with torch.no_grad():
        router.read(torch.rand(4, 3, 40, 24))
    return router.eval()


def tiny_file(folder, **facts):
    path = folder / "tiny.safetensors"
    save_router(path, tiny_router(), CLASSES, **facts)
    return path


def tiny_clip(seed=0, projection=8):
    """A `CLIPVisionModelWithProjection` of two layers for views of 28 pixels."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        projection_dim=projection,
    )
    return CLIPVisionModelWithProjection(config)
