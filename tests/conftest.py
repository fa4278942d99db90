"""Settings shared by all tests."""

import os

from hypothesis import HealthCheck, settings

# Tests run side by side (pytest-xdist): one thread each is faster than two that wait for another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What one test compiles is not there for another, or for the user: tests of that say otherwise.
os.environ["URUSHI_KEEP_COMPILED"] = "0"

# How fast a machine is, or how busy, is no matter of right and wrong.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")
