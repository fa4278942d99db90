"""A picture becomes the same to the bit, whatever was before it, on however many threads."""

import platform

import numpy as np
import pytest
from pictures import picture

from urushi.files.model import read_model
from urushi.image import write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.batch import run_batch
from urushi.inference.engines.openvino_engine import OpenVINOEngine
from urushi.inference.jobs import Job
from urushi.inference.zoo import ZOO

pytest.importorskip("openvino")

# Elsewhere OpenVINO has other convolutions, whose rounding is not known.
measured = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="not measured here"
)


@measured
def test_threads_of_the_engine_change_no_bit():
    model = read_model(ZOO / "base.safetensors")
    one, two = (OpenVINOEngine(model, threads=threads) for threads in (1, 2))
    batch = np.random.default_rng(3).random((1, 3, 256, 264), dtype=np.float32)
    np.testing.assert_array_equal(one.run(batch), two.run(batch))


@measured
def test_neighbours_order_and_threads_change_no_byte(tmp_path):
    sizes = [(64, 48), (97, 131), (48, 64), (64, 48)]
    for number, size in enumerate(sizes):
        write_picture(tmp_path / f"{number}.jpg", picture(*size, shift=number))
    sources = sorted(tmp_path.glob("*.jpg"))

    def restored(name, groups, threads):
        """What becomes of pictures that are restored in these groups, one after another."""
        restorer = AutoRestorer(quick=True, threads=threads)
        for group in groups:
            jobs = [Job(path, tmp_path / name / path.name, overwrite=False) for path in group]
            assert run_batch(restorer, jobs).ok
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    together = restored("together", [sources], 1)
    assert len(together) == len(sizes)
    assert restored("backwards", [sources[::-1]], 2) == together
    # One alone is not read ahead, and streams.
    assert restored("alone", [[path] for path in sources], 2) == together
