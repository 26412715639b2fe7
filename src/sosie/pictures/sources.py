"""The bytes of a picture, from wherever its URI points: a folder, `file://`, `http(s)://` or an object store.

A feed may be written by strangers. So what is not fetched by HTTP can be held below the pictures' root and places that
the settings name, only known schemes are opened, and size and time are limited while reading.
"""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import fsspec
import fsspec.core
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

from sosie.errors import TerminalError
from sosie.pictures.patience import Patience
from sosie.settings import Validation

SCHEMES = frozenset({"file", "http", "https", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"})
"""Where a picture may come from; every other fsspec protocol is refused."""

_WEB = ("http://", "https://")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*)://")
_AFTER_HOST = re.compile(r"[/?#]")
_BUSY = (429, 500, 502, 503, 504)
_CHUNK = 256 * 1024


class PictureFault(TerminalError):
    """A picture can't be used. `rule` is the machine's word for why."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


class HostAway(PictureFault):
    """A host or store gave no answer, or said that it is busy: the next picture there would likely wait as long."""

    def __init__(self, detail: str) -> None:
        super().__init__("picture_unreachable", detail)


def locate(uri: str, root: str) -> str:
    """The full address of `uri`: a URL, or a local path. Relative ones lie under `root` (a folder or a URL).

    Raises `PictureFault` where a relative one climbs out of `root`, or the scheme is none of `SCHEMES`.
    """
    if scheme := _SCHEME.match(uri):
        if scheme[1].lower() not in SCHEMES:
            raise PictureFault(
                "picture_unreachable", f"Scheme {scheme[1]!r} is not supported; it may be {', '.join(sorted(SCHEMES))}."
            )
        return scheme[1].lower() + uri[len(scheme[1]) :]
    if "\0" in uri:
        raise PictureFault("picture_missing", "The URI holds a NUL character.")
    if Path(uri).is_absolute():
        return uri
    base = root if root.endswith("/") else root + "/"
    # A server reads %2e%2e as .., a file system does not.
    climbs = unquote(uri) if base.startswith(_WEB) else uri
    if posixpath.normpath(climbs.replace("\\", "/")).split("/")[0] == "..":
        raise PictureFault("picture_outside_root", f"{uri} leaves the pictures' root; give a path inside of it.")
    return base + posixpath.normpath(uri)


def lies_below(address: str, places: Iterable[str]) -> bool:
    """Whether an address lies in one of some folders, or begins with one of some URLs and climbs nowhere.

    Links are followed before they are judged. Nothing lies below an empty name.
    """
    path = _local(address)
    if path is not None:
        return any(folder is not None and path.is_relative_to(folder) for folder in map(_local, places))
    begins = any(address.startswith(place.rstrip("/") + "/") for place in places if _SCHEME.match(place))
    return begins and ".." not in unquote(address).split("/")


def outside(uri: str) -> PictureFault:
    return PictureFault(
        "picture_outside_root",
        f"{uri} does not lie below the pictures' root, nor below a place in validation.picture_roots.",
    )


def fetch(uri: str, root: str, rules: Validation, patience: Patience | None = None) -> bytes:
    """The bytes at `uri`, at most `rules.max_picture_bytes` of them.

    What is not fetched by HTTP lies below `root` or one of `rules.picture_roots`, where these are told. Raises
    `PictureFault`, without asking where `patience` with its host is spent.
    """
    address = locate(uri, root)
    is_web = address.startswith(_WEB)
    is_local = not is_web and _local(address) is not None
    if not is_web:
        if not is_local and "::" in address:  # which fsspec reads as a chain, each store within the next
            raise PictureFault("picture_unreachable", f"{address} chains stores by '::'; name the picture without it.")
        if rules.picture_roots is not None and not lies_below(address, (root, *rules.picture_roots)):
            raise outside(uri)
    data = _asked(address, rules) if is_local or patience is None else _asked_patiently(address, rules, patience)
    if not data:
        raise PictureFault("picture_empty", f"{address} has no bytes.")
    return data


def _asked_patiently(address: str, rules: Validation, patience: Patience) -> bytes:
    host = _AFTER_HOST.split(address.partition("://")[2], maxsplit=1)[0].rpartition("@")[2].lower()
    if why := patience.spent(host):
        raise PictureFault("picture_unreachable", f"{address} was not asked for: {why}.")
    try:
        data = _asked(address, rules)
    except HostAway:
        patience.failed(host)
        raise
    except PictureFault:
        patience.answered(host)
        raise
    patience.answered(host)
    return data


def _asked(address: str, rules: Validation) -> bytes:
    limit = rules.max_picture_bytes
    try:
        if address.startswith(_WEB):
            return _download(address, limit, rules.picture_timeout_seconds)
        return _read(address, limit)
    except PictureFault:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise PictureFault("picture_missing", f"Nothing lies at {address}.") from None
    except TimeoutError:
        raise HostAway(f"{address} gave no full answer within {rules.picture_timeout_seconds:g} s.") from None
    except ImportError as error:
        raise PictureFault(
            "picture_unreachable", f"{address} needs a client that is not installed ({error}); add it, e.g. sosie[s3]."
        ) from None
    except Exception as error:  # each store's client has errors of its own, and none may stop the run
        told = f"{address} can't be read: {type(error).__name__}: {error}"
        is_away = _is_busy(error) if address.startswith(_WEB) else not isinstance(error, PermissionError)
        raise (HostAway(told) if is_away else PictureFault("picture_unreachable", told)) from error


def _is_busy(error: BaseException) -> bool:
    """Whether a server said that it is busy, or hung up, or can't be connected to."""
    import aiohttp

    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _BUSY
    return isinstance(error, aiohttp.ClientConnectionError) and not isinstance(error, TimeoutError)


def _too_large(address: str, limit: int) -> PictureFault:
    return PictureFault(
        "picture_too_large", f"{address} has more than {limit:,} bytes (setting validation.max_picture_bytes)."
    )


def _local(address: str) -> Path | None:
    """The file or folder at a path or at `file://`, where its links lead to; None for other URLs and no address."""
    is_url = address.startswith("file://")
    if not address or (not is_url and _SCHEME.match(address)):
        return None
    try:
        return Path(url2pathname(urlsplit(address).path) if is_url else address).resolve()
    except (RuntimeError, ValueError) as error:  # links in a circle, a NUL
        raise PictureFault("picture_missing", f"{address} names no file ({error}).") from None


def _read(address: str, limit: int) -> bytes:
    """A local file or an object of a store: asked for its size first, then read whole."""
    path = _local(address)
    if path is not None:
        if not path.is_file():  # nor a pipe or a device, which may never end
            raise FileNotFoundError(address)
        if path.stat().st_size > limit:
            raise _too_large(address, limit)
        return path.read_bytes()
    filesystem, key = fsspec.core.url_to_fs(address)
    details = filesystem.info(key)
    if details["type"] == "directory":
        raise IsADirectoryError(address)
    if (details.get("size") or 0) > limit:
        raise _too_large(address, limit)
    data: bytes = filesystem.cat_file(key)
    return data


def _download(address: str, limit: int, seconds: float) -> bytes:
    """By HTTP, in one streamed request that is cut off where it takes too long or sends too much.

    A server that is busy, or hangs up, is asked once more. Proxies are those of the environment.
    """
    import aiohttp

    asked = urlsplit(address)
    if not asked.hostname:
        raise PictureFault("picture_unreachable", f"{address} names no host.")
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, 5.0))
    filesystem = fsspec.filesystem("http", client_kwargs={"timeout": timeout, "trust_env": True})

    async def no_login_of_ours(request: Any, send: Any) -> Any:
        """What the environment may tell besides proxies, the logins in `.netrc`, is not for hosts that feeds name."""
        if not (asked.username and request.url.host == asked.hostname):
            request.headers.popall("Authorization", None)
        return await send(request)

    again = Retrying(retry=retry_if_exception(_is_busy), stop=stop_after_attempt(2), wait=wait_fixed(0.5), reraise=True)
    for attempt in again:
        with attempt:
            data = bytearray()
            # Any size given beforehand saves the HEAD request; block_size 0 asks for a stream.
            with filesystem.open(address, block_size=0, size=limit, middlewares=(no_login_of_ours,)) as stream:
                while chunk := stream.read(_CHUNK):
                    data += chunk
                    if len(data) > limit:
                        raise _too_large(address, limit)
    return bytes(data)
