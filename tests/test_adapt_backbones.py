"""Every network and method through the same command: `urushi adapt --backbone NAME --method M`."""

import json

import numpy as np
import pytest
import torch
from commands import run
from networks import shaken
from pictures import picture
from test_adapt import write_pairs

from urushi.app.output import EXIT_USAGE, EXIT_WELL
from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.ipt_released import to_released
from urushi.convert import releases as backbone_models
from urushi.convert.releases import Release, model_of_backbone
from urushi.errors import BackboneError
from urushi.files.adapter import read_adapter
from urushi.files.model import ModelHeader, read_model, write_model
from urushi.image import read_picture, write_picture
from urushi.inference import zoo
from urushi.inference.restorer import Restorer


def write_network(path, backbone, **config):
    """A tiny network of that kind with random weights that keep pictures much as they are."""
    torch.manual_seed(0)
    config = {**BACKBONES[backbone].example, **config}
    network = create_backbone(backbone, config)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name.startswith(("ending", "output")):
                tensor *= 0.3
            elif name.endswith(("beta", "gamma")):
                tensor += 0.1
    header = ModelHeader(backbone=backbone, config=config)
    write_model(path, {k: v.numpy() for k, v in network.state_dict().items()}, header)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("backbone", "method"), [("restormer", "adaptir"), ("nafnet", "colora")])
def test_methods_of_one_paper_go_onto_networks_of_another(here, backbone, method):
    write_pairs(here / "pairs", height=16, width=16)
    write_network(here / f"{backbone}.safetensors", backbone)
    target = here / "mine.safetensors"
    done = run(
        *("adapt", "--backbone", backbone, "--method", method, "--pairs", here / "pairs"),
        *("-o", target, "--steps", 10, "--device", "cpu", "--json"),
    )
    assert done.exit_code == EXIT_WELL, done.stderr
    told = json.loads(done.stdout)
    assert told["psnr"] > told["psnr_base"]
    assert f"of those of {backbone}.safetensors" in done.stderr
    header = read_adapter(target).header
    assert (header.method, header.base.backbone) == (method, backbone)
    pictures = [read_picture(here / "pairs" / side / "1.png") for side in ("input", "target")]
    options = {"engine": "torch", "device": "cpu"}
    errors = [
        np.abs(
            Restorer(f"{backbone}.safetensors", **o, **options).restore(pictures[0]) - pictures[1]
        )
        for o in ({"adapters": [target]}, {})
    ]
    assert errors[0].mean() < errors[1].mean()


def test_an_ipt_of_the_authors_layout_imports_restores_and_goes_back(here):
    network = shaken(create_backbone("ipt", BACKBONES["ipt"].example), 0, by=0.02)
    state = to_released(network)
    torch.save(state, here / "released.pt")
    options = ("--set", "num_heads=3", "--set", "rgb_range=1.0")
    done = run("import", "released.pt", "-o", "ipt.safetensors", *options)
    assert done.exit_code == EXIT_WELL, done.stderr
    model = read_model(here / "ipt.safetensors")
    again = create_backbone("ipt", model.header.config)
    again.load_state_dict({key: torch.tensor(array) for key, array in model.tensors.items()})
    back = to_released(again)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    write_picture(here / "photo.png", picture(24, 36))
    done = run(
        *("restore", "photo.png", "-o", "out.png", "--model", model_of_backbone("ipt")),
        *("--engine", "torch", "--device", "cpu", "--tile", 12, "--overlap", 0),
    )
    assert done.exit_code == EXIT_WELL, done.stderr
    x = torch.tensor(read_picture(here / "photo.png")).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = (network.eval()(x).clamp(0, 1))[0].permute(1, 2, 0).numpy()
    assert np.abs(read_picture(here / "out.png") - expected).max() <= 1 / 255


# --- which model is meant ---


def test_the_one_that_ships_and_the_one_in_this_folder(here):
    assert model_of_backbone("nafnet") == "base"
    write_network(here / "nafnet.safetensors", "nafnet")
    assert model_of_backbone("nafnet") == "nafnet.safetensors"
    assert model_of_backbone("nafnet", "base") == "base"


def test_what_is_not_there_is_told_with_the_way_to_it(here, monkeypatch):
    def complaint(*arguments):
        with pytest.raises(BackboneError) as caught:
            model_of_backbone(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "did you mean 'restormer'" in complaint("restomer")
    said = complaint("restormer")
    assert "no weights of a restormer were found" in said
    assert "not commercial) and  urushi import FILE.pth -o restormer.safetensors, or give" in said
    write_network(here / "restormer.safetensors", "nafnet")
    assert "restormer.safetensors is a nafnet, not a restormer" in complaint("restormer")
    assert "base is a nafnet, not a swinir: give --model a swinir" in complaint("swinir", "base")
    monkeypatch.setattr(zoo, "ZOO", here / "none")
    releases = {"nafnet": Release("a", "MIT", "https://example.org", "someone/a", "a.pth")}
    monkeypatch.setattr(backbone_models, "RELEASES", releases)
    assert "urushi fetch nafnet -o nafnet.safetensors, or give" in complaint("nafnet")
    assert "urushi import FILE.pth -o ipt.safetensors, or give" in complaint("ipt")


def test_the_command_refuses_what_contradicts_itself(here):
    write_pairs(here / "pairs", 2)
    words = ("adapt", "--pairs", here / "pairs")
    done = run(*words, "-o", "a.safetensors", "--backbone", "swinir", "--model", "base")
    assert done.exit_code == EXIT_USAGE
    assert done.stderr.count("\n") == 1
    done = run(*words, "--into", "all.safetensors", "--name", "mine", "--backbone", "nafnet")
    assert done.exit_code == EXIT_USAGE
    assert "leave --backbone out" in " ".join(done.stderr.replace("│", " ").split())
