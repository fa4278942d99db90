"""A router that reads the first stages of an image classifier, and how it learns photographs."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import released
from PIL import Image
from torch.nn import functional as F

from urushi.convert.router_graph import export_router
from urushi.errors import DataError, FileFormatError, RecipeError
from urushi.files.router_file import VisionFacts, read_router
from urushi.inference.router_engine import open_router
from urushi.routing.efficientnet import CHANNELS, EfficientNetLite0, folded_weights
from urushi.routing.router import RouterHead
from urushi.routing.vision import VisionEncoder, roughness
from urushi.settings import parse_settings
from urushi.training.photographs.fit import (
    build_encoder,
    clean_shift,
    joined_heads,
    picture_weights,
    read_reduced,
)
from urushi.training.photographs.photographs_recipe import PhotographicRecipe
from urushi.training.photographs.photographs_training import train_photographic
from urushi.training.photographs.pictures import (
    MadePictures,
    Photograph,
    Photographs,
    find_photographs,
    fold_of_sources,
)


def network(stages=3):
    made = EfficientNetLite0(stages).eval()
    made.load_state_dict(folded_weights(released(stages), stages))
    return made


# --- the network ---


def test_the_network_has_the_sizes_that_are_published():
    # Tan and Le, table 1: 16 blocks; the parameters of the Lite0 variant's features.
    whole = EfficientNetLite0()
    assert sum(len(stage) for stage in whole.stages) == 16
    features = whole(torch.zeros(1, 3, 64, 96))
    assert [f.shape[1] for f in features] == list(CHANNELS) == [16, 24, 40, 80, 112, 192, 320]
    assert [f.shape[2:] for f in features] == [(32, 48), (16, 24), (8, 12), (4, 6), (4, 6),
                                               (2, 3), (2, 3)]  # fmt: skip
    # The six stages that the router reads fit into 5 MB of half precision.
    assert sum(p.numel() for p in EfficientNetLite0(6).parameters()) * 2 < 5_000_000


@pytest.mark.parametrize("size", [(32, 32), (33, 38), (17, 64)])
def test_folded_weights_do_what_convolution_and_normalisation_did(size):
    state = released(2)
    images = torch.rand(2, 3, *size)

    def normalised(x, name):
        own = [state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *own, eps=1e-3)

    def same(x, weight, stride, groups=1):
        # TensorFlow: as many outputs as ceil(size / stride), the odd one of the padding at the end.
        kernel = weight.shape[-1]
        pads = []
        for side in reversed(x.shape[2:]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    x = (images * 255 - 127) / 128
    x = F.relu6(normalised(same(x, state["_conv_stem.weight"], 2), "_bn0"))
    found = []
    for number, stride in enumerate((1, 2, 1)):
        block, before = f"_blocks.{number}", x
        if number:
            x = F.conv2d(x, state[f"{block}._expand_conv.weight"])
            x = F.relu6(normalised(x, f"{block}._bn0"))
        weight = state[f"{block}._depthwise_conv.weight"]
        x = F.relu6(normalised(same(x, weight, stride, len(weight)), f"{block}._bn1"))
        x = normalised(F.conv2d(x, state[f"{block}._project_conv.weight"]), f"{block}._bn2")
        x = x + before if number == 2 else x
        found.append(x)
    with torch.no_grad():
        made = network(2)(images)
    for own, expected in zip(made, (found[0], found[2]), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_checkpoints_of_other_networks_are_refused():
    state = released(2)
    with pytest.raises(FileFormatError, match=r"_blocks\.5\._expand_conv"):
        folded_weights({k: v for k, v in released(4).items() if "5._expand" not in k}, 4)
    state["_conv_stem.weight"] = torch.zeros(32, 3, 5, 5)
    with pytest.raises(FileFormatError, match=r"shape \(32, 3, 5, 5\), expected \(32, 3, 3, 3\)"):
        folded_weights(state, 2)


# --- what is read ---


def test_roughness_tells_noise_from_texture():
    torch.manual_seed(0)
    even = torch.full((1, 3, 96, 96), 0.5)
    noise = 0.05 * torch.randn(1, 3, 96, 96)
    texture = noise.clone()
    texture[..., 48:] = 0  # half of the view is smooth
    flat, noisy, rough = (roughness((even + extra).clamp(0, 1))[0] for extra in (0, noise, texture))
    # Of luma: the smoothest cells are rough with noise alone, the others with both.
    assert noisy[0] > flat[0] + 4
    assert rough[0] == flat[0]
    assert abs(rough[9] - noisy[9]) < 0.5
    # Shares of cells that are exactly even.
    assert flat[-1] == 1
    assert 0.3 < rough[-1] < 0.6
    assert noisy[-1] == 0


def test_it_reads_the_stages_that_are_named_and_learns_the_projection_alone():
    made = VisionEncoder(VisionFacts(read=(2, 3), width=4))
    made.network.load_state_dict(network().state_dict())
    views = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        stages = made.network(views)
    rows = made.read(views).statistics
    assert rows.shape == (2, made.numbers) == (2, 2 + 13 + 3 * (24 + 40))
    torch.testing.assert_close(rows[:, 15:39], stages[1].mean((2, 3)))
    torch.testing.assert_close(rows[:, -40:], stages[2].amax((2, 3)))
    trained = [name for name, parameter in made.named_parameters() if parameter.requires_grad]
    assert trained == ["project.weight", "project.bias"]
    assert set(made.frozen) == {f"network.{name}" for name in network().state_dict()}


@pytest.mark.parametrize("read", [(3, 2), (2, 2), (8,), ()])
def test_stages_that_are_not_there_are_refused(read):
    with pytest.raises(ValueError):
        VisionFacts(read=read, width=4)


# --- the pictures it learns from ---

KINDS = ("clean", "haze", "noise")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photographs of three kinds from two sources each, and clean pictures."""
    place = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for folder, count in (("clean", 4), ("held", 2)):
        for index in range(count):
            write_picture(place / folder / f"p{index}.png", _scene(draw))
    for kind in KINDS:
        for index in range(4):
            pixels = _scene(draw)
            if kind == "haze":
                pixels = 0.3 * pixels + 0.65
            if kind == "noise":
                pixels = pixels + draw.normal(0, 0.12, pixels.shape)
            name = f"{'one' if index < 2 else 'two'}{index}_{kind}.png"
            write_picture(place / "photographs" / kind / name, pixels)
    write_picture(place / "old" / "scratched.png", _scene(draw))
    return place


