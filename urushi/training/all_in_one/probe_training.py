"""The last stage of an all-in-one training: a router learns to judge by what its experts change.

Pictures are drawn as the router's are, and the experts, which are trained by then, are tried on
them: see `urushi.routing.probe`. That takes long and is done once; what was found is kept in
files, and several processes may share the work. A linear layer learns from it in seconds. Its
logits and the head's are added, in the share in which held-out pictures are most likely, and
calibrated once more.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from urushi.evaluation.confusion import accuracy
from urushi.files.all_in_one_file import AllInOne
from urushi.files.model import LoadedModel
from urushi.files.router_file import EvidenceFacts, LoadedRouter, RouterHeader, RouterMemory
from urushi.inference.probing import open_evidence
from urushi.inference.router_engine import open_router
from urushi.routing.calibration import fit_temperature, negative_log_likelihood
from urushi.routing.head import read_embeddings
from urushi.routing.probe import (
    Evidence,
    describe_trials,
    evidence_looks,
    standardise,
    trial_views,
)
from urushi.routing.running import EmbeddingEngine
from urushi.routing.views import Look, views_of
from urushi.termination import stop_signals
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe, EvidencePlan
from urushi.training.all_in_one.datasets import AllInOneFiles, router_recipe_of
from urushi.training.batches import Batch
from urushi.training.fitting import fit
from urushi.training.kept_parts import OnPictures, Part, gather
from urushi.training.losses import class_loss
from urushi.training.recipe import ScheduleSettings
from urushi.training.router.router_batches import RouterBatches, router_batches
from urushi.training.router.router_recipe import RouterOptimizerSettings, RouterRecipe
from urushi.training.router.router_scores import confusion_of, scores_of

__all__ = ["fit_evidence"]

# Shares of the head's logits that are tried.
_SHARES = tuple(float(share) for share in np.geomspace(0.05, 20, 40))


@dataclass(frozen=True)
class _Found:
    """What was found in pictures.

    Attributes:
        evidence: of each.
        logits, vectors: what the head reads from each.
        truths: the classes of each.
    """

    evidence: Float[np.ndarray, "b k"]
    logits: Float[np.ndarray, "b n"]
    vectors: Float[np.ndarray, "b half"]
    truths: Float[np.ndarray, "b n"]


def fit_evidence(
    recipe: AllInOneRecipe,
    files: AllInOneFiles,
    members: AllInOne,
    model: LoadedModel,
    folder: Path,
    *,
    device: str = "auto",
    on_pictures: OnPictures | None = None,
) -> tuple[dict[str, np.ndarray], RouterHeader] | int:
    """Fits what judges by evidence.

    Args:
        recipe: with `evidence`.
        files: packed pictures of the recipe's folders.
        members: the all-in-one file without evidence.
        model: its base.
        folder: where what was found is kept.
        device: `auto` (the best there is) or `cpu`.
        on_pictures: told about every ten seconds how many pictures there are, of how many, and the
            seconds left.

    Returns:
        Tensors and header of the file with evidence; the number of the signal that stopped it.

    Raises:
        DataError: the pictures do not fit the recipe.
        EngineError: the views do not fit the network, or an engine failed.
    """
    plan = recipe.evidence
    assert plan is not None
    facts = EvidenceFacts(
        experts=tuple(members.experts), scales=plan.scales, size=plan.size, windows=plan.windows
    )
    trials = _Trials(recipe, files, members, model, facts, folder, device)
    with stop_signals() as request:

        def stopped() -> bool:
            return request.number is not None

        learned = trials.gather("train", plan.pictures, stopped, on_pictures)
        held = None if learned is None else trials.gather("held", plan.held, stopped, on_pictures)
    if request.number is not None:
        return request.number
    assert learned is not None
    assert held is not None
    return _fitted(plan, trials.recipe, members.router, facts, learned, held)


class _Trials:
    """Tries experts on drawn pictures, and keeps what it finds."""

    def __init__(
        self,
        recipe: AllInOneRecipe,
        files: AllInOneFiles,
        members: AllInOne,
        model: LoadedModel,
        facts: EvidenceFacts,
        folder: Path,
        device: str,
    ) -> None:
        self.recipe: RouterRecipe = router_recipe_of(recipe, files)
        bf16 = self.recipe.precision == "bf16"
        self.evidence: Evidence = open_evidence(
            facts,
            model,
            members.experts,
            {},
            device=device,
            precision="bf16" if bf16 else "float32",
        )
        self.head = members.router.part("head")
        self.header = members.router.header
        self.encoder: EmbeddingEngine = open_router(members.router, device=device).engine
        self.folder = folder
        own, data = self.recipe, files.router
        where = torch.device("cpu")
        self.draws: Mapping[str, RouterBatches] = {
            "train": router_batches(
                own, data.clean, data.real, where,
                seed=own.seed, augment=own.pictures.augment,
            ),
            "held": router_batches(
                own, data.validation, data.real_validation, where,
                seed=own.seed + 1, augment=False, measuring=True,
            ),
        }  # fmt: skip
        packs = [*data.real_validation.values(), data.validation]
        self.key = [
            own.model_dump(mode="json", include={"seed", "classes", "mode", "most", "pictures"}),
            facts.model_dump(mode="json"),
            data.sha256,
            [pack.sha256 for pack in packs],
            self.header.tensors_hash,
            [expert.adapter.header.tensors_hash for expert in members.experts.values()],
        ]

    def gather(
        self,
        which: str,
        pictures: int,
        stopped: Callable[[], bool],
        on_pictures: OnPictures | None,
    ) -> _Found | None:
        """What is found in so many pictures at least; None where it was stopped."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:12]
        draw = self.draws[which]
        steps = range(math.ceil(pictures / draw.batch))
        parts = gather(
            self.folder / f"{which}-{digest}",
            {f"{step:05d}": draw.batch for step in steps},
            lambda step: self._tried(draw(step)),
            stopped,
            on_pictures,
        )
        return None if parts is None else _joined(parts)

    def _tried(self, batch: Batch) -> Part:
        facts, engine = self.evidence.facts, self.evidence.engine
        looks = [Look(self.header.views), *evidence_looks(facts)]
        rows: list[tuple[np.ndarray, ...]] = []
        for image in batch.degraded.float().cpu().numpy():
            views = views_of(np.ascontiguousarray(image.transpose(1, 2, 0)), looks)
            reading = read_embeddings(self.head, self.encoder.embed(views[0]))
            tried = describe_trials(facts, trial_views(facts, views[1:]), engine)
            rows.append((tried.together, reading.logits, reading.vector))
        evidence, logits, vectors = (np.stack(part) for part in zip(*rows, strict=True))
        return {
            "evidence": evidence,
            "logits": logits,
            "vectors": vectors,
            "truths": self._ordered(batch.applied.cpu().numpy().astype(np.float32)),
        }

    def _ordered(self, truths: Float[np.ndarray, "b m"]) -> Float[np.ndarray, "b n"]:
        """Truths in the order of the router's classes, which may be more than the recipe's."""
        found = np.zeros((len(truths), len(self.header.classes)), np.float32)
        for column, name in enumerate(self.recipe.classes):
            found[:, self.header.classes.index(name)] = truths[:, column]
        return found


