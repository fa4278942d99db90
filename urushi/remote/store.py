"""Transfers: what lies below a URL, one file here, one file there; patient, and never half done.

Errors that pass by themselves are waited for, and told; a file that was cut short or changed on its
way is fetched again; what is put somewhere appears whole or not at all.
"""

import contextlib
import hashlib
import logging
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from urushi.errors import TakenError, TargetError, UnreadableError, UrushiError
from urushi.remote.opening import open_store
from urushi.remote.places import Place
from urushi.remote.store_causes import (
    Doing,
    failure,
    is_missing_bucket,
    is_refused_condition,
    is_taken,
    is_transient,
    why,
)

__all__ = ["TRIES", "Entry", "Tell", "fetch", "list_below", "look", "put", "read_part", "remove"]

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]
Made = TypeVar("Made")

TRIES = 6
"""How often a transfer is tried at most."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0  # seconds
# Stores in which a file that is being written cannot be seen, or seen half, before it is complete.
_AT_ONCE = {"s3", "s3a", "gs", "gcs", "memory", "abfs", "abfss", "az"}
_VERSIONS = (
    "ETag", "etag", "generation", "md5Hash", "Last-Modified", "LastModified", "mtime", "updated",
    "created",
)  # fmt: skip
_DEEPEST = 32  # folders of a web server within one another


@dataclass(frozen=True)
class Entry:
    """A file in a store.

    Attributes:
        place: where it lies.
        name: its path relative to the folder that was listed, with slashes; else its own name.
        size: bytes; None where the store does not say.
        version: tells one state of it from another: its ETag, or when it was made; empty where the
            store says neither.
    """

    place: Place
    name: str
    size: int | None
    version: str


class _NotWholeError(Exception):
    """What was transferred is not what should have been: once more."""


def list_below(folder: Place, tell: Tell | None = None) -> list[Entry]:
    """All files below a folder, sorted by name; empty where there are none.

    Args:
        folder: a bucket, or a prefix of its keys; a folder that a web server shows as a page of
            links.
        tell: told in a sentence when the store had to be asked several times.

    Raises:
        UnreadableError: the store refuses, is not there or cannot be reached.
        MissingExtraError: what opens such URLs is not installed.
    """
    store, path = open_store(folder, Doing.LIST)

    def listed() -> dict[str, dict[str, Any]]:
        if folder.is_web:
            return _of_web(store, folder.folder().url)
        found = store.find(path, detail=True)
        if not found:
            store.ls(path)  # which tells an empty folder from a bucket that is not there
        return found

    try:
        found = _patiently(listed, folder, Doing.LIST, tell)
    except _MissingError as error:
        if is_missing_bucket(error):
            raise
        if _bucket_of(path) == path.strip("/") and folder.scheme != "memory":
            raise
        found = {}
    entries = []
    for full, facts in found.items():
        name = _relative(full, path, folder)
        if facts.get("type", "file") == "file" and name and not name.endswith("/"):
            place = Place(full) if folder.is_web else folder / name
            entries.append(Entry(place, name, facts.get("size"), _version(facts)))
    return sorted(entries, key=lambda entry: entry.name)


def look(place: Place, tell: Tell | None = None) -> Entry | None:
    """What is known of one file; None where there is none, or a folder.

    Raises:
        UnreadableError: the store refuses, is not there or cannot be reached.
        MissingExtraError: what opens such URLs is not installed.
    """
    store, path = open_store(place, Doing.READ)
    try:
        facts = _patiently(lambda: _facts(store, path), place, Doing.READ, tell)
    except _MissingError:
        return None
    if facts.get("type", "file") != "file":
        return None
    return Entry(place, place.name, facts.get("size"), _version(facts))


def fetch(
    place: Place,
    to: Path,
    expected: Entry | None = None,
    tell: Tell | None = None,
    stop: Event | None = None,
) -> Entry:
    """Copies a file into a local one, which appears whole or not at all.

    Args:
        place: of the file.
        to: the local one; replaced if it is there.
        expected: what a listing said of it; where it has changed since, the new state is fetched.
        tell: told in a sentence when it took several tries.
        stop: once set, ends the waiting for another try.

    Returns:
        What was fetched.

    Raises:
        UnreadableError: it is not there, may not be read, changes all the time, or the store cannot
            be reached.
        TargetError: there is no room for it here.
    """
    store, path = open_store(place, Doing.READ)
    part = to.with_name(f".{to.name[:40]}-{secrets.token_hex(4)}.part")
    before = expected

    def once() -> Entry:
        nonlocal before
        if before is None or not before.version:
            before = _entry(store, path, place)
        store.get_file(path, str(part))
        after = _entry(store, path, place)
        changed, before = after.version != before.version and before.version, after
        if changed:
            raise _NotWholeError("it changed while it was fetched")
        length = part.stat().st_size
        if after.size is not None and length != after.size:
            raise _NotWholeError(f"{length} of {after.size} bytes arrived")
        part.replace(to)
        return after

    try:
        return _patiently(once, place, Doing.READ, tell, stop)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def read_part(place: Place, start: int = 0, length: int | None = None) -> bytes:
    """The bytes of a file, or of a part of it; fewer where it ends before.

    Args:
        place: of the file.
        start: the first byte.
        length: how many; None for all that follow.

    Raises:
        UnreadableError: it is not there, may not be read, or the store cannot be reached.
    """
    store, path = open_store(place, Doing.READ)
    end = None if length is None else start + length
    return _patiently(lambda: store.cat_file(path, start, end), place, Doing.READ, None)


def put(file: Path, place: Place, *, overwrite: bool = False, tell: Tell | None = None) -> Entry:
    """Copies a local file to a place, where it appears whole or not at all.

    Args:
        file: the local one.
        place: where to.
        overwrite: replace what is there.
        tell: told in a sentence when it took several tries.

    Returns:
        What is there now.

    Raises:
        TakenError: there is a file already, and it is not to be replaced.
        TargetError: the store refuses, cannot be written or cannot be reached.
    """
    if place.is_web:
        raise TargetError(
            f"{place} lies on a web server, which is only read: choose a folder, or a store such "
            "as s3://",
            usage=True,
        )
    store, path = open_store(place, Doing.WRITE)
    size = file.stat().st_size
    tried = 0

    def once() -> Entry:
        nonlocal tried
        tried += 1
        try:
            _put_once(store, file, path, place, overwrite)
        except FileExistsError:
            # The answer to an earlier try may have been lost: then it is there, and ours.
            if tried == 1 or not _is_same(store, path, file):
                raise
        there = _entry(store, path, place)
        if there.size is not None and there.size != size:
            raise _NotWholeError(f"{there.size} of {size} bytes arrived")
        return there

    try:
        return _patiently(once, place, Doing.WRITE, tell)
    except FileExistsError:
        raise TakenError(
            f"'{place}' exists already and is left as it is: choose another name, or replace it "
            "with --overwrite."
        ) from None


def remove(place: Place) -> None:
    """Removes a file; one that is not there is no error.

    Raises:
        TargetError: the store refuses, or cannot be reached.
    """
    store, path = open_store(place, Doing.WRITE)
    with contextlib.suppress(_MissingError):
        _patiently(lambda: store.rm_file(path), place, Doing.WRITE, None)


def _put_once(store: Any, file: Path, path: str, place: Place, overwrite: bool) -> None:
    if not overwrite and store.exists(path):
        raise FileExistsError(path)
    if place.scheme in _AT_ONCE:
        _put_at_once(store, file, path, overwrite)
        return
    folder, _, name = path.rpartition("/")
    store.makedirs(folder, exist_ok=True)
    part = f"{folder}/.{name[:40]}-{secrets.token_hex(4)}.urushi.part"
    try:
        store.put_file(str(file), part)
        if not overwrite and store.exists(path):
            raise FileExistsError(path)
        store.mv(part, path)
    except BaseException:
        with contextlib.suppress(Exception):
            store.rm_file(part)
        raise


def _put_at_once(store: Any, file: Path, path: str, overwrite: bool) -> None:
    """Where it is not to be replaced, the store looks again itself, in the step that shows it."""
    if not overwrite:
        try:
            store.put_file(str(file), path, mode="create")
            return
        except Exception as error:
            if is_taken(error):
                raise FileExistsError(path) from error
            if not is_refused_condition(error):
                raise
    store.put_file(str(file), path)


def _is_same(store: Any, path: str, file: Path) -> bool:
    """Whether what is there holds the bytes of a local file, as far as the store tells."""
    facts = _facts(store, path)
    if facts.get("size") != file.stat().st_size:
        return False
    tag = str(facts.get("ETag", "")).strip('"')
    with file.open("rb") as opened:
        own = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return len(tag) != len(own) or tag == own


def _facts(store: Any, path: str) -> dict[str, Any]:
    store.invalidate_cache(path)
    return store.info(path)


def _entry(store: Any, path: str, place: Place) -> Entry:
    facts = _facts(store, path)
    if facts.get("type", "file") != "file":
        raise FileNotFoundError(path)
    return Entry(place, place.name, facts.get("size"), _version(facts))


def _version(facts: dict[str, Any]) -> str:
    """What of a store's facts changes whenever the file does."""
    for key in _VERSIONS:
        value = facts.get(key)
        if value:
            # Times are told in one form by a listing and in another by the file itself.
            return str(value.timestamp() if isinstance(value, datetime) else value).strip('"')
    return ""


