"""The views of a picture: LoRA-IR's geometry to the bit, and any size of picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.numpy import load_file

from urushi.errors import PictureError
from urushi.files.router_file import ViewGeometry
from urushi.routing import Views, make_views
from urushi.routing.router import batch_views
from urushi.routing.views import Look, plan_views, view_rows

GOLDEN = Path(__file__).parent / "golden" / "lora_ir_router_head.safetensors"
SQUASHED = ViewGeometry(size=16)
ASPECT = ViewGeometry(layout="aspect", size=16, most=5)
NATIVE = ViewGeometry(layout="native", size=16, most=4)


def picture(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return (pixels / 255).astype(np.float32)


def test_squashed_views_equal_the_released_ones():
    golden = load_file(GOLDEN)
    views = make_views((golden["geom_image"] / 255).astype(np.float32), SQUASHED)
    expected = golden["geom_views"].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(np.rint(views * 255), expected)


@pytest.mark.parametrize("geometry", [SQUASHED, ASPECT, NATIVE])
def test_rows_in_bands_give_the_same_bits(geometry):
    pixels = picture(61, 83)
    rows = iter([pixels[:1], pixels[1:40], pixels[40:]])
    (streamed,) = view_rows(lambda _: next(rows), [Look(geometry)], 61, 83)
    np.testing.assert_array_equal(streamed, make_views(pixels, geometry))
    rows = iter([pixels[start : start + 7] for start in range(0, 61, 7)])
    (local,) = view_rows(lambda _: next(rows), [Look(geometry, whole=False)], 61, 83)
    np.testing.assert_array_equal(local, streamed[1:])


def test_the_whole_view_is_pillows():
    pixels = picture(300, 200)
    expected = Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).resize((16, 16))
    whole = make_views(pixels, SQUASHED)[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(np.rint(whole * 255), np.asarray(expected))


@pytest.mark.parametrize("geometry", [SQUASHED, ASPECT, NATIVE])
@pytest.mark.parametrize("sides", [(1, 1), (3, 700), (16, 16), (17, 15), (100, 64)])
def test_any_size_of_picture(geometry, sides):
    views = make_views(picture(*sides), geometry)
    assert views.dtype == np.float32
    assert views.shape[1:] == (3, 16, 16)
    assert len(views) == 1 + len(plan_views(geometry, *sides).windows)
    assert 2 <= len(views) <= 1 + (geometry.most or 4)
    assert 0 <= views.min() <= views.max() <= 1


def test_grey_pictures_have_three_equal_channels():
    grey = picture(20, 30)[..., 0]
    views = make_views(grey, NATIVE)
    np.testing.assert_array_equal(views, make_views(grey[..., None], NATIVE))
    np.testing.assert_array_equal(views[:, 0], views[:, 2])


def test_windows_overlap_and_the_remainder_is_shared_by_both_sides():
    # Windows of 100 pixels every 70 in 300: three, and 60 pixels remain.
    plan = plan_views(ViewGeometry(size=100, grid=3, overlap=0.3), 10, 20)
    assert plan.local == (300, 300)
    assert plan.windows == tuple((top, left) for top in (30, 100, 170) for left in (30, 100, 170))


def test_native_windows_are_the_picture_itself():
    pixels = picture(40, 50)
    plan = plan_views(NATIVE, 40, 50)
    views = make_views(pixels, NATIVE)
    for (top, left), view in zip(plan.windows, views[1:], strict=True):
        crop = pixels[top : top + 16, left : left + 16]
        np.testing.assert_array_equal(view.transpose(1, 2, 0), crop)


def test_a_small_picture_is_continued_by_its_mirror_image():
    pixels = picture(5, 20)
    view = make_views(pixels, NATIVE)[1].transpose(1, 2, 0)
    np.testing.assert_array_equal(view[5:10], view[:5][::-1])
    np.testing.assert_array_equal(view[10:15], view[:5])


@pytest.mark.parametrize("sides", [(4000, 6000), (6000, 300), (50, 9000)])
def test_windows_of_large_pictures_are_bounded_and_reach_both_edges(sides):
    for geometry in (ASPECT, NATIVE):
        plan = plan_views(geometry, *sides)
        assert 1 <= len(plan.windows) <= geometry.most
        tops, lefts = ({w[axis] for w in plan.windows} for axis in (0, 1))
        longest = int(plan.local[1] >= plan.local[0])
        places = (tops, lefts)[longest]
        assert (min(places), max(places)) == (0, plan.local[longest] - 16)


def test_aspect_keeps_the_ratio_of_sides():
    plan = plan_views(ASPECT, 300, 200)
    assert plan.whole == (16, 11)
    assert plan.local == (48, 32)


@pytest.mark.parametrize("geometry", [SQUASHED, ASPECT, NATIVE])
def test_batches_in_torch_see_the_same(geometry):
    pixels = np.stack([picture(50, 41, seed) for seed in (0, 1)])
    found = batch_views(torch.from_numpy(pixels).permute(0, 3, 1, 2), geometry)
    for views, one in zip(found.numpy(), pixels, strict=True):
        expected = make_views(one, geometry)
        assert np.abs(views - expected).max() <= 1.01 * 2 / 255
        assert np.abs(views - expected).mean() <= 0.1 / 255
    tiny = torch.rand(1, 3, 3, 5)
    assert batch_views(tiny, geometry).shape[-2:] == (16, 16)


def test_values_outside_the_range_are_clipped():
    pixels = picture(20, 20)
    pixels[0, 0] = [np.nan, -1, 2]
    views = make_views(pixels, NATIVE)
    assert np.isfinite(views).all()
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 2), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros(5)]
)
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(PictureError, match=r"expected floats \(H, W, 3\)"):
        make_views(wrong, NATIVE)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(PictureError, match="0x5 pixels"):
        Views(NATIVE, 5, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "native", "grid": 2}, "grid has no effect"),
        ({"layout": "squashed", "most": 4}, "most has no effect"),
        ({"overlap": 0.95}, "less than or equal to 0.9"),
        ({"size": 4}, "greater than or equal to 16"),
        ({"layout": "round"}, "'squashed', 'aspect' or 'native'"),
    ],
)
def test_geometries_without_meaning_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        ViewGeometry(**options)


def test_a_geometry_states_its_defaults():
    assert ViewGeometry() == ViewGeometry(layout="squashed", size=336, grid=2)
    assert NATIVE.model_dump() == {
        "layout": "native", "size": 16, "grid": None, "overlap": 0.0, "most": 4,
    }  # fmt: skip
    assert ViewGeometry.model_validate(NATIVE.model_dump()) == NATIVE


@pytest.mark.parametrize("layout", ["squashed", "native"])
def test_what_lies_outside_counts_as_white_or_black(layout):
    geometry = ViewGeometry(layout=layout, size=16)
    pixels = np.random.default_rng(0).random((40, 30, 3), dtype=np.float32)
    pixels[:9], pixels[9:14], pixels[14:20, :9] = 1.7, -0.4, np.nan
    inside = np.clip(np.nan_to_num(pixels), 0, 1)
    assert np.array_equal(make_views(pixels, geometry), make_views(inside, geometry))


def test_views_of_a_whole_picture_are_rounded_to_the_nearest_code():
    pixels = np.full((16, 16, 3), 100.6 / 255, np.float32)
    pixels[:, 8:] = 99.4 / 255
    view = make_views(pixels, ViewGeometry(layout="squashed", size=16))[0] * 255
    np.testing.assert_allclose(view[:, :, :8], 101, atol=1e-4)
    np.testing.assert_allclose(view[:, :, 8:], 99, atol=1e-4)
