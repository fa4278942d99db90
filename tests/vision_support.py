"""A checkpoint laid out as the released EfficientNet-Lite0, with weights of chance."""

import torch

STAGES = ((1, 3, 16, 1), (6, 3, 24, 2), (6, 5, 40, 2), (6, 3, 80, 3), (6, 5, 112, 3))


def released(stages=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {}

    def convolution(name, normalisation, after, before, kernel):
        spread = (2 / (before * kernel * kernel)) ** 0.5
        shape = (after, before, kernel, kernel)
        made[f"{name}.weight"] = torch.randn(shape, generator=generator) * spread
        made[f"{normalisation}.weight"] = 0.8 + 0.4 * torch.rand(after, generator=generator)
        made[f"{normalisation}.bias"] = 0.2 * torch.randn(after, generator=generator)
        made[f"{normalisation}.running_mean"] = 0.1 * torch.randn(after, generator=generator)
        made[f"{normalisation}.running_var"] = 0.5 + torch.rand(after, generator=generator)

    convolution("_conv_stem", "_bn0", 32, 3, 3)
    before, number = 32, 0
    for expansion, kernel, after, count in STAGES[:stages]:
        for _ in range(count):
            block, inner = f"_blocks.{number}", before * expansion
            if expansion > 1:
                convolution(f"{block}._expand_conv", f"{block}._bn0", inner, before, 1)
            convolution(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, kernel)
            convolution(f"{block}._project_conv", f"{block}._bn2", after, inner, 1)
            before, number = after, number + 1
    return made
