"""Why a store did not do what it was asked: whether waiting helps, and the sentence if not."""

import errno
from collections.abc import Iterator
from enum import Enum
from typing import Any

from urushi.errors import TargetError, UnreadableError, UrushiError, brief
from urushi.remote.places import Place

__all__ = [
    "Doing",
    "failure",
    "is_missing_bucket",
    "is_refused_condition",
    "is_taken",
    "is_transient",
    "why",
]


class Doing(Enum):
    """What a store is asked for: in which words, and of what class its failure is."""

    LIST = ("listed", "was listed", UnreadableError)
    READ = ("fetched", "was fetched", UnreadableError)
    WRITE = ("written", "was written", TargetError)

    @property
    def verb(self) -> str:
        """`cannot be ...`."""
        return self.value[0]

    @property
    def done(self) -> str:
        """What is said when it went well in the end."""
        return self.value[1]

    @property
    def error(self) -> type[UrushiError]:
        """Of what goes wrong."""
        return self.value[2]


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PASSING_ERRNO = {
    errno.EBUSY,
    errno.EAGAIN,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ETIMEDOUT,
}
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504, 507, 508, 509, 520, 521, 522, 523, 524}
_PASSING_CODES = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "BadDigest",
    "503",
    "500",
}
# By name, since what raises them is not imported here, and is another library for every store.
_PASSING_NAMES = {
    "ClientConnectionError",
    "ClientPayloadError",
    "ServerDisconnectedError",
    "ConnectionClosedError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "FSTimeoutError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ProtocolError",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "ChecksumError",
    "TransportError",
}
_UNREACHED_NAMES = {
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ConnectTimeoutError",
    "ConnectionTimeoutError",
    "EndpointConnectionError",
}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "DefaultCredentialsError",
    "RefreshError",
}


def is_transient(error: BaseException) -> bool:
    """Whether the same may well succeed a little later."""
    for one in _chain(error):
        if isinstance(one, PermissionError | FileNotFoundError | FileExistsError):
            return False
        if isinstance(one, OSError) and one.errno in _NO_ROOM:
            return False
        if _named(one, _NO_CREDENTIALS):
            return False
    for one in _chain(error):
        status, code = _status(one), _code(one)
        if status in _PASSING_STATUS or code in _PASSING_CODES or _named(one, _PASSING_NAMES):
            return True
        if isinstance(one, TimeoutError | ConnectionError | EOFError):
            return True
        if isinstance(one, OSError) and one.errno in _PASSING_ERRNO:
            return True
    return False


def is_refused_condition(error: BaseException) -> bool:
    """Whether a store does not know how to write only what is not there yet."""
    return any(_status(one) == 501 or _code(one) == "NotImplemented" for one in _chain(error))


def is_missing_bucket(error: BaseException) -> bool:
    """Whether not only a file is missing."""
    said = [f"{_code(one)} {one}" for one in _chain(error)]
    return any("NoSuchBucket" in text or "bucket does not exist" in text for text in said)


def is_taken(error: BaseException) -> bool:
    """Whether what was to be written only if it is not there, is there."""
    return isinstance(error, FileExistsError) or any(_status(e) == 412 for e in _chain(error))


def why(error: BaseException, place: Place) -> str:
    """What the store said, in a few words and without secrets."""
    for one in _chain(error):
        code, status = _code(one), _status(one)
        if code and not code.isdigit():
            return place.hide(code)
        if status is not None:
            return f"status {status}"
    return place.hide(brief(error))


def failure(
    error: BaseException, place: Place, doing: Doing, tries: int = 1, reason: str = ""
) -> UrushiError:
    """The sentence for the user.

    Args:
        error: what was raised.
        place: what it was about.
        doing: what the store was asked for.
        tries: how often.
        reason: why not, if that is known better than by the error.
    """
    cannot = f"{place} cannot be {doing.verb}"
    chain = list(_chain(error))
    said = reason or why(error, place)
    for one in chain:
        if isinstance(one, OSError) and one.errno in _NO_ROOM:
            where = f" in {one.filename}" if one.filename else ""
            return TargetError(
                f"{cannot}, because there is no room for it{where} "
                f"({one.strerror or brief(one)}): free space there, or set TMPDIR"
            )
    if any(_named(one, _NO_CREDENTIALS) for one in chain):
        return doing.error(
            f"{cannot}, because no credentials were found ({said}): set them as the "
            f"library of {place.scheme}:// reads them, in the environment or its own files"
        )
    if is_missing_bucket(error):
        return doing.error(f"{cannot}, because there is no such bucket: check the name")
    if isinstance(error, FileNotFoundError):
        return doing.error(f"{place} is not there: check the name")
    statuses = {_status(one) for one in chain}
    if isinstance(error, PermissionError) or statuses & {401, 403}:
        return doing.error(
            f"{cannot}, because the store refuses it ({said}): check the credentials and what "
            "they permit"
        )
    after = f" after {tries} tries" if tries > 1 else ""
    if any(_named(one, _UNREACHED_NAMES) for one in chain):
        return doing.error(
            f"{cannot}{after}, because {_host(place)} cannot be reached ({said}): check the "
            "address and the network"
        )
    way = "try again later" if tries > 1 else "check the URL and the store's settings"
    return doing.error(f"{cannot}{after} ({said}): {way}")


def _host(place: Place) -> str:
    return "the server" if place.is_web else "the store"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _named(error: BaseException, names: set[str]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _response(error: BaseException) -> dict[str, Any]:
    found = getattr(error, "response", None)
    return found if isinstance(found, dict) else {}


def _status(error: BaseException) -> int | None:
    """The status of HTTP, where the error tells one."""
    found = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    stated = getattr(error, "status", None)
    # aiohttp warns of those who ask for `code` as well, which gcsfs alone has.
    for value in (found, stated, None if stated else getattr(error, "code", None)):
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _code(error: BaseException) -> str:
    """The code of a store that talks like S3."""
    return str(_response(error).get("Error", {}).get("Code", ""))
