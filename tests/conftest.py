"""Settings shared by all tests, their order, and what many of them read."""

import os
import sys
from pathlib import Path

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

# These take longest, and so begin: what is left for the end is short, and ends at once everywhere.
FIRST = (
    "test_cluster",
    "test_many_processes",
    "test_int8",
    "test_evidence",
    "test_export",
    "test_compare",
    "test_serve_page",
    "test_training",
    "test_serve",
    "test_all_in_one",
    "test_processes",
    "test_serve_adapt",
    "test_docs_followed",
    "test_serve_workers",
    "test_engines",
    "test_shipped_all_in_one",
    "test_restorer_adapters",
    "test_changing_files",
)


# Files whose names begin so share a process, because what they prepare is costly: a cluster.
TOGETHER = ("test_cluster",)


def group_of(file: str) -> str:
    """Of a test's file, what is run by one process: the file, or several; see `TOGETHER`."""
    name = Path(file).stem
    return next((start for start in TOGETHER if name.startswith(start)), name)


def pytest_collection_modifyitems(items):
    rank = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(group_of(item.path.name), len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile` one process runs all tests of a group, which share what they prepare.

    Marks of groups would say the same, but `--dist loadgroup` of pytest-xdist 3.8 does not see them
    with pytest 9.2: it writes them into `_nodeid`, which is no longer what `nodeid` is made of.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid.partition("::")[0])

    return ByGroup(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def graphs_traced_once(tmp_path_factory):
    """See `shared.trace_once`."""
    if "torch" not in sys.modules:
        yield
        return
    from shared import trace_once

    with pytest.MonkeyPatch.context() as monkeypatch:
        trace_once(tmp_path_factory, monkeypatch)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder that tests read and leave as it is; see `world.make_world`."""
    from world import contents_of, make_world

    root = make_world(tmp_path_factory.mktemp("world"))
    before = contents_of(root)
    yield root
    assert contents_of(root) == before


@pytest.fixture(scope="session")
def watched(tmp_path_factory):
    """A folder of models with graphs and int8 files, left as it is; see `shared.make_watched`."""
    from shared import made_once, make_watched
    from world import contents_of

    root = made_once(tmp_path_factory, "watched", make_watched)
    before = contents_of(root)
    yield root
    assert contents_of(root) == before


@pytest.fixture(scope="session")
def exported(watched):
    """A model file with its graph beside it, which tests read and leave as they are."""
    return watched / "graph/tiny.safetensors"


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
