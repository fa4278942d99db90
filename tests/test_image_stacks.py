"""Stacks of microscopes: all planes, or no description that tells of planes which are gone."""

import struct

import numpy as np
import pytest
from pictures import Page, Scene, Untouched, write_tiff
from PIL import Image
from test_image_pages import pages_of, tags_of

from urushi.errors import TargetError
from urushi.image.tiff.stacks import fitting_description, planes_of
from urushi.inference.picture_files import FileOptions, restore_picture

GREY = Scene().grey
PLANES = [np.roll(GREY.astype(np.uint16) * 200, 4 * k, axis=1) for k in range(4)]
IMAGEJ = (
    b"ImageJ=1.53t\nimages=4\nslices=4\nhyperstack=true\nunit=um\nspacing=0.5\nmin=0.0\nmax=50.0\n"
)
OME = (
    b'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
    b'2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
    b'SizeX="36" SizeY="24" SizeZ="2" SizeC="2" SizeT="1"><TiffData IFD="0" PlaneCount="4"/>'
    b"</Pixels></Image></OME>"
)
SHAPED = b'{"shape": [4, 24, 36]}'
NO_UNIT = {282: ("/", 7, 2), 283: ("/", 7, 2), 296: 1}


def stack(path, description, *, planes=4, more=None, **options):
    tags = {270: description, **NO_UNIT, **(more or {})}
    pages = [Page(PLANES[0], 1, tags), *(Page(plane, 1, NO_UNIT) for plane in PLANES[1:planes])]
    return write_tiff(path, *pages, **options)


@pytest.mark.parametrize("description", [IMAGEJ, OME, SHAPED])
def test_all_planes_keep_their_description(tmp_path, description):
    source, target = stack(tmp_path / "in.tif", description), tmp_path / "out.tif"
    outcome = restore_picture(Untouched(), source, target)
    np.testing.assert_array_equal(pages_of(target), PLANES)
    assert tags_of(target)[0][270] == description
    assert outcome.notes == ()


@pytest.mark.parametrize("description", [IMAGEJ, OME, SHAPED])
@pytest.mark.parametrize("name", ["out.tif", "out.png"])
def test_one_plane_says_nothing_of_others(tmp_path, description, name):
    source, target = stack(tmp_path / "in.tif", description), tmp_path / name
    outcome = restore_picture(Untouched(), source, target, options=FileOptions(pages="first"))
    assert ["of 4 planes" in note for note in outcome.notes] == [True]
    content = target.read_bytes()
    assert not any(word in content for word in (b"images=", b"SizeZ", b"slices=", b"shape"))
    assert (b"unit=um" in content) == (description == IMAGEJ)


def test_enlarged_planes_are_not_said_to_be_small(tmp_path):
    for description, kept in ((OME, False), (SHAPED, False), (IMAGEJ, True)):
        source, target = stack(tmp_path / "in.tif", description), tmp_path / "out.tif"
        restore_picture(Untouched(2), source, target, overwrite=True)
        first = tags_of(target)[0]
        assert (270 in first) == kept
        assert first[282] == (7,)


def test_planes_without_pages_of_their_own(tmp_path):
    source = stack(tmp_path / "in.tif", IMAGEJ, planes=1)
    outcome = restore_picture(Untouched(), source, tmp_path / "out.tif")
    assert any("3 more planes" in note for note in outcome.notes)
    assert b"images=" not in tags_of(tmp_path / "out.tif")[0][270]
    with pytest.raises(TargetError, match="3 more planes"):
        restore_picture(Untouched(), source, source, overwrite=True)