def _joined(parts: Sequence[Part]) -> _Found:
    names = ("evidence", "logits", "vectors", "truths")
    return _Found(*(np.concatenate([part[name] for part in parts]) for name in names))


def _fitted(
    plan: EvidencePlan,
    recipe: RouterRecipe,
    router: LoadedRouter,
    facts: EvidenceFacts,
    learned: _Found,
    held: _Found,
) -> tuple[dict[str, np.ndarray], RouterHeader]:
    tensors = _linear(plan, recipe, learned)
    known = standardise(held.evidence, tensors["centre"], tensors["spread"])
    own = known @ tensors["weight"].T + tensors["bias"]
    share = _share(own, held, recipe.mode)
    logits = (own + share * held.logits).astype(np.float32)
    scores, temperature = scores_of(recipe, logits, held.truths)
    alone = accuracy(confusion_of(held.logits, held.truths))
    scores["validation"]["accuracy_of_the_head"] = alone if math.isfinite(alone) else None
    header = router.header.model_copy(
        update={
            "evidence": facts.model_copy(
                update={"share": share, "temperature": router.header.temperature}
            ),
            "temperature": temperature,
            "scores": {**router.header.scores, "evidence": scores["validation"]},
        }
    )
    memory = RouterMemory(held.vectors, held.truths, logits)
    kept = {k: v for k, v in router.tensors.items() if not k.startswith("memory.")}
    return {**kept, **{f"evidence.{k}": v for k, v in tensors.items()}, **memory.tensors}, header


def _linear(plan: EvidencePlan, recipe: RouterRecipe, learned: _Found) -> dict[str, np.ndarray]:
    """Logistic regression on evidence, of which a part is left out at every step."""
    centre, spread = learned.evidence.mean(0), learned.evidence.std(0) + 1e-3
    known = torch.from_numpy(standardise(learned.evidence, centre, spread)).float()
    truths = torch.from_numpy(learned.truths)
    generator = torch.Generator().manual_seed(recipe.seed)
    layer = nn.Linear(known.shape[1], truths.shape[1])
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    def loss(_step: int) -> Tensor:
        chosen = torch.randint(len(known), (plan.batch,), generator=generator)
        rows = known[chosen]
        kept = torch.rand(rows.shape, generator=generator) >= plan.dropout
        return class_loss(layer(rows * kept / (1 - plan.dropout)), truths[chosen], recipe.mode)

    fit(
        layer.parameters(),
        loss,
        RouterOptimizerSettings(
            learning_rate=plan.learning_rate, weight_decay=plan.weight_decay, clip=None
        ),
        ScheduleSettings(steps=plan.steps),
    )
    return {
        "centre": centre,
        "spread": spread,
        "weight": layer.weight.detach().numpy(),
        "bias": layer.bias.detach().numpy(),
    }


def _share(own: Float[np.ndarray, "b n"], held: _Found, mode: str) -> float:
    """Of the head's logits, as held-out pictures are most likely with."""
    several = mode == "multi"
    alone = np.ones(len(own), bool) if several else held.truths.sum(1) == 1
    labels = held.truths[alone] if several else held.truths[alone].argmax(1)

    def cost(share: float) -> float:
        logits = (own + share * held.logits)[alone]
        temperature = fit_temperature(logits, labels, mode)  # pyright: ignore[reportArgumentType]
        return negative_log_likelihood(logits, labels, mode, temperature)  # pyright: ignore[reportArgumentType]

    return min(_SHARES, key=cost)
