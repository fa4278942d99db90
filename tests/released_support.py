"""What tests of released checkpoints share."""

from pathlib import Path

from urushi.backbones import RestorationNetwork
from urushi.backbones.checkpoints import read_checkpoint
from urushi.backbones.released_networks import build_released, read_configuration


def load_released(path: Path, backbone: str, **options) -> RestorationNetwork:
    """The network of a released `.pth` file; `options` are what tensors cannot tell."""
    state = read_checkpoint(path)
    config = read_configuration(state, backbone)
    return build_released(state, backbone, config, Path(path).name, options)
