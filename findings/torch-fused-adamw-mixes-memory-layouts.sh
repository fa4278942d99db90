#!/usr/bin/env bash
# torch's AdamW with fused=True walks through the memory of weight and moments side by side on a
# CPU, and does not look at strides. A weight that lies channels-last beside moments that lie
# contiguous, as they do after they came from a file, gets the moments of other weights, silently;
# load_state_dict keeps the layout it is given. Whoever resumes a training that way goes on with a
# wrong one. Without fused=True the results are right. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Any build of torch will do; PIP_CONSTRAINT or PIP_EXTRA_INDEX_URL choose a small one.
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch

print("torch", torch.__version__)
shape = (2, 3, 2, 2)
moments = torch.arange(24.0).view(shape) + 1
moved = {}
for fused in (False, True):
    weight = torch.zeros(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    optimizer = torch.optim.AdamW([weight], 0.1, weight_decay=0, fused=fused)
    state = optimizer.state_dict()
    state["state"] = {
        0: {"step": torch.tensor(3.0), "exp_avg": moments.clone(), "exp_avg_sq": torch.ones(shape)}
    }
    optimizer.load_state_dict(state)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    moved[fused] = weight.detach()
    print("fused" if fused else "plain", [round(v, 4) for v in weight.flatten()[:6].tolist()])
# Each weight moves by its own moment: the ratios are 1, 2, 3, ...
assert torch.allclose(moved[False] / moved[False].flatten()[0], moments), "plain is wrong, too"
assert not torch.allclose(moved[True], moved[False]), "fused is right now"
PYTHON
