"""The all-in-one model that ships: it knows the demo's pictures, mends them, and stays small."""

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import generator

from urushi.degradations import create_degradation
from urushi.errors import AdapterError
from urushi.evaluation.metrics import psnr
from urushi.files.adapter import describe_adapter
from urushi.files.all_in_one_file import read_all_in_one
from urushi.image import read_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import ZOO, find_adapter, find_all_in_one, zoo_experts

DEMO = ZOO.parents[1] / "demo" / "pictures"
KINDS = {
    "film-grain-grey.tif": "noise",
    "haze.webp": "haze",
    "jpeg-10.jpg": "jpeg",
    "low-light.webp": "low-light",
    "noise-display-p3.png": "noise",
    "rain.webp": "rain",
    "raindrops.webp": "raindrop",
    "snow.webp": "snow",
}
# Adapters that ship and that no router knows.
BY_NAME = {"film": "| marks |", "fading": "| Kodak24 at |"}


@pytest.fixture(scope="module")
def chooser():
    return AutoRestorer(device="cpu", engine="openvino")


def test_router_and_experts_stay_small():
    path = find_all_in_one()
    assert path is not None
    members = read_all_in_one(path)
    assert set(members.experts) == set(members.router.header.classes) - {"clean"}
    assert set(zoo_experts()) == {*members.experts, *BY_NAME}
    files = [path, *(ZOO / f"{name}.safetensors" for name in members.experts)]
    assert sum(file.stat().st_size for file in files) < 40e6
    encoder = members.router.part("encoder")
    # Half precision: what is read beside the base stays below 7 MB.
    assert 2 * sum(tensor.size for tensor in encoder.values()) < 7e6


@pytest.mark.parametrize("name", zoo_experts())
def test_every_expert_has_a_card_that_is_of_its_file(name):
    told = describe_adapter(ZOO / f"{name}.safetensors")
    card = (ZOO / f"{name}.md").read_text(encoding="utf-8")
    assert f"`{name}.safetensors`, {told['size'] / 1e6:.1f} MB" in card
    assert f"{told['header']['method']}, {told['parameters']:,} parameters" in card
    assert f"{told['header']['recipe']['schedule']['steps']:,} steps" in card
    assert BY_NAME.get(name, "| benchmark | pictures | input | base | right |") in card


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_it_knows_the_pictures_of_the_demo(chooser, name, kind):
    choice = chooser.choose_file(DEMO / "input" / name)
    assert choice.decision.seen == kind
    assert choice.route == ((kind, 1.0),)


def test_good_pictures_are_left_to_the_base(chooser):
    good = sorted((DEMO / "reference").iterdir())
    left = [not chooser.choose_file(path).route for path in good]
    assert np.mean(left) > 0.8


@pytest.mark.parametrize(("name", "least"), [("low-light", 15), ("snow", 3), ("haze", 4)])
def test_experts_mend_what_the_base_leaves(chooser, name, least):
    spoilt, good = (read_picture(DEMO / side / f"{name}.webp") for side in ("input", "reference"))
    before = psnr(spoilt, good)
    assert psnr(chooser.restore(spoilt), good) > before + least
    alone = AutoRestorer(task="none", device="cpu", engine="openvino")
    assert abs(psnr(alone.restore(spoilt), good) - before) < 1


@pytest.mark.parametrize("name", BY_NAME)
def test_what_the_router_does_not_know_is_asked_for_by_its_name(name):
    with pytest.raises(AdapterError, match=f"does not choose: give {name} as an adapter"):
        AutoRestorer(task=name, device="cpu", engine="openvino")


def test_faded_colours_come_back():
    clean = np.asarray(read_picture(DEMO / "reference" / "rain.webp"), np.float32)
    images = torch.from_numpy(clean.transpose(2, 0, 1).copy())[None]
    made = create_degradation("fading", loss=[0.5, 0.6])
    faded = made.apply(images, made.sample(tuple(images.shape), generator(1)))[0]
    faded = faded.permute(1, 2, 0).numpy()
    restored = Restorer(adapters=["fading"]).restore(faded)
    assert psnr(restored, clean) > psnr(faded, clean) + 6
    tone = np.abs((restored - clean).mean((0, 1)))
    assert tone.max() < np.abs((faded - clean).mean((0, 1))).max() / 3


def test_experts_go_by_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_adapter("snow") == ZOO / "snow.safetensors"
    assert find_adapter("snow.safetensors") == Path("snow.safetensors")
    Path("snow").touch()
    assert find_adapter("snow") == Path("snow")
    assert find_adapter("nothing") == Path("nothing")


def test_a_folder_of_pictures_does_not_hide_a_shipped_adapter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("snow").mkdir()
    assert find_adapter("snow") == ZOO / "snow.safetensors"
    # One that PEFT wrote is an adapter in the user's hands: what is told of it is another matter.
    (Path("snow") / "adapter_config.json").write_text("{}")
    assert find_adapter("snow") == Path("snow")
