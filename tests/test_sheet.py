"""Contact sheets: everything is on them, nothing is distorted."""

import numpy as np
import pytest
from PIL import ImageFont

from urushi.sheet import contact_sheet, shortened


def flat(height, width, colour):
    return np.full((height, width, 3), colour, np.float32)


def box(sheet, colour):
    """Height and width of what has that colour on the sheet."""
    found = np.all(np.abs(sheet - np.array(colour)) < 0.02, axis=2)
    return found.any(1).sum(), found.any(0).sum()


RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def test_pictures_of_any_size_are_fitted_with_their_aspect_kept():
    sheet = contact_sheet(
        [[(flat(400, 200, RED), "tall"), (flat(30, 300, BLUE), "wide")]], (100, 80)
    )
    assert sheet.dtype == np.float32
    assert sheet.ndim == 3
    assert sheet.min() >= 0
    assert sheet.max() <= 1
    assert box(sheet, RED) == (80, 40)
    assert box(sheet, BLUE) == (10, 100)


def test_small_pictures_are_enlarged_by_a_whole_factor():
    assert box(contact_sheet([[(flat(9, 9, RED), "")]], (100, 80)), RED) == (72, 72)


def test_uneven_rows_and_line_breaks_make_room():
    one = contact_sheet([[(flat(8, 8, RED), "a")]], (64, 64))
    two = contact_sheet([[(flat(8, 8, RED), "a")] * 2, [(flat(8, 8, BLUE), "a\nb")]], (64, 64))
    assert two.shape[0] > 2 * one.shape[0] - 10
    assert two.shape[1] > one.shape[1] + 64
    assert box(two, BLUE) == (64, 64)


def test_captions_and_titles_are_written():
    bare = contact_sheet([[(flat(64, 64, RED), "")]], (64, 64))
    captioned = contact_sheet([[(flat(64, 64, RED), "noise")]], (64, 64))
    assert bare.shape == captioned.shape
    assert (captioned < 0.5).all(2).sum() > (bare < 0.5).all(2).sum()
    titled = contact_sheet([[(flat(64, 64, RED), "")]], (64, 64), title="A title")
    assert titled.shape[0] > bare.shape[0]
    assert (titled[: titled.shape[0] - bare.shape[0]] < 0.5).any()


def test_a_long_caption_stays_within_its_cell():
    cells = [[(flat(64, 64, RED), "m" * 200), (flat(64, 64, BLUE), "")]]
    sheet = contact_sheet(cells, (64, 64))
    assert (sheet[-20:, 80:] > 0.9).all()


def test_values_out_of_range_and_nan_do_not_wrap():
    wild = flat(64, 64, (2.0, -1.0, np.nan))
    assert box(contact_sheet([[(wild, "")]], (64, 64)), RED) == (64, 64)


def test_no_cells_make_an_empty_sheet():
    assert contact_sheet([]).size > 0


def test_degradation_sheet_shows_the_picture_and_every_degradation():
    pytest.importorskip("torch")
    from urushi.degradations.haze import Haze
    from urushi.degradations.rain import RainStreaks
    from urushi.degradations.side_by_side import degradation_sheet

    picture = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    both = {"rain": RainStreaks(), "haze": Haze()}
    sheet = degradation_sheet(picture, both, seed=1, columns=2, cell_size=(56, 40))
    assert sheet.shape[1] == 2 * (56 + 8) + 8
    assert np.array_equal(
        sheet, degradation_sheet(picture, both, seed=1, columns=2, cell_size=(56, 40))
    )
    np.testing.assert_allclose(sheet[8:48, 8:64], picture, atol=1 / 255)
    # The second row starts with haze, drawn the same without rain beside it.
    alone = degradation_sheet(picture, {"haze": Haze()}, 1, columns=1, cell_size=(56, 40))
    second = 8 + 40 + 18 + 16
    assert np.array_equal(alone[second : second + 40, 8:64], sheet[second : second + 40, 8:64])


@pytest.mark.parametrize("text", ["", "short", "m" * 30, "i" * 3000, "a long sentence " * 500])
def test_text_is_shortened_to_what_fits(text):
    font = ImageFont.load_default(size=14)
    found = shortened(text, font, 120)
    assert font.getlength(found) <= 120
    if found != text:
        assert found.endswith("…")
        assert font.getlength(text[: len(found)] + "…") > 120
    else:
        assert font.getlength(text) <= 120
