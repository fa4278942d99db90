"""The OpenVINO engine: runs the exported graph with the weights of a model file, without torch."""

import os
import queue
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from urushi.errors import EngineError, FileFormatError, OutOfMemoryError
from urushi.files.int8_file import int8_command, int8_path, read_int8
from urushi.files.model import LoadedModel
from urushi.inference.engines.base import (
    Engine,
    Precision,
    lanes_on,
    runs_when_small,
    working_memory,
)
from urushi.inference.engines.compiling import Network
from urushi.inference.engines.int8 import fold_constants, insert_ranges
from urushi.inference.engines.openvino_graph import IMAGE_INPUT, read_graph, read_open
from urushi.inference.hardware import MadeAnew, describes_processor, in_use

if TYPE_CHECKING:
    import openvino

__all__ = [
    "IMAGE_INPUT",
    "OpenVINOEngine",
    "compile_open",
    "cpu_options",
    "has_bf16",
    "import_openvino",
    "openvino_core",
    "read_graph",
]

# A network compiled for one size is faster, but compiling takes about as long as this many pixels.
_WORTH_COMPILING = 256 * 256
_KEPT_SIZES = 2
_core_lock = threading.Lock()
_the_core: Any = None
_the_bf16: bool | None = None
_OUT_OF_MEMORY = (
    "bad_alloc", "out of memory", "not enough memory", "failed to allocate", "can't alloc",
)  # fmt: skip


