"""What files claim is compared with their tensors before anything is built."""

import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from world import EXAMPLE, network_of, write_random, write_tiny

from urushi.adapters.stored import load_adapter
from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.claims import check_claims, create_claimed, without_memory
from urushi.errors import AdapterError, BackboneError, FileFormatError, UrushiError
from urushi.files.adapter import LoadedAdapter
from urushi.files.model import ModelHeader, read_model, write_model
from urushi.inference.engines import create_engine
from urushi.inference.restorer import Restorer

MANY = 10**9
ODD = [MANY, 10**400, -1, 0, 0.5, "x", None, True, [], [MANY], [[1]], {"a": 1}, "9" * 5000]
# Of a megabyte: what is built before it is compared takes a thousand times as much.
MOST_BYTES = 8_000_000


def shapes_of(backbone: str) -> dict[str, tuple[int, ...]]:
    with without_memory():
        network = create_backbone(backbone, BACKBONES[backbone].example)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def taken(run) -> int:
    """Memory that Python takes at the most."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_example_is_what_it_claims(backbone):
    check_claims(backbone, BACKBONES[backbone].example, shapes_of(backbone), "a")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_setting_builds_what_the_tensors_do_not_hold(backbone):
    example, shapes = BACKBONES[backbone].example, shapes_of(backbone)
    names = set(example) | {"heads", "window_size", "upscale", "pooling_window", "num_queries"}

    def run(values: list) -> None:
        for name in names:
            for value in values:
                with suppress(BackboneError):
                    check_claims(backbone, {**example, name: value}, shapes, "a.safetensors")

    run(ODD[1:])
    assert taken(lambda: run(ODD[:1])) < MOST_BYTES


@pytest.mark.parametrize("backbone", BACKBONES)
def test_numbers_of_layers_are_bounded_by_the_tensors(backbone):
    example: Any = dict(BACKBONES[backbone].example)
    shapes = shapes_of(backbone)
    assert BACKBONES[backbone].counts
    for name in BACKBONES[backbone].counts:
        many = [MANY for _ in example[name]] if isinstance(example.get(name), list) else MANY
        with pytest.raises(BackboneError, match=f"{name} is .* more than a file of"):
            check_claims(backbone, {**example, name: many}, shapes, "a.safetensors")


def test_a_model_that_claims_many_blocks_is_refused_before_it_is_built(tmp_path):
    model = read_model(write_tiny(tmp_path / "a.safetensors"))
    changes: list[Any] = [
        {"middle_blk_num": 100_000}, {"enc_blk_nums": [1] * 5000}, {"width": 1 << 20},
    ]  # fmt: skip
    for change in changes:
        header = ModelHeader(backbone="nafnet", config=dict[str, Any](EXAMPLE) | change)
        write_model(tmp_path / "claims.safetensors", model.tensors, header)

        def run() -> None:
            with pytest.raises(FileFormatError, match=r"claims\.safetensors"):
                Restorer(tmp_path / "claims.safetensors", engine="torch")

        assert taken(run) < MOST_BYTES
        with pytest.raises(BackboneError):
            create_claimed(read_model(tmp_path / "claims.safetensors"))


def test_what_is_kept_beside_the_weights_is_bounded(monkeypatch):
    # The index of a window's pairs grows by the fourth power of its side, the table by the second.
    monkeypatch.setattr("urushi.backbones.claims._MOST_BYTES_BESIDE", 1000)
    with pytest.raises(BackboneError, match="bytes beside its weights"):
        check_claims("swinir", BACKBONES["swinir"].example, shapes_of("swinir"), "a.safetensors")
    with pytest.raises(BackboneError, match="window_size 10000"):
        create_backbone("swinir", {**BACKBONES["swinir"].example, "window_size": 10000})


@pytest.mark.parametrize(
    "change",
    [
        {"rank": MANY},
        {"ranks": {"intro": MANY}},
        {"rank": 3},
        {"dense": ["*"]},
        {"method": "experts", "count": MANY, "expert": {"method": "lora", "rank": 2}},
        {"method": "adaptformer", "hidden": MANY},
        {"method": "houlsby", "hidden": MANY},
        {"method": "moe", "experts": MANY},
        {"method": "fact", "rank": MANY},
    ],
    ids=str,
)
def test_adapters_that_claim_more_than_they_hold(tmp_path, change):
    model = read_model(write_tiny(tmp_path / "a.safetensors"))
    good = write_random(tmp_path / "lora.safetensors", model, rank=2)
    method = change.pop("method", "lora")
    config = {**(good.header.config if method == "lora" else {}), **change}
    header = good.header.model_copy(update={"method": method, "config": config})
    stored = LoadedAdapter(header, good.tensors, good.path)
    network = network_of(model)

    def run() -> None:
        with pytest.raises(AdapterError) as caught:
            load_adapter(network, stored)
        assert len(str(caught.value)) < 900

    run()
    assert taken(run) < MOST_BYTES


def test_a_sketch_leaves_random_numbers_as_they_were(tmp_path):
    model = read_model(write_tiny(tmp_path / "a.safetensors"))
    torch.manual_seed(3)
    plain = create_backbone("nafnet", EXAMPLE).state_dict()
    torch.manual_seed(3)
    for name, tensor in create_claimed(model).state_dict().items():
        assert torch.equal(plain[name], tensor)


def test_tensors_that_do_not_fit_are_named(tmp_path):
    model = read_model(write_tiny(tmp_path / "a.safetensors"))
    rest = {name: t for name, t in model.tensors.items() if name != "intro.bias"}
    for tensors, words in (
        (rest, "1 tensor is missing, the first is intro.bias"),
        ({**model.tensors, "more": np.ones(2)}, "unexpected, the first is more"),
        ({**rest, "intro.bias": np.ones(2)}, r"intro.bias \(\(2,\) instead of \(4,\)\)"),
    ):
        write_model(tmp_path / "b.safetensors", tensors, model.header)
        with pytest.raises(UrushiError, match=words):
            create_engine(read_model(tmp_path / "b.safetensors"), engine="torch")
