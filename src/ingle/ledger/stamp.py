"""A time-stamp (RFC 3161) over an exported head: somebody outside signs that this head existed at a time.

The authority gets the SHA-256 of the head's file and nothing else. Its answer lies beside the file, as `openssl ts -verify` reads it.
"""

import http.client
import importlib.util
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, Request

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError, IngleError, LedgerError, PullError
from ingle.core.files import how_to_install, write_atomic
from ingle.core.report import Event
from ingle.ledger.head import Head, head_bytes

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import SignerInfo, TimeStampRequest

STAMP = "ledger.stamp"  # kind of the fact that a head was time-stamped
TIMEOUT_S = 30
MAX_BYTES = 1 << 20  # most bytes of an answer; an authority with a long chain of certificates sends a hundredth of it

_CURE = "Nothing was written. Try again, or ask another authority."

# How the library's reason begins where a signature is wrong or leads elsewhere; what follows is OpenSSL's own list of errors.
_UNTRUSTED = "Error while verifying certificates"


@dataclass(frozen=True, slots=True)
class Stamp:
    """The contents of a time-stamp."""

    at: str  # when the head was there at the latest: UTC, ISO 8601
    authority: str  # name in the certificate that signed
    serial: str  # number that the authority gave it


def stamp_file(head: Path) -> Path:
    """Return where the time-stamp of an exported head lies."""
    return head.with_name(f"{head.name}.tsr")


def stamp_head(head: Head, path: Path, url: str, opener: OpenerDirector) -> Event:
    """Have a head time-stamped, write it to `path` with the time-stamp beside it, and return the fact that says so.

    Raises ConfigError without the library or with an address that is none, PullError if the authority doesn't answer or refuses.
    """
    data = head_bytes(head)
    answer = ask_for_stamp(url, data, opener)
    write_atomic(stamp_file(path), answer)
    write_atomic(path, data)
    stamp = read_stamp(answer)
    # Its host alone: an address may hold a password.
    facts = {"host": authority_host(url), "at": stamp.at, "serial": stamp.serial, "token_digest": digest_bytes(answer)}
    return Event(STAMP, "ledger", {"seq": head.seq, "hash": head.hash, "head_digest": digest_bytes(data), **facts})


def ask_for_stamp(url: str, data: bytes, opener: OpenerDirector) -> bytes:
    """Return an authority's answer for `data`, an exported head; it is for these bytes, and who signed it is not checked yet.

    Raises ConfigError without the library or with an address that is none, PullError if the authority doesn't answer or refuses.
    """
    need_library()
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    host = authority_host(url)
    asked = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256).cert_request(cert_request=True).build()
    request = Request(url, asked.as_bytes(), {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"})
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            answer: bytes = response.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise PullError(host, f"The time-stamp authority {host} refuses", f"HTTP {error.code} {error.reason}", _CURE) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise PullError(host, f"The time-stamp authority {host} can't be reached", reason, _CURE) from error
    if len(answer) > MAX_BYTES:
        raise PullError(host, f"The time-stamp authority {host} sends more than {MAX_BYTES >> 20} MB", "", _CURE)
    _check_answer(host, asked, answer)
    return answer


def read_stamp(answer: bytes) -> Stamp:
    """Return what a time-stamp says, whoever signed it. Raises LedgerError if it is none."""
    from rfc3161_client import decode_timestamp_response

    with _read_by_library():
        response = decode_timestamp_response(answer)
        info, data = response.tst_info, response.signed_data
        [signer] = data.signer_infos
        authority = _signed_as(data.certificates, signer)
        stamp = Stamp(info.gen_time.astimezone(UTC).isoformat(), authority, str(info.serial_number))
    return stamp


def check_stamp(answer: bytes, data: bytes, roots: bytes) -> Stamp:
    """Check a time-stamp of an exported head against root certificates (PEM) that the reader trusts, and return what it says.

    Raises LedgerError if it is for other bytes or nobody behind these roots signed it.
    """
    need_library()
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    trusted, reasons = _certificates(roots), list[str]()
    with _read_by_library():
        response = decode_timestamp_response(answer)
        for root in trusted:  # each by itself, because two may have one name
            try:
                VerifierBuilder(roots=[root]).build().verify_message(response, data)
                return read_stamp(answer)
            except VerificationError as error:
                reasons.append(str(error))
    # Where the signature holds and something else does not, that is the reason.
    reason = next((one for one in reasons if not one.startswith(_UNTRUSTED)), "its signature leads to none of these roots")
    raise LedgerError("time-stamp", "does not prove this head", reason)


def authority_host(url: str) -> str:
    """Return the host of an authority's address. Raises ConfigError if that is no web address."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise ConfigError("--timestamp", "must be the http or https address of a time-stamp authority", url)
    return host


def need_library() -> None:
    """Raise ConfigError if the library for time-stamps is not installed."""
    if importlib.util.find_spec("rfc3161_client") is None:
        raise ConfigError("rfc3161-client", "Time-stamps need rfc3161-client, which is not installed", "", how_to_install("timestamp"))


def _check_answer(host: str, asked: "TimeStampRequest", answer: bytes) -> None:
    from rfc3161_client import PKIStatus, decode_timestamp_response

    try:
        with _read_by_library():
            response = decode_timestamp_response(answer)
            if response.status != PKIStatus.GRANTED:
                raise PullError(host, f"The time-stamp authority {host} grants none", ", ".join(response.status_string), _CURE)
            got = response.tst_info
            fits = (got.nonce, got.message_imprint.message) == (asked.nonce, asked.message_imprint.message)
        read_stamp(answer)
    except LedgerError as error:
        raise PullError(host, f"The time-stamp authority {host} sends something else", error.got, _CURE) from error
    if not fits:
        raise PullError(host, f"The time-stamp authority {host} answers another question", "", _CURE)


@contextmanager
def _read_by_library() -> Iterator[None]:
    """Turn what the two libraries raise about an answer, by many names, into one error."""
    try:
        yield
    except IngleError:
        raise
    except Exception as error:
        raise LedgerError("time-stamp", "must be an answer as RFC 3161 has it", error) from error


def _signed_as(certificates: set[bytes], signer: "SignerInfo") -> str:
    from cryptography.x509 import load_der_x509_certificate

    found = [load_der_x509_certificate(one) for one in certificates]
    # One alone: of two under one number the signature is checked with one, and the library may ask the other what it was made for.
    [name] = [one.subject.rfc4514_string() for one in found if (one.issuer, one.serial_number) == (signer.issuer, signer.serial_number)]
    return name


def _certificates(roots: bytes) -> "list[Certificate]":
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return list(dict.fromkeys(load_pem_x509_certificates(roots)))
    except ValueError as error:
        raise ConfigError("--tsa-roots", "must hold root certificates as PEM", "", "The authority publishes its own.") from error
