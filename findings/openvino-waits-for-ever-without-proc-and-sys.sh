#!/usr/bin/env bash
# Where Linux shows neither /proc nor /sys (a chroot, a sandbox), OpenVINO's first `compile_model` for the CPU never
# returns: it waits in ov::get_proc_type_table, and with it the whole process, which then hears no signal but SIGKILL,
# for Python handles the others between two of its own instructions. One of the two mounted is enough.
# Needs the right to make a mount namespace. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 openvino==2026.4.1
cat > "$folder/compile.py" <<'PY'
import sys

sys.modules["openvino_telemetry"] = None
import numpy as np
import openvino
from openvino import opset13

image = opset13.parameter([1, 3], np.float32)
openvino.Core().compile_model(openvino.Model([opset13.relu(image)], [image]), "CPU")
print("compiled")
PY

without() { # where other file systems hide these places
  unshare --map-root-user --mount bash -euc '
    for place in "${@:2}"; do mount -t tmpfs none "/$place"; done
    exec timeout --signal KILL 60 "$1/venv/bin/python" "$1/compile.py"
  ' bash "$folder" "$@"
}

[ "$(without sys)" = compiled ]
[ "$(without proc)" = compiled ]
code=0
without proc sys || code=$?
[ "$code" = 137 ] # killed after a minute
