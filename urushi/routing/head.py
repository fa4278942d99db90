"""The head of a router on arrays: fusion of embeddings, degradation vector, logits.

LoRA-IR (arXiv 2410.15385), figure 2 and released code: the embedding of the whole picture and the
mean of those of its windows, two linear layers with GELUs, and a linear classifier.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Reading", "read_embeddings"]


class Reading(NamedTuple):
    """What a router reads from one picture.

    Attributes:
        logits: `(n,)`, one for each class.
        vector: the degradation vector `(d / 2,)`, which guides networks.
        own: what the experts of added classes change, where they are tried.
    """

    logits: Float[np.ndarray, " n"]
    vector: Float[np.ndarray, " half"]
    own: Float[np.ndarray, "m k"] | None = None


def read_embeddings(
    tensors: Mapping[str, np.ndarray], embeddings: Float[np.ndarray, "v d"]
) -> Reading:
    """Runs the head on the embeddings of one picture's views, the global one first.

    Args:
        tensors: of the head, by name; see `urushi.files.router_file.head_shapes`.
        embeddings: at least two.
    """
    assert len(embeddings) >= 2, embeddings.shape
    fused = np.concatenate([embeddings[0], embeddings[1:].mean(0)])
    for layer in ("extractor.0", "extractor.2"):
        fused = _gelu(tensors[f"{layer}.weight"] @ fused + tensors[f"{layer}.bias"])
    # Row by row, not by a matrix product: a class must not change by a bit when one is added.
    logits = (tensors["classifier.weight"] * fused).sum(1) + tensors["classifier.bias"]
    return Reading(logits.astype(np.float32), fused.astype(np.float32))


# A few hundred numbers for each picture: numpy has no error function, and Python's is exact.
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: np.ndarray) -> np.ndarray:
    return (x * 0.5 * (1 + _erf(x / math.sqrt(2)))).astype(np.float32)
