"""Between a process and its child: frames, through a pipe, with plain values and bytes beside them; and a link's certificate.

A certificate is signed by the ledger's key of a member, all of which every home knows from the invitation. Any member may hold the link, so
that another goes on where a coordinator is gone. Needs no Flower.
"""

import json
import ssl
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError
from ingle.core.files import write_atomic
from ingle.ledger.keys import Signer, read_verifier

_SIZES = struct.Struct(">QQ")


def write_frame(pipe: IO[bytes], head: Mapping[str, Any], body: bytes = b"") -> None:
    """Write one frame. Raises OSError if nobody reads any more."""
    plain = json.dumps(head).encode()
    pipe.write(_SIZES.pack(len(plain), len(body)) + plain)
    pipe.write(body)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Return the next frame; None at the end, also where it was cut."""
    sizes = pipe.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        return None
    head_bytes, body_bytes = _SIZES.unpack(sizes)
    plain, body = pipe.read(head_bytes), pipe.read(body_bytes)
    return (json.loads(plain), body) if len(plain) + len(body) == head_bytes + body_bytes else None


CERTIFICATE, KEY = "certificate.pem", "certificate.key"
LONGEST = timedelta(days=90)


def make_certificate(folder: Path, signer: Signer, federation: str) -> str:
    """Write a new key and its certificate into a folder. Returns the certificate's digest."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, federation)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1)).not_valid_after(now + LONGEST)
    certificate = builder.sign(signer.key, None)
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomic(folder / KEY, plain, mode=0o600)
    write_atomic(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    return digest_bytes(certificate.public_bytes(serialization.Encoding.DER))


def trust(host: str, port: int, members: Sequence[str], federation: str) -> tuple[ssl.SSLContext, str]:
    """Return what accepts this link's certificate and no other, and the certificate's digest.

    Raises OSError where no link answers, FederatedError if its certificate isn't a member's.
    """
    text = ssl.get_server_certificate((host, port), timeout=10)
    certificate = x509.load_pem_x509_certificate(text.encode())
    check_certificate(certificate, members, federation)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # It is this very certificate: its name need not be the host's, and nobody stands above it.
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=text)
    return context, digest_bytes(certificate.public_bytes(serialization.Encoding.DER))


def check_certificate(certificate: x509.Certificate, members: Sequence[str], federation: str) -> None:
    """Raise FederatedError if a certificate isn't a member's for this federation, or not of today."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not any(_signed_by(certificate, member) for member in members):
        cure = "Ask the coordinator for the address. If it is right, somebody stands between; nothing was told."
        raise FederatedError("certificate", "The link's certificate is not of a home of this invitation", "", cure)
    if [name.value for name in names] != [federation]:
        raise FederatedError("certificate", "The link is for another federation", "", "Ask the coordinator for the address of this one.")
    start, end, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
    if not start <= now <= end:
        rule = f"The link's certificate is good from {start:%Y-%m-%d} to {end:%Y-%m-%d}, and it is {now:%Y-%m-%d %H:%M}Z here"
        raise FederatedError("clock", rule, "", "Set this machine's clock, or start the link anew.")


def _signed_by(certificate: x509.Certificate, member: str) -> bool:
    try:
        read_verifier(member).key.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except InvalidSignature:
        return False
    return True
