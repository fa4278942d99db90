"""Ways to change a frozen backbone. They know no particular backbone.

`METHODS` is the table; the command line, the documentation and the contract tests read it. Neither
the table nor the formulas of methods need torch, which the other names below load on first use.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from urushi.adapters.method import Branch, Method
from urushi.errors import AdapterError
from urushi.plugins import Table
from urushi.settings import parse_settings

if TYPE_CHECKING:
    from urushi.adapters.attached import Adapted, FixedRoute, ParameterReport, attach
    from urushi.adapters.base import Adapter
    from urushi.adapters.host import Host
    from urushi.backbones.network import RestorationNetwork

__all__ = [
    "METHODS",
    "Adapted",
    "Adapter",
    "FixedRoute",
    "Host",
    "Method",
    "ParameterReport",
    "attach",
    "create_adapter",
    "for_weights",
]

METHODS: Table[Method] = Table(
    "method",
    "urushi.methods",
    {
        "colora": "urushi.adapters.colora:COLORA",
        "lora": "urushi.adapters.low_rank_formula:LORA",
        "dora": "urushi.adapters.dora:METHOD",
        "vera": "urushi.adapters.vera:METHOD",
        "vora": Branch("urushi.adapters.quadratic:METHOD"),
        "mor": Branch("urushi.adapters.rank_routing:METHOD"),
        "fact": "urushi.adapters.factor:METHOD",
        "adaptir": Branch("urushi.adapters.adaptir:METHOD"),
        "houlsby": Branch("urushi.adapters.bottleneck:HOULSBY"),
        "adaptformer": Branch("urushi.adapters.bottleneck:ADAPTFORMER"),
        "moe": Branch("urushi.adapters.bottleneck:MIXTURE"),
        "vpt": Branch("urushi.adapters.prompt:METHOD"),
        "guidance": Branch("urushi.adapters.guidance:METHOD"),
        "experts": Branch("urushi.adapters.experts:METHOD"),
        "ssf": "urushi.adapters.scale_shift:METHOD",
        "bitfit": "urushi.adapters.partial:BITFIT",
        "norm": "urushi.adapters.partial:NORM",
        "decoder": "urushi.adapters.partial:DECODER",
        "full": "urushi.adapters.partial:FULL",
        "frozen": "urushi.adapters.partial:FROZEN",
    },
    fits=lambda entry, name: isinstance(entry, Method),
    expected="a urushi.adapters.Method",
)

_HOMES = {
    "Adapted": "attached",
    "Adapter": "base",
    "FixedRoute": "attached",
    "Host": "host",
    "ParameterReport": "attached",
    "attach": "attached",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def create_adapter(backbone: "RestorationNetwork", config: Mapping[str, Any]) -> "Adapter":
    """Makes an adapter for a backbone, freshly initialised.

    Attached, it changes nothing yet, but for the methods whose entry says otherwise.

    Args:
        backbone: what it is made for; stays as it is. A `Host` adapts adapters, too.
        config: `{"method": NAME, ...}` with the settings of that method.

    Raises:
        AdapterError: the method is unknown or cannot go onto this backbone, or a setting is wrong.
    """
    from urushi.adapters.deltas import DeltaAdapter

    options = dict(config)
    name = str(options.pop("method", ""))
    method = METHODS.find(name, AdapterError)
    settings = parse_settings(options, method.settings, AdapterError, f"method {name}")
    build = method.adapter
    if build is None:
        return DeltaAdapter(backbone, settings, method, name)
    if isinstance(build, str):
        module, _, attribute = build.partition(":")
        build = getattr(import_module(module), attribute)
    return build(backbone, settings)


def for_weights(name: str) -> Method | None:
    """The method of that name if weights can hold its effect, else None.

    Methods that torch alone can run are not imported to find out.
    """
    if isinstance(METHODS.place(name), Branch) or name not in METHODS:
        return None
    method = METHODS[name]
    return method if method.deltas is not None else None
