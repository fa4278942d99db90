"""An encoder that reads the features of a restoration network.

A network that has learnt to mend many kinds of damage tells them apart on its way: kinds of damage
can be read off its features (DegAE, Liu et al., CVPR 2023; CoLoRA's pre-training tells them as a
second task). So what reads them need not be learnt anew from pixels, which takes far more pictures.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from urushi.backbones.nafnet import NAFNet
from urushi.errors import AdapterError
from urushi.files.router_file import FeatureFacts
from urushi.routing.encoder import FrozenEncoder, Reading, blockiness, statistics

__all__ = ["FeatureEncoder", "Reading"]


class FeatureEncoder(FrozenEncoder):
    """What the features of a NAFNet's first part say of a view.

    The network is frozen. Projected are statistics of its features, mean and logarithmic variance
    of every channel of the view, of each encoder level and of two blocks in the middle, and the
    blockiness of the view (`urushi.routing.encoder`). With `places` two linear layers with GELUs
    look at the features of every place of the last block as well, and mean and maximum over the
    places are projected, too: a flake or a drop stands out at its place, where statistics of a
    whole view hardly show it. All that is read is standardised over the training pictures.

    Args:
        facts: sizes of the network, of what is read from places, and of an embedding.
    """

    place_centre: Tensor
    place_spread: Tensor

    def __init__(self, facts: FeatureFacts) -> None:
        channels = [facts.channels * 2**level for level in range(len(facts.levels) + 1)]
        stops = _stops(facts)
        read = [3, *channels[:-1], *channels[-1:] * len(stops)]
        super().__init__(2 + 2 * sum(read), facts.width)
        self._facts, self._stops = facts, stops
        network = NAFNet(
            width=facts.channels,
            enc_blk_nums=facts.levels,
            middle_blk_num=facts.middle,
            dec_blk_nums=[0] * len(facts.levels),
        )
        self.intro, self.encoders = network.intro, network.encoders
        self.downs, self.middle_blks = network.downs, network.middle_blks
        self.requires_grad_(False)
        self.project.requires_grad_(True)
        if facts.places is not None:
            self.register_buffer("place_centre", torch.zeros(channels[-1]))
            self.register_buffer("place_spread", torch.ones(channels[-1]))
            self.places = nn.Sequential(
                nn.Linear(channels[-1], facts.places), nn.GELU(),
                nn.Linear(facts.places, facts.places), nn.GELU(),
            )  # fmt: skip
            self.pooled = nn.Linear(2 * facts.places, facts.width)

    @classmethod
    def of_network(
        cls,
        config: Mapping[str, object],
        state: Mapping[str, Tensor],
        *,
        middle: int,
        width: int,
        places: int | None = None,
    ) -> "FeatureEncoder":
        """The encoder of a trained NAFNet; what is to be learnt is fresh.

        Args:
            config: of the network, as `NAFNet` takes it.
            state: its weights, by name.
            middle: blocks that are taken at the lowest resolution.
            width: numbers of an embedding.
            places: numbers that are made of the features of every place, or None.

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
        facts = FeatureFacts(
            channels=channels, levels=levels, middle=middle, places=places, width=width
        )
        encoder = cls(facts)
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

    def read(self, views: Float[Tensor, "n 3 s s"]) -> Reading:
        """What is learnt from, not standardised; without gradients."""
        with torch.no_grad():
            found = [blockiness(views), statistics(views)]
            features = self.intro(views)
            for level, down in zip(self.encoders, self.downs, strict=True):
                features = level(features)
                found.append(statistics(features.float()))
                features = down(features)
            for number, block in enumerate(self.middle_blks, start=1):
                features = block(features)
                if number in self._stops:
                    found.append(statistics(features.float()))
            places = None if self._facts.places is None else features.flatten(2)
            return Reading(torch.cat(found, 1), places)

    def standardise(
        self,
        rows: Float[Tensor, "n k"],
        places: tuple[Float[Tensor, " c"], Float[Tensor, " c"]] | None = None,
    ) -> None:
        """Makes these the ones by whose mean and deviation all are measured.

        Args:
            rows: statistics of views.
            places: mean and deviation of the features of places, where they are read.
        """
        super().standardise(rows)
        if places is not None:
            self.place_centre.copy_(places[0])
            self.place_spread.copy_(places[1] + 1e-3)

    def embedded(
        self, reading: Reading, drop: Callable[[Tensor], Tensor] | None = None
    ) -> Float[Tensor, "*b d"]:
        """Embeddings from what was read from views.

        Args:
            reading: as `read` gives it, with any number of leading axes.
            drop: takes some of the numbers away while it is trained.
        """
        embedding = super().embedded(reading, drop)
        if reading.places is None:
            return embedding
        centre, spread = self.place_centre[:, None], self.place_spread[:, None]
        places = self.standard(reading.places.to(embedding), centre, spread)
        found = self.places((places if drop is None else drop(places)).transpose(-1, -2))
        return embedding + self.pooled(torch.cat([found.mean(-2), found.amax(-2)], -1))


def _stops(facts: FeatureFacts) -> tuple[int, ...]:
    """Blocks of the middle after which features are read: half of the way, and the last."""
    count = facts.middle
    return tuple(sorted({max(1, count // 2), count}))
