"""SHA-256 of bytes, files and plain values, and JSON in two orders: canonical (for signing and comparing) and plain (keys as they came)."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

_BLOCK_BYTES = 4 << 20


def canonical_json(value: object) -> bytes:
    """Return canonical JSON: sorted keys, no spaces, UTF-8, no NaN. Equal values give equal bytes."""
    return _dumps(value, True)


def plain_json(value: object) -> bytes:
    """Return compact JSON (UTF-8, no NaN) with keys in their own order, for values that are read back or shown to a model."""
    return _dumps(value, False)


def _dumps(value: object, sort: bool) -> bytes:
    return json.dumps(value, sort_keys=sort, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: object) -> str:
    """Return the SHA-256 of a plain value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of a file; `progress` gets the size of each block that was read."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
            progress(len(block))
    return hasher.hexdigest()
