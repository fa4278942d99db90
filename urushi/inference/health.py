"""What is installed here, what will be used, and whether it works."""

import importlib
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from urushi.adapters import METHODS
from urushi.adapters.fold import is_foldable
from urushi.errors import UrushiError, brief
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.model import LoadedModel, read_model
from urushi.image import FORMATS
from urushi.image.enlarge import enlarge
from urushi.image.libvips import can_write, vips
from urushi.inference.adapted_weights import AdapterLike
from urushi.inference.engines import ENGINES
from urushi.inference.hardware import available_devices, host_memory, is_installed
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_all_in_one, find_model, zoo_experts, zoo_names
from urushi.plugins import Table
from urushi.version import __version__

__all__ = ["DEPENDENCIES", "EXTRAS", "examine"]

# Distributions that are always needed, and those of each extra that users install.
DEPENDENCIES = (
    "numpy", "pyvips", "safetensors", "pydantic", "pyyaml", "typer", "rich", "jaxtyping", "pillow",
)  # fmt: skip
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "fast": ("openvino",),
    "torch": ("torch",),
    "train": ("torch", "accelerate", "filelock", "tensorboard"),
    "export": ("torch", "onnx", "onnxscript", "openvino"),
    "quantize": ("torch", "onnx", "onnxscript", "openvino", "nncf"),
    "plots": ("matplotlib",),
    "metrics": ("ssimulacra2", "flip-evaluator"),
    "clip": ("torch", "transformers"),
    "hub": ("huggingface_hub",),
    "cluster": ("ray",),
    "serve": ("openvino", "fastapi", "uvicorn", "python-multipart", "prometheus-client"),
}
# Packages that others bring, and what is wanted of them, which some import only then.
_BESIDE_TORCH = {
    "torchvision": "",
    "transformers": "CLIPVisionModelWithProjection",
}
# Largest difference between two engines, of values in [0, 1].
_PARITY = 1e-3
# A restored picture resembles its input at least so much, in dB, or the network is broken.
_LEAST_LIKENESS = 8.0


def examine(model: str = "base", adapters: Sequence[AdapterLike] = ()) -> dict[str, Any]:
    """Looks at everything restoring needs, and restores a small picture.

    Args:
        model: name of a shipped model, or path of a model file, for the test.
        adapters: adapter files that are to be tested with it, with their strengths.

    Returns:
        Plain JSON values; `problems` has one sentence for everything that is broken, and `ok` is
        true where there is none. `notes` has one for each plugin that cannot be used, and for
        each optional package that is installed and cannot be imported: what needs it goes on
        without, or says so.
    """
    problems: list[str] = []
    versions = {name: _version(name) for name in DEPENDENCIES}
    problems += [
        f"{name} is not installed: run  pip install urushi"
        for name, found in versions.items()
        if found is None
    ]
    extras = {name: {p: _version(p) for p in packages} for name, packages in EXTRAS.items()}
    tables = _tables()
    report = {
        "urushi": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": _cores(),
        "memory": host_memory(),
        "dependencies": versions,
        "extras": extras,
        "libvips": _libvips(problems),
        "devices": list(available_devices()),
        "engines": [name for name, entry in ENGINES.items() if is_installed(entry.package)],
        "models": zoo_names(),
        "experts": zoo_experts(),
        "plugins": {table.what: table.plugins() for table in tables},
        "all_in_one": _all_in_one(problems),
        "test": _self_test(model, adapters, problems),
    }
    notes = [sentence for table in tables for sentence in table.problems()] + _notes()
    return {"ok": not problems, "problems": problems, "notes": notes, **report}


def _tables() -> list[Table[Any]]:
    """What packages can add to, as far as it can be looked at without torch."""
    tables: list[Table[Any]] = [METHODS]
    if is_installed("torch"):
        from urushi.backbones import BACKBONES
        from urushi.degradations import DEGRADATIONS

        tables += [BACKBONES, DEGRADATIONS]
    return tables


def _notes() -> list[str]:
    """What is installed beside torch and does not get on with it."""
    notes = []
    for package, name in _BESIDE_TORCH.items():
        if not is_installed("torch") or not is_installed(package):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = importlib.import_module(package)
                if name:
                    getattr(module, name)
        # Much besides ImportError: whatever a package raises that was built for another torch.
        except Exception as error:
            found = f"{package} {_version(package) or ''}".strip()
            notes.append(
                f"{found} is installed but cannot be imported ({brief(error)}): it may not fit "
                f"torch {_version('torch')}, and what needs it goes without"
            )
    return notes


