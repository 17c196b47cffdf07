"""Deltas in the home: each is a folder under its digest, with manifest, tensors and report. A folder is complete or absent.

A delta belongs to a base and the deltas before it, by their digest (`stack_digest`), so a tree grows over each base. Tensors are
safetensors, read by NumPy: keeping, listing and serving deltas needs no PyTorch.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.core.config import from_table, to_table
from ingle.core.delta import Delta, TensorEntry
from ingle.core.digest import canonical_json, digest_bytes, digest_file, digest_json
from ingle.core.errors import ConfigError, DeltaError, HomeError, NotKept
from ingle.core.files import os_errors, sync_file, sync_folder, write_atomic
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.home.staging import bytes_in, discard, staging

if TYPE_CHECKING:
    import numpy.typing as npt  # what the home is asked most often needs no NumPy

    from ingle.core.candidate import Candidate

MANIFEST, TENSORS, REPORT = "delta.json", "tensors.safetensors", "report.json"
# Key in the origin of a learner's delta (home/lessons.py). Such a delta belongs to one user, has no name, and is offered to nobody.
LESSON = "lesson"
LOCK = "kept"  # lock for adding and removing kept things
_DTYPES = {"float32": "F32", "float16": "F16", "uint8": "U8"}  # NumPy's name → safetensors'


def _cure(path: Path) -> str:
    return f"Delete the folder {path.parent}, then make the delta again."


ABILITIES = ("sight", "painter")  # kinds of deltas that leave a model's answers to words as they are, to the bit


def fitting_bases(home: Home, base: str, deltas: Sequence[str]) -> tuple[str, ...]:
    """Return the digests that a delta upon this stack may have been made for: of the whole stack, and of the stack without its abilities.

    So a model may see and paint, whichever came first. Raises NotKept and HomeError as `get_delta` does.
    """
    changing = [digest for digest in deltas if get_delta(home, digest).kind not in ABILITIES]
    return tuple(dict.fromkeys((stack_digest(base, deltas), stack_digest(base, changing))))


def stack_digest(base: str, deltas: Sequence[str]) -> str:
    """Return the digest of a base with these deltas on it, in order; without deltas, the base's own."""
    return digest_json([base, *deltas]) if deltas else base


def put_delta(
    home: Home,
    name: str,
    kind: str,
    base_digest: str,
    tensors: "Mapping[str, npt.NDArray[Any]]",
    origin: Mapping[str, str],
    report: Mapping[str, Any] | None = None,
) -> Delta:
    """Keep a delta; keeping the same one again changes nothing. `base_digest`: the `stack_digest` that it was made for.

    Raises ConfigError for a name that can't be used or is taken on this base, DeltaError for tensors that can't be kept, HomeError.
    """
    import numpy as np

    delta = manifest_of(name, kind, base_digest, tensors, origin)
    ordered = {key: np.ascontiguousarray(tensors[key]) for key in sorted(tensors)}
    home.create()
    with staging(home) as folder:
        _write_tensors(folder / TENSORS, ordered)
        if report is not None:
            write_atomic(folder / REPORT, report_bytes(report), mode=0o600)
        write_atomic(folder / MANIFEST, canonical_json(to_table(delta)), mode=0o600)
        sync_folder(folder)
        with home.lock(LOCK):
            refuse_taken_delta(home, name, base_digest, delta.digest)
            target = home.delta_folder(delta.digest)
            discard(home, target)  # the same one, or what is left of it
            with os_errors(target):
                folder.replace(target)
                sync_folder(home.deltas)
    return delta


def adopt_delta(home: Home, folder: Path, digest: str) -> Delta:
    """Keep a copy of the delta whose three files lie in a folder, after checking every byte against `digest`.

    Raises HomeError for files that are missing, altered or of another delta, and as `put_delta` does.
    """
    delta = _read_manifest(folder / MANIFEST, digest, 0, 0)
    tensors = _read_tensors(folder / TENSORS)
    for fault in _faults(delta, tensors):
        raise HomeError(f"{folder / TENSORS}: {fault}", "is not as it was made", "", "Reinstall Ingle.")
    return put_delta(home, delta.name, delta.kind, delta.base_digest, tensors, delta.origin, _read_report(folder))


