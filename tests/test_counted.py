"""Numbers of things in sentences: one of them is no plural."""

import re
from pathlib import Path

import pytest
from torch import nn

import urushi
from urushi.backbones.claims import compare_shapes
from urushi.errors import BackboneError
from urushi.names import counted

COUNTED = re.compile(r"\{len\([^{}]*\)\} [a-z]+s\b.*")
# What is there at least twice where the sentence is said.
SEVERAL = ("pairs were sent", "groups within", "pictures look")


@pytest.mark.parametrize(("count", "said"), [(0, "0 tensors"), (1, "1 tensor"), (2, "2 tensors")])
def test_things_are_counted_in_words(count, said):
    assert counted(count, "tensor") == said


def test_no_sentence_counts_with_a_plural_alone():
    wrong = []
    for path in sorted(Path(urushi.__file__).parent.rglob("*.py")):
        for said in COUNTED.findall(path.read_text()):
            if not any(word in said for word in SEVERAL):
                wrong.append(f"{path.name}: {said}")
    assert wrong == []


def test_one_tensor_is_missing_and_two_are():
    network = nn.Linear(2, 3)
    for given, said in (({"bias": (3,)}, "1 tensor is missing"), ({}, "2 tensors are missing")):
        with pytest.raises(BackboneError, match=said):
            compare_shapes(network, given, "x.pth")
