#!/usr/bin/env bash
# OpenCV 5's networks and ONNX's auto_pad. SAME_UPPER asks for ceil(side / stride) results and puts the odd row or column of
# padding at the end, SAME_LOWER at the beginning. OpenCV puts (kernel - 1) // 2 at the beginning for both, whatever the
# stride: a 3x3 convolution of stride 2 on an even side looks one pixel further up and left than the model says, in the
# right shape and without a word, and so do MaxPool and AveragePool; with an even kernel it is SAME_LOWER that is wrong.
# A transposed convolution gives other sizes than auto_pad or output_shape ask for. The new engine and the classic one agree.
# Networks from TensorFlow and Keras have such padding at every reduction: what is put together from several scales is
# displaced. torch's exporter writes pads in numbers, which are right. ONNX Runtime and OpenVINO do as the model says.
# Not in OpenCV's documentation, and no issue of it was found that names results (old ones name an error at loading).
# One would guess: right, as SAME is TensorFlow's own padding, which OpenCV has read for ten years.
# Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 openvino==2026.4.1 opencv-python-headless==5.0.0.93
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" - <<'PY'
import sys

sys.modules["openvino_telemetry"] = None
import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

print("opencv", cv2.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
rng = np.random.default_rng(0)
core = openvino.Core()


def model(op, x, weight, **attributes):
    names = ["x"] if weight is None else ["x", "w"]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [] if weight is None else [numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def runtime(data, x):
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def vino(data, x):
    return core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]


def opencv(data, x, engine):
    net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8), engine)
    net.setInput(x)
    return net.forward()


def same(a, b):
    return a.shape == b.shape and np.allclose(a, b, atol=1e-4)


x = rng.standard_normal((1, 1, 8, 8)).astype(np.float32)
wrong = 0
for op, kernel, stride, way in (
    ("Conv", 3, 1, "SAME_UPPER"),
    ("Conv", 3, 2, "SAME_UPPER"),
    ("Conv", 5, 2, "SAME_UPPER"),
    ("Conv", 2, 1, "SAME_LOWER"),
    ("Conv", 4, 1, "SAME_LOWER"),
    ("MaxPool", 3, 2, "SAME_UPPER"),
    ("AveragePool", 3, 2, "SAME_UPPER"),
):
    weight = rng.standard_normal((1, 1, kernel, kernel)).astype(np.float32) if op == "Conv" else None
    sides = dict(kernel_shape=[kernel, kernel], strides=[stride, stride])
    data = model(op, x, weight, auto_pad=way, **sides)
    right = runtime(data, x)
    assert same(vino(data, x), right)
    whole = max(0, (-(-8 // stride) - 1) * stride + kernel - 8)
    begin = whole // 2 if way == "SAME_UPPER" else whole - whole // 2
    told = runtime(model(op, x, weight, pads=[begin, begin, whole - begin, whole - begin], **sides), x)
    assert same(told, right)
    begin_there = (kernel - 1) // 2
    end = whole - begin_there
    for name in ("ENGINE_NEW", "ENGINE_CLASSIC"):
        found = opencv(data, x, getattr(cv2.dnn, name))
        said = "right"
        if not same(found, right):
            other = runtime(model(op, x, weight, pads=[begin_there] * 2 + [end] * 2, **sides), x)
            assert same(found, other)
            said = f"off by up to {abs(found - right).max():.2f}: it is the result with {begin_there} before, {end} behind"
            wrong += 1
        print(f"{op} {kernel}x{kernel}, stride {stride}, {way} ({begin} before, {whole - begin} behind), {name}: {said}")
weight = rng.standard_normal((1, 1, 3, 3)).astype(np.float32)
for asked in (dict(auto_pad="SAME_UPPER"), dict(output_shape=[16, 16])):
    data = model("ConvTranspose", x, weight, strides=[2, 2], **asked)
    right = runtime(data, x)
    assert same(vino(data, x), right)
    for name in ("ENGINE_NEW", "ENGINE_CLASSIC"):
        found = opencv(data, x, getattr(cv2.dnn, name))
        print(f"ConvTranspose of stride 2, {asked}: {right.shape[2:]} from 8 x 8, {name} gives {found.shape[2:]}")
        wrong += found.shape != right.shape
sys.exit(0 if wrong == 16 else 1)
PY
