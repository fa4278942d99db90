"""An encoder that reads the features of a restoration network.

A network that has learnt to mend many kinds of damage tells them apart on its way: kinds of damage
can be read off its features (DegAE, Liu et al., CVPR 2023; CoLoRA's pre-training tells them as a
second task). So what reads them need not be learnt anew from pixels, which takes far more pictures.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from urushi.backbones.nafnet import NAFNet
from urushi.errors import AdapterError
from urushi.files.router import FeatureFacts
from urushi.routing.encoder import Encoder, blockiness, statistics

__all__ = ["FeatureEncoder"]

# Statistics of pictures unlike any that was learnt from go no farther than this, in deviations.
_FARTHEST = 5.0


class FeatureEncoder(Encoder):
    """Statistics of the features of a NAFNet's first part, standardised and projected.

    The network is frozen: `project` alone is trained, with the head. Statistics are mean and
    logarithmic variance of every channel of the view, of each encoder level and of two places in
    the middle, and the blockiness of the view (`urushi.routing.encoder`).

    Args:
        facts: sizes of the network, and of an embedding.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, facts: FeatureFacts) -> None:
        super().__init__()
        self.width, self._facts = facts.width, facts
        network = NAFNet(
            width=facts.channels,
            enc_blk_nums=facts.levels,
            middle_blk_num=facts.middle,
            dec_blk_nums=[0] * len(facts.levels),
        )
        self.intro, self.encoders = network.intro, network.encoders
        self.downs, self.middle_blks = network.downs, network.middle_blks
        self.requires_grad_(False)
        channels = [3, *(facts.channels * 2**level for level in range(len(facts.levels)))]
        channels += [2 * channels[-1]] * len(self._places)
        self.numbers = 2 + 2 * sum(channels)
        """Statistics of one view."""
        self.register_buffer("centre", torch.zeros(self.numbers))
        self.register_buffer("spread", torch.ones(self.numbers))
        self.project = nn.Linear(self.numbers, facts.width)

    @classmethod
    def of_network(cls, config: Mapping[str, object], state: Mapping[str, Tensor], *,
                   middle: int, width: int) -> "FeatureEncoder":  # fmt: skip
        """The encoder of a trained NAFNet, with a fresh projection.

        Args:
            config: of the network, as `NAFNet` takes it.
            state: its weights, by name.
            middle: blocks that are taken at the lowest resolution.
            width: numbers of an embedding.

        Raises:
            AdapterError: it has fewer such blocks, or is no NAFNet of pictures in colour.
        """
        levels, there = config.get("enc_blk_nums"), config.get("middle_blk_num")
        if not isinstance(levels, list) or not isinstance(there, int) or there < middle:
            raise AdapterError(
                f"a router cannot read {middle} middle blocks of a network with {there}: take "
                "fewer, or another base"
            )
        channels = config["width"]
        assert isinstance(channels, int)
        encoder = cls(FeatureFacts(channels=channels, levels=levels, middle=middle, width=width))
        own = encoder.state_dict()
        taken = {name: state[name] for name in own if name in state}
        if any(own[name].shape != tensor.shape for name, tensor in taken.items()):
            raise AdapterError("a router cannot read a network of grey pictures: take another base")
        encoder.load_state_dict({**own, **taken})
        return encoder

    @property
    def facts(self) -> FeatureFacts:
        """What a router file says about this encoder."""
        return self._facts

    @property
    def _places(self) -> tuple[int, ...]:
        """Blocks of the middle after which features are read: half of the way, and the last."""
        count = self._facts.middle
        return tuple(sorted({max(1, count // 2), count}))

    def train(self, mode: bool = True) -> "FeatureEncoder":
        """Stays in evaluation mode: it is frozen, its projection excepted."""
        return super().train(False)

    def statistics(self, views: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n k"]:
        """What the projection is made from, not standardised; without gradients."""
        with torch.no_grad():
            found = [blockiness(views), statistics(views)]
            features = self.intro(views)
            for level, down in zip(self.encoders, self.downs, strict=True):
                features = level(features)
                found.append(statistics(features.float()))
                features = down(features)
            for number, block in enumerate(self.middle_blks, start=1):
                features = block(features)
                if number in self._places:
                    found.append(statistics(features.float()))
            return torch.cat(found, 1)

    def standardise(self, rows: Float[Tensor, "n k"]) -> None:
        """Makes these statistics the ones by whose mean and deviation all are measured."""
        self.centre.copy_(rows.mean(0))
        self.spread.copy_(rows.std(0) + 1e-3)

    def standardised(self, rows: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
        """Statistics in deviations from their mean, at most 5."""
        return ((rows - self.centre) / self.spread).clamp(-_FARTHEST, _FARTHEST)

    def embed(self, views: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Embeddings of single views in [0, 1], of any side from 2^levels pixels on."""
        return self.project(self.standardised(self.statistics(views)))
