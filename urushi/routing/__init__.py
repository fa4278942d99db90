"""Routing: a router reads from a picture what is wrong with it, and which experts it needs.

After LoRA-IR (arXiv 2410.15385). What looks at a picture and decides (`views`, `head`, `evidence`,
`calibration`, `decision`) works on arrays, without torch; what is trained (`encoders`, `router`)
is torch, and is imported from its own module.
"""

from urushi.files.router_file import CLEAN, RouterHeader, ViewGeometry
from urushi.routing.calibration import expected_calibration_error, fit_temperature, probabilities
from urushi.routing.decision import Decision, decide, expert_weights
from urushi.routing.head import Reading, read_embeddings
from urushi.routing.views import Views, make_views

__all__ = [
    "CLEAN",
    "Decision",
    "Reading",
    "RouterHeader",
    "ViewGeometry",
    "Views",
    "decide",
    "expected_calibration_error",
    "expert_weights",
    "fit_temperature",
    "make_views",
    "probabilities",
    "read_embeddings",
]
