"""Pictures and files that lie in object stores and on web servers, by their URLs.

fsspec does the transfers; it is imported when a URL is first used, never for local paths alone.
What comes back from here, and every message, names places without the secrets their URLs may hold.
"""

from urushi.remote.places import Place, is_url, local_path, redacted
from urushi.remote.store import Entry, fetch, list_below, look, put, read_part, remove

__all__ = [
    "Entry",
    "Place",
    "fetch",
    "is_url",
    "list_below",
    "local_path",
    "look",
    "put",
    "read_part",
    "redacted",
    "remove",
]
