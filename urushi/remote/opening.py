"""What opens the URLs of each kind of store, and what has to be installed for that."""

import functools
from importlib.util import find_spec
from typing import Any

from urushi.errors import MissingExtraError, UnreadableError, nearest
from urushi.remote.places import Place
from urushi.remote.store_causes import Doing, failure

__all__ = ["open_store"]

# Scheme -> the package that opens it, and the extra that brings it.
_EXTRAS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "memory": ("fsspec", "s3"),
}
_SILENCE = 60.0  # seconds a web server may be silent in the middle of a file


def open_store(place: Place, doing: Doing) -> tuple[Any, str]:
    """The fsspec file system of a place, and what it calls the place.

    Credentials are those that the libraries find by their own means.

    Raises:
        UnreadableError: nothing opens such URLs, or not with these settings.
        MissingExtraError: what does is not installed.
    """
    scheme = place.scheme
    package, extra = _EXTRAS.get(scheme, ("fsspec", "s3"))
    if place.has_user and package != "aiohttp":
        raise doing.error(
            f"{place} holds credentials: leave them out of the URL, and give them in the "
            f"environment or the files that the library of {scheme}:// reads"
        )
    for needed in ("fsspec", package):
        if find_spec(needed) is None:
            if scheme not in _EXTRAS:
                raise UnreadableError(_unknown(place, _EXTRAS), usage=True)
            raise MissingExtraError(f"{needed}, which {scheme}:// needs,", extra)
    try:
        return _opened(place.url)
    except ImportError as error:
        raise UnreadableError(
            f"{place}: what opens {scheme}:// is not installed ({error}): install it beside Urushi"
        ) from error
    except ValueError as error:
        from fsspec.registry import known_implementations

        if scheme in known_implementations:
            raise failure(error, place, doing) from error
        raise UnreadableError(_unknown(place, known_implementations), usage=True) from error
    except Exception as error:
        raise failure(error, place, doing) from error


def _unknown(place: Place, known: Any) -> str:
    told = nearest(place.scheme, known) or ", expected one of s3, gs, https, http"
    return f"{place}: nothing opens URLs of scheme {place.scheme!r}{told}"


@functools.lru_cache(maxsize=256)
def _opened(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    store, path = url_to_fs(url, **_options(url.partition("://")[0]))
    if hasattr(store, "retries"):
        store.retries = 1
    return store, path


def _options(scheme: str) -> dict[str, Any]:
    """How a store is opened: patience is ours, so that it is one for all stores, and told."""
    from fsspec.config import conf

    options: dict[str, Any] = {"use_listings_cache": False}
    own = conf.get(scheme, {})
    if scheme in ("s3", "s3a"):
        stated = own.get("config_kwargs", {})
        config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, **stated}
        options["config_kwargs"] = {"connect_timeout": 10, "read_timeout": 60, **config}
    elif scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        # A large file may take any time, as long as it goes on; proxies are the environment's.
        patience = ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE)
        stated = own.get("client_kwargs", {})
        options["client_kwargs"] = {"timeout": patience, "trust_env": True, **stated}
    return options
