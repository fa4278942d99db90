#!/usr/bin/env bash
# torchrun --max-restarts starts all ranks again when one dies. In torch 2.13 they then meet in the
# store that the launcher shares with them, whose keys are those of the attempt before: gloo reads
# the addresses of dead processes ("Connection refused") and the second attempt fails as well. Each
# attempt gets a store of its own with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1. Exits 0 as long as that
# is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Any build of torch will do; PIP_CONSTRAINT or PIP_EXTRA_INDEX_URL choose a small one.
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cat > "$folder/ranks.py" <<'PYTHON'
import os
import signal

import torch
from torch import distributed

distributed.init_process_group("gloo")
distributed.all_reduce(torch.ones(1))
if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    os.kill(os.getpid(), signal.SIGKILL)
distributed.all_reduce(torch.ones(1))
PYTHON
launch() {
    OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m torch.distributed.run --standalone \
        --nproc-per-node 2 --max-restarts 1 "$folder/ranks.py" > "$folder/log" 2>&1
}
if launch; then
    echo "the store is no longer shared between attempts"
    exit 1
fi
grep -q "Connection refused" "$folder/log"
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 launch
echo "restarted ranks meet only in a store of their own"
