"""Compiles a network with OpenVINO, or takes what was compiled of it before.

What is kept holds the weights, laid out for the processor, and not the graph alone: it is found by
what names the graph, the weights and the base's configuration, all of them checked before, and by
everything else that compiling depends on. Weights that no file names are compiled every time.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urushi.files.model import LoadedModel, architecture_hash, hash_of_graph
from urushi.files.tensors import identity_of
from urushi.inference.cache_folder import cache_folder
from urushi.inference.engines.graph_trust import GraphFacts
from urushi.inference.engines.openvino_graph import IMAGE_INPUT, graph_of, read_graph
from urushi.version import __version__

__all__ = [
    "KEEP_VARIABLE",
    "MOST_BYTES",
    "MOST_WRITTEN",
    "Network",
    "find",
    "keep",
    "keeps",
    "key_of",
]

KEEP_VARIABLE = "URUSHI_KEEP_COMPILED"
"""`0` in this variable of the environment: nothing is kept, and nothing that was kept is used."""

MOST_BYTES = 256 << 20
"""Of all files together; the ones that were not used for longest go first."""

MOST_WRITTEN = 6
"""By one process: a folder of pictures of many sizes does not rewrite the disk."""

_FOLDER = "compiled"
_SUFFIX = ".network"
_MAGIC = b"urushi compiled network 1\n"
_DIGEST = hashlib.sha256().digest_size
_STALE = 3600.0  # seconds; what a process that was ended has left is older
# Limits of the instruction set: of OpenVINO and of the oneDNN in it.
_LIMITS = ("OV_CPU_MAX_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_written = 0


def keeps() -> bool:
    """Whether compiled networks are kept, and used again."""
    return os.environ.get(KEEP_VARIABLE, "1") != "0"


def key_of(*parts: object) -> str:
    """The name of what depends on these plain values, on this processor and on this version."""
    limits = [os.environ.get(name, "") for name in _LIMITS]
    said = json.dumps([__version__, _processor(), limits, *parts], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def find(key: str) -> bytes | None:
    """What was kept under this name, as it was written; None where there is nothing sound."""
    if not keeps():
        return None
    path = _path(key)
    try:
        with path.open("rb") as file:
            if not _is_own(os.fstat(file.fileno())):
                return None
            head = file.read(len(_MAGIC) + _DIGEST)
            content = file.read()
    except OSError:
        return None
    if head != _MAGIC + hashlib.sha256(content).digest():
        forget(key)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the latest use, by which the oldest are told
    return content


def keep(key: str, content: bytes) -> None:
    """Keep this under this name, if there is room; the ones that were not used for longest go."""
    global _written
    if not keeps() or len(content) > MOST_BYTES or _written >= MOST_WRITTEN:
        return
    path = _path(key)
    part = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(_MAGIC + hashlib.sha256(content).digest())
            file.write(content)
        part.replace(path)
        _written += 1
        _make_room(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def forget(key: str) -> None:
    """Remove what was kept under this name."""
    with contextlib.suppress(OSError):
        _path(key).unlink(missing_ok=True)


def _path(key: str) -> Path:
    return cache_folder() / _FOLDER / f"{key}{_SUFFIX}"


def _make_room(newest: Path) -> None:
    """Remove the files that were not used for longest until all fit, but never the newest."""
    found = sorted(_files(newest.parent), key=lambda item: item[1].st_mtime, reverse=True)
    total, now = 0, time.time()
    for path, facts in found:
        left = path.suffix != _SUFFIX and now - facts.st_mtime > _STALE
        total += facts.st_size
        if left or (total > MOST_BYTES and path != newest):
            total -= facts.st_size
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.iterdir():
        # Another process may have removed it meanwhile.
        with contextlib.suppress(OSError):
            if _SUFFIX in path.name:
                yield path, path.lstat()


def _is_own(facts: os.stat_result) -> bool:
    """Whether a file is of the user who runs this, or of the system's administrator."""
    return not hasattr(os, "getuid") or facts.st_uid in (os.getuid(), 0)


@functools.cache
def _processor() -> str:
    """What tells processors apart that need other code: a home may be shared by machines."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n\n", 1)[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = ("model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *(line for line in lines if line.startswith(told))])


if TYPE_CHECKING:
    import openvino


# Of what is done to a graph before it is compiled; another number where that changes.
_FORM = 3


class Network:
    """A graph with the weights of a model; it is read only where nothing compiled is kept.

    Args:
        core: of OpenVINO.
        model: with a graph.
        compare: of `trusted_graph`; None compares restoration networks.
        change: done to the graph once it is read; such a network is not kept.

    Raises:
        EngineError: there is no graph.
        FileFormatError: the graph is damaged, changed or of another network.
        AdapterError: an adapter in the weights is not sound.
    """

    def __init__(
        self,
        core: "openvino.Core",
        model: LoadedModel,
        compare: Callable[[LoadedModel], None] | None = None,
        change: "Callable[[openvino.Model], None] | None" = None,
    ) -> None:
        self._core, self._model, self._change = core, model, change
        self._content = graph_of(model, compare)
        self._graph: openvino.Model | None = None
        self._name: list[Any] | None = None
        weights = identity_of(model.tensors)
        if change is None and weights and keeps():
            graph = hash_of_graph(self._content)
            self._name = [_FORM, _version(), architecture_hash(model.header), weights, graph]
        known = self._known_facts()
        if known is None:
            self._graph, known = self._read()
            if self._name is not None:
                keep(key_of("facts", *self._name), json.dumps(known._asdict()).encode())
        self.facts = known

    def compiled(self, shape: Sequence[int] | None, options: dict[str, Any]) -> Any:
        """The network, compiled for pictures of one shape, or of any.

        Args:
            shape: of `image`, or None.
            options: of OpenVINO's CPU plugin.

        Raises:
            RuntimeError: OpenVINO cannot compile it.
        """
        key = None
        if self._name is not None:
            key = key_of("network", *self._name, shape and list(shape), options)
            kept = find(key)
            if kept is not None:
                try:
                    return self._core.import_model(kept, "CPU", options)
                except RuntimeError:
                    forget(key)
        if self._graph is None:
            self._graph, _ = self._read()
        graph = self._graph
        if shape is not None:
            graph = graph.clone()
            graph.reshape({IMAGE_INPUT: list(shape)})
        compiled = self._core.compile_model(graph, "CPU", options)
        if key is not None:
            self._keep(key, compiled)
        return compiled

    def _read(self) -> "tuple[openvino.Model, GraphFacts]":
        graph, facts = read_graph(self._core, self._model, content=self._content)
        if self._change is not None:
            self._change(graph)
        return graph, facts

    def _known_facts(self) -> GraphFacts | None:
        """What the graph says of itself, where it was read with these weights before."""
        found = None if self._name is None else find(key_of("facts", *self._name))
        if found is None:
            return None
        try:
            return GraphFacts(**json.loads(found))
        except (ValueError, TypeError):
            return None

    @staticmethod
    def _keep(key: str, compiled: Any) -> None:
        try:
            content = compiled.export_model().getvalue()
        except RuntimeError:  # a network that OpenVINO cannot write
            return
        keep(key, content)


def _version() -> str:
    import openvino

    return str(openvino.__version__)
