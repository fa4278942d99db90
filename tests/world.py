"""Small models, adapters, routers and folders of pictures: the world that tests act in."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import picture, write_pictures

from urushi.adapters import Adapter, create_adapter
from urushi.adapters.contribution_profile import ParameterScore, Profile, TaskFacts
from urushi.adapters.layers import parameter_kinds
from urushi.adapters.profiling import execution_order, units_of
from urushi.adapters.stored import header_of, tensors_of
from urushi.backbones import BACKBONES, RestorationNetwork, create_backbone
from urushi.data.pack import PackedPictures, pack_pictures
from urushi.errors import RecipeError
from urushi.files.adapter import LoadedAdapter, base_facts, read_adapter, write_adapter
from urushi.files.all_in_one_file import member_of
from urushi.files.model import LoadedModel, ModelHeader, read_model, write_model
from urushi.files.router_file import ViewGeometry
from urushi.image import write_picture
from urushi.routing.encoders import CompactEncoder
from urushi.routing.router import Router, RouterHead, save_router
from urushi.settings import parse_settings
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe
from urushi.training.all_in_one.datasets import pack_all_in_one
from urushi.training.checkpoint import Checkpoint, newest_checkpoint
from urushi.training.recipe import Recipe


def write_tiny_model(path: Path) -> Path:
    """A NAFNet that changes little: its last layer is scaled down, its inner ones do something."""
    config: dict[str, Any] = dict(BACKBONES["nafnet"].example)
    torch.manual_seed(0)
    network = create_backbone("nafnet", config)
    weights = {}
    for name, tensor in network.state_dict().items():
        if name.endswith(("beta", "gamma")):
            tensor = torch.full_like(tensor, 0.1)
        weights[name] = (tensor * 0.05 if name.startswith("ending") else tensor).numpy()
    header = ModelHeader(backbone="nafnet", config=config, description="A tiny test network.")
    write_model(path, weights, header)
    return path


EXAMPLE = dict(BACKBONES["nafnet"].example)


def write_tiny(path: Path, seed: int = 0, **changes) -> Path:
    """Write a tiny NAFNet that does something: fresh ones are the identity."""
    config = {**EXAMPLE, **changes}
    with torch.random.fork_rng(devices=[]):
        # With other initial weights the variance over four channels may vanish somewhere, where
        # normalisation makes any rounding large. In trained networks it does not.
        torch.manual_seed(9)
        network = create_backbone("nafnet", config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: (tensor + 0.1 * torch.randn(tensor.shape, generator=generator)).numpy()
        for name, tensor in network.state_dict().items()
    }
    write_model(path, tensors, ModelHeader(backbone="nafnet", config=config))
    return path


def write_network(path, backbone, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = create_backbone(backbone, config)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    header = ModelHeader(backbone=backbone, config=config, licence="MIT", description="A test.")
    write_model(path, tensors, header)
    return read_model(path)


def network_of(model: LoadedModel):
    network = create_backbone(model.header.backbone, model.header.config)
    network.load_state_dict({name: torch.tensor(array) for name, array in model.tensors.items()})
    return network.eval()


def random_adapter(model: LoadedModel, seed: int = 0, size: float = 0.05, **config) -> Adapter:
    """An adapter as if it were trained: fresh ones change nothing."""
    config = {"method": "lora", **({} if "method" in config else {"rank": 2}), **config}
    adapter = create_adapter(network_of(model), config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    return adapter


def write_random(
    path: Path, model: LoadedModel, facts: dict[str, Any] | None = None, **options
) -> LoadedAdapter:
    adapter = random_adapter(model, **options)
    write_adapter(path, tensors_of(adapter), header_of(adapter, model, **(facts or {})), "float32")
    return read_adapter(path)


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


EXPERTS = tuple(name for name in CLASSES if name != "clean")


SEEN = "haze"  # what the tiny router sees in the tests' pictures


def write_all_in_one(folder: Path, model: Path, experts=EXPERTS, facts=None, **config) -> Path:
    """An all-in-one file with random experts beside it."""
    base = read_model(model)
    members = {
        name: member_of(write_random(folder / f"{name}.safetensors", base, seed=seed, **config))
        for seed, name in enumerate(experts, start=1)
    }
    path = folder / "all-in-one.safetensors"
    facts = {"threshold": 0.0, "base": base_facts(base), "experts": members, **(facts or {})}
    save_router(path, tiny_router(), CLASSES, **facts)
    return path


TINY_ALL_IN_ONE = {
    "kind": "all-in-one",
    "name": "all",
    "classes": {
        "clean": {},
        "noise": {"degradation": {"name": "gaussian_noise", "sigma_255": [50, 60]}},
        "dark": {"degradation": {"name": "low_light"}, "pairs": ["pairs"]},
    },
    "data": {"clean": ["clean"], "validation": ["held"], "patch": 16, "batch": 4},
    "router": {
        "encoder": {"kind": "compact", "widths": [4, 6], "width": 8, "blocks": 0},
        "views": {"layout": "native", "size": 16, "most": 2},
        "sides": [24],
        "per_class": 2,
        "steps": 3,
        "validation": {"per_class": 4, "every": 3},
    },
    "experts": {"steps": 4, "warmup": 0, "adapter": {"method": "lora", "rank": 1}},
}


def make_data(root: Path) -> Path:
    """Folders of clean pictures, and of pairs that are dark."""
    for folder in ("clean", "held"):
        write_pictures(root / folder, 3)
    for index in range(3):
        pixels = picture(shift=float(index))
        for side, factor in (("input", 0.3), ("target", 1.0)):
            (root / "pairs" / side).mkdir(parents=True, exist_ok=True)
            write_picture(root / "pairs" / side / f"{index}.png", np.float32(factor) * pixels)
    return root


def make_world(root: Path) -> Path:
    """What most tests of commands, of routing and of training need; the fixture `world` is it.

    Folders `clean`, `held` and `pairs` to learn from, `pictures` to restore, a base in
    `tiny.safetensors`, and `all-in-one.safetensors` with its experts, named by their classes.
    """
    make_data(root)
    write_pictures(root / "pictures", 3)
    write_all_in_one(root, write_tiny_model(root / "tiny.safetensors"))
    return root


def contents_of(root: Path) -> dict[str, bytes]:
    """All files below a folder, but not what is packed there for training."""
    files = [path for path in root.rglob("*") if path.is_file() and "packs" not in path.parts]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def tiny_recipe(start: Path, **changes) -> AllInOneRecipe:
    content = {**TINY_ALL_IN_ONE, "start": str(start), **changes}
    return parse_settings(content, AllInOneRecipe, RecipeError, "test")


def tiny_files(recipe: AllInOneRecipe, root: Path, folder: Path):
    return pack_all_in_one(recipe, folder, root)


TINY_X2 = {
    "depths": [2], "embed_dim": 8, "num_heads": [2], "window_size": 4, "upscale": 2,
    "upsampler": "pixelshuffledirect",
}  # fmt: skip


def write_x2_model(folder: Path) -> Path:
    """A tiny SwinIR that enlarges: its result is near plain interpolation."""
    torch.manual_seed(0)
    network = create_backbone("swinir", TINY_X2)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    path = folder / "x2.safetensors"
    write_model(path, tensors, ModelHeader(backbone="swinir", config=TINY_X2))
    return path


def tiny_network(seed=0) -> RestorationNetwork:
    """A NAFNet whose every layer does something."""
    torch.manual_seed(seed)
    network = create_backbone("nafnet", BACKBONES["nafnet"].example).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            parameter.data.fill_(0.3)
        if name.startswith("ending"):
            parameter.data.mul_(0.1)
    return network


def moved(network, by=0.03, seed=1):
    """The parameters of a network a little elsewhere, by name."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: p.detach() + by * torch.randn(p.shape, generator=generator)
        for name, p in network.named_parameters()
    }


