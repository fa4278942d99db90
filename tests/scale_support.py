"""What the tests of networks that enlarge share."""

from pathlib import Path

import torch

from urushi.backbones import create_backbone
from urushi.errors import OutOfMemoryError
from urushi.files.model import ModelHeader, write_model

TINY = {
    "depths": [2], "embed_dim": 8, "num_heads": [2], "window_size": 4, "upscale": 2,
    "upsampler": "pixelshuffledirect",
}  # fmt: skip


class RepeatingEngine:
    """Repeats every pixel; local, so tiles must not be seen in its result."""

    name, device, precision = "repeating", "cpu", "float32"
    bytes_per_pixel = 1000.0

    def __init__(self, scale=2, size_multiple=1, fixed_patch=None, most_pixels=None):
        self.scale, self.size_multiple, self.fixed_patch = scale, size_multiple, fixed_patch
        self.most_pixels = most_pixels
        self.shapes = []

    def run(self, batch):
        if self.most_pixels is not None and batch[0, 0].size > self.most_pixels:
            raise OutOfMemoryError("too large")
        self.shapes.append(batch.shape[2:])
        return batch.repeat(self.scale, axis=2).repeat(self.scale, axis=3)

    def in_float32(self):
        return self


def repeated(image, scale):
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def write_x2_model(folder: Path) -> Path:
    """A tiny SwinIR that enlarges: its result is near plain interpolation."""
    torch.manual_seed(0)
    network = create_backbone("swinir", TINY)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    path = folder / "x2.safetensors"
    write_model(path, tensors, ModelHeader(backbone="swinir", config=TINY))
    return path
