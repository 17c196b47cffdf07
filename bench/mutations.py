"""Ways to change a bundle of `ingle prove attest`, each of which its verify.py must refuse."""

import base64
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Files = Mapping[str, bytes]
STATED = ".dsse.json"


def mutations(files: Files, older: Files, stranger: Files, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Changed bundles without end, each kind in turn. `older`: an earlier bundle of the same home with an earlier card of the same name.
    `stranger`: a sound bundle of another home."""
    rng = random.Random(seed)
    while True:
        for name, kind in KINDS.items():
            changed = kind(dict(files), older if name != "other home" else stranger, rng)
            if changed != files:
                yield name, changed


def _edit(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    name = rng.choice(sorted(files))
    at, data = rng.randrange(len(files[name])), bytearray(files[name])
    data[at] ^= 1 << rng.randrange(8)
    return {**files, name: bytes(data)}


def _insert(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    name = rng.choice(sorted(files))
    at, data = rng.randrange(len(files[name]) + 1), files[name]
    return {**files, name: data[:at] + rng.choice((b" ", b"\n", b"0", b"A", b"=")) + data[at:]}


def _stated(files: Files, rng: random.Random) -> tuple[str, dict[str, Any], dict[str, Any]]:
    name = rng.choice(sorted(name for name in files if name.endswith(STATED)))
    envelope = json.loads(files[name])
    return name, envelope, json.loads(base64.b64decode(envelope["payload"]))


def _written(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _edit_statement(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    """A digit within a statement, which is then encoded as it was."""
    name, envelope, stated = _stated(files, rng)
    text = _written(stated)
    digits = [at for at, letter in enumerate(text) if chr(letter).isdigit()]
    at = rng.choice(digits)
    envelope["payload"] = base64.b64encode(text[:at] + rng.choice(b"0123456789abcdef").to_bytes(1, "big") + text[at + 1 :]).decode()
    return {**files, name: _written(envelope)}


def _reorder(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    name, envelope, stated = _stated(files, rng)
    facts = stated["predicate"].get("facts", [])
    for found in (facts, rng.choice(facts)["path"] if facts else [], stated["subject"]):
        rng.shuffle(found)
    envelope["payload"] = base64.b64encode(_written(stated)).decode()
    return {**files, name: _written(envelope)}


def _rewrite(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    """JSON in another order, or with other spaces."""
    name, envelope, _ = _stated(files, rng)
    keys = list(envelope)
    rng.shuffle(keys)
    return {**files, name: json.dumps({key: envelope[key] for key in keys}, indent=rng.choice((None, 1, 2))).encode()}


def _add(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    name = rng.choice(("card2.json", ".hidden", "README", f"x{STATED}", "verify2.py", "zz"))
    return {**files, name: rng.choice([b"", b"{}", *files.values()])}


def _delete(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    gone = rng.choice(sorted(files))
    return {name: data for name, data in files.items() if name != gone}


def _rename(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    old = rng.choice(sorted(files))
    return {(f"{rng.choice('abc')}{name}" if name == old else name): data for name, data in files.items()}


def _swap(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    one, other = rng.sample(sorted(files), 2)
    return {**files, one: files[other], other: files[one]}


def _truncate(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    name = rng.choice(sorted(files))
    return {**files, name: files[name][: rng.randrange(len(files[name]))]}


def _old_card(files: dict[str, bytes], older: Files, rng: random.Random) -> dict[str, bytes]:
    """The earlier card in place of the present one, alone or with its own statement, which was signed with the same key."""
    names = sorted(name for name in older if name not in ("signer.pub", "ledger.pub", "verify.py"))
    return {**files, **{name: older[name] for name in rng.sample(names, rng.randrange(1, len(names)))}}


def _own_key(files: dict[str, bytes], _older: Files, rng: random.Random) -> dict[str, bytes]:
    """All statements signed anew with a key of one's own, which takes the place of the home's, and every digest made to fit."""
    key = generate_private_key(SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    changed = {**files, "signer.pub": public}
    for name in sorted((name for name in files if name.endswith(STATED)), key="ledger.dsse.json".__eq__):
        envelope = json.loads(files[name])
        stated = json.loads(base64.b64decode(envelope["payload"]))
        for one in stated["subject"]:
            one["digest"]["sha256"] = hashlib.sha256(changed[one["name"]]).hexdigest()
        payload = _written(stated)
        message = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
        signature = base64.b64encode(key.sign(message, ECDSA(SHA256()))).decode()
        changed[name] = _written({**envelope, "payload": base64.b64encode(payload).decode(), "signatures": [{"sig": signature}]})
    return changed


def _other_home(_files: dict[str, bytes], stranger: Files, _rng: random.Random) -> dict[str, bytes]:
    """Another home's bundle, sound as it is; whoever verifies has said whose it must be."""
    return dict(stranger)


KINDS: dict[str, Callable[[dict[str, bytes], Files, random.Random], dict[str, bytes]]] = {
    "edit": _edit, "insert": _insert, "edit a statement": _edit_statement, "reorder": _reorder, "rewrite": _rewrite, "add": _add,
    "delete": _delete, "rename": _rename, "swap": _swap, "truncate": _truncate, "old card": _old_card, "own key": _own_key,
    "other home": _other_home,
}  # fmt: skip