def write_base(path: Path, network, storage="float32", **tensors) -> Path:
    state = {name: t.numpy() for name, t in {**network.state_dict(), **tensors}.items()}
    header = ModelHeader(backbone="nafnet", config=dict(BACKBONES["nafnet"].example))
    write_model(path, state, header, storage)
    return path


def made_up(network, model: Path, mean=lambda name: 1.0) -> Profile:
    """A profile in which each parameter has the contribution that `mean` gives its name."""
    kinds = parameter_kinds(network)
    counts = {name: p.numel() for name, p in network.named_parameters()}
    order = execution_order(network, torch.rand(3, 16, 16))
    facts = {"pictures": 1, "psnr_baseline": 20.0, "psnr_target": 25.0, "accounted": 1.0}
    return Profile(
        base=base_facts(read_model(model)),
        steps=1,
        rule="midpoint",
        normalise="task",
        tasks=[TaskFacts(name="made up", data="", target="", **facts)],
        units=units_of(network, order),
        parameters={
            name: ParameterScore(kind=kinds[name], count=counts[name], mean=mean(name))
            for name in order
        },
    )


TINY_TRAINING = {
    "name": "tiny",
    "backbone": {
        "name": "nafnet",
        "config": {
            "width": 4,
            "enc_blk_nums": [1, 1],
            "middle_blk_num": 1,
            "dec_blk_nums": [1, 1],
        },
    },
    "data": {"pictures": ["clean"], "patch": 16, "batch": 4},
    "degradation": {
        "name": "chain",
        "order": "random",
        "steps": [{"name": "gaussian_noise"}, {"name": "jpeg"}, {"name": "gaussian_blur"}],
    },
    "schedule": {"steps": 6, "warmup": 2},
}


def recipe(**changes):
    return parse_settings({**TINY_TRAINING, **changes}, Recipe, RecipeError, "test")


def make_pack(folder):
    """Three small pictures of blocks, packed."""
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(40, 56), (33, 20), (64, 64)]):
        coarse = rng.random((4, 4, 3), dtype=np.float32)
        picture = np.kron(coarse, np.ones((16, 16, 1), np.float32))[:height, :width]
        write_picture(folder / f"{index}.png", picture)
    return PackedPictures(pack_pictures([folder], folder / "pack.safetensors").path)


def newest(run) -> Checkpoint:
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint
