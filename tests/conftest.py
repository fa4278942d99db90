"""Settings shared by all tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Tests run side by side (pytest-xdist): one thread each is faster than two that wait for another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What one test compiles is not there for another, or for the user: tests of that say otherwise.
os.environ["URUSHI_KEEP_COMPILED"] = "0"

# How fast a machine is, or how busy, is no matter of right and wrong.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")


# Imported where they are needed: what is imported here escapes the checks of types.


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder that tests read and leave as it is; see `world.make_world`."""
    from world import contents_of, make_world

    root = make_world(tmp_path_factory.mktemp("world"))
    before = contents_of(root)
    yield root
    assert contents_of(root) == before


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A model file with its graph beside it, which tests read and leave as they are."""
    from world import write_tiny

    from urushi.convert.graphs import export_graph

    path = write_tiny(tmp_path_factory.mktemp("exported") / "tiny.safetensors")
    export_graph(path)
    return path


@pytest.fixture(scope="session")
def x2_model(tmp_path_factory):
    """A model file of a network that enlarges."""
    from world import write_x2_model

    return write_x2_model(tmp_path_factory.mktemp("x2"))


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    """Three small pictures, packed for training."""
    from world import make_pack

    return make_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="session")
def golden_lora_ir():
    """Tensors of the authors' second stage, and what it makes of them."""
    from networks import read_golden

    return read_golden("lora_ir_stage2")[0] | read_golden("lora_ir_stage2_vector")[0]
