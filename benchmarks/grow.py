"""A NAFNet grown by one level: the same function, in a network that can learn more.

    python benchmarks/grow.py base grown.safetensors --encoder 0 2 4 2 --middle 4 --decoder 2 2 2 0

The middle of the old network becomes the innermost level of encoder and decoder (its first blocks
and its last ones; those between are dropped), what is new begins as the identity: blocks with beta
and gamma zero, and a way up that adds nothing. Levels further out must have as many blocks as
before.
"""

import argparse
from pathlib import Path
from typing import Any

from measuring import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description="A NAFNet grown by one level.")
    parser.add_argument("model", help="file, or name in the zoo")
    parser.add_argument("output", type=Path)
    parser.add_argument("--encoder", type=int, nargs="+", required=True)
    parser.add_argument("--middle", type=int, required=True)
    parser.add_argument("--decoder", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    import torch

    from urushi.backbones import create_backbone
    from urushi.backbones.nafnet import NAFNet
    from urushi.files.model import ModelHeader, read_model, write_model
    from urushi.inference.zoo import find_model

    model = read_model(find_model(arguments.model))
    check_counts(model.header, arguments.encoder, arguments.middle, arguments.decoder)
    config = {
        **model.header.config,
        "enc_blk_nums": arguments.encoder,
        "middle_blk_num": arguments.middle,
        "dec_blk_nums": arguments.decoder,
    }
    old = create_backbone(model.header.backbone, model.header.config)
    assert isinstance(old, NAFNet)
    levels, middle = len(old.encoders), len(old.middle_blks)
    torch.manual_seed(0)
    network = create_backbone(model.header.backbone, config)
    state = network.state_dict()
    # The way up from the new level adds nothing at first.
    state["ups.0.0.weight"].zero_()
    for name, values in model.tensors.items():
        new = renamed(name, levels, middle, arguments.encoder[-1], arguments.decoder[0])
        if new is not None:
            state[new] = torch.from_numpy(values.astype("float32"))
    network.load_state_dict(state)
    header = ModelHeader(backbone=model.header.backbone, config=config)
    write_model(arguments.output, {k: v.numpy() for k, v in state.items()}, header, "float32")


def check_counts(header: Any, encoder: list[int], middle: int, decoder: list[int]) -> None:
    """The numbers of blocks must be those of the old network and of one level more."""
    if header.backbone != "nafnet":
        raise SystemExit(f"the model is a {header.backbone}: only a nafnet is grown")
    old = [header.config[f"{side}_blk_nums"] for side in ("enc", "dec")]
    if encoder[:-1] != old[0] or decoder[1:] != old[1]:
        raise SystemExit(
            f"--encoder is {words(encoder)} and --decoder {words(decoder)}: expected the old "
            f"numbers with one more, {words(old[0])} N and N {words(old[1])}"
        )
    if min(*encoder, middle, *decoder) < 0:
        raise SystemExit("a number of blocks is negative: expected 0 or more")


def words(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


def renamed(name: str, levels: int, middle: int, first: int, last: int) -> str | None:
    """What a tensor of the old network is called in the new one; None where it is dropped."""
    kind, _, rest = name.partition(".")
    if kind in ("ups", "decoders"):
        index, _, rest = rest.partition(".")
        return f"{kind}.{int(index) + 1}.{rest}"
    if kind == "middle_blks":
        index, _, rest = rest.partition(".")
        block = int(index)
        if block < first:
            return f"encoders.{levels}.{block}.{rest}"
        if block >= middle - last:
            return f"decoders.0.{block - (middle - last)}.{rest}"
        return None
    return name


if __name__ == "__main__":
    run_script(main)
