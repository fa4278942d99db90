"""URLs as places: told apart from local paths, put together, and shown without their secrets."""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from urushi.errors import UnreadableError

__all__ = ["Place", "is_url", "local_path", "redacted"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
_WEB = ("http", "https")
HIDDEN = "***"
_SHORTEST_SECRET = 3  # characters; replacing shorter ones would spoil every sentence
# A user before the first slash; or one whose secret holds slashes, unless it is a port.
_USER = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]+://)"
    r"(?:[^/\s'\"@]*@(?:[^/\s'\"@]*@)*|[^/\s'\"@:]*:(?!\d+(?:[/\s'\"]|$))[^\s'\"@]*@)"
)
_QUERY = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.\-]+://[^\n'\"?]*\?)[^\s'\"?#]*=[^\s'\"]*")


def is_url(text: object) -> bool:
    """Whether this is a URL, such as `s3://bucket/photos/`; every other text is a local path."""
    return isinstance(text, str) and _URL.match(text) is not None


def local_path(text: str) -> str:
    """The path that a `file://` URL names; everything else as it is.

    Raises:
        UnreadableError: it names a server, which only Windows takes files from.
    """
    if not text.lower().startswith("file://"):
        return text
    parts = urlsplit(text)
    host = "" if parts.netloc in ("", "localhost") else f"//{parts.netloc}"
    if host and os.name != "nt":
        meant = url2pathname(parts.netloc + parts.path)
        raise UnreadableError(
            f"{text!r} names the server {parts.netloc!r}: expected three slashes before a whole "
            f"path, such as file://{os.path.abspath(meant)}, or the path {meant!r} alone",
            usage=True,
        )
    return url2pathname(host + parts.path)


def redacted(text: object) -> str:
    """The text with what URLs in it may hold in secret, users and query strings, made unreadable.

    `s3://key:secret@bucket/a.png?token=1` becomes `s3://***@bucket/a.png?***`.
    """
    shown = str(text)
    if "://" not in shown:
        return shown
    shown = _USER.sub(rf"\g<scheme>{HIDDEN}@", shown)
    return _QUERY.sub(rf"\g<before>{HIDDEN}", shown)


@dataclass(frozen=True, repr=False)
class Place:
    """A file or folder that a URL names. `str` gives the URL without secrets.

    Attributes:
        url: as given, secrets included: for the libraries that open it, never for messages.
    """

    url: str

    @classmethod
    def of(cls, text: str) -> "Place":
        """The place of a URL.

        Raises:
            UnreadableError: it is none, or names no bucket or server.
        """
        found = _URL.match(text)
        if found is None:
            raise UnreadableError(
                f"{redacted(text)!r} is no URL, expected such as s3://bucket/key", usage=True
            )
        rest = text[found.end() :]
        scheme = found.group(1).lower()
        if not rest.strip("/"):
            raise UnreadableError(
                f"{redacted(text)!r} names no bucket or server, expected such as {scheme}://NAME/",
                usage=True,
            )
        return cls(f"{scheme}://{rest}")

    @property
    def scheme(self) -> str:
        """What stands before `://`, in lower case."""
        return self.url.partition("://")[0]

    @property
    def is_web(self) -> bool:
        """Whether it lies on a web server, which can be read and not written."""
        return self.scheme in _WEB

    @property
    def name(self) -> str:
        """Of the file, as a local one would be called; empty for a bucket itself."""
        name = self._path().rstrip("/").rpartition("/")[2]
        return unquote(name) if self.is_web else name

    @property
    def suffix(self) -> str:
        """Of the name, with the dot."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def is_folder(self) -> bool:
        """Whether the URL says so itself, by a slash at its end, or by naming a bucket alone."""
        return self._path().endswith("/") or not self._path().strip("/")

    @property
    def parent(self) -> "Place":
        """The folder it lies in."""
        head, path = self.halves()
        kept = path.rstrip("/").rpartition("/")[0]
        return Place(f"{head}{kept}/")

    def folder(self) -> "Place":
        """The same, with a slash at its end."""
        return self if self.url.endswith("/") else Place(f"{self.url}/")

    def __truediv__(self, inside: str) -> "Place":
        """What lies below it, by a relative path with slashes."""
        below = quote(inside) if self.is_web else inside
        return Place(f"{self.url.rstrip('/')}/{below}")

    @property
    def has_user(self) -> bool:
        """Whether the URL holds a user, or a key and its secret."""
        return bool(self._secrets_of_user())

    def hide(self, text: object) -> str:
        """The text without the secrets of this URL, wherever in it they stand, nor those of others.

        Libraries put parts of a URL into what they say.
        """
        shown = redacted(text)
        query = self.url.partition("?")[2]
        values = [part.partition("=")[2] for part in query.split("&")] if "=" in query else []
        for secret in sorted([query, *values, *self._secrets_of_user()], key=len, reverse=True):
            for form in {secret, unquote(secret), quote(secret, safe="")}:
                if len(form) >= _SHORTEST_SECRET:
                    shown = shown.replace(form, HIDDEN)
        return shown

    def _secrets_of_user(self) -> list[str]:
        scheme, _, rest = self.url.partition("://")
        user = rest[: _user_end(rest)].removesuffix("@")
        return [user, *user.split(":", 1)] if user and scheme != "memory" else []

    def _path(self) -> str:
        """What stands behind the bucket or server, without a query."""
        return self.halves()[1]

    def halves(self) -> tuple[str, str]:
        """The URL up to the bucket or server, and its path, without a query."""
        scheme, _, rest = self.url.partition("://")
        at = _user_end(rest)
        cut = rest.find("/", at)
        host, path = (rest, "") if cut < 0 else (rest[:cut], rest[cut:])
        if self.is_web:
            host, path = host.partition("?")[0], re.split(r"[?#]", path, maxsplit=1)[0]
        return f"{scheme}://{host}", path

    def __str__(self) -> str:
        scheme, _, rest = self.url.partition("://")
        at = _user_end(rest)
        shown, asked, query = rest[at:].partition("?")
        if query and (self.is_web or "=" in query):
            query = HIDDEN
        return f"{scheme}://{f'{HIDDEN}@' if at else ''}{shown}{asked}{query}"

    def __repr__(self) -> str:
        return f"Place({str(self)!r})"


def _user_end(rest: str) -> int:
    """Where the bucket or server begins behind a user and a secret, which may hold slashes."""
    found = _USER.match(f"url://{rest}")
    return 0 if found is None else found.end() - len("url://")