def write_picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(path)


def _scene(draw):
    coarse = draw.random((6, 5, 3))
    return np.kron(coarse, np.ones((24, 24, 1)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(released(3), path)
    return path


def recipe(weights, **changes):
    content = {
        "kind": "router",
        "name": "tiny",
        "members": None,
        "classes": {
            "clean": {"photographs": ["photographs/clean"]},
            "haze": {
                "degradation": {"name": "haze", "beta": [2, 3]},
                "photographs": ["photographs/haze"],
            },
            "noise": {
                "degradation": {"name": "gaussian_noise", "sigma_255": [25, 40]},
                "photographs": ["photographs/noise"],
                "reducible": False,
            },
        },
        "unknown": ["old"],
        "encoder": {"weights": str(weights), "read": [2, 3], "width": 16},
        "views": {"layout": "native", "size": 64, "most": 2},
        "made": {"clean": ["clean"], "validation": ["held"], "learned": 24, "held": 12,
                 "pages": 0.1, "sides": [80, 110]},
        "photographs": {"variants": 1, "folds": 2},
        "fit": {"steps": 60, "batch": 16, "learning_rate": 1e-2, "dropout": 0.1},
        "storage": "float32",
        **changes,
    }  # fmt: skip
    return parse_settings(content, PhotographicRecipe, RecipeError, "test")


def test_sources_stay_together_and_folds_are_about_as_large():
    names = ["a1_x", "a2_y", "a3_z", "b_1", "b_2", "c_1", "plain"]
    made = [
        Photograph(path=Path(name), classes=(), source=name.rstrip("xyz_123")) for name in names
    ]
    folds = fold_of_sources(made, 3)
    by_source = {}
    for one, fold in zip(made, folds, strict=True):
        by_source.setdefault(one.source, set()).add(fold)
    assert all(len(own) == 1 for own in by_source.values())
    assert sorted(folds.count(index) for index in range(3)) == [2, 2, 3]


def test_photographs_are_found_with_all_that_is_true_of_them(data, weights):
    own = recipe(weights, photographs={"also": {"one0_haze": ["noise"]}, "variants": 1})
    found = {one.path.stem: one for one in find_photographs(own, data)}
    assert found["one0_haze"].classes == ("haze", "noise")
    assert found["two3_noise"].classes == ("noise",)
    assert found["two3_noise"].source == "two"
    assert found["scratched"].classes == ()
    assert found["scratched"].source == "old"
    with pytest.raises(DataError, match="nobody"):
        find_photographs(recipe(weights, photographs={"also": {"nobody": ["haze"]}}), data)


def test_every_picture_is_a_function_of_its_number(data, weights):
    own = recipe(weights, photographs={"variants": 3})
    for made in (
        Photographs(own, find_photographs(own, data)),
        MadePictures(own, data),
        MadePictures(own, data, held=True),
    ):
        again = [made.draw(number) for number in reversed(range(8))][::-1]
        for number in range(8):
            pixels, classes = made.draw(number)
            assert pixels.dtype == np.uint8
            assert classes == again[number][1]
            np.testing.assert_array_equal(pixels, again[number][0])
    shown = Photographs(own, find_photographs(own, data))
    original, _ = shown.draw(4)
    assert original.shape == (144, 120, 3)
    assert any(shown.draw(4 + n)[0].shape != original.shape for n in (1, 2, 3))


def test_made_pictures_have_all_classes_and_clean_ones_twice(data, weights):
    made = MadePictures(recipe(weights), data)
    names = [made.draw(number)[1][0] for number in range(8)]
    assert names == ["clean", "haze", "noise", "clean"] * 2
    pixels, _ = made.draw(2)
    assert min(pixels.shape[:2]) >= 80


def test_pictures_that_a_benchmark_shows_are_left_out(data, weights):
    def haze(without):
        return {"pictures": ["photographs/haze"], "without": without}

    classes = {"clean": {}, "haze": haze(["one0_haze"])}
    made = MadePictures(recipe(weights, classes=classes, unknown=[]), data)
    names = [path.stem for path in made.pictures["haze"]]
    assert names == ["one1_haze", "two2_haze", "two3_haze"]
    with pytest.raises(DataError, match="no picture is named 'nowhere'"):
        MadePictures(recipe(weights, classes={"clean": {}, "haze": haze(["nowhere"])}), data)


def test_rain_of_pairs_goes_over_other_scenes_and_gets_lighter(data, weights):
    draw = np.random.default_rng(4)
    clear = 0.5 * _scene(draw)
    rain = np.zeros(clear.shape[:2])
    rain[:, ::7] = 0.3
    for side, pixels in (("input", clear + rain[..., None]), ("target", clear)):
        write_picture(data / "pairs" / side / "r0.png", pixels)
    shown = {"pictures": ["pairs/input"], "real": 1.0}

    def drawn(**rerain):
        classes = {"clean": {}, "rain": {**shown, "degradation": {"name": "gaussian_noise"}}}
        if rerain:
            classes["rain"]["rerain"] = rerain
        plain = {"clean": ["clean"], "validation": ["held"], "sides": [80, 110]}
        own = recipe(
            weights,
            classes=classes,
            unknown=[],
            made={**plain, "pages": 0, "reduced": 0, "toned": 0},
            shared={"reduced": 0, "compressed": 0},
        )
        made = MadePictures(own, data)
        return [made.draw(number)[0].astype(np.float64) / 255 for number in range(1, 30, 3)]

    def added(pixels):
        """How much brighter each seventh column is than its neighbours."""
        columns = np.median(pixels.mean(2), 0)
        return np.quantile(columns[1:-1] - (columns[:-2] + columns[2:]) / 2, 0.95)

    theirs = drawn()
    same = drawn(lighter=0, elsewhere=0)
    over = drawn(lighter=0, elsewhere=1)
    light = drawn(lighter=1, strength=[0.4, 0.4], thin=[0, 0], elsewhere=1)
    for one in (*theirs, *same, *over):
        assert added(one) > 0.2
    for one in light:
        assert 0.06 < added(one) < 0.15
    # The pair's scene is darker than half everywhere, others are not.
    assert max(np.median(one) for one in same) < 0.5 < max(np.median(one) for one in over)
    (data / "pairs" / "target" / "r0.png").unlink()
    with pytest.raises(DataError, match="rerain takes pictures of pairs"):
        drawn(lighter=0)


# --- the fit ---


@pytest.mark.parametrize("number", [1, 3])
def test_several_heads_in_one_give_the_mean_of_their_logits(number):
    facts = VisionFacts(read=(1,), width=4 * number)
    encoder, head = VisionEncoder(facts), RouterHead(4 * number, 3)
    fitted = [
        (VisionEncoder(facts.model_copy(update={"width": 4})), RouterHead(4, 3))
        for _ in range(number)
    ]
    joined_heads(fitted, encoder, head)
    rows = torch.rand(5, 2, encoder.numbers)
    with torch.no_grad():
        alone = [read_reduced(*one, rows) for one in fitted]
        found = read_reduced(encoder, head, rows)
    torch.testing.assert_close(found.logits, torch.stack([one.logits for one in alone]).mean(0))
    torch.testing.assert_close(found.vector, torch.cat([one.vector for one in alone], 1))


def test_classes_and_sources_are_balanced():
    truths = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 2]]
    groups = np.array(["a", "a", "a", "b", "a", "a", "c"])
    weights = picture_weights(truths, groups, 0, 2.0)
    by_class = [weights[truths[:, index] == 1].sum() for index in range(3)]
    np.testing.assert_allclose(by_class, [0.5, 0.25, 0.25])
    # The one of source b counts as much as the root of three of a.
    np.testing.assert_allclose(weights[3] / weights[0], 3**0.5)