class OpenVINOEngine(MadeAnew):
    """Executes a network with OpenVINO on the CPU; see `Engine`.

    Args:
        model: a checked model file with a graph.
        precision: `bf16` lets OpenVINO calculate in bfloat16; `int8` makes convolutions 8-bit
            ones, and the rest bfloat16 where the CPU has that, float32 elsewhere.
        threads: CPU threads, or None for OpenVINO's choice.

    Raises:
        EngineError: there is no graph, no int8 file, or this CPU has no bfloat16 arithmetic.
        FileFormatError: the graph or the int8 file is damaged or of another network.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self, model: LoadedModel, *, precision: Precision = "float32", threads: int | None = None
    ) -> None:
        self._record(model=model, precision=precision, threads=threads)
        self._make(model, precision, threads)

    def _make(self, model: LoadedModel, precision: Precision, threads: int | None) -> None:
        self.precision: Precision = precision
        self.bytes_per_pixel = working_memory(model.header, self.name, precision)
        self._model = model
        self._threads = threads
        self._float32: OpenVINOEngine | None = None
        self._core = openvino_core()
        able = precision != "float32" and has_bf16(self._core)
        if precision == "bf16" and not able:
            raise EngineError("this CPU has no bfloat16 arithmetic: use precision float32")
        self._hint = "bf16" if able else "f32"
        self.lanes = lanes_on(threads or os.cpu_count() or 1)
        change: Callable[[openvino.Model], None] | None = None
        if precision == "int8":
            change = partial(_to_int8, model=model)
        self._network = Network(self._core, model, change=change)
        self.size_multiple, self.scale, self.fixed_patch = self._network.facts
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        # A request serves one batch at a time.
        self._turn = threading.Lock()
        self._any_size = False
        self._lanes_kept: _Lanes | None = None

    def run(self, batch: Float[np.ndarray, "b c h w"]) -> Float[np.ndarray, "b c h2 w2"]:
        """Restore a batch; see `Engine.run`."""
        return self._run(batch, any_size=False)

    def run_beside(self, batch: Float[np.ndarray, "b c h w"]) -> Float[np.ndarray, "b c h2 w2"]:
        """Restore a batch on a share of the threads, while up to `lanes` others are restored.

        The result is that of `run` to the bit, and so is what it raises.
        """
        assert batch.dtype == np.float32
        in_use("openvino")
        if self.lanes == 1:
            return self.run(batch)
        with self._turn:
            try:
                lane = self._lane(batch.shape)
            except (RuntimeError, MemoryError):
                lane = None
        if lane is not None:
            request = lane.get()
            try:
                restored = _result(request, batch)
                if restored.size:
                    return self._checked(batch, restored)
            except (RuntimeError, MemoryError):
                pass
            finally:
                lane.put(request)
        # With all threads to itself it finds memory, or says what is wrong.
        return self.run(batch)

    def run_few(self, batch: Float[np.ndarray, "b c h w"]) -> Float[np.ndarray, "b c h2 w2"]:
        """Restore a batch of a shape that few others have: nothing is compiled for it alone.

        The result differs from that of `run` by rounding.
        """
        return self._run(batch, any_size=True)

    def _run(self, batch: np.ndarray, any_size: bool) -> np.ndarray:
        assert batch.dtype == np.float32
        assert batch.shape[2] % self.size_multiple == batch.shape[3] % self.size_multiple == 0
        in_use("openvino")
        with self._turn:
            self._any_size = any_size
            try:
                restored = self._infer(batch)
            except (RuntimeError, MemoryError) as error:
                told_so = isinstance(error, MemoryError)
                message = " ".join(str(error).split())[:300]
            else:
                return self._checked(batch, restored)
            # Outside of the handler: the traceback would keep what was allocated.
            self._requests.clear()
            told_so = told_so or any(words in message.lower() for words in _OUT_OF_MEMORY)
            if told_so or runs_when_small(self, batch, self._infer):
                raise OutOfMemoryError(
                    f"a batch of {batch.shape[0]} x {batch.shape[2]} x {batch.shape[3]} pixels "
                    f"does not fit into memory: use a smaller tile ({message})"
                )
            raise EngineError(f"OpenVINO failed: {message}")

    def _checked(self, batch: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """What the graph gave, of the shape that it should have."""
        expected = (*batch.shape[:2], *(self.scale * side for side in batch.shape[2:]))
        if restored.shape != expected:
            raise EngineError(
                f"{self._model.graph} gave {restored.shape}, expected {expected}: export it again"
            )
        return restored

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        # Where memory has run out, OpenVINO may give an empty result without a word; what it kept
        # is then let go of, and the batch tried once more.
        for _ in range(2):
            request = self._request(batch.shape)
            restored = _result(request, batch)
            if restored.size:
                return restored
            self._requests.clear()
            self._lanes_kept = None
        raise MemoryError("the result is empty")

    def in_float32(self) -> Engine:
        """Return this network in plain float32; itself if it is that."""
        if self.precision == "float32":
            return self
        if self._float32 is None:
            self._float32 = OpenVINOEngine(self._model, threads=self._threads)
        return self._float32

    def rest(self) -> None:
        """Let go of the memory that the next batch will ask for again; weights stay."""
        with self._turn:
            for request in self._requests.values():
                request.get_compiled_model().release_memory()
            if self._lanes_kept is not None:
                self._lanes_kept.compiled.release_memory()

    def _lane(self, shape: tuple[int, ...]) -> "queue.SimpleQueue[Any]":
        """Requests for batches of this shape that run at the same time; the latest are kept."""
        kept, own = self._lanes_kept, _own_shape(shape)
        if kept is None or kept.shape != own:
            self._lanes_kept = None
            options = cpu_options(self._hint, self._threads) | {"NUM_STREAMS": self.lanes}
            kept = _Lanes(own, self._network.compiled(own, options), self.lanes)
            self._lanes_kept = kept
        return kept.requests

    def _request(self, shape: tuple[int, ...]) -> Any:
        """Return the compiled network for batches of this shape; the latest few are kept."""
        # The choice depends on the shape and what is asked for, and not on what was done before,
        # so that the same picture gives the same bits.
        own = None if self._any_size else _own_shape(shape)
        key = own or ()
        if key not in self._requests:
            while len(self._requests) >= _KEPT_SIZES:
                self._requests.popitem(last=False)
            # One batch at a time, on all threads.
            options = cpu_options(self._hint, self._threads) | {"PERFORMANCE_HINT": "LATENCY"}
            compiled = self._network.compiled(own, options)
            self._requests[key] = compiled.create_infer_request()
        self._requests.move_to_end(key)
        return self._requests[key]


def _own_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that a network is compiled for to run batches of this one; None for any."""
    return shape if shape[0] * shape[2] * shape[3] >= _WORTH_COMPILING else None


class _Lanes:
    """A network compiled for several batches at the same time.

    Args:
        shape: of the batches; None for any.
        compiled: with as many streams.
        count: how many.
    """

    def __init__(self, shape: tuple[int, ...] | None, compiled: Any, count: int) -> None:
        self.shape, self.compiled = shape, compiled
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(count):
            self.requests.put(compiled.create_infer_request())


def _result(request: Any, batch: np.ndarray) -> np.ndarray:
    """What a request makes of a batch; an array of its own."""
    request.infer({IMAGE_INPUT: np.ascontiguousarray(batch)}, share_inputs=True)
    return request.get_output_tensor(0).data.copy()


def cpu_options(hint: str, threads: int | None) -> dict[str, Any]:
    """Options of OpenVINO's CPU plugin, whatever is compiled.

    Args:
        hint: the precision it calculates in, `f32` or `bf16`.
        threads: CPU threads, or None for OpenVINO's choice.
    """
    # Bound to cores, every process of one thread has the first core, which all of them share.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "ENABLE_CPU_PINNING": False}
    return options if threads is None else options | {"INFERENCE_NUM_THREADS": threads}


