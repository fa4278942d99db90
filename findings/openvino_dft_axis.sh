#!/usr/bin/env bash
# OpenVINO's ONNX reader does not see the input "axis" of DFT, which opset 20 has instead of an attribute: it transforms
# along axis 1, whatever the model says, in the right shape and without a word. A one-sided transform of real numbers
# comes out whole, with one dimension more. ONNX Runtime gives what numpy gives. Seen with torch's exporter, which writes
# opset 20: networks with torch.fft run in OpenVINO and give other pictures, or stop at a later operation.
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
differs = False
for onesided in (1, 0):
    for static in (True, False):
        shape = list(x.shape) if static else ["n", 2, "h", "w", 1]
        graph = helper.make_graph(
            [helper.make_node("DFT", ["x", "", "axis"], ["y"], onesided=onesided)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d", 2])],
            [numpy_helper.from_array(np.array(3, np.int64), "axis")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        data = model.SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (right,) = session.run(None, {"x": x})
        spectrum = (np.fft.rfft if onesided else np.fft.fft)(x[..., 0], axis=3)
        wanted = np.stack([spectrum.real, spectrum.imag], axis=-1)
        assert np.allclose(right, wanted, atol=1e-3)
        core = openvino.Core()
        try:
            graph_read = core.read_model(data)
            told = graph_read.output(0).partial_shape
            found = core.compile_model(graph_read, "CPU")({"x": x})[0]
            same = found.shape == wanted.shape and np.allclose(found, wanted, atol=1e-3)
            print(f"onesided={onesided} static={static}: numpy and onnxruntime {right.shape}, openvino says {told}, gives {found.shape}, right: {same}")
            for axis in (1, 2, 3):
                other = np.fft.fft(x[..., 0], axis=axis)
                if not same and found.shape == wanted.shape and np.allclose(found, np.stack([other.real, other.imag], -1), atol=1e-3):
                    print(f"    it is the transform along axis {axis}, not 3")
            differs |= not same
        except RuntimeError as error:
            print(f"onesided={onesided} static={static}: onnxruntime {right.shape}, openvino: {' '.join(str(error).split())[-160:]}")
            differs = True
sys.exit(0 if differs else 1)
PY
