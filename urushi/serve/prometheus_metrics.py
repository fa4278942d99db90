"""What is counted, for Prometheus; every label has a bounded number of values."""

from collections.abc import Callable
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from urushi.version import __version__

__all__ = ["Metrics"]

_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one service.

    Args:
        depth: tells how many jobs wait.
        capacity: how many may.
        experts: those that are counted by name; any other is `other`.
    """

    def __init__(self, depth: Callable[[], int], capacity: int, experts: list[str]) -> None:
        # The time of the first increment, which doubles what is told, helps nobody here.
        prometheus_client.disable_created_metrics()
        self._registry = CollectorRegistry(auto_describe=True)
        self._experts = frozenset(experts)
        own: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter(
            "urushi_requests", "Requests that were answered.", ["route", "status"], **own
        )
        self._duration = Histogram(
            "urushi_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            buckets=_BUCKETS,
            **own,
        )
        waiting = Gauge("urushi_queue_depth", "Jobs that wait for a worker.", **own)
        waiting.set_function(lambda: float(depth()))
        Gauge("urushi_queue_capacity", "Jobs that may wait.", **own).set(capacity)
        self._pixels = Counter("urushi_restored_pixels", "Pixels that were restored.", **own)
        self._selected = Counter(
            "urushi_expert_selected", "Pictures that an expert was taken for.", ["expert"], **own
        )
        Gauge("urushi_build_info", "Always 1.", ["version"], **own).labels(__version__).set(1)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            route: the path's pattern, never the path itself.
            status: of the answer.
            seconds: that it took.
        """
        self._requests.labels(route, str(status)).inc()
        self._duration.observe(seconds)

    def restored(self, pixels: int, experts: list[str]) -> None:
        """A picture was restored by these experts; by none, it was the base alone."""
        self._pixels.inc(pixels)
        for name in experts or ["base"]:
            known = name if name in self._experts or name == "base" else "other"
            self._selected.labels(known).inc()

    def text(self) -> tuple[bytes, str]:
        """What Prometheus reads, and its content type."""
        return prometheus_client.generate_latest(
            self._registry
        ), prometheus_client.CONTENT_TYPE_LATEST
