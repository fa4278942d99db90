"""Restorers that workers of a cluster are given: they die at some pictures."""

import os
import signal
from pathlib import Path

from pictures import Untouched

DEADLY_WIDTH, DYING_WIDTH = 41, 43


class Mortal(Untouched):
    """Ends its process at pictures of one width, and once, at the first, at those of another."""

    def __init__(self, died: Path) -> None:
        super().__init__()
        self.died = str(died)
        self.adapters = ()

    def __getstate__(self):
        return {"died": self.died, "adapters": ()}

    def describe(self):
        return {"engine": "none", "device": "cpu", "precision": "float32", "adapters": []}

    def restore_rows(self, read, width, height, on_progress=None):
        for rows in super().restore_rows(read, width, height, on_progress):
            if width == DYING_WIDTH and not Path(self.died).exists():
                Path(self.died).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if width == DEADLY_WIDTH:
                os.kill(os.getpid(), signal.SIGKILL)
            yield rows
