"""LoRA-IR's two released checkpoints become one file that restores by itself."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import run
from networks import below, read_golden
from PIL import Image
from torch import nn
from world import tiny_clip, tiny_file

from urushi.adapters.experts import top_weights
from urushi.app.output import EXIT_USAGE, EXIT_WELL
from urushi.convert.importing import import_released
from urushi.errors import BackboneError, FileFormatError, TargetError
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.router_file import read_router
from urushi.image import read_picture, write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.choice import Choice
from urushi.routing.released import RELEASED_CLIP

CLASSES = ("snow", "rain", "raindrop")
FOLDER = RELEASED_CLIP.rpartition("/")[2]


def write_checkpoints(folder, golden_lora_ir, classes=3):
    """Tiny ones in the authors' layouts: the network's is golden, the router's random."""
    torch.save({"params": below(golden_lora_ir, "state.")}, folder / "setting1_ir.pth")
    torch.manual_seed(1)
    tower = tiny_clip(projection=768).state_dict()
    layers = {
        "de_extractor.0": nn.Linear(1536, 768),
        "de_extractor.2": nn.Linear(768, 384),
        "cls_head": nn.Linear(384, classes),
    }
    state = {f"clip.{name}": tensor.bfloat16() for name, tensor in tower.items()}
    for start, layer in layers.items():
        own = layer.state_dict().items()
        state |= {f"{start}.{name}": tensor.bfloat16() for name, tensor in own}
    torch.save(state, folder / "setting1_router.pth")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory, golden_lora_ir):
    folder = write_checkpoints(tmp_path_factory.mktemp("lora-ir"), golden_lora_ir)
    for words in (
        ("setting1_router.pth", "-o", "router.safetensors"),
        ("setting1_ir.pth", "-o", "ir.safetensors", "--set", f"router={folder / 'router'}"),
    ):
        name, _, target, *rest = [str(word) for word in words]
        rest = [f"{word}.safetensors" if word.startswith("router=") else word for word in rest]
        done = run("import", folder / name, "-o", folder / target, *rest)
        assert done.exit_code == EXIT_WELL, done.stderr
    return folder


@pytest.fixture
def own(world, tmp_path):
    """A copy, to be spoilt."""
    return shutil.copytree(world, tmp_path / "own")


def opened(folder, **options):
    return AutoRestorer(
        folder / "ir.all-in-one.safetensors", engine="torch", device="cpu", **options
    )


def test_what_is_written_belongs_together(world):
    names = {path.name for path in world.iterdir() if not path.name.startswith("setting1")}
    members = {f"ir.{name}.safetensors" for name in ("guidance", *CLASSES)}
    assert names == {
        *("router.safetensors", "ir.safetensors", "ir.all-in-one.safetensors", FOLDER),
        *members,
    }
    united = read_all_in_one(world / "ir.all-in-one.safetensors")
    assert tuple(united.experts) == united.router.header.classes == CLASSES
    assert united.router.header.threshold == 0


@pytest.mark.parametrize("k", [1, 2])
def test_equals_the_authors_network(world, golden_lora_ir, k):
    auto = opened(world, k=k)
    weights = top_weights(golden_lora_ir["probs"], k)
    expected = golden_lora_ir[f"output_b1_topk{k}"]
    for row in range(3):
        route = [(c, float(w)) for c, w in zip(CLASSES, weights[row], strict=True) if w]
        choice = Choice(tuple(route), "", vector=golden_lora_ir["de_prior"][row].numpy())
        result = auto.restorer(choice).engine.run(golden_lora_ir["input"][row : row + 1].numpy())
        assert np.abs(result - expected[row : row + 1].numpy()).max() <= 1e-4 * expected.std()


