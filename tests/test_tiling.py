"""Tiles: how a picture is covered, and that no seam is left."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import reader

from urushi.errors import UnreadableError
from urushi.inference.hardware import available_memory, describes_processor, host_memory
from urushi.inference.tiling import TilePlan, pad_tile, plan_tiles, stream_tiles


def through_tiles(picture, run, **options):
    plan = plan_tiles(*picture.shape[:2], **options)
    return np.concatenate(list(stream_tiles(reader(picture), plan, run)))


def random_picture(height, width):
    generator = np.random.default_rng(height * 10_007 + width)
    return generator.random((height, width, 3), dtype=np.float32)


def box_blur(tile, radius):
    """A local convolution that, as a network's does, knows nothing beyond its tile."""
    size = 2 * radius + 1
    padded = np.pad(tile, ((0, 0), (radius, radius), (radius, radius)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return windows.mean(axis=(3, 4), dtype=np.float64).astype(np.float32)


def test_balanced_tiles_cost_less_than_a_clamped_last_one():
    plan = plan_tiles(3000, 4000, tile=512, overlap=32, multiple=16)
    clamped = plan.count * 512 * 512 / (3000 * 4000)
    assert clamped == pytest.approx(1.38, abs=0.005)
    assert plan.ratio == pytest.approx(1.17, abs=0.005)
    assert len(plan.columns.starts) == 9
    assert len(plan.rows.starts) == 7


@settings(max_examples=300, deadline=None)
@given(
    length=st.integers(1, 3000),
    multiple=st.sampled_from([1, 2, 8, 16, 32]),
    steps=st.integers(1, 40),
    part=st.floats(0, 0.5),
)
def test_one_side_is_covered_by_the_fewest_tiles(length, multiple, steps, part):
    tile = steps * multiple
    overlap = int(part * tile)
    side = plan_tiles(length, 1, tile=tile, overlap=overlap, multiple=multiple).rows
    assert side.size <= tile
    assert side.size % multiple == 0
    assert side.starts[0] == 0
    end = side.starts[-1] + side.size
    assert end >= length
    if len(side.starts) > 1:
        assert end == length
        shared = side.size - np.diff(side.starts)
        assert shared.min() >= overlap
        fewer = len(side.starts) - 1
        assert fewer * tile - (fewer - 1) * overlap < length
    total = np.zeros(end)
    for start, weight in zip(side.starts, side.weights, strict=True):
        assert weight.min() >= 0
        total[start : start + side.size] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "options", "starts"),
    [
        # Evenly spread would be 440, 1320, 2200, 3080: in the middle of a block of 16.
        (
            4000,
            {"tile": 512, "overlap": 32, "multiple": 16},
            (0, 432, 880, 1312, 1760, 2192, 2640, 3072, 3520),
        ),
        # 845 and 1690 stay: the tile after each would begin 428 pixels further on, and share less
        # than 32 of 464 with it.
        (
            3000,
            {"tile": 512, "overlap": 32, "multiple": 16},
            (0, 416, 845, 1264, 1690, 2112, 2536),
        ),
        # Nowhere is there room for it.
        (1000, {"tile": 384, "overlap": 48, "multiple": 8}, (0, 316, 632)),
        # Room for just this: 16 of 48 pixels are shared with the last tile.
        (96, {"tile": 48, "overlap": 16, "multiple": 16}, (0, 16, 48)),
        (96, {"tile": 48, "overlap": 17, "multiple": 16}, (0, 24, 48)),
    ],
)
def test_tiles_begin_on_the_blocks_of_jpeg_where_the_overlap_allows_it(length, options, starts):
    plan = plan_tiles(length, length, **options)
    assert plan.rows.starts == plan.columns.starts == starts


@settings(max_examples=100, deadline=None)
@given(
    length=st.integers(1, 3000),
    steps=st.integers(1, 40),
    part=st.floats(0, 0.5),
)
def test_inner_tiles_move_only_to_the_block_before(length, steps, part):
    tile = 16 * steps
    overlap = int(part * tile)
    side = plan_tiles(length, 1, tile=tile, overlap=overlap, multiple=16).rows
    last = len(side.starts) - 1
    even = [index * (length - side.size) // max(last, 1) for index in range(last + 1)]
    for index in range(1, last):
        before = even[index] - even[index] % 16
        near_enough = even[index + 1] - before <= side.size - overlap
        assert side.starts[index] == (before if near_enough else even[index])
    if last > 0:
        assert (side.starts[0], side.starts[-1]) == (even[0], even[-1])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (3, 7), (2, 2), (65, 33)])
def test_pictures_smaller_than_a_tile_come_back_in_their_size(height, width):
    picture = random_picture(height, width)
    shapes = set()

    def run(tile):
        shapes.add(tile.shape)
        return tile

    result = through_tiles(picture, run, tile=32, overlap=8, multiple=16)
    np.testing.assert_allclose(result, picture, atol=1e-6)
    assert len(shapes) == 1
    assert all(side % 16 == 0 for shape in shapes for side in shape[1:])


