"""Packing, pairing and checking folders of pictures."""

import pickle

import numpy as np
import pytest
from safetensors import safe_open

from urushi.data.check import CheckReport, Fingerprint, check_folder, fingerprint, near_pairs
from urushi.data.pack import PackedPairs, PackedPictures, pack_pairs, pack_pictures
from urushi.data.pairs import PairedFolder
from urushi.errors import DataError, FileFormatError, TargetError
from urushi.image import write_picture


def pixels_8bit(height=40, width=48, seed=0):
    """A smooth picture with some noise, so that its coarse look is its own."""
    rng = np.random.default_rng(seed)
    rows = bumps(rng.uniform(0, 1, 8), height)
    columns = bumps(rng.uniform(0, 1, 8), width)
    smooth = np.einsum("hk,wl,klc->hwc", rows, columns, rng.random((8, 8, 3)))
    noisy = smooth / smooth.max() + 0.02 * rng.standard_normal(smooth.shape)
    return np.rint(255 * np.clip(noisy, 0, 1)).astype(np.uint8)


def bumps(centres, count):
    """Gaussian bumps on ``count`` places from 0 to 1, one column per centre."""
    places = np.linspace(0, 1, count)[:, None]
    return np.exp(-(((places - centres) / 0.1) ** 2))


def halved(pixels):
    """The means of 2x2 pixels."""
    height, width = pixels.shape[:2]
    return np.rint(pixels.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))).astype(np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, pixels.astype(np.float32) / 255)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three pictures in two levels, one file that is cut off, and a text."""
    root = tmp_path / "photos"
    write(root / "b.png", pixels_8bit(40, 48, 0))
    write(root / "a.png", pixels_8bit(33, 57, 1))
    whole = write(root / "deep" / "c.png", pixels_8bit(64, 32, 2))
    (root / "cut.png").write_bytes(whole.read_bytes()[:600])
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def pack(folder, tmp_path):
    pack_pictures([folder], tmp_path / "p.safetensors")
    return PackedPictures(tmp_path / "p.safetensors")


def test_pack_holds_the_pictures(folder, tmp_path):
    calls = []
    summary = pack_pictures(
        [folder], tmp_path / "new" / "p.safetensors", on_progress=lambda *call: calls.append(call)
    )
    assert summary.count == 3
    assert summary.pixels == 40 * 48 + 33 * 57 + 64 * 32
    assert [name for name, _ in summary.skipped] == ["photos/cut.png"]
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    pack = PackedPictures(summary.path)
    assert pack.names == ("photos/a.png", "photos/b.png", "photos/deep/c.png")
    assert pack.sizes.tolist() == [[33, 57], [40, 48], [64, 32]]
    for i, seed in enumerate((1, 0, 2)):
        height, width = pack.sizes[i]
        np.testing.assert_array_equal(pack.picture(i), pixels_8bit(height, width, seed))
    assert list(summary.path.parent.iterdir()) == [summary.path]


def test_pack_is_safetensors(pack):
    with safe_open(pack.path, "np") as file:
        assert file.metadata()["urushi"] == "pictures"
        np.testing.assert_array_equal(file.get_tensor("pixels"), pack.pixels)
        np.testing.assert_array_equal(file.get_tensor("index"), pack.index)
        assert bytes(file.get_tensor("names")).decode().split("\n") == list(pack.names)


def test_pack_is_the_same_again(folder, pack, tmp_path):
    again = pack_pictures([folder], tmp_path / "again.safetensors")
    assert again.sha256 == pack.sha256
    assert again.path.read_bytes() == pack.path.read_bytes()
    fewer = pack_pictures([folder], tmp_path / "fewer.safetensors", min_side=33)
    assert fewer.sha256 != pack.sha256
    assert dict(fewer.skipped)["photos/deep/c.png"].endswith("less than 33 on its shorter side")


def test_crops(pack):
    indices, tops, lefts = (
        np.array([1, 0, 2, 1]),
        np.array([24, 0, 3, 0]),
        np.array([32, 41, 16, 1]),
    )
    crops = pack.crops(indices, tops, lefts, 16)
    for crop, i, top, left in zip(crops, indices, tops, lefts, strict=True):
        np.testing.assert_array_equal(crop, pack.picture(i)[top : top + 16, left : left + 16])
    flat = pack.to_tensor().numpy()
    starts = pack.row_starts(indices, tops, lefts, 16)
    gathered = flat[starts[:, :, None] + np.arange(48)].reshape(4, 16, 16, 3)
    np.testing.assert_array_equal(gathered, crops)


@pytest.mark.parametrize(("top", "left"), [(25, 0), (0, 33), (-1, 0), (0, -1)])
def test_crop_outside(pack, top, left):
    with pytest.raises(DataError, match="48x40"):
        pack.crops(np.array([1]), np.array([top]), np.array([left]), 16)


def test_pack_goes_to_other_processes_as_a_path(pack):
    sent = pickle.dumps(pack)
    assert len(sent) < 500
    np.testing.assert_array_equal(pickle.loads(sent).picture(2), pack.picture(2))


def test_pictures_of_a_pack_cannot_be_changed(pack):
    with pytest.raises(ValueError, match="read-only"):
        pack.picture(0)[0, 0] = 0


def test_packing_refuses(folder, tmp_path):
    target = tmp_path / "t.safetensors"
    with pytest.raises(DataError, match="does not exist"):
        pack_pictures([tmp_path / "nowhere"], target)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        pack_pictures([tmp_path / "empty"], target)
    with pytest.raises(DataError, match="none of 4 pictures can be packed"):
        pack_pictures([folder], target, min_side=1000)
    assert not target.exists()
    target.write_text("precious")
    with pytest.raises(TargetError, match="exists already"):
        pack_pictures([folder], target)
    assert target.read_text() == "precious"
    pack_pictures([folder], target, overwrite=True)
    assert len(PackedPictures(target)) == 3
    with pytest.raises(TargetError, match="cannot be written"):
        pack_pictures([folder], folder / "notes.txt" / "t.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "photos", "t.safetensors"]


@pytest.mark.parametrize("cut", [0, 5, 400, 1100, 10000])
def test_damaged_packs_are_refused(pack, tmp_path, cut):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(pack.path.read_bytes()[:cut])
    with pytest.raises(FileFormatError, match=r"damaged\.safetensors"):
        PackedPictures(damaged)


def test_missing_and_other_files_are_no_packs(folder, tmp_path):
    with pytest.raises(FileFormatError, match="cannot be opened"):
        PackedPictures(tmp_path / "none.safetensors")
    with pytest.raises(FileFormatError, match="not a pack"):
        PackedPictures(folder / "a.png")


@pytest.fixture
def pairs(tmp_path):
    root = tmp_path / "pairs"
    for i in range(3):
        write(root / "input" / f"{i}.png", pixels_8bit(seed=i + 20))
        write(root / "target" / f"{i}.tif", pixels_8bit(seed=i + 10))
    return root


def test_packed_pairs(pairs, tmp_path):
    write(pairs / "input" / "9.png", pixels_8bit(30, 30))
    write(pairs / "target" / "9.png", pixels_8bit(30, 31))
    found = [(pair.name, pair.input, pair.target) for pair in PairedFolder(pairs)]
    summary = pack_pairs(found, tmp_path / "p.safetensors")
    assert summary.skipped == (("9", "9 is 30x30 as input and 31x30 as target"),)
    pack = PackedPairs(summary.path)
    assert len(pack) == summary.count == 3
    assert pack.sizes.tolist() == [[40, 48]] * 3
    degraded, clean = pack.pair(2)
    np.testing.assert_array_equal(degraded, pixels_8bit(seed=22))
    np.testing.assert_array_equal(clean, pixels_8bit(seed=12))
    with pytest.raises(FileFormatError, match="'pairs', expected 'pictures'"):
        PackedPictures(summary.path)


@pytest.mark.parametrize(
    ("input_name", "target_name"),
    [
        ("input/7.png", "target/7.tif"),
        ("LQ/7.png", "GT/7.png"),
        ("noisy/scene_7_real.png", "clean/scene_7_mean.png"),
        ("rain/rain-7.png", "norain/norain-7.png"),
        ("rain/rain7.png", "norain/norain7.png"),
        ("low/sub/7.png", "high/sub/7.png"),
        ("hazy/7_3_0.8.png", "clear/7.png"),
    ],
)
def test_layouts_of_pairs(tmp_path, input_name, target_name):
    degraded = write(tmp_path / input_name, pixels_8bit())
    target = write(tmp_path / target_name, pixels_8bit())
    paired = PairedFolder(tmp_path)
    assert not paired.problems
    assert [(pair.input, pair.target) for pair in paired] == [(degraded, target)]


def test_pictures_without_partner_are_listed(pairs):
    write(pairs / "input" / "lonely.png", pixels_8bit())
    write(pairs / "target" / "2_1.png", pixels_8bit())
    write(pairs / "target" / "1.png", pixels_8bit())
    paired = PairedFolder(pairs)
    assert [pair.name for pair in paired] == ["0", "1", "2"]
    assert [line.rsplit("/", 1)[1] for line in paired.problems] == [
        "lonely.png has no target",
        "1.png",
        "2_1.png has no input",
    ]
    assert "same name" in paired.problems[1]


def test_a_continued_name_does_not_steal_a_partner(pairs):
    write(pairs / "input" / "2_1.png", pixels_8bit())
    paired = PairedFolder(pairs)
    assert len(paired) == 3
    assert paired.problems[0].endswith("2_1.png has no target")


def test_folders_that_are_no_pairs(folder, tmp_path):
    with pytest.raises(DataError, match="its folders: deep"):
        PairedFolder(folder)
    with pytest.raises(DataError, match="does not exist"):
        PairedFolder(tmp_path / "nowhere")


def test_check_finds_what_is_wrong(folder):
    copy = write(folder / "copy.png", pixels_8bit(40, 48, 0))
    copy.rename(folder / "copy.jpg")
    write(folder / "large.png", pixels_8bit(120, 128, 5))
    write(folder / "small.png", halved(pixels_8bit(120, 128, 5)))
    report = check_folder(folder, min_side=33)
    assert not report.ok
    assert report.pictures == 6
    assert report.pairs is None
    assert (report.smallest, report.largest) == ((57, 33), (128, 120))
    assert [name for name, _ in report.unreadable] == ["cut.png"]
    assert report.tiny == (("deep/c.png", 32, 64),)
    assert report.misnamed == (("copy.jpg", "png"),)
    assert report.duplicates == (("b.png", "copy.jpg"),)
    assert report.near_duplicates == (("small.png", "large.png"),)
    text = "\n".join(report.lines())
    for name in ("cut.png", "32x64", "copy.jpg is png", "equal: b.png, copy.jpg", "6 pictures"):
        assert name in text
    assert CheckReport.model_validate_json(report.to_json()) == report


def test_check_of_a_good_folder(pairs):
    report = check_folder(pairs, min_side=40)
    assert report.ok
    assert report.pairs == 3
    assert report.lines()[1:] == ["nothing found"]


def test_check_of_pairs(pairs):
    write(pairs / "input" / "lonely.png", pixels_8bit(seed=30))
    write(pairs / "target" / "4.png", pixels_8bit(40, 40, 31))
    write(pairs / "input" / "4.png", pixels_8bit(44, 40, 32))
    # Equal inputs are not reported, equal targets are.
    write(pairs / "input" / "5.png", pixels_8bit(seed=20))
    write(pairs / "target" / "5.png", pixels_8bit(seed=10))
    report = check_folder(pairs, min_side=16)
    assert report.mismatched == (("4", "40x44", "40x40"),)
    assert len(report.unmatched) == 1
    assert report.duplicates == (("target/0.tif", "target/5.png"),)


def test_check_finds_test_pictures_among_training_ones(folder, pairs):
    write(pairs / "input" / "large.png", pixels_8bit(120, 128, 40))
    write(pairs / "target" / "large.png", pixels_8bit(120, 128, 50))
    write(folder / "leak.png", pixels_8bit(seed=11))
    write(folder / "half.png", halved(pixels_8bit(120, 128, 50)))
    write(folder / "an_input.png", pixels_8bit(seed=21))
    report = check_folder(folder, min_side=8, against=pairs)
    assert report.leaked == (("leak.png", "target/1.tif"), ("half.png", "target/large.png"))


def test_check_refuses(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        check_folder(tmp_path / "empty")
    with pytest.raises(DataError, match="no pictures"):
        check_folder(folder, against=tmp_path / "empty")
    with pytest.raises(DataError, match="does not exist"):
        check_folder(tmp_path / "nowhere")


def test_fingerprints_of_flat_and_small_pictures_say_nothing():
    flat = np.full((40, 40, 3), 128, np.uint8)
    assert fingerprint(flat).grey is None
    assert fingerprint(pixels_8bit(15, 40)).grey is None
    assert fingerprint(flat).exact != fingerprint(flat[:39]).exact
    assert fingerprint(flat).exact == fingerprint(flat.copy()).exact


@pytest.mark.parametrize(("bits", "alike"), [(48, True), (49, False)])
def test_pictures_alike_differ_in_48_bits_at_most(bits, alike):
    grey = np.full(272, 272**-0.5, np.float32)
    differing = np.packbits(np.arange(256) < bits).view(np.uint64)
    prints = {
        "first": Fingerprint("a", np.zeros(4, np.uint64), grey),
        "second": Fingerprint("b", differing, grey),
    }
    assert list(near_pairs(prints)) == ([("second", "first")] if alike else [])
