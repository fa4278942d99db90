"""A Ray on this machine, and restorers for its workers that die at some pictures."""

import contextlib
import os
import signal
import warnings
from pathlib import Path

import pytest
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


@contextlib.contextmanager
def start_cluster():
    """A Ray of two cores, which this process is connected to."""
    from urushi.cluster.connection import LOCAL, joined

    root = Path(__file__).resolve().parent.parent
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # those of Ray's own code
        # Workers find the restorers of these tests; Ray writes no token into the user's folder.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "tests")]))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        with joined(LOCAL, cpus=2):
            yield
