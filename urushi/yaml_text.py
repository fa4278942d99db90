"""YAML from anywhere, read within bounds.

A few bytes of YAML can stand for any amount of values (aliases within aliases), of digits, or of
nesting, and some texts that look like dates or like minutes and seconds end its reader. Here what
is read is bounded first; dates and numbers to base 60 are texts, which is what people mean.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from urushi.errors import brief

__all__ = ["YAMLTextError", "parse_yaml", "read_yaml"]

# PyYAML reads some ten thousand values in a second; recipes have hundreds.
_LARGEST_FILE = 256_000
_MOST_VALUES = 20_000
_MOST_DEPTH = 40
_LONGEST_NUMBER = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_REPLACED = {*_NUMBERS, "tag:yaml.org,2002:timestamp"}
_INT = r"[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+"
_FLOAT = (
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


class YAMLTextError(ValueError):
    """A text is not valid YAML, or exceeds a bound; its message says which, in a line."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without dates and numbers to base 60, and no further than bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As its base; it ends as soon as a bound is reached, because reading on may take long."""
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > _MOST_DEPTH:
            raise YAMLTextError(f"nested deeper than {_MOST_DEPTH} levels")
        if self._count > _MOST_VALUES:
            raise YAMLTextError(f"more than {_MOST_VALUES:,} values")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _REPLACED]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_NUMBERS[0], re.compile(f"^(?:{_INT})$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_NUMBERS[1], re.compile(f"^(?:{_FLOAT})$"), list("-+0123456789."))


def read_yaml(path: Path) -> Any:
    """Read a YAML file of at most 256 kB.

    Raises:
        OSError: it cannot be read.
        YAMLTextError: it is not YAML, or exceeds a bound.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise YAMLTextError(f"more than {_LARGEST_FILE:,} bytes are too many for settings")
    try:
        return parse_yaml(content.decode())
    except UnicodeDecodeError as error:
        raise YAMLTextError(brief(error)) from error


def parse_yaml(text: str) -> Any:
    """Return the value that a YAML text describes; nothing in it is executed.

    Raises:
        YAMLTextError: it is not YAML, or exceeds a bound.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except YAMLTextError:
        raise
    except (yaml.YAMLError, RecursionError) as error:
        raise YAMLTextError(brief(error)) from error
    # Whatever a value makes of the constructor of the tag that it is given.
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise YAMLTextError("a value is not of the kind that its tag says") from error


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return how many values a node stands for, aliases followed, and how deep they are nested."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise YAMLTextError("a value holds itself")
        return found
    known[id(node)] = None
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            raise YAMLTextError(
                f"a number of {len(node.value):,} characters, at most {_LONGEST_NUMBER} are read"
            )
        parts: list[yaml.Node] = []
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    else:
        parts = list(node.value)
    values, depth = 1, 1
    for part in parts:
        inner = _measure(part, known)
        values, depth = values + inner[0], max(depth, 1 + inner[1])
    if values > _MOST_VALUES:
        raise YAMLTextError(f"it stands for more than {_MOST_VALUES:,} values")
    if depth > _MOST_DEPTH:
        raise YAMLTextError(f"nested deeper than {_MOST_DEPTH} levels")
    known[id(node)] = values, depth
    return values, depth
