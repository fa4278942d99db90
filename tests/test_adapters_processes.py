"""Adapters trained by several processes."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from networks import same, steps_of_training

PROCESS = """
import sys
import torch
from networks import same, steps_of_training
rank, file, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
torch.save(steps_of_training(torch.nn.parallel.DistributedDataParallel, rank, 2), path)
torch.distributed.destroy_process_group()
"""


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    paths = [tmp_path / "0", tmp_path / "1"]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, path.name, str(tmp_path / "meeting"), str(path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for path in paths
    ]
    one = steps_of_training(lambda adapted: adapted, 0, 1)
    for process in started:
        error = process.communicate()[1]
        assert process.returncode == 0, error[-3000:]
    first, second = (torch.load(path, weights_only=True) for path in paths)
    assert same(first, second)
    assert one.keys() == first.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(first[key], tensor, atol=1e-6, rtol=1e-5)
