"""The signature of an exported model as OpenSSF Model Signing v1.0 has it, for its own tool and for ours.

`model.sig` is a Sigstore bundle: a statement that lists every file of the folder with its SHA-256, signed with the key in `signer.pub`.
Beside a model that is one file lie FILE.sig and FILE.pub.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ingle.core.digest import canonical_json, digest_file
from ingle.core.errors import LedgerError
from ingle.core.files import os_errors, write_atomic
from ingle.ethics.notary import PAYLOAD, STATEMENT, Notary, encoded, signed, statement

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SIGNATURE, PUBLIC = "model.sig", "signer.pub"
_PREDICATE = "https://model_signing/signature/v1.0"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# Left out, as by the official tool: a folder that is then published has files of Git.
_IGNORED = (SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore")


@dataclass(frozen=True, slots=True)
class ModelSignature:
    files: int
    signer: str  # fingerprint of the key


def signature_of(model: Path) -> tuple[Path, Path]:
    """Return where the signature and the public key of an exported model lie: in its folder, or beside its file."""
    if model.is_dir():
        return model / SIGNATURE, model / PUBLIC
    return model.with_name(f"{model.name}.sig"), model.with_name(f"{model.name}.pub")


def sign_model(model: Path, notary: Notary, progress: Callable[[int], None] = lambda _: None) -> str:
    """Sign an exported model, a folder or a file, and return the SHA-256 over all of its files' digests.

    Raises LedgerError for a folder with links in it, HomeError where the disk refuses.
    """
    signature, public = signature_of(model)
    write_atomic(public, notary.public)
    digests = _digests(model, progress)
    over_all = _over_all(digests)
    serialization: dict[str, Any] = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    if model.is_dir():
        serialization["ignore_paths"] = sorted(_IGNORED)
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in digests.items()]
    predicate = {"serialization": serialization, "resources": resources}
    envelope = signed(notary, statement(_PREDICATE, {model.absolute().name: over_all}, predicate))
    envelope["signatures"][0]["keyid"] = ""
    material = {"publicKey": {"hint": notary.fingerprint}, "tlogEntries": list[object]()}
    write_atomic(signature, canonical_json({"mediaType": _BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}) + b"\n")
    return over_all


def check_model(model: Path, progress: Callable[[int], None] = lambda _: None) -> ModelSignature:
    """Check the signature of an exported model, with the public key that lies beside it.

    Raises LedgerError, saying which file was edited, added or is missing, or that the signature is not that key's; HomeError for files that
    can't be read.
    """
    signature, public = signature_of(model)
    with os_errors(signature):
        bundle = signature.read_bytes()
    with os_errors(public):
        pem = public.read_bytes()
    listed, found = _listed(signature, bundle, pem), _digests(model, progress)
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            what = "was added" if name not in listed else "is missing" if name not in found else "was changed"
            raise LedgerError(str(model), f"is not as it was signed: {model.name if name == '.' else name} {what}")
    return ModelSignature(len(found), sha256(pem).hexdigest())


def _listed(path: Path, bundle: bytes, pem: bytes) -> dict[str, str]:
    """Return the files that a signature lists, with their digests."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        payload, signature = base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])
        key = cast("EllipticCurvePublicKey", load_pem_public_key(pem))  # another kind takes other arguments
        key.verify(signature, encoded(payload), ECDSA(SHA256()))
        stated = json.loads(payload)
        kinds = envelope["payloadType"], stated["_type"], stated["predicateType"]
        listed = {str(one["name"]): str(one["digest"]) for one in stated["predicate"]["resources"]}
        [subject] = stated["subject"]
        over_all = subject["digest"]["sha256"]
    except (InvalidSignature, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise LedgerError(str(path), "is not a signature by the key beside it", type(error).__name__) from error
    if kinds != (PAYLOAD, STATEMENT, _PREDICATE) or over_all != _over_all(listed):
        raise LedgerError(str(path), "must be a model signature v1.0", kinds[2])
    return listed


def _digests(model: Path, progress: Callable[[int], None]) -> dict[str, str]:
    """Return the digest of every file of a model, by its name as the signature lists it, in the order of names."""
    if model.is_file():
        return {".": digest_file(model, progress)}
    found = dict[str, str]()
    with os_errors(model):
        for path in sorted(model.rglob("*")):
            name = path.relative_to(model).as_posix()
            if name.split("/")[0] in _IGNORED:
                continue
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise LedgerError(str(path), "must be a plain file to be signed", "a link or something else")
            if path.is_file():
                found[name] = digest_file(path, progress)
    return dict(sorted(found.items()))


def _over_all(digests: dict[str, str]) -> str:
    return sha256(b"".join(bytes.fromhex(digest) for digest in digests.values())).hexdigest()
