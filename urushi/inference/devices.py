"""Which devices there are, found out without importing torch where that is possible."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from urushi.errors import EngineError

__all__ = ["DEVICES", "available_devices", "choose_device", "is_installed"]

# In the order of preference.
DEVICES = ("cuda", "xpu", "mps", "cpu")


def is_installed(package: str) -> bool:
    """Tell whether `package` can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        # ValueError: the entry in sys.modules is None, which makes a module unimportable.
        return False


def available_devices() -> tuple[str, ...]:
    """Return the devices that can be used here, best first; `cpu` is always the last.

    Accelerators are torch's, so without torch, or with a build of it for the CPU alone, there are
    none; only otherwise is torch imported to look.
    """
    if not is_installed("torch"):
        return ("cpu",)
    try:
        if version("torch").endswith("+cpu"):
            return ("cpu",)
    except PackageNotFoundError:
        pass  # a torch that was not installed as a package: ask it
    import torch

    found = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return tuple(name for name in DEVICES if found[name])


def choose_device(device: str) -> str:
    """Return the device to use: the best one for `auto`, else the one asked for.

    Args:
        device: `auto`, `cuda`, `xpu`, `mps`, `cpu`, or one of several as `cuda:1`.

    Raises:
        EngineError: there is no such device here.
    """
    if device == "cpu":
        return device
    available = available_devices()
    if device == "auto":
        return available[0]
    kind, _, index = device.partition(":")
    known = kind in DEVICES and (not index or (index.isdigit() and kind in ("cuda", "xpu")))
    if not known:
        raise EngineError(
            f"device {device!r} is unknown: expected auto, {', '.join(DEVICES)}, or one of "
            "several as cuda:1"
        )
    if kind not in available:
        raise EngineError(f"device {device!r} is not available here: use {' or '.join(available)}")
    if index:
        import torch

        count = getattr(torch, kind).device_count()
        if int(index) >= count:
            raise EngineError(
                f"device {device!r} does not exist: there are {count}, {kind}:0 to "
                f"{kind}:{count - 1}"
            )
    return device
