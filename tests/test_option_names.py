"""Options that do not exist, or cannot be, are told at once, by name, and once for all pictures."""

import numpy as np
import pytest
from commands import run
from pictures import write_pictures
from world import write_tiny_model

import urushi
from urushi.app.output import EXIT_FAILED, EXIT_USAGE
from urushi.errors import AdapterError, EngineError
from urushi.files.model import read_header
from urushi.inference.estimate import multiple_of
from urushi.inference.zoo import find_model

GREY = np.full((16, 16, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"foo": 1}, "restore has no option 'foo': known are"),
        ({"foo": 1, "adapters": ["haze"]}, "restore has no option 'foo': known are"),
        ({"enigne": "torch"}, "did you mean 'engine'"),
        ({"adapter": ["haze"]}, "did you mean 'adapters'"),
        ({"adapters": ["haze"], "k": 2}, "k is for what is chosen"),
        ({"adapters": ["film:-1"]}, r"a pair such as \('film', 0.5\), with a strength from 0 to 2"),
        ({"adapters": ["film:x"]}, r"a pair such as \('film', 0.5\)"),
        ({"adapters": ["film:0.25"]}, r"give the pair \('film', 0.25\)"),
        ({"tile": [1]}, r"tile is \[1\]: expected a whole number of pixels"),
        ({"tile": "64"}, "tile is '64': expected a whole number"),
        ({"overlap": 1.5}, "overlap is 1.5: expected a whole number"),
        ({"memory_limit": "1G"}, "memory_limit is '1G': expected a number of bytes"),
        ({"device": 3}, "device is 3: expected a name"),
        ({"threads": 1.5}, "threads is 1.5: expected a whole number"),
    ],
    ids=str,
)
def test_a_call_names_what_is_wrong(options, said):
    with pytest.raises((EngineError, AdapterError), match=said):
        urushi.restore(GREY, **options)


def test_classes_refuse_what_they_would_hand_on():
    with pytest.raises(EngineError, match="AutoRestorer has no option 'foo'"):
        urushi.AutoRestorer(foo=1)
    with pytest.raises(EngineError, match="from_hub has no option 'foo'"):
        urushi.Restorer.from_hub("owner/name", foo=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--tile", 7), "tile is 7 pixels, this network needs at least 8"),
        (("--tile", 16, "--overlap", 9), "overlap is 9 pixels, expected 0 to 8"),
        (("--overlap", 5000), "overlap is 5000 pixels, and the memory for"),
    ],
    ids=str,
)
def test_a_wrong_tile_is_told_once_at_the_start(tmp_path, given, said):
    write_pictures(tmp_path / "in", 2, height=16, width=16)
    for more in ((), ("--dry-run",), ("--look",)):
        result = run("restore", tmp_path / "in", "-o", tmp_path / "out", *given, *more)
        assert result.exit_code == (EXIT_FAILED if "memory" in said else EXIT_USAGE)
        assert result.stdout == ""
        assert result.stderr.startswith(said)
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_the_service_tells_it_before_it_listens():
    result = run("serve", "--tile", 7, "--port", 0)
    assert result.exit_code == EXIT_USAGE
    assert result.stderr == "tile is 7 pixels, this network needs at least 8\n"


def test_the_least_tile_is_the_network_s(tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    for path in (model, find_model("base")):
        least = multiple_of(read_header(path))
        restorer = urushi.Restorer(path, engine="torch", tile=least)
        assert restorer.tile == restorer.engine.size_multiple == least
        # What is not told fits.
        assert restorer.overlap == least // 2
        with pytest.raises(EngineError, match=f"needs at least {least}"):
            urushi.Restorer(path, engine="torch", tile=least - 1)
