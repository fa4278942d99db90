"""The command's sentences as the service says them: fields of its forms in place of options."""

import re
from collections.abc import Mapping

__all__ = ["in_forms"]

_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
_COMMAND = re.compile(r"\burushi [a-z]|\bpip ")
_CLAUSE = re.compile(r"[.;:,(](?=\s)|\(")
# Options of `urushi restore` that forms have as fields; other ones are those of the service, or
# only the command has them.
_FIELDS: Mapping[str, str] = {
    **{name: name for name in ("task", "strength", "luma", "chroma", "format", "quality")},
    "strip-metadata": "strip_metadata",
    "adapter": "adapters",
}
_OF_SERVICE = frozenset(
    ("model", "router", "engine", "device", "precision", "tile", "overlap", "threads")
)


def in_forms(sentence: str) -> str:
    """The command's sentence with fields of forms in place of options.

    An option that forms lack is named with the command that has it: `urushi restore --pages`.
    """

    def replaced(match: re.Match[str]) -> str:
        name, before = match.group(1), sentence[: match.start()]
        clause = _CLAUSE.split(before)[-1]
        if _COMMAND.search(clause):
            return match.group()
        if name in _FIELDS:
            return _FIELDS[name]
        command = "serve" if name in _OF_SERVICE else "restore"
        return f"urushi {command} {match.group()}"

    return _OPTION.sub(replaced, sentence)
