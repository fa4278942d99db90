"""Training an all-in-one model: a router, guidance, experts; each stage can be resumed.

The three stages of LoRA-IR (arXiv 2410.15385). First the router learns to tell kinds of damage
apart. Then, where that is wanted, the base learns to be guided by the router's vector. Last the
experts are trained, and the third stage writes nothing but them and the file that names them.

Several processes may share a run: each stage, and each separate expert, is trained by the one that
comes first, and the others wait for it only when nothing else is left to do. Processes that a
launcher has started together share every batch instead, and count as one here.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from urushi.adapters import Adapted, Adapter
from urushi.adapters.experts import Experts, split
from urushi.backbones import create_backbone
from urushi.backbones.network import RestorationNetwork
from urushi.errors import RecipeError
from urushi.files.adapter import LoadedAdapter, base_facts, read_adapter, write_adapter
from urushi.files.all_in_one_file import AllInOne, Expert
from urushi.files.model import (
    LoadedModel,
    ModelHeader,
    graph_path,
    read_model,
    write_model,
)
from urushi.files.router_file import RouterHeader, read_router
from urushi.inference.auto import AutoRestorer
from urushi.inference.zoo import ZOO, find_model
from urushi.names import counted
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe
from urushi.training.all_in_one.assembling import assemble
from urushi.training.all_in_one.datasets import AllInOneFiles, router_recipe_of
from urushi.training.all_in_one.stages import Stage, StagePlans, finished, settled_base
from urushi.training.checkpoint import write_recipe
from urushi.training.kept_parts import OnPictures
from urushi.training.loop import train
from urushi.training.outcome import (
    adapter_header,
    adapter_in_training,
    adapter_tensors,
    benchmark_scores,
)
from urushi.training.processes import begin, shared
from urushi.training.progress import Progress, TrainingResult
from urushi.training.router.router_training import train_router

__all__ = ["AllInOneResult", "AllInOneTraining"]


@dataclass(frozen=True)
class AllInOneResult:
    """What a training leaves.

    Attributes:
        finished: False when it was stopped by a signal; resume it.
        stopped_by: number of that signal.
        stage: the last one that was worked on.
        path: the all-in-one file; None unless finished.
        header: what it says; None unless finished.
        trained: stages that were trained now and not before.
    """

    finished: bool
    stopped_by: int | None
    stage: str
    path: Path | None = None
    header: RouterHeader | None = None
    trained: tuple[str, ...] = ()


class _StoppedError(Exception):
    """A signal ended a stage."""

    def __init__(self, stage: str, by: int | None) -> None:
        super().__init__(stage)
        self.stage, self.by = stage, by


@dataclass
class AllInOneTraining:
    """One all-in-one training.

    Args:
        recipe: what to do.
        files: packed pictures of the recipe's folders.
        run: folder of this training; in the end it holds the all-in-one file with its members.
        root: the place of the data, for benchmarks.
        resume: go on where it was stopped; stages that are finished are passed over.
        device: `auto` (the best there is) or `cpu`.
        download: fetch a CLIP from the hub where it is not there yet.
        on_stage: told what begins or is passed over, a clause each.
        on_progress, on_router_progress: called about every ten seconds and at validations.
        on_router_pictures: see `urushi.training.router.router_training.train_router`.

    Raises:
        RecipeError: the run exists already, or was made by another recipe or from other data.
    """

    recipe: AllInOneRecipe
    files: AllInOneFiles
    run: Path
    root: Path | str | None = None
    resume: bool = False
    device: str = "auto"
    download: bool = True
    on_stage: Callable[[str], None] = field(default=lambda _text: None)
    on_progress: Callable[[Progress], None] | None = None
    on_router_progress: Callable[[Progress], None] | None = None
    on_router_pictures: OnPictures | None = None

    def __post_init__(self) -> None:
        self._trained: list[str] = []
        begin(self.device)
        stated = self.run / "recipe.yaml"
        if shared(stated.exists) and not self.resume:
            raise RecipeError(
                f"{self.run} holds an all-in-one training: resume it (--resume), or choose another "
                "folder"
            )

    def train(self) -> AllInOneResult:
        """Trains what is not trained yet, to the end or until a signal.

        Raises:
            UrushiError: see `urushi.training.loop.train` and `train_router`.
        """
        shared(lambda: write_recipe(self.run, self.recipe))
        try:
            with self._lock("router"):
                # One that is there already may be part of another model.
                self._router = read_router(self._train_router()).alone()
            self._check_router()
            self._plans = StagePlans(self.recipe, self.files, self._router, self.device)
            with self._lock("guidance"):
                self._model, self._guidance = self._train_guided()
            if self.recipe.experts.mode == "joint":
                with self._lock("experts"):
                    self._train_joint()
            else:
                self._train_separate()
            path, header = self._assembled()
        except _StoppedError as stop:
            return AllInOneResult(False, stop.by, stop.stage, trained=tuple(self._trained))
        return AllInOneResult(True, None, "the end", path, header, tuple(self._trained))

    # --- first stage ---

    def _train_router(self) -> Path:
        if self.recipe.router.file is not None:
            return Path(self.recipe.router.file)
        own = router_recipe_of(self.recipe, self.files)
        folder = self.run / "router"
        path = folder / f"{own.name}.safetensors"
        stated = own.model_dump(mode="json")
        if shared(lambda: path.is_file() and read_router(path).header.recipe == stated):
            self.on_stage("router: trained before")
            return path
        self.on_stage(f"router: {counted(own.steps, 'step')}")
        result = train_router(
            own,
            self.files.router,
            folder,
            resume=self.resume,
            device=self.device,
            download=self.download,
            on_progress=self.on_router_progress,
            on_pictures=self.on_router_pictures,
        )
        if result.path is None:
            raise _StoppedError("router", result.stopped_by)
        self._trained.append("router")
        return result.path

    def _check_router(self) -> None:
        """A router of one's own must know the classes."""
        known = self._router.header.classes
        if missing := [name for name in self.recipe.classes if name not in known]:
            raise RecipeError(
                f"{self._router.path} knows the classes {', '.join(known)}, but not "
                f"{missing[0]!r}: leave that out, or train a router"
            )

    # --- second stage ---

    def _train_guided(self) -> tuple[LoadedModel, LoadedAdapter | None]:
        base = read_model(self._start())
        mode = self.recipe.guided.mode
        if mode == "none":
            return shared(lambda: self._own_base(base)), None
        stage = self._plans.guided(base)
        target = self.run / "guidance.safetensors"
        own = self.run / f"{self.recipe.name}-base.safetensors"
        if shared(lambda: finished(target, stage.recipe)):
            self.on_stage("guidance: trained before")
        else:
            network = self._run_stage("guidance", stage, self.run / "guided")

            def write() -> None:
                if mode == "full":
                    model, guidance = settled_base(network, base, own, self.recipe, stage.recipe)
                else:
                    model, guidance = base, _last_adapter(network)
                self._write(guidance, target, stage, model)

            shared(write)
        model = read_model(own) if mode == "full" else shared(lambda: self._own_base(base))
        return model, read_adapter(target)

    def _start(self) -> Path:
        """The file of the base: the one that is stated, or one of random weights."""
        stated = self.recipe.backbone
        if stated is None:
            return find_model(self.recipe.start)
        path = self.run / f"{self.recipe.name}-start.safetensors"
        if not path.is_file():
            # Not the seed of batches: weights must have nothing in common with those.
            torch.manual_seed(self.recipe.seed + (1 << 32))
            network = create_backbone(stated.name, stated.config)
            tensors = {name: t.numpy() for name, t in network.state_dict().items()}
            header = ModelHeader(
                backbone=stated.name, config=stated.config, description="Random weights."
            )
            write_model(path, tensors, header, "float32")
        return path

    def _own_base(self, base: LoadedModel) -> LoadedModel:
        """The base, with a copy beside the all-in-one file where it does not ship."""
        if base.path.resolve().parent == ZOO:
            return base
        copy = self.run / base.path.name
        if copy.resolve() != base.path.resolve() and not copy.exists():
            shutil.copyfile(base.path, copy)
            if base.graph is not None:
                shutil.copyfile(base.graph, graph_path(copy))
        return base

    # --- third stage ---

    def _train_separate(self) -> None:
        """One expert after another; those that another process trains are waited for last."""
        elsewhere = []
        for name in self.recipe.expert_classes:
            with self._lock(name, wait=False) as held:
                if held:
                    self._train_expert(name)
                else:
                    self.on_stage(f"{name} is being trained by another process")
                    elsewhere.append(name)
        for name in elsewhere:
            with self._lock(name):
                self._train_expert(name)

    @contextmanager
    def _lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Holds what the process has that trains a stage of this run; says whether it does."""
        lock = FileLock(self.run / f"{name}.lock", blocking=wait)

        def taken() -> bool:
            try:
                lock.acquire()
            except Timeout:
                return False
            return True

        held = shared(taken)
        try:
            yield held
        finally:
            if lock.is_locked:
                lock.release()

    def _train_expert(self, name: str) -> None:
        stage = self._plans.expert(name, self._model, self._guidance)
        target = self.run / f"{name}.safetensors"
        if shared(lambda: finished(target, stage.recipe)):
            self.on_stage(f"{name}: trained before")
            return
        benchmarks = self.recipe.classes[name].benchmarks

        def validate(network: nn.Module) -> dict[str, float]:
            loaded = adapter_in_training(stage.recipe, _last_adapter(network), self._model)
            return self._scores(name, loaded, benchmarks)

        network = self._run_stage(
            name, stage, self.run / "experts" / name, validate if benchmarks else None
        )
        expert = _last_adapter(network)

        def write() -> None:
            scores: dict[str, Any] = {}
            if benchmarks:
                before = self._scores(name, None, benchmarks)
                loaded = adapter_in_training(stage.recipe, expert, self._model)
                after = self._scores(name, loaded, benchmarks)
                scores = {b: {"psnr_base": before[b], "psnr": after[b]} for b in benchmarks}
            self._write(expert, target, stage, self._model, scores=scores)

        shared(write)

    def _train_joint(self) -> None:
        stage = self._plans.joint(self._model, self._guidance)
        names = self.recipe.expert_classes
        targets = {name: self.run / f"{name}.safetensors" for name in names}
        if shared(lambda: all(finished(path, stage.recipe) for path in targets.values())):
            self.on_stage("experts: trained before")
            return
        network = self._run_stage("experts", stage, self.run / "experts" / "joint")
        assert isinstance(network, Adapted)
        joint = _last_adapter(network)
        assert isinstance(joint, Experts)

        def write() -> None:
            for name, expert in zip(names, split(joint, network.backbone), strict=True):
                own = {"name": name, "degradations": [name]}
                self._write(expert, targets[name], stage, self._model, **own)

        shared(write)

    # --- what the stages share ---

    def _assembled(self) -> tuple[Path, RouterHeader]:
        made = shared(
            lambda: assemble(
                self.recipe,
                self.files,
                self.run,
                self._router,
                self._model,
                self._guidance,
                device=self.device,
                on_stage=self.on_stage,
                on_pictures=self.on_router_pictures,
            )
        )
        if isinstance(made, int):
            raise _StoppedError("evidence", made)
        return made

    def _run_stage(
        self,
        name: str,
        stage: Stage,
        folder: Path,
        validate: Callable[[nn.Module], dict[str, float]] | None = None,
    ) -> nn.Module:
        """The network of a stage as it is in the end."""
        self.on_stage(f"{name}: {counted(stage.recipe.schedule.steps, 'step')}")
        result: TrainingResult = train(
            stage.recipe,
            stage.material,
            folder,
            resume=self.resume,
            device=self.device,
            validate=validate,
            on_progress=self.on_progress,
        )
        if not result.finished:
            raise _StoppedError(name, result.stopped_by)
        self._trained.append(name)
        network = stage.material.network(True)
        network.load_state_dict(result.weights)
        return network.eval()

    def _scores(
        self, name: str, expert: LoadedAdapter | None, benchmarks: list[str]
    ) -> dict[str, float]:
        """PSNR of the right route, or of the base alone without an expert."""
        guidance = None if self._guidance is None else Expert(self._guidance, 1.0)
        experts = {} if expert is None else {name: Expert(expert, 1.0)}
        members = AllInOne(self._router, base_facts(self._model), experts, guidance)
        restorer = AutoRestorer(
            members,
            model=self._model,
            task="none" if expert is None else name,
            engine="torch",
            device=self.device,
        )
        return benchmark_scores(restorer, benchmarks, self.root, self.recipe.limit)

    def _write(
        self, adapter: Adapter, target: Path, stage: Stage, model: LoadedModel, **facts: Any
    ) -> None:
        header = adapter_header(stage.recipe, adapter, model, **facts)
        write_adapter(target, adapter_tensors(adapter), header, self.recipe.experts.storage)


def _last_adapter(network: nn.Module) -> Adapter:
    assert isinstance(network, Adapted)
    assert isinstance(network.backbone, RestorationNetwork)
    adapter = network.adapters[-1]
    assert isinstance(adapter, Adapter)
    return adapter
