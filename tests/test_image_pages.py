"""Files of several pages: each is restored, the choice of pages, and what a result says of them."""

import os
from fractions import Fraction

import numpy as np
import pytest
import pyvips
from pictures import Page, Scene, Untouched, write_tiff
from PIL import Image

from urushi.errors import TargetError, TooLargeError, UnreadableError
from urushi.image import inspect_picture, open_picture, read_picture
from urushi.image.page_choice import Pages, parse_pages
from urushi.image.tiff.directories import TiffFile
from urushi.inference.picture_files import FileOptions, restore_picture

SCENE = Scene()
RGB, GREY = SCENE.rgb, SCENE.grey
SCANS = [np.roll(GREY, 5 * shift, axis=1) for shift in range(3)]


def pages_of(path):
    """The samples of all pages, each read for itself, at their own depth."""
    found = []
    for number in range(inspect_picture(path).pages):
        with path.open("rb") as file:
            image = pyvips.Image.tiffload_buffer(file.read(), page=number)
        found.append(image.numpy())
    return found


def tags_of(path):
    """For each page, its tags: numbers or text."""
    with TiffFile(path) as tiff:
        return [
            {tag: tiff.numbers(each, tag) or tiff.text(each, tag) for tag in each.entries}
            for each in tiff.chain()
        ]


def scan(path, **options):
    return write_tiff(path, *[Page(grey) for grey in SCANS], **options)


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_page_is_restored(tmp_path, order):
    source, target = scan(tmp_path / "in.tif", order=order), tmp_path / "out.tif"
    told = []
    outcome = restore_picture(Untouched(), source, target, on_progress=lambda *at: told.append(at))
    np.testing.assert_array_equal(pages_of(target), SCANS)
    assert (outcome.pages, outcome.pixels, outcome.notes) == (3, 3 * GREY.size, ())
    assert told == sorted(told)
    assert told[-1] == (3 * GREY.size, 3 * GREY.size)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.tif", "out.tif"]