def put_candidate(home: Home, candidate: "Candidate") -> Delta:
    """Keep a candidate as a delta, whoever judged it; raises as `put_delta` does."""
    of = candidate
    return put_delta(home, of.name, of.kind, of.base_digest, of.tensors, of.origin, of.report)


def manifest_of(
    name: str, kind: str, base_digest: str, tensors: "Mapping[str, npt.NDArray[Any]]", origin: Mapping[str, str]
) -> Delta:  # fmt: skip
    """Return the delta that `put_delta` would keep. Raises ConfigError for a name that can't be used, DeltaError."""
    import numpy as np

    check_name(name)
    check_tensors(name, tensors)
    ordered = {key: np.ascontiguousarray(tensors[key]) for key in sorted(tensors)}
    entries = {key: TensorEntry(value.shape, _DTYPES[str(value.dtype)], _sha256(value)) for key, value in ordered.items()}
    return Delta(name, kind, base_digest, entries, dict(origin))


def refuse_taken_delta(home: Home, name: str, base_digest: str, digest: str = "") -> None:
    """Raise ConfigError if another delta than `digest` has that name on that base."""
    for other in list_deltas(home, base_digest):
        if other.name.lower() == name.lower() and other.digest != digest:
            cure = f"Choose another name, or remove that one first (`ingle rm MODEL+{other.name}`)."
            raise ConfigError("name", f"Another delta of this model is called {other.name}", "", cure)


def check_tensors(name: str, tensors: "Mapping[str, npt.NDArray[Any]]") -> None:
    """Raise DeltaError for no tensors, numbers that are not finite, or other types than float32, float16 and uint8."""
    import numpy as np

    if not tensors:
        raise DeltaError(f"delta {name}", "must hold at least one tensor", "none")
    for key, value in tensors.items():
        if str(value.dtype) not in _DTYPES:
            raise DeltaError(f"delta {name}, {key}", "must be float32, float16 or uint8", value.dtype)
        if not np.isfinite(value).all():
            raise DeltaError(f"delta {name}, {key}", "must hold finite numbers", "NaN or infinity", "Train with a lower learning rate.")


def get_delta(home: Home, digest: str) -> Delta:
    """Return the manifest of a delta. Raises NotKept if there is none, HomeError if it is damaged."""
    path = home.delta_folder(digest) / MANIFEST
    try:
        changed = path.stat()
    except OSError as error:
        raise NotKept(f"delta {digest[:12]}", "is not in this home", "", "`ingle list` shows what is.") from error
    return _read_manifest(path, digest, changed.st_mtime_ns, changed.st_size)


@lru_cache(maxsize=4096)
def _read_manifest(path: Path, digest: str, _changed_ns: int, _size: int) -> Delta:
    """Read a manifest. Cached, because a server asks for every manifest at every request, and they hardly ever change."""
    with os_errors(path):
        data = path.read_bytes()
    try:
        delta = from_table(Delta, json.loads(data))
    except (ValueError, TypeError, ConfigError) as error:
        raise HomeError(str(path), "must be a delta's manifest", error, _cure(path)) from error
    if delta.digest != digest:
        raise HomeError(str(path), f"must describe delta {digest[:12]}", delta.digest[:12], _cure(path))
    return delta


def list_deltas(home: Home, base_digest: str | None = None) -> list[Delta]:
    """Return every delta with a readable manifest, or those of one base, by name. A damaged one is reported when a model asks for it."""
    deltas = []
    for path in home.deltas.glob(f"*/{MANIFEST}"):
        try:
            delta = get_delta(home, path.parent.name)
        except (HomeError, NotKept):
            continue
        if base_digest in (None, delta.base_digest):
            deltas.append(delta)
    return sorted(deltas, key=lambda delta: (delta.name, delta.digest))


def tree(home: Home, base: str, deltas: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Delta]]:
    """Yield every delta made for this stack or for a stack that grew on it, with the digests of its whole stack."""
    by_base: dict[str, list[Delta]] = {}
    for delta in list_deltas(home):
        by_base.setdefault(delta.base_digest, []).append(delta)

    def grow(below: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Delta]]:
        for delta in by_base.get(stack_digest(base, below), ()):
            above = (*below, delta.digest)
            yield above, delta
            yield from grow(above)

    yield from grow(deltas)


