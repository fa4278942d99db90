"""Training a router that knows photographs: reading, fitting, judging by sources, calibrating."""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from urushi.errors import RecipeError
from urushi.evaluation.catalog import data_root
from urushi.files.all_in_one_file import AllInOne, read_all_in_one
from urushi.files.router_file import CLEAN, LoadedRouter, RouterHeader, RouterMemory, read_router
from urushi.inference.zoo import ZOO, find_all_in_one
from urushi.routing.encoder import FrozenEncoder
from urushi.routing.router import Router, RouterHead, save_router
from urushi.routing.vision import VisionEncoder
from urushi.termination import stop_signals
from urushi.training.checkpoint import write_recipe
from urushi.training.kept_parts import OnPictures
from urushi.training.photographs.fit import (
    FittingStopped,
    build_encoder,
    clean_shift,
    fit_head,
    joined_heads,
    picture_weights,
    read_reduced,
)
from urushi.training.photographs.photographs_recipe import PhotographicRecipe
from urushi.training.photographs.pictures import (
    MadePictures,
    Photographs,
    find_photographs,
    fold_of_sources,
)
from urushi.training.photographs.read_pool import Pool, Rows, reduced_rows, standards
from urushi.training.router.router_scores import judged_photographs, scores_of

__all__ = ["PhotographicResult", "train_photographic"]


@dataclass(frozen=True)
class PhotographicResult:
    """What a training leaves.

    Attributes:
        path: the router's file; None where it was stopped.
        header: what it says.
        stopped_by: number of the signal that stopped it.
        photographs: a row for each photograph: `picture`, `classes`, `source`, `logits`, by a
            router that was fitted without its source.
    """

    path: Path | None
    header: RouterHeader | None
    stopped_by: int | None
    photographs: list[dict[str, Any]]


def train_photographic(
    recipe: PhotographicRecipe,
    run: Path,
    root: Path | str | None = None,
    *,
    on_stage: Callable[[str], None] = lambda _told: None,
) -> PhotographicResult:
    """Trains as `recipe` says, and writes `run/NAME.safetensors`, with its members beside it.

    SIGINT and SIGTERM stop it, also while a head is fitted; what was read is kept, and the same
    call goes on.

    Args:
        recipe: what to do.
        run: folder of this training.
        root: the place of the data; `$URUSHI_DATA` if not given.
        on_stage: told what begins and how far it is, a clause each.

    Raises:
        RecipeError: the run was made by another recipe, or the members have other classes.
        DataError: a folder or a picture is missing.
        FileFormatError, AdapterError: a file is not sound.
    """
    write_recipe(run, recipe)
    with stop_signals() as request:

        def stopped() -> bool:
            return request.number is not None

        session = _Session(recipe, run, data_root(root), on_stage, stopped)
        found = session.read()
        with contextlib.suppress(FittingStopped):
            if found is not None:
                return session.fit(*found)
        return PhotographicResult(None, None, request.number, [])


