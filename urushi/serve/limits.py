"""What the service gives a client at most."""

from dataclasses import dataclass

__all__ = ["Limits"]

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of a service.

    Attributes:
        body: bytes of one request's body.
        adapter: bytes of an adapter file that is sent.
        pixels: of one picture.
        seconds: that one job may run.
        upload_seconds: until a request's body has to be there.
        queue: jobs that wait at most, of all clients together.
        client_jobs: jobs of one client that wait or run.
        client_disk: bytes that one client's pictures, results and adapters may take.
        client_items: pictures, jobs and adapters that are kept for one client.
        keep: seconds that something is kept after it was last asked for.
        keep_answered: the same for what was the answer itself, and so is with the client already.
        at_once: pixels of a picture whose result is the answer itself.
        at_once_seconds: that such an answer may take; then it becomes a job.
        adapt_minutes: that an adaptation may take.
    """

    body: int = 512 * _MIB
    adapter: int = 64 * _MIB
    pixels: int = 200_000_000
    seconds: float | int = 900.0
    upload_seconds: float | int = 300.0
    queue: int = 64
    client_jobs: int = 64
    client_disk: int = 8192 * _MIB
    client_items: int = 4000
    keep: float | int = 3600.0
    keep_answered: float | int = 60.0
    at_once: int = 1 << 21
    at_once_seconds: float | int = 60.0
    adapt_minutes: float | int = 30.0