def test_so_much_is_added_to_clean_that_enough_is_left_alone():
    logits = np.array([[0.0, 1.0], [0, 2], [0, -1], [3, 0]], np.float32)
    truths = np.eye(2, dtype=np.float32)[[0, 0, 0, 0]]
    shift = clean_shift([(logits, truths)], 0, 0.75)
    assert 0.9 < shift < 1.1
    assert clean_shift([(logits, truths)], 0, 1.0) > 1.9
    # Every part counts as much as any other, however few pictures it has.
    even = (np.zeros((1, 2), np.float32), truths[:1])
    assert clean_shift([(logits, truths), even], 0, 0.75) < 0.1


def test_only_clean_pictures_say_how_much_is_added_to_clean():
    logits = np.array([[0.0, 1.0], [0, 5], [0, 9]], np.float32)
    # Of the second another class is true, of the third none that there is.
    truths = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    assert 0.9 < clean_shift([(logits, truths)], 0, 1.0) < 1.1


def test_it_learns_and_its_file_runs_without_torch(data, weights, tmp_path):
    own = recipe(weights, thresholds={"noise": 0.2})
    said = []

    def stop_after_one(told):
        if ": fitted" in told:
            said.append(told)
            signal.raise_signal(signal.SIGTERM)

    # While heads are fitted it can be stopped as well as while pictures are read.
    result = train_photographic(own, tmp_path, data, on_stage=stop_after_one)
    assert (result.path, result.stopped_by, len(said)) == (None, signal.SIGTERM, 1)
    assert not list(tmp_path.glob("*.safetensors"))
    said.clear()
    result = train_photographic(own, tmp_path, data, on_stage=said.append)
    assert not [line for line in said if "of 24" in line and not line.startswith("24")]
    header = result.header
    assert header.scores["validation"]["accuracy"] > 0.6
    # Every photograph was judged by a router without its source.
    assert len(result.photographs) == 13
    apart = [line for line in said if line.startswith("without")]
    assert len(apart) == 2
    assert not any("one" in line and "two" in line for line in apart)
    judged = header.scores["photographs"]
    assert sum(judged["noise"].values()) == 4
    assert sum(judged["unknown"].values()) == 1
    stored = read_router(result.path)
    assert stored.header.encoder == VisionFacts(read=(2, 3), width=16)
    assert stored.header.evidence is None
    assert stored.header.thresholds == {"noise": 0.2}
    assert stored.header.recipe["encoder"]["weights"] == "lite0.pth"
    export_router(result.path)
    picture = np.random.default_rng(0).random((150, 97, 3), dtype=np.float32)
    fast, plain = (open_router(result.path, engine=name) for name in ("openvino", "torch"))
    np.testing.assert_allclose(
        fast.read(picture).logits, plain.read(picture).logits, rtol=1e-3, atol=1e-3
    )
    # Nothing is read anew, and the same comes out.
    said.clear()
    again = train_photographic(own, tmp_path, data, on_stage=said.append)
    assert not [line for line in said if "of 24" in line and not line.startswith("24")]
    before, after = stored.tensors, read_router(again.path).tensors
    for name, tensor in before.items():
        # Other numbers of threads add up in another order.
        np.testing.assert_allclose(after[name], tensor, rtol=1e-3, atol=1e-3, err_msg=name)
    # What it leans to is likelier in the file, by so much; the rest moves with `clean` alone.
    leaning = train_photographic(
        own.model_copy(update={"lean": {"noise": 0.5}}), tmp_path, data, on_stage=said.append
    )
    moved = (
        read_router(leaning.path).tensors["head.classifier.bias"] - after["head.classifier.bias"]
    )
    noise, clean = (header.classes.index(name) for name in ("noise", "clean"))
    assert moved[noise] == pytest.approx(0.5, abs=1e-2)
    others = [moved[at] for at in range(len(header.classes)) if at not in (noise, clean)]
    np.testing.assert_allclose(others, 0, atol=1e-2)
    # The weights of the network may be taken from the file.
    taken = build_encoder(own.encoder.model_copy(update={"weights": str(result.path)}))
    torch.testing.assert_close(
        taken.network.state_dict(), build_encoder(own.encoder).network.state_dict()
    )


