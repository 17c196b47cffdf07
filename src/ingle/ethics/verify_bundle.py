"""Verify a bundle of Ingle without Ingle: `python verify.py FOLDER [KEY]`. Take this file from somebody whom you trust, not from FOLDER."""

# Forty lines for a stranger to read, so without types and as wide as they need be. It says what holds and ends at the first that doesn't.
# KEY: how the fingerprint of the ledger's key begins, as its owner told you. Without it, anybody's ledger will do.
# fmt: off
import base64, hashlib, json, sys
from pathlib import Path
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()

def canonical(value): return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

def need(holds, said):
    print("yes ", repr(said)[1:-1] if holds else sys.exit(f"NO   {said!r}\nREFUSED: this bundle proves nothing."))

# The root of a Merkle tree of `count` leaves (RFC 9162), from one leaf and its path, the lowest step first.
def root(leaf, index, count, path):
    if not path: return leaf
    half = 1 << (count - 1).bit_length() - 1
    below = root(leaf, index % half, half if index < half else count - half, path[:-1])
    return sha(b"\1", below, path[-1]) if index < half else sha(b"\1", path[-1], below)

# The in-toto statement in a DSSE envelope, no byte of which may be other than Ingle writes it.
def opened(data, signer, pae=b"DSSEv1 28 application/vnd.in-toto+json %d %s"):
    envelope = json.loads(data)
    payload, sig = base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])
    serialization.load_pem_public_key(signer).verify(sig, pae % (len(payload), payload), ec.ECDSA(hashes.SHA256()))
    again = {"payload": base64.b64encode(payload).decode(), "signatures": [{"sig": base64.b64encode(sig).decode()}]}
    need(data == canonical({**again, "payloadType": "application/vnd.in-toto+json"}), "signer.pub signed this statement as it stands")
    return json.loads(payload)

def verify(folder, key=""):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in sorted((name for name in files if name.endswith(".dsse.json")), key="ledger.dsse.json".__eq__):  # that one last
        found = opened(files[name], files["signer.pub"])
        for one in found["subject"]:
            need(sha(files[one["name"]]).hex() == one["digest"]["sha256"], f"{one['name']} is as {name} says")
    need({one["name"] for one in found["subject"]} == files.keys() - {"ledger.dsse.json"}, "no file was added")
    head, facts, public = found["predicate"]["head"], found["predicate"]["facts"], bytes.fromhex(files["ledger.pub"].decode())
    signed = canonical(["ingle.head", head["seq"], head["hash"], head["fingerprint"], head["root"]])
    ed25519.Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(head["signature"]), signed)
    need(sha(public).hex().startswith(key), f"key {sha(public).hex()}{' is the expected one, and' if key else ''} signed a ledger of {head['seq']} facts")
    for fact in facts:
        hashed = sha(canonical([fact[name] for name in ("seq", "at", "kind", "subject", "facts", "prev")]))
        top = root(sha(b"\0", hashed), fact["seq"] - 1, head["seq"], [bytes.fromhex(step) for step in fact["path"]])
        need(top.hex() == head["root"], f"fact {fact['seq']} is in it: {fact['at']} {fact['kind']} {fact['subject']} {fact['facts']}")
    need((facts[0]["kind"], json.loads(facts[0]["facts"])["fingerprint"]) == ("signer.key", sha(files["signer.pub"]).hex()), "the first of them names signer.pub")

if __name__ == "__main__":
    sys.excepthook = lambda kind, error, _: print(f"REFUSED: {kind.__name__} {error}. This bundle proves nothing.")
    verify(Path(sys.argv[1]), *sys.argv[2:])
    print("So these facts stand in that ledger as they were written, and the files are from its owner. Whether facts are true, it can't tell.")