def _bucket_of(path: str) -> str:
    return path.strip("/").partition("/")[0]


def _relative(full: str, path: str, folder: Place) -> str:
    """The name of a listed file below the folder."""
    if folder.is_web:
        from urllib.parse import unquote

        return unquote(full[len(folder.folder().url) :])
    return full.lstrip("/")[len(path.strip("/")) :].lstrip("/")


def _of_web(store: Any, url: str) -> dict[str, dict[str, Any]]:
    """What a web server's pages of folders link to below themselves."""
    found: dict[str, dict[str, Any]] = {}
    folders, seen = [(url, 0)], {url}
    while folders:
        here, depth = folders.pop()
        for facts in store.ls(here, detail=True):
            link = facts["name"].partition("#")[0]
            if "?" in link or ".." in link or not link.startswith(url) or link in seen:
                continue
            seen.add(link)
            if not link.endswith("/"):
                found[link] = {**facts, "name": link}
            elif depth < _DEEPEST:
                folders.append((link, depth + 1))
    return found


class _MissingError(UnreadableError):
    """There is nothing of that name."""


def _patiently(
    make: Callable[[], Made],
    place: Place,
    doing: Doing,
    tell: Tell | None,
    stop: Event | None = None,
) -> Made:
    """Does something, again where it fails for a reason that may pass."""
    reason, begin, stop = "", time.monotonic(), stop or Event()
    for number in range(1, TRIES + 1):
        try:
            made = make()
        except (UrushiError, FileExistsError):
            raise
        except FileNotFoundError as error:
            raise _MissingError(str(failure(error, place, doing))) from error
        except Exception as error:
            if not (isinstance(error, _NotWholeError) or is_transient(error)):
                raise failure(error, place, doing) from error
            reason = str(error) if isinstance(error, _NotWholeError) else why(error, place)
            if number == TRIES or stop.is_set():
                raise failure(error, place, doing, tries=number, reason=reason) from error
        else:
            if number > 1 and tell is not None:
                spent = time.monotonic() - begin
                tell(f"{place} {doing.done} at try {number}, after {spent:.0f} s ({reason}).")
            return made
        wait = min(_FIRST_WAIT * 2 ** (number - 1), _LONGEST_WAIT) * random.uniform(0.5, 1.0)
        logger.info("%s: %s; try %d of %d in %.1f s", place, reason, number + 1, TRIES, wait)
        stop.wait(wait)
    raise AssertionError("the last try returns or raises")