def _all_in_one(problems: list[str]) -> dict[str, Any] | None:
    """The file that chooses by itself, and what it tells apart; None where none ships."""
    path = find_all_in_one()
    if path is None:
        return None
    try:
        found = read_all_in_one(path)
    except UrushiError as error:
        problems.append(str(error))
        return {"path": str(path), "classes": [], "experts": []}
    header = found.router.header
    return {"path": str(path), "classes": list(header.classes), "experts": list(found.experts)}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _libvips(problems: list[str]) -> dict[str, Any]:
    """Version of libvips and what it does with each format."""
    try:
        module = vips()
    except (ImportError, OSError) as error:
        problems.append(f"libvips cannot be loaded ({error}): run  pip install 'pyvips[binary]'")
        return {}
    formats: dict[str, dict[str, bool | None]] = {}
    for name, entry in FORMATS.items():
        # What has no loader is read with Pillow.
        reads = not entry.loader or module.type_find("VipsOperation", entry.loader) != 0
        writes = can_write(name)
        # One loader reads AVIF and HEIF, with decoders that may be missing: only those formats
        # that can be written here are known to be decoded as well.
        unknown = reads and not writes and name in ("avif", "heif")
        formats[name] = {"read": None if unknown else reads, "write": writes}
    problems += [
        f"libvips has no {FORMATS[name].title}: run  pip install 'pyvips[binary]'"
        for name in ("jpeg", "png", "tiff", "webp")
        if not all(formats[name].values())
    ]
    return {"version": ".".join(str(module.version(part)) for part in range(3)), "formats": formats}


def _self_test(model: str, adapters: Sequence[AdapterLike], problems: list[str]) -> dict[str, Any]:
    """Restores a noisy picture with every engine that can run the model."""
    test: dict[str, Any] = {"model": model}
    try:
        loaded = read_model(find_model(model))
        restorer = Restorer(loaded, adapters=adapters)
        test |= {"path": str(loaded.path), "uses": restorer.describe()}
        clean, noisy = _example()
        results = {restorer.engine.name: restorer.restore(noisy)}
        results |= _others(loaded, adapters, restorer, noisy)
    except UrushiError as error:
        problems.append(str(error))
        return test
    restored = results[restorer.engine.name]
    clean, noisy = (enlarge(picture, restorer.scale) for picture in (clean, noisy))
    test |= {"psnr_noisy": _psnr(noisy, clean), "psnr_restored": _psnr(restored, clean)}
    # An adapter may well change all of a picture: one for low light does.
    if not adapters and _psnr(restored, noisy) < _LEAST_LIKENESS:
        problems.append(f"the model {model!r} does not give back the picture: get it again")
    if len(results) > 1:
        first, *rest = results.values()
        difference = max(float(np.abs(first - other).max()) for other in rest)
        test |= {"engines": list(results), "largest_difference": difference}
        if difference > _PARITY:
            problems.append(
                f"the engines {' and '.join(results)} differ by {difference:.2g}, expected at "
                f"most {_PARITY:g}: export the graph again"
            )
    return test


def _others(
    loaded: LoadedModel, adapters: Sequence[AdapterLike], used: Restorer, picture: np.ndarray
) -> dict[str, np.ndarray]:
    """The picture as restored by the engines that are there too, on a CPU."""
    results = {}
    if not all(is_foldable(item.adapter) for item in used.adapters):
        return results  # torch alone can run it
    for name, entry in ENGINES.items():
        usable = is_installed(entry.package) and (loaded.graph is not None or not entry.needs_graph)
        if name != used.engine.name and usable:
            other = Restorer(loaded, adapters=adapters, engine=name, device="cpu")
            results[name] = other.restore(picture)
    return results


def _example() -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture with an edge, and the same with noise of 25 of 255; `(96, 128, 3)`."""
    rows, columns = np.mgrid[0:96, 0:128].astype(np.float32)
    waves = 0.5 + 0.2 * np.sin(columns / 9) + 0.15 * np.cos(rows / 7)
    clean = np.stack([waves, waves[::-1], np.where(columns > 64, 0.7, 0.3)], axis=2)
    clean = clean.astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 25 / 255, clean.shape)
    return clean, np.clip(clean + noise, 0, 1).astype(np.float32)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.square(a.astype(np.float64) - b).mean())
    return round(-10 * float(np.log10(max(error, 1e-10))), 2)
