"""Joining a Ray cluster, or starting one on this machine; and what its nodes have."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from urushi.errors import BrokenExtraError, ClusterError, MissingExtraError, brief
from urushi.inference.hardware import is_installed

__all__ = ["AUTO", "LOCAL", "Cluster", "Node", "check_address", "joined"]

LOCAL, AUTO = "ray", "auto"
_CLIENT = "ray://"
# Ray itself waits for minutes, or ends the process, where nobody answers.
_REACH_SECONDS = 10.0
# What Ray passes on is small: names of files going, and a row for each picture coming back.
_STORE_BYTES = 100 << 20


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        cpus: cores that Ray may give away.
        accelerators: GPUs that Ray may give away.
        memory: bytes that Ray counts for tasks; 0 where it does not tell.
    """

    cpus: float | int
    accelerators: float | int
    memory: int


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        address: as it was asked for.
        nodes: those that are alive.
    """

    address: str
    nodes: tuple[Node, ...]

    def describe(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "address": self.address,
            "nodes": len(self.nodes),
            "cpus": sum(node.cpus for node in self.nodes),
            "accelerators": sum(node.accelerators for node in self.nodes),
        }


def check_address(address: str) -> str:
    """The address, if it can be one.

    Raises:
        ClusterError: it cannot.
    """
    host, port = _host_and_port(address)
    if address not in (LOCAL, AUTO) and not (host and port.isdigit()):
        raise ClusterError(
            f"--cluster {address!r} is no cluster: expected {LOCAL} for one on this machine, "
            f"{AUTO} for the one that runs on it, ray://HOST:10001 or HOST:6379",
            usage=True,
        )
    return address


@contextmanager
def joined(address: str, *, cpus: int | None = None) -> Iterator[Cluster]:
    """Connects to a cluster until the end of the block.

    A process that is connected already stays so, whatever the address.

    Args:
        address: `ray` starts one on this machine, which ends with the block; `auto` is the one that
            `ray start` has started here; `ray://HOST:PORT` and `HOST:PORT` are others.
        cpus: cores of the one that is started; None for all.

    Raises:
        ClusterError: nobody answers there, or not as Ray does.
        MissingExtraError: Ray is not installed, or cannot be imported.
    """
    ray = _ray()
    if ray.is_initialized():
        yield Cluster(address, _nodes(ray))
        return
    check_address(address)
    if address not in (LOCAL, AUTO):
        _reach(address)
    with _kept_signals():
        _connect(ray, address, cpus)
    try:
        yield Cluster(address, _nodes(ray))
    finally:
        # What runs for this process there ends with it.
        with _kept_signals():
            ray.shutdown()


def _ray() -> Any:
    if not is_installed("ray"):
        raise MissingExtraError("ray, which --cluster needs,", "cluster")
    # Read when it is imported or starts a cluster. It would report on its use to its makers; take
    # accelerators away from what asks for none, and warn of that; and let workers wait for every
    # other process of the machine.
    for name in ("USAGE_STATS_ENABLED", "ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "worker_niceness"):
        os.environ.setdefault(f"RAY_{name}", "0")
    try:
        import ray
    except Exception as error:
        raise BrokenExtraError("ray, which --cluster needs,", "cluster", error) from error
    return ray


def _connect(ray: Any, address: str, cpus: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        options |= {} if cpus is None else {"num_cpus": cpus}
    try:
        ray.init({LOCAL: "local"}.get(address, address), **options)
    except Exception as error:
        # Ray's own sentences run over many lines and differ in kind.
        with contextlib.suppress(Exception):
            ray.shutdown()
        if address == AUTO:
            raise ClusterError(
                f"no Ray cluster runs on this machine ({brief(error)}): start one with  ray start "
                f"--head  or choose --cluster {LOCAL}"
            ) from error
        raise ClusterError(
            f"the Ray cluster {address!r} cannot be joined ({brief(error)}): Ray and Python there "
            "have to be of the versions here"
        ) from error


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.removeprefix(_CLIENT).partition("/")[0].rpartition(":")
    return host.strip("[]"), port


def _reach(address: str) -> None:
    host, port = _host_and_port(address)
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"nothing answers at {address!r} ({reason}): see that the cluster runs, and that its "
            "port is open to this machine"
        ) from error


def _nodes(ray: Any) -> tuple[Node, ...]:
    return tuple(
        Node(
            float(node["Resources"].get("CPU", 0)),
            float(node["Resources"].get("GPU", 0)),
            int(node["Resources"].get("memory", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    )


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Leaves signals to whom they were: Ray takes SIGTERM, and aborts where it takes long."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
