"""Compiles a network with OpenVINO, or takes what was compiled of it before.

What is kept holds the weights, laid out for the processor, and not the graph alone: it is found by
what names the graph, the weights and the base's configuration, all of them checked before, and by
everything else that compiling depends on. Weights that no file names are compiled every time.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from urushi.files.model import LoadedModel, architecture_hash, hash_of_graph
from urushi.files.tensors import identity_of
from urushi.inference.engines.graph_trust import GraphFacts
from urushi.inference.engines.kept import find, forget, keep, keeps, key_of
from urushi.inference.engines.openvino_graph import IMAGE_INPUT, graph_of, read_graph

if TYPE_CHECKING:
    import openvino

__all__ = ["Network"]

# Of what is done to a graph before it is compiled; another number where that changes.
_FORM = 1


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
