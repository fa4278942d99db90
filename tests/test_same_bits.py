"""A picture becomes the same to the bit, whatever was before it, on however many threads."""

import os
import platform
import threading

import numpy as np
import pytest
from pictures import picture

from urushi.files.model import read_model
from urushi.image import write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.batch import run_batch
from urushi.inference.engines.openvino_engine import OpenVINOEngine, cpu_options, openvino_core
from urushi.inference.engines.steady import make_steady
from urushi.inference.jobs import Job
from urushi.inference.zoo import ZOO

pytest.importorskip("openvino")

# Elsewhere OpenVINO has other convolutions, whose rounding is not known.
measured = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="not measured here"
)


@pytest.fixture(scope="module")
def on_one_thread():
    return OpenVINOEngine(read_model(ZOO / "base.safetensors"), threads=1)


# Sizes for which OpenVINO adds up otherwise on two threads, with AVX-512 and with AVX2.
SIZES = ((288, 216), (128, 96))


def batch(height, width):
    return np.random.default_rng(3).random((1, 3, height, width), dtype=np.float32)


@measured
def test_threads_of_the_engine_change_no_bit(on_one_thread):
    on_two = OpenVINOEngine(read_model(ZOO / "base.safetensors"), threads=2)
    for size in SIZES:
        np.testing.assert_array_equal(on_one_thread.run(batch(*size)), on_two.run(batch(*size)))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores can be asked of Linux")
def test_an_engine_of_one_thread_may_use_any_core(on_one_thread):
    on_one_thread.run(batch(*SIZES[0]))
    before, seen = os.sched_getaffinity(0), []
    caller, done = threading.get_native_id(), threading.Event()

    def watch():
        while not done.wait(0.005):
            seen.append(os.sched_getaffinity(caller))

    watcher = threading.Thread(target=watch)
    watcher.start()
    on_one_thread.run(batch(*SIZES[0]))
    done.set()
    watcher.join()
    # Bound to one, several processes would share the first core and leave the others idle.
    assert all(cores == before for cores in seen)


@pytest.mark.parametrize(
    ("height", "kernel", "begin", "end", "rewritten"),
    [
        (1, (4, 8, 1, 3), (0, 2), (0, 1), True),  # a map of one row
        (-1, (2, 8, 2, 2), (1, 0), (0, 1), True),
        (-1, (1, 8, 2, 3), (0, 0), (0, 0), True),
        (-1, (3, 8, 2, 2), (1, 1), (1, 1), False),  # its products take more room than it reads
        (-1, (8, 8, 1, 1), (0, 0), (0, 0), False),
    ],
)
def test_what_is_rewritten_stays_the_same_function(height, kernel, begin, end, rewritten):
    import openvino
    from openvino import opset13

    random = np.random.default_rng(5)
    weight = opset13.constant(random.standard_normal(kernel).astype(np.float32))

    def graph():
        image = opset13.parameter([1, 8, height, -1], np.float32)
        made = opset13.convolution(image, weight, [1, 1], list(begin), list(end), [1, 1])
        made.output(0).set_names({"made"})
        return openvino.Model([made], [image], "one")

    def result(model):
        return openvino_core().compile_model(model, "CPU", cpu_options("f32", 1))(x)["made"]

    x = random.random((1, 8, 9 if height < 0 else height, 13), dtype=np.float32)
    plain, steady = graph(), graph()
    make_steady(steady)
    kinds = [[node.get_type_name() for node in one.get_ordered_ops()] for one in (plain, steady)]
    assert (kinds[0] != kinds[1]) == rewritten
    np.testing.assert_allclose(result(steady), result(plain), atol=2e-6)


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
