"""Arrays in another order than C's: safetensors 0.8 writes their memory as it lies, silently.

Its issue 825. Whatever becomes a file here is put in order before.
"""

import numpy as np
import pytest
from world import random_adapter, write_tiny

from urushi.adapters.stored import header_of, tensors_of
from urushi.files.adapter import read_adapter, write_adapter
from urushi.files.model import read_model, write_model
from urushi.training.kept_parts import gather

TURNED = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))


@pytest.mark.parametrize("array", [TURNED, TURNED[:, ::2]], ids=["columns", "steps"])
def test_parts_are_kept_as_they_are(tmp_path, array):
    (part,) = gather(tmp_path / "kept", {"one": 1}, lambda _: {"a": array}, lambda: False) or []
    assert np.array_equal(part["a"], array)


def test_models_and_adapters_are_kept_as_they_are(tmp_path):
    model = read_model(write_tiny(tmp_path / "base.safetensors"))
    turned = {name: np.asfortranarray(array) for name, array in model.tensors.items()}
    assert any(not array.flags.c_contiguous for array in turned.values())
    write_model(tmp_path / "again.safetensors", turned, model.header)
    again = read_model(tmp_path / "again.safetensors")
    assert all(np.array_equal(again.tensors[name], turned[name]) for name in turned)

    adapter = random_adapter(model, rank=2)
    turned = {name: np.asfortranarray(array) for name, array in tensors_of(adapter).items()}
    assert any(not array.flags.c_contiguous for array in turned.values())
    for storage in ("float32", "float16"):
        path = tmp_path / f"{storage}.safetensors"
        write_adapter(path, turned, header_of(adapter, model), storage=storage)
        found = read_adapter(path).tensors
        assert all(np.allclose(found[name], turned[name], rtol=2e-3) for name in turned)
