"""Research: a backbone, a degradation and a method, put together in plain torch.

python examples/train_in_torch.py [STEPS]
"""

import sys

import torch
from torch.nn import functional as F

import urushi


def main(steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    backbone = urushi.create_backbone(
        "nafnet",
        {"width": 8, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
    )
    adapter = urushi.create_adapter(backbone, {"method": "lora", "rank": 2})
    network = urushi.attach(backbone, adapter)
    print(f"{network.report().trainable:,} of {network.report().backbone:,} parameters learn")

    rain = urushi.create_degradation("rain_streaks")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(steps):
        clean = torch.rand((2, 3, 1, 1), generator=generator).expand(2, 3, 64, 64)
        # What is random is in `sample`: the same row of numbers makes the same picture again.
        numbers = rain.sample((2, 3, 64, 64), generator)
        loss = F.mse_loss(network(rain.apply(clean, numbers)), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (0, steps - 1):
            print(f"step {step + 1}: {loss.item():.5f}")

    network.merge()  # into the weights: the backbone then runs at its plain speed


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
