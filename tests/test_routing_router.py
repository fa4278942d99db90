"""The router against numbers measured from the authors' code, its encoders, and their layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from world import CLASSES, NATIVE, tiny_clip, tiny_file, tiny_router

from urushi.errors import AdapterError, FileFormatError, MissingExtraError
from urushi.files.router_file import ViewGeometry, read_router
from urushi.routing import read_embeddings
from urushi.routing.encoders import CLIP_MEAN, CLIP_STD, ClipEncoder, CompactEncoder, blockiness
from urushi.routing.released import head_from_released, load_released_router
from urushi.routing.router import Router, RouterHead, load_router, save_router
from urushi.training.router.router_recipe import COMPACT

GOLDEN = Path(__file__).parent / "golden" / "lora_ir_router_head.safetensors"


def golden_head():
    tensors = load_file(GOLDEN)
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    head, rest = head_from_released(state, "golden")
    assert not rest
    return tensors, state, head


@torch.inference_mode()
def test_the_head_equals_the_authors():
    tensors, _, head = golden_head()
    found = head(tensors["input"])
    torch.testing.assert_close(found.logits, tensors["output"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.vector, tensors["output_prior"], rtol=1e-5, atol=1e-6)


def test_the_head_on_arrays_equals_the_authors():
    tensors, _, head = golden_head()
    arrays = {name: tensor.numpy() for name, tensor in head.state_dict().items()}
    for row in range(4):
        found = read_embeddings(arrays, tensors["input"][row].numpy())
        np.testing.assert_allclose(found.logits, tensors["output"][row], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.vector, tensors["output_prior"][row], rtol=1e-5, atol=1e-6)


def test_released_parameter_counts():
    for classes, count in ((3, 1_476_867), (10, 1_479_562)):
        assert sum(p.numel() for p in RouterHead(768, classes).parameters()) == count


def test_the_compact_encoder_is_small():
    encoder = CompactEncoder(COMPACT.widths, COMPACT.width, COMPACT.blocks)
    assert sum(p.numel() for p in encoder.parameters()) <= 2_000_000


@torch.inference_mode()
def test_a_compact_encoder_sees_how_strong_noise_is():
    encoder = CompactEncoder((4, 8), 16).eval()
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weak, strong = (encoder.embed(0.5 + sigma * noise) for sigma in (0.01, 0.1))
    shuffled = encoder.embed(0.5 + 0.1 * noise.flip(-1))
    assert (weak - strong).norm() > 5 * (strong - shuffled).norm()


@torch.inference_mode()
def test_compression_shows_wherever_its_grid_begins_and_texture_does_not():
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(1, 3, 72, 72, generator=generator)
    smooth = torch.linspace(0, 1, 72).expand(1, 3, 72, 72)
    blocks = 0.5 + 0.03 * torch.randn(1, 3, 9, 9, generator=generator)
    blocks = blocks.repeat_interleave(8, -1).repeat_interleave(8, -2)
    for top, left in ((0, 0), (3, 6)):
        cut = (..., slice(top, top + 64), slice(left, left + 64))
        assert (blockiness(blocks[cut]) > 2.5).all()
        assert (blockiness(texture[cut]) < 0.5).all()
        assert (blockiness(smooth[cut]) < 1).all()


def test_embeddings_of_a_picture_do_not_depend_on_its_neighbours():
    router = tiny_router()
    views = torch.rand(3, 5, 3, 16, 16)
    together = router(views)
    alone = router(views[1:2])
    torch.testing.assert_close(together.logits[1:2], alone.logits)
    assert together.vector.shape == (3, 4)


def test_gradients_reach_every_tensor():
    router = tiny_router()
    router.read(torch.rand(2, 3, 20, 24)).logits.square().sum().backward()
    for name, parameter in router.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


# --- files ---


def test_a_router_comes_back_from_its_file(tmp_path):
    router = tiny_router()
    path = tiny_file(tmp_path, mode="multi", temperature=1.5, threshold=0.7, scores={"a": 1})
    stored = read_router(path)
    assert stored.header.classes == CLASSES
    assert (stored.header.mode, stored.header.temperature) == ("multi", 1.5)
    assert stored.header.views == NATIVE
    loaded = load_router(stored)
    images = torch.rand(2, 3, 30, 50)
    for found, expected in zip(loaded.read(images), router.read(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_an_encoder_with_other_tensors_is_refused(tmp_path):
    path = tiny_file(tmp_path)
    stored = read_router(path)
    name = "encoder.project.weight"

    def refuse(change, words):
        tensors = dict(stored.tensors)
        change(tensors)
        with pytest.raises(AdapterError, match=words):
            load_router(type(stored)(stored.header, tensors, path))

    refuse(lambda t: t.pop(name), r"'project.weight' is missing")
    refuse(lambda t: t.update({name: t[name][:, :-1]}), r"'project.weight' is misshapen")
    refuse(lambda t: t.update({"encoder.x": t[name]}), r"'x' is unknown")
    with pytest.raises(AdapterError, match="its own compact encoder"):
        load_router(stored, clip="openai/clip")


def test_facts_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="threshold cannot be written"):
        tiny_file(tmp_path, threshold=2.0)
    with pytest.raises(FileFormatError, match="has shape"):
        save_router(tmp_path / "x.safetensors", tiny_router(), ("one", "two"))


# --- CLIP ---


@pytest.fixture
def clip(tmp_path):
    tiny_clip().save_pretrained(tmp_path / "clip")
    return str(tmp_path / "clip")


def clip_router(clip):
    torch.manual_seed(1)
    encoder = ClipEncoder(clip, download=False)
    return Router(encoder, RouterHead(encoder.width, 3), ViewGeometry(size=28)).eval()


def test_clip_gives_its_projected_embedding_of_normalised_views(clip):
    encoder = ClipEncoder(clip, download=False)
    views = torch.rand(2, 5, 3, 28, 28)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    expected = tiny_clip().eval()(pixel_values=(views[1] - mean) / std).image_embeds
    torch.testing.assert_close(encoder(views)[1], expected)
    assert (encoder.width, encoder.view_size) == (8, 28)


def test_clip_stays_frozen_and_in_evaluation(clip):
    encoder = ClipEncoder(clip, download=False).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_router_with_clip_stores_the_head_alone(tmp_path, clip):
    router = clip_router(clip)
    path = tmp_path / "with-clip.safetensors"
    save_router(path, router, CLASSES)
    stored = read_router(path)
    assert set(stored.tensors) == {f"head.{name}" for name in router.head.state_dict()}
    assert stored.header.encoder.name == clip
    images = torch.rand(1, 3, 40, 30)
    found = load_router(stored).read(images)
    torch.testing.assert_close(found.logits, router.read(images).logits)


def test_another_clip_is_refused(tmp_path, clip):
    path = tmp_path / "with-clip.safetensors"
    save_router(path, clip_router(clip), CLASSES)
    stored = read_router(path)
    tiny_clip(seed=5).save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterError, match="is not this router's CLIP"):
        load_router(stored, clip=str(tmp_path / "other"))
    with pytest.raises(AdapterError, match="cannot be loaded: give its folder, or allow"):
        load_router(stored, clip=str(tmp_path / "absent"))


def test_a_folder_with_a_pickle_is_not_opened(tmp_path, clip):
    weights = Path(clip) / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, Path(clip) / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(AdapterError, match="cannot be loaded"):
        ClipEncoder(clip, download=False)


def test_clip_takes_views_of_its_own_size(clip):
    encoder = ClipEncoder(clip, download=False)
    with pytest.raises(AdapterError, match="size=28"):
        encoder(torch.rand(1, 2, 3, 30, 30))
    with pytest.raises(AdapterError, match="the encoder takes 28"):
        Router(encoder, RouterHead(8, 3), ViewGeometry(size=32))


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"urushi\[clip\]"):
        ClipEncoder("openai/clip-vit-large-patch14-336", download=False)


# --- the released checkpoint ---


def released_state(tower=True, width=64, prefix="clip_encoder."):
    _, state, _ = golden_head()
    if tower:
        weights = tiny_clip(projection=width).state_dict()
        state |= {f"{prefix}{name}": tensor for name, tensor in weights.items()}
        state[f"{prefix}vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    return {name: t.bfloat16() if t.is_floating_point() else t for name, t in state.items()}


@pytest.mark.parametrize("prefix", ["clip_encoder.", "model.inner."])
def test_a_released_checkpoint_loads_with_its_clip(tmp_path, prefix):
    torch.save(released_state(prefix=prefix), tmp_path / "setting1_router.pth")
    router = load_released_router(tmp_path / "setting1_router.pth")
    assert router.views == ViewGeometry(layout="squashed", size=28)
    tower = tiny_clip(projection=64)
    tower.load_state_dict({k: v.bfloat16().float() for k, v in tower.state_dict().items()})
    views = torch.rand(1, 5, 3, 28, 28)
    expected = ClipEncoder.from_tower("x", tower)(views)
    torch.testing.assert_close(router.encoder(views), expected)
    assert router(views).logits.shape == (1, 3)
    # Stored in bfloat16 or not, it is the same CLIP.
    original = ClipEncoder.from_tower("x", tiny_clip(projection=64))
    assert router.encoder.facts.projection_hash == original.facts.projection_hash


def test_a_released_head_without_a_tower_needs_a_name(tmp_path, clip):
    torch.save(released_state(tower=False), tmp_path / "head.pth")
    with pytest.raises(AdapterError, match="holds no CLIP"):
        load_released_router(tmp_path / "head.pth")
    with pytest.raises(AdapterError, match="embeddings of 64 numbers, its CLIP gives 8"):
        load_released_router(tmp_path / "head.pth", clip=clip)


def test_what_is_no_released_router_is_refused(tmp_path):
    path = tmp_path / "net.pth"

    def refuse(state, words):
        torch.save(state, path)
        with pytest.raises(AdapterError, match=words):
            load_released_router(path)

    state = released_state()
    refuse({"a": torch.zeros(1)}, "no matrix cls_head.weight")
    refuse({k: v for k, v in state.items() if "extractor.2.bias" not in k}, "missing")
    refuse({k: v for k, v in state.items() if "visual_projection" not in k}, "no visual_projection")
    refuse({k: v for k, v in state.items() if "patch_embedding" not in k}, "CLIP is incomplete")
    refuse({k: v for k, v in state.items() if "post_layernorm.bias" not in k}, "missing")