@pytest.mark.parametrize("order", ["<", ">"])
def test_resolution_without_unit_has_none_afterwards(tmp_path, order):
    source = stack(tmp_path / "in.tif", b"", order=order)
    restore_picture(Untouched(), source, tmp_path / "out.tif")
    for tags in tags_of(tmp_path / "out.tif"):
        assert (tags[282], tags[283], tags[296]) == ((3.5,), (3.5,), (1,))
    restore_picture(Untouched(), source, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as written:
        assert "dpi" not in written.info
    restore_picture(Untouched(), source, tmp_path / "out.jpg", options=FileOptions(pages="2"))
    with Image.open(tmp_path / "out.jpg") as written:
        assert "dpi" not in written.info or written.info["jfif_unit"] == 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_labels_of_imagej_come_through_in_either_byte_order(tmp_path, order):
    texts = [f"plane {k} é".encode("utf-16-le" if order == "<" else "utf-16-be") for k in range(4)]
    head = struct.pack(f"{order}5I", 0x494A494A, 0x6C61626C, 4, 0x72616E67, 1)
    ranges = struct.pack(f"{order}2d", 0.5, 1234.0)
    sizes = [len(head), *map(len, texts), len(ranges)]
    block = head + b"".join(texts) + ranges
    more = {50838: ("long", *sizes), 50839: (1, block)}
    source = stack(tmp_path / "in.tif", IMAGEJ, more=more, order=order)
    assert restore_picture(Untouched(), source, tmp_path / "out.tif").notes == ()
    with Image.open(tmp_path / "out.tif") as written:
        native = "<" if written.tag_v2.prefix == b"II" else ">"
        assert list(written.tag_v2[50838]) == sizes
        data = written.tag_v2[50839]
    assert data[:20] == struct.pack(f"{native}5I", 0x494A494A, 0x6C61626C, 4, 0x72616E67, 1)
    coding = "utf-16-le" if native == "<" else "utf-16-be"
    assert data[20 : 20 + len(texts[0])].decode(coding) == "plane 0 é"
    assert struct.unpack(f"{native}2d", data[-16:]) == (0.5, 1234.0)
    outcome = restore_picture(
        Untouched(), source, tmp_path / "one.tif", options=FileOptions(pages="2-3")
    )
    assert 50839 not in tags_of(tmp_path / "one.tif")[0]
    outcome = restore_picture(
        Untouched(), source, tmp_path / "first.tif", options=FileOptions(pages="first")
    )
    assert any("labels" in note for note in outcome.notes)


def test_descriptions_of_single_pictures_stay(tmp_path):
    for told in (b"a cat, images=5", b"ImageJ=1.53t\nunit=um\n", b"<svg/>", b'{"shape": [24, 36]}'):
        source = write_tiff(tmp_path / "in.tif", Page(GREY, 1, {270: told}))
        outcome = restore_picture(Untouched(), source, tmp_path / "out.tif", overwrite=True)
        assert tags_of(tmp_path / "out.tif")[0][270] == told
        assert outcome.notes == ()


ONE_OME = OME.replace(b'SizeZ="2" SizeC="2"', b'SizeZ="1" SizeC="1"')


@pytest.mark.parametrize("name", ["out.tif", "out.png", "out.jpg"])
@pytest.mark.parametrize("description", [b'{"shape": [24, 36]}', b'{"shape": [1, 24, 36]}'])
def test_the_shape_of_a_single_picture_stays_where_it_is_true(tmp_path, name, description):
    source, target = stack(tmp_path / "in.tif", description, planes=1), tmp_path / name
    assert restore_picture(Untouched(), source, target).notes == ()
    with Image.open(target) as made:
        assert made.getexif()[270].encode() == description


def test_what_is_told_of_one_plane_stays_as_long_as_its_samples_do(tmp_path):
    source = stack(tmp_path / "in.tif", ONE_OME, planes=1)
    assert restore_picture(Untouched(), source, tmp_path / "out.png").notes == ()
    assert b"SizeZ" in (tmp_path / "out.png").read_bytes()
    # 8 bits are not what it tells of.
    notes = restore_picture(Untouched(), source, tmp_path / "out.jpg").notes
    assert [note for note in notes if "OME" in note]


def test_planes_that_lie_in_several_files_are_not_missed():
    parts = b'<TiffData><UUID FileName="a.tif"/></TiffData><TiffData><UUID FileName="b.tif"/>'
    assert planes_of(OME.replace(b"</Pixels>", parts + b"</Pixels>")) == 0
    assert planes_of(OME) == planes_of(IMAGEJ) == planes_of(SHAPED) == 4
    assert planes_of(b'{"shape": "x"}') == planes_of(b"images=4") == 0


def test_damaged_claims_do_no_harm():
    for told in (b"ImageJ=", b'{"shape": [', b"<OME", b"ImageJ=1\nimages=99999999999999\n"):
        assert planes_of(told) == 0
        assert fitting_description(told, complete=True, same=True) == told
