"""Made pages: every kind from a seed, packed beside pictures, and as a part of a recipe."""

import json

import numpy as np
import pytest
from commands import run
from pictures import write_pictures
from PIL import Image
from world import recipe

from urushi.app.output import EXIT_WELL
from urushi.data.pack import PackedPictures, pack_pictures
from urushi.data.synthetic_pages import (
    PAGE_KINDS,
    draw_page,
    draw_pages,
    installed_fonts,
    made_pages,
)
from urushi.errors import DataError, RecipeError


@pytest.mark.parametrize("kind", PAGE_KINDS)
def test_a_page_follows_from_its_seed(kind):
    pages = [draw_page(kind, 150, 110, seed) for seed in (1, 1, 2)]
    assert pages[0].shape == (110, 150, 3)
    assert pages[0].dtype == np.uint8
    np.testing.assert_array_equal(pages[0], pages[1])
    assert not np.array_equal(pages[0], pages[2])
    assert pages[0].std() > 1


@pytest.mark.parametrize("kind", PAGE_KINDS)
@pytest.mark.parametrize("size", [(16, 16), (16, 90), (200, 17)])
def test_any_size_and_many_seeds_can_be_drawn(kind, size):
    for seed in range(6):
        assert draw_page(kind, *size, seed).shape == (size[1], size[0], 3)


def test_text_is_mostly_paper_with_ink_on_it():
    light = 0
    for seed in range(12):
        page = draw_page("text", 256, 256, seed).mean(2)
        paper = np.median(page)
        assert (np.abs(page - paper) < 25).mean() > 0.5
        assert np.abs(page - paper).max() > 120
        light += paper > 200
    assert 6 <= light < 12


def test_a_series_has_all_kinds_and_grows_at_its_end():
    names = [name for name, _ in made_pages(20, 64, 3)]
    assert {name.partition("-")[2] for name in names} == set(PAGE_KINDS)
    assert len(set(names)) == 20
    few, more = list(draw_pages(2, 64, 3)), list(draw_pages(3, 64, 3))
    assert all(np.array_equal(one, other) for one, other in zip(few, more, strict=False))
    assert not np.array_equal(next(draw_pages(1, 64, 4)), few[0])


def test_fonts_change_the_page(tmp_path):
    fonts = installed_fonts()
    assert list(fonts) == sorted(fonts)
    if fonts:
        drawn = [draw_page("text", 128, 128, seed, fonts) for seed in range(8)]
        plain = [draw_page("text", 128, 128, seed) for seed in range(8)]
        assert not np.array_equal(drawn, plain)
    (tmp_path / "none.ttf").write_bytes(b"no font")
    pages = draw_pages(8, 64, 0, [tmp_path / "none.ttf"])
    with pytest.raises(DataError, match="cannot be used as a font"):
        list(pages)


def test_wrong_pages_are_told():
    with pytest.raises(DataError, match="did you mean 'chart'"):
        draw_page("chrat", 64, 64, 0)
    with pytest.raises(DataError, match="8x64"):
        draw_page("text", 8, 64, 0)


def test_a_pack_holds_pages_after_pictures(tmp_path):
    Image.new("RGB", (40, 30), (9, 99, 199)).save(tmp_path / "a.png")
    pages = made_pages(3, 32, 0)
    summary = pack_pictures([tmp_path / "a.png"], tmp_path / "p.safetensors", made=pages)
    assert summary.count == 4
    pack = PackedPictures(summary.path)
    assert pack.names == ("a.png", *(name for name, _ in pages))
    for index, page in enumerate(draw_pages(3, 32, 0)):
        np.testing.assert_array_equal(pack.picture(index + 1), page)
    again = pack_pictures([tmp_path / "a.png"], tmp_path / "q.safetensors", made=pages)
    assert again.sha256 == summary.sha256
    alone = pack_pictures([], tmp_path / "r.safetensors", made=pages)
    assert alone.count == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"pairs": ["x"], "pages": 4}, "pages has no effect with pairs"),
        ({"pictures": ["x"], "pages": 4, "patch": 640}, "larger than 512"),
        ({"pictures": ["x"], "pages": -1}, "pages"),
    ],
)
def test_a_recipe_with_pages_that_have_no_effect_is_told(data, words):
    with pytest.raises(RecipeError, match=words):
        recipe(data=data)


RECIPE = """
name: tiny
description: A tiny network for a test.
backbone:
  name: nafnet
  config: {width: 4, enc_blk_nums: [], middle_blk_num: 1, dec_blk_nums: []}
data: {pictures: [clean], pages: 2, patch: 16, batch: 2}
degradation: {name: gaussian_noise, sigma_255: [25, 25]}
degradations: [noise]
schedule: {steps: 2}
"""


def test_a_training_packs_the_pages_of_its_recipe(tmp_path):
    write_pictures(tmp_path / "clean", 1)
    (tmp_path / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    result = run(
        *("train", tmp_path / "tiny.yaml", "--data", tmp_path, "-o", tmp_path / "run"),
        *("--device", "cpu", "--no-graph", "--json"),
    )
    assert result.exit_code == EXIT_WELL, result.stderr
    assert json.loads(result.stdout)["finished"]
    assert "2 made pages among them" in result.stderr
    pack = PackedPictures(tmp_path / "run" / "pictures.safetensors")
    assert len(pack) == 3
    assert pack.sizes[1:].tolist() == [[512, 512], [512, 512]]