def find_delta(home: Home, model: str, bases: Sequence[str], name: str) -> Delta:
    """Return the delta of that name made for one of these digests, the first that has one. `model` is for messages.

    Raises DeltaError if the name is only known on another base, NotKept if it is unknown.
    """
    everywhere = [delta for delta in list_deltas(home) if LESSON not in delta.origin]
    here = [delta for base in bases for delta in everywhere if delta.base_digest == base]
    for delta in here:
        if delta.name == name:
            return delta
    for delta in everywhere:
        if delta.name == name:
            delta.check_base(*bases)
    names = ", ".join(f"{model}+{delta.name}" for delta in here)
    cure = f"Kept here: {names}." if names else f"{model} has no deltas; `ingle make tune {model} DATA --name {name}` makes one."
    raise NotKept(f"model {model}+{name}", "is not kept in this home", "", cure)


def delta_tensors(home: Home, delta: Delta) -> "dict[str, npt.NDArray[Any]]":
    """Return the tensors of a delta, every byte checked. Raises HomeError for a missing or altered file."""
    path = home.delta_folder(delta.digest) / TENSORS
    tensors = _read_tensors(path)
    for fault in _faults(delta, tensors):
        raise HomeError(f"{path}: {fault}", "is not as it was kept", "", _cure(path))
    return tensors


def report_bytes(report: Mapping[str, Any]) -> bytes:
    """Return a report as its file holds it, for whoever records the file's digest."""
    return json.dumps(report, indent=1).encode()


def report_digest(home: Home, digest: str) -> str:
    """Return the SHA-256 of a delta's report file; "" if there is none. Raises HomeError if it can't be read."""
    path = home.delta_folder(digest) / REPORT
    with os_errors(path):
        return digest_file(path) if path.exists() else ""


def delta_report(home: Home, digest: str) -> dict[str, Any] | None:
    """Return a delta's measurements; None if there are none, or they can't be read."""
    return _read_report(home.delta_folder(digest))


def _read_report(folder: Path) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads((folder / REPORT).read_bytes())
    except (OSError, ValueError):
        return None
    return report


def delta_bytes(home: Home, digest: str) -> int:
    """Return the bytes of a delta's files."""
    return bytes_in(home.delta_folder(digest))


def verify_delta(home: Home, digest: str) -> list[str]:
    """Return the problems of a delta, tensor by tensor; empty = all is well."""
    try:
        delta = get_delta(home, digest)
        return [f"{fault} is not as it was kept" for fault in _faults(delta, _read_tensors(home.delta_folder(digest) / TENSORS))]
    except (HomeError, NotKept) as error:
        return [str(error)]


def _faults(delta: Delta, tensors: "Mapping[str, npt.NDArray[Any]]") -> Iterator[str]:
    """Yield tensors that are missing, altered, or unexpected."""
    for name, entry in delta.tensors.items():
        got = tensors.get(name)
        if got is None or (got.shape, _DTYPES.get(str(got.dtype)), _sha256(got)) != (entry.shape, entry.dtype, entry.sha256):
            yield name
    yield from (name for name in tensors if name not in delta.tensors)


def _sha256(value: "npt.NDArray[Any]") -> str:
    return digest_bytes(value.tobytes())


def _write_tensors(path: Path, tensors: "Mapping[str, npt.NDArray[Any]]") -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with os_errors(path):
            save_file(dict(tensors), path, {"format": "pt"})
            path.chmod(0o600)
            sync_file(path)
    except SafetensorError as error:
        cure = "Is the disk full? Free some space and try again; nothing already kept was touched."
        raise HomeError(str(path), "must be writable", error, cure) from error


def _read_tensors(path: Path) -> "dict[str, npt.NDArray[Any]]":
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        with os_errors(path):
            return load_file(path)
    except (SafetensorError, TypeError, KeyError, ValueError) as error:  # the others of types that NumPy doesn't have
        raise HomeError(str(path), "must be a whole safetensors file", error, _cure(path)) from error