class _Session:
    """The objects of one training."""

    def __init__(
        self,
        recipe: PhotographicRecipe,
        run: Path,
        data: Path,
        on_stage: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.recipe, self.run, self.on_stage, self.stopped = recipe, run, on_stage, stopped
        self.classes = tuple(recipe.classes)
        self.members = self._members()
        self.encoder: VisionEncoder = build_encoder(recipe.encoder)
        self.photographs = find_photographs(recipe, data)
        self.shown = Photographs(recipe, self.photographs)
        self.made = MadePictures(recipe, data)
        self.held = MadePictures(recipe, data, held=True)

    def _members(self) -> AllInOne | None:
        if self.recipe.members is None:
            return None
        path = find_all_in_one(self.recipe.members)
        assert path is not None, self.recipe.members
        found = read_all_in_one(path)
        if missing := sorted(set(found.experts) - set(self.classes)):
            raise RecipeError(
                f"{path} has an expert for {missing[0]!r}, which is no class of this recipe: add it"
            )
        return found

    # --- reading ---

    def read(self) -> tuple[Rows, Rows, Rows] | None:
        """What is read from photographs, from made pictures, and from held-out ones; or None."""
        stated = self.recipe.model_dump(mode="json")
        shared = {name: stated[name] for name in ("seed", "classes", "shared")}
        own = stated["photographs"]
        files = [[one.path.name, one.path.stat().st_size, one.classes] for one in self.photographs]
        varied = {name: own[name] for name in ("variants", "part")}
        # More of them begin with the same.
        made = {k: v for k, v in stated["made"].items() if k not in ("learned", "held")}
        rows = []
        for what, pictures, key in (
            ("photographs", self.shown, [shared, varied, files]),
            ("made pictures", self.made, [shared, made, "learned"]),
            ("held-out pictures", self.held, [shared, made, "held"]),
        ):
            pool = Pool(
                self.run / "read", self.encoder, self.recipe.views, pictures, self.classes, key
            )
            filled = pool.fill(self.stopped, self._teller(what))
            if filled is None:
                return None
            rows.append(filled)
        return replace(rows[0], truths=self._truths()), rows[1], rows[2]

    def _truths(self) -> Float[np.ndarray, "b n"]:
        """Of all photographs that are shown: 1 for their kind, a half for what is true beside."""
        found = np.zeros((len(self.shown), len(self.classes)), np.float32)
        for number in range(len(self.shown)):
            for place, name in enumerate(self.photographs[self.shown.which(number)].classes):
                found[number, self.classes.index(name)] = 0.5 if place else 1.0
        return found

    def _teller(self, what: str) -> OnPictures:
        return lambda done, total, _left: self.on_stage(f"{done} of {total} {what} read")

    # --- fitting ---

    def fit(self, photographs: Rows, made: Rows, held: Rows) -> PhotographicResult:
        """Fits, judges photographs by routers without their source, calibrates, and writes."""
        centre, spread = standards(made)
        self.encoder.centre.copy_(centre)
        self.encoder.spread.copy_(spread + 1e-3)
        rows = [reduced_rows(part, self.encoder) for part in (photographs, made, held)]
        every = np.ones(len(photographs.counts), bool)
        encoder, head = self._fitted("the router", rows, photographs, made, every)
        with torch.no_grad():
            output = read_reduced(encoder, head, rows[2])
        logits, vectors = output.logits.numpy(), output.vector.numpy()
        originals = np.arange(0, len(self.shown), 1 + self.recipe.photographs.variants)
        apart = self._apart(rows, photographs, made, originals)
        lean = np.array([self.recipe.lean.get(name, 0) for name in self.classes], np.float32)
        logits += lean
        if apart is not None:
            apart += lean
        shift, header = self._calibrated(logits, held, apart, photographs.truths[originals])
        clean = self.classes.index(CLEAN)
        with torch.no_grad():
            head.classifier.bias += torch.from_numpy(lean)
            head.classifier.bias[clean] += shift
        logits[:, clean] += shift
        if apart is not None:
            apart[:, clean] += shift  # as the file decides
        path = self._written(encoder, head, RouterMemory(vectors, held.truths), header)
        told = [
            {
                "picture": one.path.name,
                "classes": list(one.classes),
                "source": one.source,
                "logits": [round(float(value), 4) for value in row],
            }
            for one, row in zip(self.photographs, () if apart is None else apart, strict=False)
        ]
        return PhotographicResult(path, read_router(path).header, None, told)

    def _fitted(
        self,
        what: str,
        rows: list[torch.Tensor],
        photographs: Rows,
        made: Rows,
        taken: np.ndarray,
    ) -> tuple[FrozenEncoder, RouterHead]:
        """Projection and head, fitted to made pictures and to some of the photographs."""
        clean, own = self.classes.index(CLEAN), self.recipe.fit
        sources = np.array([self.photographs[self.shown.which(n)].source
                            for n in range(len(self.shown))])  # fmt: skip
        share = self.recipe.photographs.share if taken.any() else 0.0
        weights = [
            share * picture_weights(photographs.truths[taken], sources[taken], clean, own.clean),
            (1 - share)
            * picture_weights(made.truths, np.zeros(len(made.truths)), clean, own.clean),
        ]
        shown = torch.cat([rows[0][torch.from_numpy(taken)], rows[1]])
        truths = np.concatenate([photographs.truths[taken], made.truths])
        fitted, losses = [], []
        for number in range(own.heads):
            seed = self.recipe.seed + number
            encoder, head = self._fresh(self.encoder.width // own.heads, seed)
            drawn = np.concatenate(weights)
            losses.append(fit_head(encoder, head, shown, truths, drawn, own, seed, self.stopped))
            fitted.append((encoder, head))
        encoder, head = self._fresh(self.encoder.width, self.recipe.seed)
        joined_heads(fitted, encoder, head)
        self.on_stage(f"{what}: fitted, loss {np.mean(losses):.3f}")
        return encoder.eval(), head.eval()

    def _fresh(self, width: int, seed: int) -> tuple[VisionEncoder, RouterHead]:
        """An encoder and a head to be fitted, with embeddings of `width` numbers."""
        torch.manual_seed(seed)
        encoder = VisionEncoder(self.encoder.facts.model_copy(update={"width": width}))
        encoder.load_state_dict(
            {**encoder.state_dict(), **self.encoder.frozen, "centre": self.encoder.centre,
             "spread": self.encoder.spread}
        )  # fmt: skip
        return encoder, RouterHead(width, len(self.classes))

    def _apart(
        self,
        rows: list[torch.Tensor],
        photographs: Rows,
        made: Rows,
        originals: np.ndarray,
    ) -> Float[np.ndarray, "p n"] | None:
        """Logits of each photograph by a router that was fitted without its source."""
        folds = self.recipe.photographs.folds
        if not folds or not self.photographs:
            return None
        fold = np.array(fold_of_sources(self.photographs, folds))
        of_row = fold[[self.shown.which(n) for n in range(len(self.shown))]]
        logits = np.zeros((len(self.photographs), len(self.classes)), np.float32)
        for index in range(folds):
            if not (fold == index).any():
                continue
            names = sorted({p.source for p, f in zip(self.photographs, fold, strict=True)
                            if f == index})  # fmt: skip
            what = f"without {', '.join(names)}"
            encoder, head = self._fitted(what, rows, photographs, made, of_row != index)
            with torch.no_grad():
                judged = read_reduced(encoder, head, rows[0][torch.from_numpy(originals)])
            logits[fold == index] = judged.logits.numpy()[fold == index]
        return logits

    def _calibrated(
        self,
        logits: Float[np.ndarray, "b n"],
        held: Rows,
        apart: Float[np.ndarray, "p n"] | None,
        truths: Float[np.ndarray, "p n"],
    ) -> tuple[float, dict[str, Any]]:
        """The shift of `clean`, and temperature and scores for the file."""
        clean = self.classes.index(CLEAN)
        parts = [(logits, held.truths)] + ([] if apart is None else [(apart, truths)])
        # Photographs that look like damage count as much as all that is made.
        shift = clean_shift(parts, clean, self.recipe.photographs.left_alone)
        moved = [own + shift * (np.arange(own.shape[1]) == clean) for own, _ in parts]
        scores, temperature = scores_of(
            self.recipe, np.concatenate(moved), np.concatenate([t for _, t in parts])
        )
        if apart is not None:
            scores["photographs"] = judged_photographs(
                self.recipe, moved[1], [one.classes for one in self.photographs], temperature
            )
        return shift, {"temperature": temperature, "scores": scores}

    # --- writing ---

    def _written(
        self,
        encoder: FrozenEncoder,
        head: RouterHead,
        memory: RouterMemory,
        found: Mapping[str, Any],
    ) -> Path:
        recipe = self.recipe
        path = self.run / f"{recipe.name}.safetensors"
        own: dict[str, Any] = {}
        if self.members is not None:
            own = self._named(self.members.router)
        own["scores"] = {**own.get("scores", {}), **found["scores"]}
        save_router(
            path,
            Router(encoder, head, recipe.views),
            self.classes,
            recipe.storage,
            memory,
            temperature=found["temperature"],
            threshold=recipe.threshold,
            thresholds=recipe.thresholds,
            again=recipe.again,
            name=recipe.name,
            description=recipe.description,
            recipe=self._stated(),
            licence=recipe.licence,
            data=recipe.data_statement,
            **own,
        )
        return path

    def _stated(self) -> dict[str, Any]:
        """The recipe for the file, which says no more of where things lay than their names."""
        stated = self.recipe.model_dump(mode="json")
        stated["encoder"]["weights"] = Path(self.recipe.encoder.weights).name
        if self.recipe.members is not None:
            stated["members"] = Path(self.recipe.members).name
        return stated

    def _named(self, router: LoadedRouter) -> dict[str, Any]:
        """Base and experts that the file names, copied beside it where they do not ship."""
        header = router.header
        files = [member.file for member in header.experts.values()]
        files += [] if header.guidance is None else [header.guidance.file]
        for name in files:
            source, target = router.path.parent / name, self.run / name
            if not target.exists():
                shutil.copyfile(source, target)
        if header.base is not None and not (ZOO / f"{header.base.name}.safetensors").exists():
            for end in (".safetensors", ".onnx", ".int8"):
                source = router.path.parent / f"{header.base.name}{end}"
                if source.exists() and not (self.run / source.name).exists():
                    shutil.copyfile(source, self.run / source.name)
        scores = {"experts": header.scores["experts"]} if "experts" in header.scores else {}
        return {
            "base": header.base, "experts": header.experts, "guidance": header.guidance,
            "scores": scores,
        }  # fmt: skip
