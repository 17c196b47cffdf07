"""Download one file over HTTP: with progress, resuming an earlier attempt, and with a digest at the end."""

import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO
from urllib.parse import urlsplit

from ingle.core.digest import digest_file
from ingle.core.errors import PullError
from ingle.core.files import os_errors
from ingle.core.progress import FetchProgress, silent

BLOCK_BYTES = 1 << 20
ATTEMPTS = 5  # attempts in a row without a single new byte, before we give up
BACKOFF_S = 0.5  # pause after the first failure; doubles with each
TIMEOUT_S = 30  # a connection without a byte for so long counts as broken
SPARE_BYTES = 16 << 20  # disk space that a download leaves free
MAX_UNSIZED = 64 << 20  # most bytes of a file whose size is unknown; Debian's list of a release has a tenth of a megabyte
_OFFLINE = "Check the network and try again: what has arrived is kept, and the download goes on from there."


class DownloadRefused(PullError):
    """The server refuses the file, or its certificate isn't trusted. Trying again doesn't help."""


class WrongBytes(PullError):
    """The received file has the wrong contents."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file to fetch."""

    name: str
    url: str
    size: int | None = None  # bytes, where known
    sha256: str | None = None
    # For the first host only, because they may hold a token; a redirect to another host doesn't get them.
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class _SameHostHeaders(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and sends our token only to the host that it belongs to."""

    def redirect_request(
        self, req: urllib.request.Request, fp: object, code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if following is not None and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            for key, value in req.unredirected_hdrs.items():
                following.add_unredirected_header(key, value)
        return following


def make_opener(context: ssl.SSLContext | None = None, proxy: str | None = None) -> urllib.request.OpenerDirector:
    """Return an opener with these certificates and this proxy; None = as the environment says."""
    proxies = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
    secure = urllib.request.HTTPSHandler(context=context or system_certificates())
    return urllib.request.build_opener(_SameHostHeaders, proxies, secure)


def system_certificates() -> ssl.SSLContext:
    """Return the system's certificates, or certifi's where Python came without any (some macOS builds)."""
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath) and os.name != "nt":
        try:
            import certifi
        except ImportError:
            pass
        else:
            return ssl.create_default_context(cafile=certifi.where())
    return ssl.create_default_context()


def need_space(folder: Path, nbytes: int) -> None:
    """Raise PullError unless `folder` has room for `nbytes` and a little more."""
    free = shutil.disk_usage(folder).free
    if free < nbytes + SPARE_BYTES:
        got = f"{free / 1e6:.0f} MB free, {(nbytes + SPARE_BYTES) / 1e6:.0f} MB needed"
        cure = "Free some disk space, or set INGLE_HOME to a larger disk; nothing already kept was touched."
        raise PullError(str(folder), "must have room", got, cure)


def fetch(remote: Remote, path: Path, progress: FetchProgress = silent, opener: urllib.request.OpenerDirector | None = None) -> str:
    """Download `remote` to `path` and return its SHA-256. A partial download stays in `path`.part for the next attempt.

    Raises PullError if the network keeps failing, Refused if the server refuses, WrongBytes for another digest than expected (the bad file
    is then deleted), HomeError if the disk refuses.
    """
    part = path.with_name(path.name + ".part")
    if not path.exists():
        _download(remote, part, progress, opener or make_opener())
        with os_errors(path):
            part.replace(path)
    with os_errors(path):
        got = digest_file(path)
    if remote.sha256 is not None and got != remote.sha256:
        path.unlink()
        cure = "The bad download was deleted; try again. If it happens again, its source has been changed."
        raise WrongBytes(remote.name, f"must have SHA-256 {remote.sha256}", got, cure)
    return got


def _download(remote: Remote, part: Path, progress: FetchProgress, opener: urllib.request.OpenerDirector) -> None:
    failures = 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        if have and have == remote.size:
            return
        if remote.size is not None and have > remote.size:
            part.unlink()
            have = 0
        try:
            if _continue(remote, part, have, progress, opener):
                return
            reason: object = "the connection broke off"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                part.unlink()
            elif error.code != http.HTTPStatus.TOO_MANY_REQUESTS and error.code < 500:
                cure = "It may have moved, or you may have no right to it." if error.code != 407 else "Your proxy wants a password."
                raise DownloadRefused(
                    remote.name, f"The server refuses {remote.name}", f"HTTP {error.code} {error.reason}", cure
                ) from error
            reason = f"HTTP {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            # URLError, timeouts, resets and TLS failures; the disk's own errors have become HomeError by now.
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            if isinstance(reason, ssl.SSLCertVerificationError):
                cure = "Set SSL_CERT_FILE to the certificates of your network."
                raise DownloadRefused(
                    remote.name, f"The server of {remote.name} showed no certificate that is trusted", reason, cure
                ) from error
        arrived = part.exists() and part.stat().st_size > have
        failures = 1 if arrived else failures + 1
        if failures >= ATTEMPTS:
            raise PullError(remote.name, "could not be fetched", reason, _OFFLINE)
        time.sleep(BACKOFF_S * 2 ** (failures - 1))


def _continue(remote: Remote, part: Path, have: int, progress: FetchProgress, opener: urllib.request.OpenerDirector) -> bool:
    """Append the missing bytes. Returns whether the file is complete now."""
    request = urllib.request.Request(remote.url, headers={"Accept-Encoding": "identity", "User-Agent": "ingle"})
    for key, value in remote.headers.items():
        request.add_unredirected_header(key, value)
    if have:
        request.add_header("Range", f"bytes={have}-")
    with opener.open(request, timeout=TIMEOUT_S) as response:
        if have and not _goes_on(response, have):
            have = 0  # the server sends everything again
        length = response.headers.get("Content-Length") or ""
        total = have + int(length) if length.isdecimal() else remote.size
        if remote.size is not None and total != remote.size:
            raise WrongBytes(remote.name, f"must have {remote.size} bytes", f"{total} bytes", "Its source has been changed.")
        with os_errors(part):
            part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = part.open("r+b" if have else "wb")
        with file:
            file.seek(have)
            done = _copy(response, file, part, remote.name, have, total, progress)
            with os_errors(part):
                os.fsync(file.fileno())
    if done > (most := MAX_UNSIZED if total is None else total):
        part.unlink()
        raise WrongBytes(remote.name, f"must have at most {most} bytes", "more", "Its source has been changed.")
    return total is None or done >= total


def _goes_on(response: http.client.HTTPResponse, have: int) -> bool:
    start = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("-")[0]
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and start == str(have)


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, part: Path, label: str, done: int, total: int | None, progress: FetchProgress
) -> int:
    progress(label, done, total)
    while block := response.read(BLOCK_BYTES):
        with os_errors(part):
            file.write(block)
            file.flush()  # so that a kill loses no more than one block
        done += len(block)
        progress(label, done, total)
        if done > (MAX_UNSIZED if total is None else total):
            break  # it sends more than it said, or than anything without a size has
    return done


def copy_file(source: Path, target: Path, progress: FetchProgress = silent) -> str:
    """Copy a file and return the SHA-256 of the copy. It is never a link: a later edit must not reach a base.

    Raises PullError if the source can't be read, HomeError if the target can't be written.
    """
    import hashlib

    hasher = hashlib.sha256()
    try:
        incoming = source.open("rb")
    except OSError as error:
        raise PullError(str(source), "must be readable", error.strerror) from error
    with incoming, os_errors(target), target.open("wb") as outgoing:
        total, done = os.fstat(incoming.fileno()).st_size, 0
        progress(target.name, 0, total)
        while block := incoming.read(BLOCK_BYTES):
            outgoing.write(block)
            hasher.update(block)
            done += len(block)
            progress(target.name, done, total)
        outgoing.flush()
        os.fsync(outgoing.fileno())
    return hasher.hexdigest()