def test_pages_may_differ_in_everything(tmp_path):
    turned = Page(RGB, 2, {274: 6})
    described = {270: b"the third", 282: ("/", 240, 1), 283: ("/", 240, 1), 296: 2}
    given = [
        Page(RGB, 2),
        Page(GREY.astype(np.uint16) * 257),
        Page(RGB[:11].astype(np.float32) / 255, 2, described),
        Page(np.dstack([255 - RGB, GREY // 3]), 5),
        Page(np.dstack([RGB, GREY]), 2, {338: 2}),
    ]
    source, target = write_tiff(tmp_path / "in.tif", *given, turned), tmp_path / "out.tif"
    restore_picture(Untouched(), source, target)
    written = pages_of(target)
    for page, samples in zip(given, written, strict=False):
        np.testing.assert_array_equal(samples, page.pixels)
    np.testing.assert_array_equal(written[5], np.rot90(RGB, -1))
    tags = tags_of(target)
    assert (tags[2][270], tags[2][282], tags[2][296]) == (b"the third", (240,), (2,))
    assert [270 in page for page in tags] == [False, False, True, False, False, False]
    assert tags[5][274] == (1,)


def test_names_places_and_numbers_of_pages(tmp_path):
    layers = [
        Page(RGB, 2, {254: 2, 285: b"Background", 297: (0, 2), 286: ("/", 0, 1)}),
        Page(RGB[:9], 2, {254: 2, 285: b"Second", 297: (1, 2), 286: ("/", 5, 2)}),
    ]
    source, target = write_tiff(tmp_path / "in.tif", *layers), tmp_path / "out.tif"
    restore_picture(Untouched(), source, target)
    first, second = tags_of(target)
    assert (first[285], second[285]) == (b"Background", b"Second")
    assert (second[254], second[297], second[286]) == ((2,), (1, 2), (2.5,))
    restore_picture(Untouched(), source, target, overwrite=True, options=FileOptions(pages="2"))
    (only,) = tags_of(target)
    assert only[285] == b"Second"
    assert 297 not in only


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_each_page_is_its_own(tmp_path, order):
    exif = {0x9003: b"2020:01:02 03:04:05", 0x9209: 16, 0x829A: ("/", 1, 250)}
    second = Page(RGB[::-1], 2, {271: b"Scanner"}, exif=exif)
    source = write_tiff(tmp_path / "in.tif", Page(RGB, 2), second, order=order)
    target = tmp_path / "out.tif"
    restore_picture(Untouched(), source, target)
    with TiffFile(target) as tiff:
        first, other = tiff.chain()
        assert not {271, 34665} & set(first.entries)
        assert tiff.text(other, 271) == b"Scanner"
        taken = tiff.directory(tiff.number(other, 34665, 0))
        assert tiff.text(taken, 0x9003) == exif[0x9003]
        assert tiff.numbers(taken, 0x829A) == (Fraction(1, 250),)
    restore_picture(Untouched(), source, tmp_path / "out.jpg", options=FileOptions(pages="2"))
    with Image.open(tmp_path / "out.jpg") as written:
        assert written.getexif()[271] == "Scanner"


@pytest.mark.parametrize(
    ("text", "pages"),
    [("first", Pages(0, 0)), ("ALL", Pages()), ("3", Pages(2, 2)), ("2-5", Pages(1, 4)),
     ("2-", Pages(1, None))],
)  # fmt: skip
def test_words_for_pages(text, pages):
    assert parse_pages(text) == pages


@pytest.mark.parametrize("text", ["", "0", "-1", "5-2", "1,2", "last", "1-2-3", "²", "9" * 40])
def test_other_words_for_pages(text):
    with pytest.raises(TargetError, match="first, all, a number"):
        parse_pages(text)


def test_a_choice_of_pages(tmp_path):
    source, target = scan(tmp_path / "in.tif"), tmp_path / "out.tif"
    for pages, kept, words in (
        ("first", SCANS[:1], []),
        ("2", SCANS[1:2], []),
        ("2-3", SCANS[1:], []),
        ("2-", SCANS[1:], []),
        ("2-9", SCANS[1:], ["ends at 3"]),
    ):
        outcome = restore_picture(
            Untouched(), source, target, overwrite=True, options=FileOptions(pages=pages)
        )
        np.testing.assert_array_equal(pages_of(target), kept)
        assert len(outcome.notes) == len(words)
        assert all(word in note for word, note in zip(words, outcome.notes, strict=True))
    with pytest.raises(UnreadableError, match="no page 4"):
        restore_picture(
            Untouched(), source, target, overwrite=True, options=FileOptions(pages="4-5")
        )


def test_formats_of_one_picture_take_the_first_and_say_so(tmp_path):
    source = scan(tmp_path / "in.tif")
    outcome = restore_picture(Untouched(), source, tmp_path / "out.png")
    assert [("first of 3" in note) for note in outcome.notes] == [True]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), SCANS[0])
    third = restore_picture(
        Untouched(), source, tmp_path / "third.png", options=FileOptions(pages="3")
    )
    assert third.notes == ()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "third.png")), SCANS[2])
    with pytest.raises(TargetError, match="cannot hold 3 pages"):
        restore_picture(Untouched(), source, tmp_path / "all.png", options=FileOptions(pages="all"))
    assert not (tmp_path / "all.png").exists()


def test_in_place_all_pages_or_nothing(tmp_path):
    source = scan(tmp_path / "in.tif")
    before = source.read_bytes()
    for pages in ("first", "2-3"):
        with pytest.raises(TargetError, match="holds 3 pictures"):
            restore_picture(
                Untouched(), source, source, overwrite=True, options=FileOptions(pages=pages)
            )
        assert source.read_bytes() == before
    restore_picture(Untouched(), source, source, overwrite=True)
    np.testing.assert_array_equal(pages_of(source), SCANS)


def test_reader_tells_of_other_pages_unless_one_was_asked_for(tmp_path):
    source = scan(tmp_path / "in.tif")
    with open_picture(source) as reader:
        assert (reader.info.pages, reader.info.page) == (3, 0)
        assert "first of 3" in reader.notes[0]
    with open_picture(source, page=2) as reader:
        assert reader.notes == []
    np.testing.assert_allclose(read_picture(source, page=2)[..., 0] * 255, SCANS[2], atol=1e-4)
    with pytest.raises(UnreadableError, match="pages 1 to 3"):
        inspect_picture(source, page=3)


def test_a_later_page_that_is_too_large_is_told_before_any_work(tmp_path):
    source = write_tiff(tmp_path / "in.tif", Page(GREY[:5]), Page(GREY))
    with pytest.raises(TooLargeError, match="36 x 24"):
        restore_picture(
            Untouched(), source, tmp_path / "out.tif", options=FileOptions(max_pixels=500)
        )
    first = FileOptions(max_pixels=500, pages="first")
    assert restore_picture(Untouched(), source, tmp_path / "out.tif", options=first).pages == 1


