#!/usr/bin/env bash
# OpenVINO's ONNX reader takes the operation DFT, one-sided, of an (N, C, H, W, 1) tensor for one of another shape, and
# says nothing while it reads: valid models with a real Fourier transform stop later, with a message about another
# operation, or give a result of another shape. ONNX Runtime runs the same file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 openvino==2026.4.1
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" - <<'PY'
import sys

sys.modules["openvino_telemetry"] = None
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
x = np.random.default_rng(0).standard_normal((1, 2, 6, 8, 1)).astype(np.float32)
expected = np.fft.rfft(x[..., 0], axis=3).shape + (2,)
differs = False
for onesided in (1, 0):
    for static in (True, False):
        shape = list(x.shape) if static else ["n", 2, "h", "w", 1]
        graph = helper.make_graph(
            [helper.make_node("DFT", ["x", "", "axis"], ["y"], onesided=onesided)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.array(3, np.int64), "axis")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        data = model.SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (right,) = session.run(None, {"x": x})
        core = openvino.Core()
        try:
            graph_read = core.read_model(data)
            told = graph_read.output(0).partial_shape
            found = core.compile_model(graph_read, "CPU")({"x": x})[0]
            same = found.shape == right.shape and np.allclose(found, right, atol=1e-4)
            print(f"onesided={onesided} static={static}: onnxruntime {right.shape}, openvino says {told}, gives {found.shape}, same: {same}")
            differs |= not same
        except RuntimeError as error:
            print(f"onesided={onesided} static={static}: onnxruntime {right.shape}, openvino: {' '.join(str(error).split())[-160:]}")
            differs = True
sys.exit(0 if differs else 1)
PY
