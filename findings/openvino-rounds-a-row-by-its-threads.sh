#!/usr/bin/env bash
# What a convolution gives in OpenVINO depends on the number of threads where the map is one row high: the row is cut among
# them, and on one thread it is not summed in the order in which it is on two (some ulps of float32, in over half of
# the values). The same values as one column give the same bits on both. Seen where two machines restored pictures to other bytes,
# one in 1,000: at the first and last row of each, when a value lay at a half.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
[ "$(nproc)" -ge 2 ] || { echo "needs two cores"; exit 2; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 openvino==2026.4.1
"$folder/venv/bin/python" - <<'PY'
import sys

sys.modules["openvino_telemetry"] = None
import numpy as np
import openvino
from openvino import opset13 as ops

random = np.random.default_rng(0)
x = random.random((1, 3, 1, 320), np.float32)
weight = random.standard_normal((24, 3, 1, 3)).astype(np.float32)


def result(x, weight, padding, threads):
    image = ops.parameter(list(x.shape), np.float32)
    made = ops.convolution(image, ops.constant(weight), [1, 1], padding, padding, [1, 1])
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Model([made], [image], "m")
    return openvino.Core().compile_model(model, "CPU", options)(x)[0]


row = [result(x, weight, [0, 2], threads) for threads in (1, 2)]
turned = [result(x.swapaxes(2, 3), weight.swapaxes(2, 3), [2, 0], threads) for threads in (1, 2)]
print("openvino", openvino.__version__)
for name, (one, two) in (("row", row), ("column", turned)):
    print(f"{name}: {np.count_nonzero(one != two)} of {one.size} values differ, by {np.abs(one - two).max():.1e} at most")
sys.exit(0 if (row[0] != row[1]).any() and (turned[0] == turned[1]).all() else 1)
PY