def openvino_core() -> Any:
    """The one `openvino.Core` of this process, which is never given up.

    A Core gives its thread another stack for signal handlers and on leaving puts back the one it
    found, which may be that of a Core that left before: the next Ctrl-C would end the process.

    Raises:
        EngineError: the system says nothing of the processor, which OpenVINO would wait for without
            end, deaf to every signal but SIGKILL.
    """
    global _the_core
    with _core_lock:
        if _the_core is None:
            if not describes_processor():
                raise EngineError(
                    "neither /proc nor /sys describes the processor, which OpenVINO has to know: "
                    "mount one of them"
                )
            _the_core = import_openvino().Core()
        return _the_core


def has_bf16(core: "openvino.Core") -> bool:
    """Tell whether OpenVINO calculates in bfloat16 on this CPU: it says so, and does.

    It asks the processor what there is, and its kernels ask oneDNN. Where the instruction set of
    one of them is limited, by `OV_CPU_MAX_ISA` or `ONEDNN_MAX_CPU_ISA`, they do not agree, and what
    it compiles for bfloat16 cannot run.
    """
    global _the_bf16
    with _core_lock:
        if _the_bf16 is None:
            says = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            _the_bf16 = says and _rounds_to_bf16(core)
        return _the_bf16


def _rounds_to_bf16(core: "openvino.Core") -> bool:
    import openvino
    from openvino import opset13

    channels, value = 16, np.float32(1 + 2**-9)  # bfloat16 has no such number
    image = opset13.parameter([1, channels, 8, 8], np.float32)
    weight = opset13.constant(np.eye(channels, dtype=np.float32)[:, :, None, None])
    convolution = opset13.convolution(image, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    in_use("openvino")
    try:
        request = core.compile_model(
            openvino.Model([convolution], [image], "trial"),  # pyright: ignore
            "CPU",
            {"INFERENCE_PRECISION_HINT": "bf16"},
        ).create_infer_request()
        request.infer([np.full((1, channels, 8, 8), value)])
    except RuntimeError:
        return False
    return bool(np.all(request.get_output_tensor(0).data == 1))


def import_openvino() -> Any:
    """Import OpenVINO such that it cannot report to anyone.

    Its Python package sends an event to a web analytics service when it is imported, and writes
    an identifier into the user's home, unless the separate package that does so is missing. Here
    it is made to be missing, for this process.
    """
    if "openvino" not in sys.modules:
        # None makes an import fail; setdefault, because someone else may have imported it before.
        sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    import openvino

    return openvino


def compile_open(
    core: "openvino.Core",
    model: LoadedModel,
    shape: tuple[int, ...],
    threads: int | None,
    precision: Literal["float32", "bf16"] = "float32",
) -> tuple[Any, int, int]:
    """Compile the graph for one shape and leave its weights open.

    Args:
        core: of OpenVINO.
        model: whose graph; its own weights are only compared with it.
        shape: of `image`.
        threads: CPU threads, or None for OpenVINO's choice.
        precision: bf16 where the CPU has that, float32 elsewhere.

    Returns:
        A request that takes `image` and every weight by its name; the size multiple; the scale. It
        is slower by half than one that has its weights, and many networks can share it.

    Raises:
        EngineError: there is no graph, or OpenVINO cannot compile it.
        FileFormatError: the graph is damaged or of another network.
    """
    graph, facts = read_open(core, model)
    in_use("openvino")
    wanted = precision == "bf16" and has_bf16(core)
    options = cpu_options("bf16" if wanted else "f32", threads) | {"PERFORMANCE_HINT": "LATENCY"}
    try:
        graph.reshape({IMAGE_INPUT: list(shape)})
        request = core.compile_model(graph, "CPU", options).create_infer_request()
    except RuntimeError as error:
        message = " ".join(str(error).split())[:300]
        raise EngineError(f"OpenVINO cannot compile {model.graph}: {message}") from error
    return request, facts.size_multiple, facts.scale


def _to_int8(graph: "openvino.Model", model: LoadedModel) -> None:
    """Make 8-bit convolutions of those for which the model's int8 file has ranges."""
    path = int8_path(model.path)
    if not path.is_file():
        raise EngineError(
            f"{model.path} has no {path.name} beside it, which precision int8 needs: make it with  "
            f"{int8_command(model.path)}, or use float32 or bf16"
        )
    _, layers = read_int8(model)
    fold_constants(graph)
    problem = insert_ranges(graph, layers)
    if problem:
        raise FileFormatError(f"{path}: {problem}: make it again with  {int8_command(model.path)}")