def test_a_page_that_cannot_be_read_is_named(tmp_path):
    lab = Page(RGB, 8)
    source = write_tiff(tmp_path / "in.tif", Page(RGB, 2), lab)
    with pytest.raises(UnreadableError, match="page 2"):
        restore_picture(Untouched(), source, tmp_path / "out.tif")
    assert sorted(os.listdir(tmp_path)) == ["in.tif"]


def test_list_of_pages_that_leads_back(tmp_path):
    source = write_tiff(tmp_path / "in.tif", Page(GREY), Page(GREY[:9]), end=8 + GREY.size)
    outcome = restore_picture(Untouched(), source, tmp_path / "out.tif")
    assert outcome.pages == 2
    assert "breaks off" in outcome.notes[0]


def test_pages_beyond_4_gb_have_wide_offsets_from_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("urushi.image.writer.bytes_of_pages", lambda path: 2**33)
    source, target = scan(tmp_path / "in.tif"), tmp_path / "out.tif"
    restore_picture(Untouched(), source, target)
    assert target.read_bytes()[:4] in (b"II+\0", b"MM\0+")
    np.testing.assert_array_equal(pages_of(target), SCANS)


# --- previews, masks, raw files ---


def test_the_picture_is_taken_and_not_its_preview(tmp_path):
    preview, camera = {254: 1, 271: b"Maker"}, {254: 0}
    chain = write_tiff(
        tmp_path / "chain.tif", Page(RGB[::3, ::3], 2, preview), Page(RGB, 2, camera)
    )
    below = write_tiff(
        tmp_path / "below.tif", Page(RGB[::3, ::3], 2, preview, [Page(RGB, 2, camera)])
    )
    old = write_tiff(tmp_path / "old.tif", Page(RGB[::3, ::3], 2, {255: 2}), Page(RGB, 2))
    for source in (chain, below, old):
        target = tmp_path / f"{source.stem}_out.tif"
        outcome = restore_picture(Untouched(), source, target)
        np.testing.assert_array_equal(pages_of(target), [RGB])
        assert ["smaller copy" in note for note in outcome.notes] == [True]
    assert tags_of(tmp_path / "below_out.tif")[0][271] == b"Maker"


def test_only_previews_means_the_largest(tmp_path):
    source = write_tiff(
        tmp_path / "in.tif", Page(RGB[::3, ::3], 2, {254: 1}), Page(RGB, 2, {254: 1})
    )
    assert inspect_picture(source).width == 36


def test_a_larger_page_is_pointed_at(tmp_path):
    source = write_tiff(tmp_path / "in.tif", Page(RGB[::3, ::3], 2), Page(RGB, 2))
    outcome = restore_picture(Untouched(), source, tmp_path / "out.png")
    assert "Page 2 is much larger" in outcome.notes[1]


@pytest.mark.parametrize(
    ("tags", "photometric", "below", "name"),
    [
        ({50706: (1, b"\1\4\0\0")}, 2, [], "DNG"),
        ({271: b"NIKON", 254: 1}, 2, [Page(GREY, 32803, {254: 0})], "NIKON"),
        ({33421: (2, 2), 33422: (1, b"\0\1\1\2")}, 1, [], "mosaic"),
        ({}, 34892, [], "linear raw"),
    ],
)
def test_raw_files_of_cameras_are_refused_by_name(tmp_path, tags, photometric, below, name):
    source = write_tiff(tmp_path / "in.tif", Page(RGB, photometric, tags, below))
    with pytest.raises(UnreadableError, match=f"raw file .*{name}"):
        inspect_picture(source)


def test_masks_layers_and_hidden_planes_are_told_and_not_lost_in_place(tmp_path):
    layers = b"Adobe Photoshop Document Data Block\0MIB8ryaL" + (900).to_bytes(4, "little") * 9
    files = {
        "mask": [Page(RGB, 2), Page(GREY, 4, {254: 4})],
        "layers": [Page(RGB, 2, {37724: (7, layers)})],
        "planes": [Page(GREY, 1, {33629: ("long", *range(5))})],
    }
    for what, pages in files.items():
        source = write_tiff(tmp_path / f"{what}.tif", *pages)
        before = source.read_bytes()
        outcome = restore_picture(Untouched(), source, tmp_path / f"{what}_out.tif")
        assert any(what in note for note in outcome.notes)
        assert inspect_picture(tmp_path / f"{what}_out.tif").pages == 1
        with pytest.raises(TargetError, match=f"{what}.*would be lost"):
            restore_picture(Untouched(), source, source, overwrite=True)
        assert source.read_bytes() == before