def test_the_command_restores_by_what_the_router_sees(world, tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for index in range(2):
        # Soft and rough as photographs are: smooth slopes and patterns count as drawn.
        coarse = Image.fromarray(draw.integers(60, 190, (5, 7, 3), np.uint8))
        soft = np.asarray(coarse.resize((56, 40), Image.Resampling.BICUBIC)) / 255
        rough = np.clip(soft + draw.normal(0, 0.03, soft.shape), 0, 1).astype(np.float32)
        write_picture(tmp_path / "in" / f"picture{index}.png", rough)
    words = ("restore", tmp_path / "in", "--engine", "torch", "--device", "cpu", "--json")
    words = (*words, "--router", world / "ir.all-in-one.safetensors")
    done = run(*words, "-o", tmp_path / "out")
    assert done.exit_code == EXIT_WELL, done.stderr
    told = json.loads(done.stdout)
    auto = opened(world)
    for row, source in zip(told["files"], sorted((tmp_path / "in").iterdir()), strict=True):
        choice = auto.choose_file(source)
        assert row["router"]["route"] == {choice.decision.seen: 1.0}
        restored = auto.restore(read_picture(source))
        assert np.abs(read_picture(tmp_path / "out" / source.name) - restored).max() < 1 / 250
    seen = told["files"][0]["router"]["seen"]
    other = next(name for name in CLASSES if name != seen)
    for name, extra in (("same", ("--task", seen)), ("other", ("--task", other))):
        assert run(*words, "-o", tmp_path / name, *extra).exit_code == EXIT_WELL
    first = {name: (tmp_path / name / "picture0.png").read_bytes() for name in ("out", "same")}
    assert first["out"] == first["same"]
    assert first["out"] != (tmp_path / "other" / "picture0.png").read_bytes()


def test_the_clip_is_found_beside_and_kept_in_16_bits(own):
    stored = read_router(own / "router.safetensors")
    assert stored.header.encoder.name == RELEASED_CLIP
    saved = (own / FOLDER / "model.safetensors").stat().st_size
    numbers = sum(p.numel() for p in tiny_clip(projection=768).parameters())
    assert saved < 2.2 * numbers + 10_000
    moved = shutil.copytree(own, own.parent / "moved")
    assert opened(moved).choose(np.full((20, 20, 3), 0.5, np.float32)).vector.shape == (384,)
    again = import_released(own / "setting1_router.pth", own / "router.safetensors", overwrite=True)
    assert again.files == (own / "router.safetensors",)
    tiny_clip(seed=5, projection=768).save_pretrained(own / FOLDER)
    wrong = {"classes": ["fog", "big hail", "rain"]}
    with pytest.raises(FileFormatError, match=r"classes.* cannot be written"):
        import_released(own / "setting1_router.pth", own.parent / "a.safetensors", options=wrong)
    assert not (own.parent / FOLDER).exists()
    with pytest.raises(TargetError, match="another CLIP than the router's"):
        import_released(own / "setting1_router.pth", own / "second.safetensors")
    assert not (own / "second.safetensors").exists()


def test_a_network_before_its_experts_is_guided_alone(own):
    tensors = below(read_golden("lora_ir_stage1")[0], "state.")
    torch.save(tensors, own / "first.pth")
    options = {"router": str(own / "router.safetensors")}
    made = import_released(own / "first.pth", own / "first.safetensors", options=options)
    names = [path.name for path in made.files]
    assert names == [f"first{kind}.safetensors" for kind in ("", ".guidance", ".all-in-one")]
    auto = AutoRestorer(made.files[-1], engine="torch", device="cpu")
    choice = auto.choose(np.random.default_rng(0).random((20, 20, 3), np.float32))
    assert choice.route == ()
    assert "there is no expert for" in choice.reason
    assert choice.vector.shape == (384,)


def test_what_does_not_belong_together_is_told(own, golden_lora_ir, tmp_path):
    source = own / "setting1_ir.pth"

    def complaint(kind, router, target="b.safetensors"):
        before = sorted(own.iterdir())
        with pytest.raises(kind) as caught:
            import_released(source, own / target, options={"router": str(router)})
        assert sorted(own.iterdir()) == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "expected a router file: make one with" in complaint(
        FileFormatError, own / "setting1_router.pth"
    )
    assert "expected a router file" in complaint(FileFormatError, own / "absent.safetensors")
    assert "give it with --model" in complaint(FileFormatError, own / "ir.safetensors")
    assert "has experts already" in complaint(FileFormatError, own / "ir.all-in-one.safetensors")
    said = complaint(FileFormatError, own / "router.safetensors", "../b.safetensors")
    assert "write the model into that folder too" in said
    assert "clean, noise, haze: give the router" in complaint(BackboneError, tiny_file(tmp_path))
    write_checkpoints(tmp_path, golden_lora_ir, classes=2)
    names = {"classes": ["fog", "hail"]}
    import_released(tmp_path / "setting1_router.pth", tmp_path / "two.safetensors", options=names)
    shutil.rmtree(tmp_path / FOLDER)
    assert "3 experts, but two.safetensors has the classes fog, hail" in complaint(
        BackboneError, tmp_path / "two.safetensors"
    )
    done = run("import", source, "-o", own / "c.safetensors", "--set", "head=x2")
    assert done.exit_code == EXIT_USAGE
    assert "takes no setting 'head'" in done.stderr
