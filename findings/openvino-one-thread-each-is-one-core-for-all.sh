#!/usr/bin/env bash
# OpenVINO binds the threads of a network to cores from the first one on, whoever else is bound there. So processes that
# use one thread each (INFERENCE_NUM_THREADS=1, for one worker on each core) all calculate on core 0, and the other cores
# idle: two take twice as long as one alone. The thread is bound only while it calculates, so that nothing is seen between
# two calls; documentation names binding as a matter of speed. With ENABLE_CPU_PINNING=False each finds a core of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 openvino==2026.4.1
cat > "$folder/one.py" <<'PY'
import os
import sys
import threading
import time

sys.modules["openvino_telemetry"] = None
import numpy as np
import openvino
from openvino import opset13 as ops

pinned = sys.argv[1] == "pinned"
image = value = ops.parameter([1, 64, 256, 256], np.float32)
for number in range(8):
    weight = ops.constant(np.full((64, 64, 3, 3), 1e-3, np.float32))
    value = ops.convolution(value, weight, [1, 1], [1, 1], [1, 1], [1, 1])
options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
options |= {} if pinned else {"ENABLE_CPU_PINNING": False}
request = openvino.Core().compile_model(openvino.Model([value], [image], "m"), "CPU", options).create_infer_request()
x = np.zeros((1, 64, 256, 256), np.float32)
request.infer([x])
seen, going, main = set(), [True], threading.get_native_id()


def watch():
    while going:
        time.sleep(0.01)
        seen.add(tuple(sorted(os.sched_getaffinity(main))))


thread = threading.Thread(target=watch)
thread.start()
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
begin = time.perf_counter()
for _ in range(10):
    request.infer([x])
print(f"{sys.argv[1]}: {time.perf_counter() - begin:.1f} s, on cores {sorted(seen, key=len)[0]}", flush=True)
going.clear()
thread.join()
PY
run() { "$folder/venv/bin/python" "$folder/one.py" "$1" "$(($(date +%s) + 5))"; }
echo "$(nproc) cores; one process, then two at once, bound and not"
run pinned
run pinned > "$folder/a" & run pinned > "$folder/b"; wait; cat "$folder/a" "$folder/b"
run free > "$folder/c" & run free > "$folder/d"; wait; cat "$folder/c" "$folder/d"
# Both on the same single core, and that one the first.
[ "$(cat "$folder/a" "$folder/b" | grep -c 'cores (0,)')" = 2 ]
