"""Engines: what executes a network. `ENGINES` is the table, `create_engine` chooses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from urushi.errors import EngineError, MissingExtraError
from urushi.files.model import LoadedModel
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.base import Engine, Precision
from urushi.inference.hardware import choose_device, is_installed

__all__ = ["ENGINES", "Engine", "EngineEntry", "check_some_engine", "create_engine"]

PRECISIONS: tuple[Precision, ...] = ("float32", "bf16", "int8")


@dataclass(frozen=True)
class EngineEntry:
    """An entry of `ENGINES`.

    Attributes:
        package: the package the engine needs.
        extra: the extra of Urushi that brings it.
        needs_graph: whether it runs the exported graph that stands beside the weights.
        cpu_only: whether it runs on the CPU alone.
    """

    package: str
    extra: str
    needs_graph: bool
    cpu_only: bool


# In the order of preference.
ENGINES: Mapping[str, EngineEntry] = {
    "openvino": EngineEntry("openvino", "fast", needs_graph=True, cpu_only=True),
    "torch": EngineEntry("torch", "torch", needs_graph=False, cpu_only=False),
}


def check_some_engine() -> None:
    """Check that an engine is installed, whichever it is.

    Raises:
        MissingExtraError: none is; it names the smallest extra that brings one.
    """
    if not any(is_installed(entry.package) for entry in ENGINES.values()):
        raise MissingExtraError("an engine, which runs the networks,", "fast")


def create_engine(
    model: LoadedModel,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    compile: bool = False,
    adapters: Sequence[AppliedAdapter] = (),
) -> Engine:
    """Make ready to execute `model`.

    Args:
        model: a checked model file.
        engine: an entry of `ENGINES`; `auto` takes OpenVINO on a CPU where it is installed and
            the model has its graph, else torch.
        device: `auto` (cuda, xpu, mps, cpu in that order), or a device by name.
        precision: `float32`; `bf16` for bfloat16 arithmetic; `int8` for 8-bit convolutions, which
            only OpenVINO has, for models with an int8 file.
        threads: number of CPU threads; None leaves it to the engine.
        compile: let torch compile the network.
        adapters: those that are not in the model's weights; only torch attaches them.

    Raises:
        AdapterError: an adapter's settings and tensors do not belong together.
        EngineError: an option is unknown, unavailable, or can have no effect.
        MissingExtraError: the engine, or every engine, is not installed.
        FileFormatError: weights and graph, int8 file or configuration do not belong together.
    """
    _check_known(engine, precision, threads)
    if adapters:
        engine = _torch_for(adapters[0], engine, precision)
    if precision == "int8":
        if engine == "torch":
            raise EngineError(
                "torch has no precision int8: use engine openvino, or bf16", usage=True
            )
        engine = "openvino"
    if engine != "auto" and not is_installed(ENGINES[engine].package):
        raise MissingExtraError(f"the engine {engine!r}", ENGINES[engine].extra)
    if engine == "openvino" and compile:
        raise EngineError(
            "compile is an option of torch: leave it out, or choose engine torch", usage=True
        )
    chosen_device = "cpu" if engine == "openvino" and device == "auto" else choose_device(device)
    name = _choose(model, chosen_device, compile) if engine == "auto" else engine
    if name == "openvino" and chosen_device != "cpu":
        raise EngineError(
            f"OpenVINO runs on the CPU only, not on {device!r}: use engine torch", usage=True
        )
    if threads is not None and chosen_device != "cpu":
        raise EngineError(
            f"threads has no effect on {chosen_device}: leave it out, or use cpu", usage=True
        )
    options: dict[str, Any] = {"precision": precision, "threads": threads}
    if name == "openvino":
        from urushi.inference.engines.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(model, **options)
    from urushi.inference.engines.torch_engine import TorchEngine

    return TorchEngine(model, device=chosen_device, compile=compile, adapters=adapters, **options)


def _check_known(engine: str, precision: str, threads: int | None) -> None:
    """Raises an EngineError where one of them is nothing that there is."""
    if precision not in PRECISIONS:
        raise EngineError(
            f"precision {precision!r} is unknown: expected {', '.join(PRECISIONS)}", usage=True
        )
    if threads is not None and threads < 1:
        raise EngineError(f"threads is {threads}: expected at least 1", usage=True)
    if engine not in ("auto", *ENGINES):
        raise EngineError(
            f"engine {engine!r} is unknown: expected auto, {', '.join(ENGINES)}", usage=True
        )


def _torch_for(adapter: AppliedAdapter, engine: str, precision: str) -> str:
    """Return `torch`, which alone runs an adapter that weights cannot hold."""
    method = adapter.adapter.header.method
    why = f"the adapter {adapter.told} of method {method!r}, which weights cannot hold,"
    if engine == "openvino" or precision == "int8":
        raise EngineError(
            f"{engine if engine != 'auto' else precision} cannot run {why}: use engine torch with "
            "precision float32 or bf16",
            usage=True,
        )
    if not is_installed(ENGINES["torch"].package):
        raise MissingExtraError(f"torch, needed by {why}", ENGINES["torch"].extra)
    return "torch"


def _choose(model: LoadedModel, device: str, compile: bool) -> str:
    """Return the first engine of the table that can do what is asked."""
    check_some_engine()
    installed = [name for name, entry in ENGINES.items() if is_installed(entry.package)]
    if device == "cpu" and not compile and model.graph is not None and "openvino" in installed:
        return "openvino"
    if "torch" in installed:
        return "torch"
    if compile:
        raise MissingExtraError("torch, which compile needs,", "torch")
    raise EngineError(
        f"{model.path} has no exported graph {model.path.with_suffix('.onnx').name} beside it, "
        "which OpenVINO needs: put it there, or  pip install 'urushi[torch]', which needs none"
    )
