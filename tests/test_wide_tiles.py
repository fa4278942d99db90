"""Adapters of what hangs on the whole picture get large tiles; those of local damage do not."""

import numpy as np
import pytest
from world import write_random, write_tiny_model

from urushi.files.adapter import write_adapter
from urushi.files.model import read_model
from urushi.inference.restorer import Restorer
from urushi.inference.tile_sizes import ON_CPU, WIDE_OVERLAP, WIDE_TILE


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return read_model(write_tiny_model(tmp_path_factory.mktemp("base") / "tiny.safetensors"))


def restorer(base, folder, degradations, **options):
    path = folder / "random.safetensors"
    stored = write_random(path, base)
    header = stored.header.model_copy(update={"degradations": degradations})
    write_adapter(path, stored.tensors, header, "float32")
    return Restorer(base, adapters=[path], engine="torch", device="cpu", **options)


@pytest.mark.parametrize("kinds", [["haze"], ["rain", "low-light"], []])
def test_what_is_not_local_is_seen_widely(base, tmp_path, kinds):
    wide = restorer(base, tmp_path, kinds)
    assert (wide.tile, wide.overlap) == (WIDE_TILE, WIDE_OVERLAP)
    plan = wide.plan(2000, 3000)
    assert plan.rows.size > ON_CPU.tile


@pytest.mark.parametrize("kinds", [["noise"], ["rain", "snow"]])
def test_local_damage_keeps_the_tiles_that_are_fast(base, tmp_path, kinds):
    local = restorer(base, tmp_path, kinds)
    assert (local.tile, local.overlap) == (ON_CPU.tile, 16)


def test_a_tile_that_is_asked_for_is_taken(base, tmp_path):
    told = restorer(base, tmp_path, ["haze"], tile=128)
    assert (told.tile, told.overlap) == (128, 16)


def test_little_memory_means_smaller_tiles(base, tmp_path):
    small = restorer(base, tmp_path, ["haze"], memory_limit=1 << 24)
    assert small.tile < WIDE_TILE
    assert small.overlap <= small.tile // 4


def test_a_picture_between_is_one_tile_whatever_is_asked(base, tmp_path):
    assert restorer(base, tmp_path, ["haze"], tile=64).plan(620, 900).count == 1
    assert restorer(base, tmp_path, ["haze"], tile=64).plan(620, 1000).count > 1
    little = restorer(base, tmp_path, ["haze"], tile=64, memory_limit=1 << 24)
    assert little.plan(620, 900).count > 1


def test_haze_alone_leaves_detail_to_the_picture(base, tmp_path):
    seen = []
    restorer(base, tmp_path, ["haze"], tile=64).restore(
        np.random.default_rng(1).random((620, 1000, 3), np.float32),
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(620_000, 620_000)]
