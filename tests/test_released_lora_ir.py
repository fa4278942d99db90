"""LoRA-IR's released checkpoint becomes a backbone, its guidance and its experts."""

import pytest
import torch
from networks import below, read_golden

from urushi.adapters.released_lora_ir import lora_ir_from
from urushi.backbones.checkpoints import read_checkpoint
from urushi.errors import BackboneError


@pytest.fixture(scope="module")
def first():
    return below(read_golden("lora_ir_stage1")[0], "state.")


@pytest.fixture(scope="module")
def second():
    tensors = read_golden("lora_ir_stage2")[0] | read_golden("lora_ir_stage2_vector")[0]
    return below(tensors, "state.")


def released(width, encoder, middle, decoder, experts, rank, gated_decoder=False):
    """The names and shapes of a checkpoint, written down from those of the golden files."""
    state = {}

    def layer(name, rows, columns, side=1, groups=1, bias=True):
        state[f"{name}.conv.weight"] = (rows, columns // groups, side, side)
        if bias:
            state[f"{name}.conv.bias"] = (rows,)
        if experts:
            state[f"{name}.lora_A_list"] = (experts, rank * side, columns * side)
            state[f"{name}.lora_B_list"] = (experts, rows // groups * side, rank * side)

    def stage(name, c, blocks, gated):
        if gated:
            sizes = [(128, 384), (c, 128), (c // 16, c), (c, c // 16)]
            for index, (rows, columns) in enumerate(sizes, start=1):
                layer(f"{name}.conv{index}", rows, columns)
            state[f"{name}.beta"] = (1, c, 1, 1)
            state[f"{name}.norm.weight"] = state[f"{name}.norm.bias"] = (c,)
        for block in (f"{name}.blocks.{index}" for index in range(blocks)):
            layer(f"{block}.conv1", 2 * c, c)
            layer(f"{block}.conv2", 2 * c, 2 * c, 3, 2 * c)
            for part in ("conv3", "sca.1", "conv5"):
                layer(f"{block}.{part}", c, c)
            layer(f"{block}.conv4", 2 * c, c)
            for part in ("norm1", "norm2"):
                state[f"{block}.{part}.weight"] = state[f"{block}.{part}.bias"] = (c,)
            state[f"{block}.beta"] = state[f"{block}.gamma"] = (1, c, 1, 1)

    layer("intro", width, 3, 3)
    layer("ending", 3, width, 3)
    layer("intro_de.0", 384, 384)
    layer("intro_de.2", 384, 384)
    levels = len(encoder)
    for index, blocks in enumerate(encoder):
        stage(f"encoders.{index}", width * 2**index, blocks, gated=True)
        layer(f"downs.{index}", width * 2 ** (index + 1), width * 2**index, 2)
    stage("middle_blks", width * 2**levels, middle, gated=True)
    for index, blocks in enumerate(decoder):
        c = width * 2 ** (levels - index)
        layer(f"ups.{index}.0", 2 * c, c, bias=False)
        stage(f"decoders.{index}", c // 2, blocks, gated=gated_decoder)
    return {name: torch.empty(shape, device="meta") for name, shape in state.items()}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_names_are_those_of_the_golden_files(first, second):
    for state, experts in ((first, 0), (second, 3)):
        described = released(16, [1], 1, [1], experts, 2)
        assert {n: t.shape for n, t in described.items()} == {n: t.shape for n, t in state.items()}


@pytest.mark.parametrize(("gated_decoder", "millions"), [(False, 68.870), (True, 69.238)])
def test_counts_of_the_released_setting(gated_decoder, millions):
    state = released(64, [1, 1, 1, 28], 1, [1, 1, 1, 1], 3, 8, gated_decoder)
    with torch.device("meta"):
        found = lora_ir_from(state, "setting1_ir.pth")
    assert found.experts is not None
    assert round((count(found.backbone) + count(found.guidance)) / 1e6, 3) == millions
    assert len(found.guidance.config.stages) == (9 if gated_decoder else 5)
    if not gated_decoder:
        assert [round(count(e) / 1e6, 3) for e in found.experts.members] == [4.262] * 3
        stored = count(found.backbone) + count(found.guidance) + count(found.experts)
        assert stored == sum(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file(tmp_path, second, wrapped):
    path = tmp_path / "ir.pth"
    state = {f"module.{name}": tensor for name, tensor in second.items()}
    torch.save({"params": state} if wrapped else second, path)
    found = lora_ir_from(read_checkpoint(path), path.name)
    assert found.experts is not None
    expert = found.experts.members[2]
    key = "encoders/0/0/conv2/weight"
    assert torch.equal(expert.down[key], second["encoders.0.blocks.0.conv2.lora_A_list"][2])
    assert torch.equal(expert.up[key], second["encoders.0.blocks.0.conv2.lora_B_list"][2])
    key = "guidance/stages/1/squeeze/weight"
    assert torch.equal(expert.down[key], second["middle_blks.conv3.lora_A_list"][2])
    gate = found.guidance.stages[0]
    assert torch.equal(gate.excite.bias, second["encoders.0.conv4.conv.bias"])
    assert torch.equal(gate.beta, second["encoders.0.beta"].flatten())


SURPLUS = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downs.0.conv.bias": None}, "1 tensor is missing, the first is downs.0.bias"),
        ({"middle_blks.conv2.conv.bias": None}, "1 tensor is missing, the first is stages.1"),
        ({"ups.0.0.lora_B_list": None}, "the first is experts.0.up.ups/0/0/weight"),
        ({"other": SURPLUS}, "1 tensor is unexpected, the first is other"),
        ({"middle_blks.conv5.conv.bias": SURPLUS}, "unexpected, the first is middle_blks.conv5"),
        ({"decoders.0.conv1.conv.bias": SURPLUS}, "unexpected, the first is decoders.0.conv1"),
        ({"other.lora_A_list": torch.zeros(3, 2, 4)}, "the first is experts.0.down.other/weight"),
        ({"ending.conv.bias": torch.zeros(4)}, r"misshapen, the first is ending.bias \(\(4,\)"),
        ({"encoders.0.beta": torch.zeros(1, 8, 1, 1)}, "misshapen, the first is stages.0.beta"),
        ({"downs.0.lora_A_list": torch.zeros(3, 4, 9)}, "misshapen, the first is experts.0.down"),
        ({"intro.lora_A_list": None}, "intro.lora_A_list was expected"),
        ({"intro.conv.weight": None}, "no restoration network of LoRA-IR: intro.conv.weight"),
    ],
)
def test_what_does_not_fit_is_named(second, change, message):
    state = {n: t for n, t in {**second, **change}.items() if t is not None}
    with pytest.raises(BackboneError, match=message):
        lora_ir_from(state, "ir.pth")
