"""An engine for tests of files: it halves every value, and fails when it is told to."""

from urushi.errors import EngineError
from urushi.inference.engines.base import Precision

BROKEN = EngineError("broken")


class DarkenEngine:
    """Halves every value, after `healthy` tiles it fails."""

    name = "darken"
    device = "cpu"
    precision: Precision = "float32"
    size_multiple = 8
    scale = 1
    fixed_patch = None
    bytes_per_pixel = 1000.0

    def __init__(self, healthy=1_000_000, failure: BaseException = BROKEN):
        self.healthy = healthy
        self.failure = failure

    def run(self, batch):
        if self.healthy == 0:
            raise self.failure
        self.healthy -= 1
        return batch / 2

    def in_float32(self):
        return self