def test_recipes_that_cannot_be_are_refused(weights, data, tmp_path):
    with pytest.raises(RecipeError, match="could leave nothing unchanged"):
        recipe(weights, classes={"a": {"photographs": ["x"]}, "b": {"photographs": ["x"]}})
    with pytest.raises(RecipeError, match="'sepia' is not a class"):
        recipe(weights, photographs={"also": {"x": ["sepia"]}})
    with pytest.raises(RecipeError, match="'sepia' is no class of damage"):
        recipe(weights, thresholds={"sepia": 0.2})
    with pytest.raises(RecipeError, match="'sepia' is not a class"):
        recipe(weights, lean={"sepia": 0.2})
    with pytest.raises(RecipeError, match=r"noise is 0\.9: expected at most threshold"):
        recipe(weights, thresholds={"noise": 0.9})
    with pytest.raises(RecipeError, match="neither pictures nor a degradation"):
        recipe(weights, classes={"clean": {}, "haze": {}})
    with pytest.raises(RecipeError, match=r"a multiple of twice fit\.heads, 6"):
        recipe(weights, fit={"heads": 3})
    with pytest.raises(FileFormatError, match="'nowhere' is neither a file"):
        train_photographic(recipe(weights, members="nowhere"), tmp_path, data)
    with pytest.raises(FileFormatError, match="'nowhere' is neither a file"):
        build_encoder(recipe("nowhere").encoder)
