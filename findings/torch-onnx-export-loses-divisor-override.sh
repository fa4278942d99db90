#!/usr/bin/env bash
# torch.onnx.export (dynamo=True) of avg_pool2d(..., divisor_override=d) writes a plain AveragePool: it divides by the kernel's
# area. With divisor_override=1, which makes it a sum (the box sums of guided filters, Haar wavelets by pooling), a 2x2 window
# comes out a quarter as bright. Nothing is said, and the graph has the right shapes. The exporter before it (dynamo=False)
# refuses the module at opset 9 ("divisor_override ... not supported"), and since opset 11 writes the average, too. OpenVINO's own
# reader of modules refuses it.
# avg_pool1d has no such argument; avg_pool3d is the same. Only verify=True compares, and is not the default.
# torch's documentation of the exporter does not name it; an issue (105349) is of opset 9's refusal, and asks for support.
# One would guess: refused by both, as at opset 9, or written as a product.
# Exits 0 as long as that is so.
# Any build of torch will do; PIP_CONSTRAINT or PIP_EXTRA_INDEX_URL choose a small one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1
cd "$folder"
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io
import logging
import sys

import numpy as np
import onnxruntime
import onnxscript
import torch
from torch.nn import functional as F

logging.disable(logging.WARNING)  # that torchvision is not installed
print("torch", torch.__version__, "onnxscript", onnxscript.__version__, "onnxruntime", onnxruntime.__version__)


class Sums(torch.nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, 2, divisor_override=1)


class Sums3(torch.nn.Module):
    def forward(self, x):
        return F.avg_pool3d(x, 2, divisor_override=1)


surprises = 0
for module, x, area in ((Sums(), torch.rand(1, 3, 8, 8), 4), (Sums3(), torch.rand(1, 1, 4, 8, 8), 8)):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        program = torch.onnx.export(module.eval(), (x,), dynamo=True, opset_version=20)
    nodes = [node.op_type for node in program.model_proto.graph.node]
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    right = module(x).numpy()
    ratio = right / found
    named = "divisor" in said.getvalue()
    print(f"{type(module).__name__}: graph {nodes}, torch's result is {ratio.min():.3f} to {ratio.max():.3f} times the graph's; said anything of it: {named}")
    surprises += np.allclose(ratio, area, rtol=1e-4) and not named
for opset in (9, 11, 17):
    x = torch.rand(1, 3, 8, 8)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(Sums().eval(), (x,), "before.onnx", dynamo=False, opset_version=opset)
    except torch.onnx.OnnxExporterError as error:
        print(f"dynamo=False, opset {opset}: refused: {str(error).splitlines()[0][:70]}")
        surprises += opset == 9 and "divisor_override" in str(error)
        continue
    session = onnxruntime.InferenceSession("before.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    ratio = Sums()(x).numpy() / found
    print(f"dynamo=False, opset {opset}: torch's result is {ratio.min():.3f} to {ratio.max():.3f} times the graph's")
    surprises += opset != 9 and np.allclose(ratio, 4, rtol=1e-4)
sys.exit(0 if surprises == 5 else 1)
PY
