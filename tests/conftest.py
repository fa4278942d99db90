"""Settings shared by all tests."""

import os

# Tests run side by side (pytest-xdist): one thread each is faster than two that wait for another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
