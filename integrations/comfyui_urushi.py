"""Nodes for ComfyUI: pictures mended by Urushi, each by the expert that it needs.

*Urushi Restore* asks the router what each picture of a batch needs; with a task all get that
expert. *Urushi Restore with adapters* takes a model and adapters of your own. Both run Urushi's
own networks, whose averages are of a neighbourhood, not of a tile: large pictures have no seams.

Install: `pip install urushi` with ComfyUI's own Python, and put this file into `custom_nodes`.
All-in-one files, models and adapters of your own go into `models/urushi`.

SPDX-License-Identifier: Apache-2.0
"""

from functools import lru_cache
from typing import Any

import folder_paths  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from comfy.model_management import (  # pyright: ignore[reportMissingImports]
    throw_exception_if_processing_interrupted,
)
from comfy.utils import ProgressBar  # pyright: ignore[reportMissingImports]

from urushi import AutoRestorer, Restorer
from urushi.inference.adapted_weights import parse_adapter
from urushi.inference.auto import with_strength
from urushi.inference.strength import Strength
from urushi.inference.zoo import zoo_names

FOLDER = "urushi"
SHIPPED = "the one that ships"
PART = {"min": 0.0, "max": 1.0, "step": 0.05}

folder_paths.add_model_folder_path(FOLDER, f"{folder_paths.models_dir}/{FOLDER}")


def own_files() -> list[str]:
    """Names of the files in `models/urushi`."""
    names = folder_paths.get_filename_list(FOLDER)
    return [name for name in names if name.endswith(".safetensors")]


def path_of(name: str) -> str:
    """Where one of them lies; any other name, as it is."""
    return folder_paths.get_full_path(FOLDER, name) or name


@lru_cache(maxsize=1)
def _router(name: str, task: str, k: int) -> AutoRestorer:
    return AutoRestorer(None if name == SHIPPED else path_of(name), task=task, k=k)


@lru_cache(maxsize=1)
def _adapted(model: str, adapters: str) -> Restorer:
    """Args: a line of `adapters` is FILE or FILE:STRENGTH; empty ones do not count."""
    lines = [line.strip() for line in adapters.splitlines() if line.strip()]
    pairs = [parse_adapter(line) for line in lines]
    return Restorer(path_of(model), adapters=[(path_of(name), part) for name, part in pairs])


def restore_batch(images: torch.Tensor, restorer: Any) -> tuple[torch.Tensor, list[str]]:
    """Restores pictures one by one, each as large as it is.

    Args:
        images: `(B, H, W, C)` floats in [0, 1]; C is 1, 3 or 4.
        restorer: what restores a `(H, W, C)` array.

    Returns:
        The same of what was restored; and for each picture what was seen in it.
    """
    bar = ProgressBar(len(images))
    results, seen = [], []
    for image in images:
        throw_exception_if_processing_interrupted()
        array = np.ascontiguousarray(image.detach().cpu().float().numpy())
        restored = restorer.restore(array)
        results.append(torch.from_numpy(np.clip(restored, 0.0, 1.0)))
        last = getattr(restorer, "last", None)
        seen.append("" if last is None else last.reason)
        bar.update(1)
    return torch.stack(results).to(images.dtype), seen


class UrushiRestore:
    """Each picture by the expert that the router chooses, or all by the one of a task."""

    CATEGORY = "image/restoration"
    FUNCTION = "restore"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "seen")
    DESCRIPTION = "Mends pictures: noise, JPEG, blur, rain, raindrops, snow, haze, low light."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """What ComfyUI shows."""
        tasks = _router(SHIPPED, "auto", 1).tasks
        return {
            "required": {
                "image": ("IMAGE",),
                "task": (["auto", "none", *tasks],),
                "strength": ("FLOAT", {"default": 1.0, **PART}),
            },
            "optional": {
                "luma": ("FLOAT", {"default": 1.0, **PART}),
                "chroma": ("FLOAT", {"default": 1.0, **PART}),
                "experts_at_once": ("INT", {"default": 1, "min": 1, "max": 4}),
                "router": ([SHIPPED, *own_files()],),
            },
        }

    def restore(
        self,
        image: torch.Tensor,
        task: str,
        strength: float,
        luma: float = 1.0,
        chroma: float = 1.0,
        experts_at_once: int = 1,
        router: str = SHIPPED,
    ) -> tuple[torch.Tensor, str]:
        """The pictures, and a line for each about what was seen."""
        restorer = _router(router, task, experts_at_once)
        restorer.strength = Strength(strength, luma, chroma)
        restored, seen = restore_batch(image, restorer)
        return restored, "\n".join(seen)


class UrushiRestoreWithAdapters:
    """All pictures by one model and the adapters that are named."""

    CATEGORY = "image/restoration"
    FUNCTION = "restore"
    RETURN_TYPES = ("IMAGE",)
    DESCRIPTION = "Mends pictures by a model and adapters: names that ship, or files."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """What ComfyUI shows."""
        return {
            "required": {
                "image": ("IMAGE",),
                "model": ([*zoo_names(), *own_files()], {"default": "base"}),
                "adapters": ("STRING", {"default": "", "multiline": True}),
                "strength": ("FLOAT", {"default": 1.0, **PART}),
            },
        }

    def restore(
        self, image: torch.Tensor, model: str, adapters: str, strength: float
    ) -> tuple[torch.Tensor]:
        """The pictures."""
        restorer = with_strength(_adapted(model, adapters), Strength(strength))
        return (restore_batch(image, restorer)[0],)


NODE_CLASS_MAPPINGS = {
    "UrushiRestore": UrushiRestore,
    "UrushiRestoreWithAdapters": UrushiRestoreWithAdapters,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "UrushiRestore": "Urushi Restore",
    "UrushiRestoreWithAdapters": "Urushi Restore with adapters",
}
