"""SHA-256 of bytes, files and plain values; JSON as it is kept, and the one canonical JSON that everything signed or compared uses."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

_BLOCK_BYTES = 4 << 20


def canonical_json(value: object) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN: equal values give equal bytes."""
    return _dumps(value, True)


def plain_json(value: object) -> bytes:
    """No spaces, UTF-8, no NaN; keys in their order, which a model reads too: for what is read back and asked again."""
    return _dumps(value, False)


def _dumps(value: object, sort: bool) -> bytes:
    return json.dumps(value, sort_keys=sort, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(data: bytes | memoryview) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: object) -> str:
    """SHA-256 of the canonical JSON of a plain value."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file's bytes; `progress` is told the bytes of each block."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
            progress(len(block))
    return hasher.hexdigest()
