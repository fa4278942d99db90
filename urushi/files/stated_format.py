"""What a file of ours says it is, read quickly, and before anything heavy is imported."""

import json
from pathlib import Path

__all__ = ["LARGEST_METADATA", "METADATA_KEY", "stated_format"]

METADATA_KEY = "urushi"
# Recipe, scores and a rank for every layer take some ten kB.
LARGEST_METADATA = 4_000_000


def stated_format(path: Path) -> str | None:
    """Return the format that a file of ours says it has, such as `urushi-model`.

    It is looked at quickly and not checked; None where a file says nothing.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= 2 * LARGEST_METADATA or file.read(1) != b"{":
                return None
            head = json.loads(b"{" + file.read(length - 1))
        said = json.loads(head["__metadata__"][METADATA_KEY])
        found = said.get("format", said.get("kind"))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return found if isinstance(found, str) else None