def test_padding_mirrors_and_repeats_where_there_is_nothing_to_mirror():
    rows = np.arange(6, dtype=np.float32).reshape(1, 3, 2)[:, :, [0, 1, 1]]
    padded = pad_tile(rows, 3, 8)
    assert padded.shape == (3, 3, 8)
    assert padded[0, 0].tolist() == [0, 2, 4, 2, 0, 2, 4, 2]
    assert (padded == padded[:, :1]).all()


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_a_local_operation_in_tiles_equals_the_whole_picture(radius):
    picture = random_picture(150, 203)
    whole = box_blur(picture.transpose(2, 0, 1), radius).transpose(1, 2, 0)
    tiled = through_tiles(
        picture, lambda tile: box_blur(tile, radius), tile=64, overlap=32, multiple=1
    )
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_a_wider_operation_differs_only_a_little_and_only_where_tiles_meet():
    picture = random_picture(96, 300)
    radius = 9
    whole = box_blur(picture.transpose(2, 0, 1), radius).transpose(1, 2, 0)
    options = {"tile": 128, "overlap": 32, "multiple": 1}
    tiled = through_tiles(picture, lambda tile: box_blur(tile, radius), **options)
    plan = plan_tiles(96, 300, **options)
    meets = np.zeros(300, bool)
    for left, right in zip(plan.columns.starts[1:], plan.columns.starts[:-1], strict=True):
        meets[left : right + plan.columns.size] = True
    difference = np.abs(tiled - whole).max(axis=(0, 2))
    assert meets.any()
    assert difference[~meets].max() < 1e-6
    # Unblended, the outermost pixel of a tile is off by almost half its value.
    assert difference[meets].max() < 0.03


def test_tiles_of_different_tone_leave_a_gradient_and_no_step():
    picture = np.full((200, 260, 3), 0.5, np.float32)
    tones = itertools.cycle([0.0, 1.0, 0.3, 0.9])
    plan = plan_tiles(200, 260, tile=96, overlap=32)
    assert plan.count > 6
    result = np.concatenate(
        list(
            stream_tiles(reader(picture), plan, lambda tile: np.full_like(tile, 0.1 * next(tones)))
        )
    )
    # Without blending, the steps would be as large as the difference of tones, up to 0.1. A
    # raised cosine over the 24 pixels between the guards climbs by pi / 2 / 24 at most.
    bound = 0.1 * np.pi / 2 / 24 * 1.05
    assert np.ptp(result) > 0.09
    assert np.abs(np.diff(result, axis=0)).max() < bound
    assert np.abs(np.diff(result, axis=1)).max() < bound


def test_all_tiles_have_one_shape():
    shapes = []

    def run(tile):
        shapes.append(tile.shape)
        return tile

    picture = random_picture(301, 177)
    result = through_tiles(picture, run, tile=96, overlap=16, multiple=8)
    np.testing.assert_allclose(result, picture, atol=1e-6)
    assert len(set(shapes)) == 1


def test_rows_are_read_only_when_they_are_needed():
    picture = random_picture(2000, 40)
    read = reader(picture)
    asked = 0

    def counting(count):
        nonlocal asked
        rows = read(count)
        asked += len(rows)
        return rows

    plan = plan_tiles(2000, 40, tile=64, overlap=16)
    given_back = 0
    for rows in stream_tiles(counting, plan, lambda tile: tile):
        given_back += len(rows)
        assert asked - given_back <= 2 * plan.rows.size
    assert given_back == asked == 2000


def test_a_reader_may_give_fewer_rows_than_asked():
    picture = random_picture(130, 30)
    read = reader(picture)
    plan = plan_tiles(130, 30, tile=64, overlap=16)
    rows = stream_tiles(lambda count: read(min(count, 7)), plan, lambda tile: tile)
    np.testing.assert_allclose(np.concatenate(list(rows)), picture, atol=1e-6)


def test_a_picture_that_ends_early_is_told():
    picture = random_picture(90, 30)
    plan = plan_tiles(130, 30, tile=64, overlap=16)
    with pytest.raises(UnreadableError, match="90 of 130 rows"):
        list(stream_tiles(reader(picture), plan, lambda tile: tile))


def test_finished_tiles_are_counted():
    picture = random_picture(130, 130)
    plan = plan_tiles(130, 130, tile=64, overlap=16)
    counts = []
    list(stream_tiles(reader(picture), plan, lambda tile: tile, counts.append))
    assert counts == list(range(1, plan.count + 1))


def test_the_ratio_of_one_exact_tile_is_one():
    plan = plan_tiles(64, 96, tile=96, overlap=16, multiple=8)
    assert isinstance(plan, TilePlan)
    assert (plan.count, plan.ratio) == (1, 1.0)


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MEMINFO = "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    8000 kB\n"


def test_memory_is_what_linux_calls_available(tmp_path):
    write(tmp_path, proc__meminfo=MEMINFO)
    assert host_memory(tmp_path) == 8000 * 1024


def test_memory_of_a_container_is_its_limit_less_what_is_used(tmp_path):
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/box/inner\n")
    group = tmp_path / "sys/fs/cgroup/box"
    (group / "inner").mkdir(parents=True)
    (group / "inner/memory.max").write_text("max\n")
    (group / "inner/memory.current").write_text("10\n")
    (group / "memory.max").write_text("5000000\n")
    (group / "memory.current").write_text("3000000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 1000000\n")
    assert host_memory(tmp_path) == 3_000_000


def test_memory_of_an_old_container(tmp_path):
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="5:cpu,memory:/host/only\n1:x:/\n")
    base = tmp_path / "sys/fs/cgroup/memory"
    base.mkdir(parents=True)
    (base / "memory.limit_in_bytes").write_text("4000000\n")
    (base / "memory.usage_in_bytes").write_text("1000000\n")
    assert host_memory(tmp_path) == 3_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others always say it")
@pytest.mark.parametrize("place", ["proc__cpuinfo", "sys__devices__system__cpu__online"])
def test_linux_describes_the_processor_in_either_place(tmp_path, place):
    assert not describes_processor(tmp_path)
    write(tmp_path, **{place: "0\n"})
    assert describes_processor(tmp_path)


def test_memory_without_linux_is_a_positive_guess(tmp_path):
    assert host_memory(tmp_path) > 1 << 28
    assert available_memory("cpu") > 1 << 20
