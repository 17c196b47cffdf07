"""Models and homes as files: exports, lean models, backups."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from ingle.app.house import House, check_ledger, open_ledger
from ingle.app.operation import About, Note, Rows, Said, operation
from ingle.core.errors import ConfigError, counted, size
from ingle.core.report import Event, Fact
from ingle.home.base import read_base
from ingle.home.kept import Kept, get_kept, list_kept
from ingle.home.lean import is_lean
from ingle.home.place import Home
from ingle.home.staging import bytes_in


@dataclass(frozen=True, slots=True)
class Exporting:
    """A model, and the form that other programs read it in."""

    model: Annotated[str, About("A model, with or without deltas.", "MODEL[+NAME]", placed=True)]
    format: Annotated[str, About("peft: the delta alone; hf: a Hugging Face folder; gguf: for llama.cpp; ingle: hybrids too.")]
    out: Annotated[Path, About("Folder to write to; for gguf also a file name.", "DIR")]
    kind: Annotated[
        str | None,
        About("Number type: f32, f16; for gguf also q8_0, and q4_1 (what is q4_1 stays so, all else becomes q8_0).", also=("--type",)),
    ] = None
    force: Annotated[bool, About("Replace an earlier export.", also=("--force",))] = False
    sign: Annotated[bool, About("Sign its files with this home's key (OpenSSF Model Signing).", also=("--sign",))] = False


@dataclass(frozen=True, slots=True)
class ExportedTold:
    """An export."""

    model: str
    format: str
    type: str
    out: str
    bytes: int
    signed: str  # digest of what was signed; "" = nothing
    signer: str  # fingerprint of the key


def _says_exported(told: ExportedTold) -> Iterable[Said]:
    from ingle.ethics.model_signature import signature_of

    yield f"{told.model} is in {told.out}: {size(told.bytes)}."
    if told.signed:
        signature, public = signature_of(Path(told.out))
        yield f"Its files are signed with key {told.signer[:12]}, in {signature.name}."
        yield Note(f"Others check it: model_signing verify key {told.out} --signature {signature} --public_key {public}")


@operation("export", right="owner", says=_says_exported)
def export(house: House, asked: Exporting) -> ExportedTold:
    """Write a model or a delta for other programs.

    hf and gguf hold the whole model with its deltas merged; peft holds the last delta, to be loaded on the original model.

    Examples:
        ingle export smollm2+letters --format peft --out letters-peft
        ingle export smollm2+letters --format hf --out letters-hf
        ingle export smollm2+letters --format gguf --type q8_0 --out letters.gguf
        ingle export smollm2+letters --format hf --out letters-hf --sign   (others check it: model_signing verify key …)
        ingle export mymodel+g4 --format gguf --type q4_1 --out small.gguf   (g4: ingle make quantise mymodel --set 'forms=["q4_1"]')
    """
    from ingle.tuning.exporting import FORMATS, check_type, without_place
    from ingle.tuning.exporting import export as write

    if asked.format not in FORMATS:
        raise ConfigError("--format", f"must be one of {', '.join(FORMATS)}", asked.format)
    chosen, home, watch = check_type(asked.format, asked.kind), house.home, house.watch
    kept = get_kept(home, asked.model)
    path = write(home, kept, asked.format, asked.out, chosen, asked.force, lambda done, of: watch.pieces("writing", done, of))
    if eight := without_place(home, kept, chosen):
        cure = """`ingle make quantise` with --set 'forms=["q4_1"]' makes what fits."""
        watch.say(f"{eight} matrices are in formats of Ingle that GGUF lacks. They take 8 bits in the file. {cure}")
    files = [path] if path.is_file() else sorted(path.iterdir())
    nbytes = sum(file.stat().st_size for file in files)
    signed, signer = _sign(home, path) if asked.sign else ("", "")
    facts: dict[str, Fact] = {"format": asked.format, "type": chosen, "stack": kept.digest, "bytes": nbytes}
    house.record(Event("export", kept.name, facts | ({"signed": signed, "signer": signer} if signed else {})))
    return ExportedTold(kept.name, asked.format, chosen, str(path), nbytes, signed, signer)


def _sign(home: Home, path: Path) -> tuple[str, str]:
    """Sign an export; return what was signed, and the key's fingerprint."""
    from ingle.ethics.model_signature import sign_model
    from ingle.ethics.notary import notary

    with open_ledger(home) as ledger:
        signer = notary(home, ledger)
    return sign_model(path, signer), signer.fingerprint


@dataclass(frozen=True, slots=True)
class Leaning:
    """A model, and how its file lies on the disk."""

    name: Annotated[str, About("A model; without one, all are listed.", "[NAME]", placed=True)] = ""
    whole: Annotated[bool, About("Put the model's file back.", also=("--whole",))] = False


@dataclass(frozen=True, slots=True)
class LeanModel:
    """The room that a model takes."""

    name: str
    file_bytes: int
    disk_bytes: int  # with the packs of its base and deltas
    lean: bool


@dataclass(frozen=True, slots=True)
class LeanModels:
    """The room that all models take."""

    object: str
    data: tuple[LeanModel, ...]


@dataclass(frozen=True, slots=True)
class LeanTold:
    """A model that is lean now, or whole."""

    name: str
    base: str
    lean: bool
    freed_bytes: int  # below 0 where its file came back; 0 where it was so already


def _says_lean(told: LeanModels | LeanTold) -> Iterable[Said]:
    if isinstance(told, LeanModels):
        rows = [(one.name, size(one.file_bytes), size(one.disk_bytes), "yes" if one.lean else "no") for one in told.data]
        none = Note("There are no models yet. `ingle pull smollm2` brings a first model.")
        return (Rows(("NAME", "FILES", "ON DISK", "LEAN"), rows) if rows else none,)
    if not told.freed_bytes:
        return (f"{told.name} {'is lean' if told.lean else 'has its file as it came'} already.",)
    if told.lean:
        return (f"{told.name} is lean: {size(told.freed_bytes)} of disk are free again. Nothing else changes.",)
    return (f"{told.name} has its file as it came: {size(-told.freed_bytes)} more on the disk.",)


@operation("lean", right="owner", says=_says_lean)
def lean(house: House, asked: Leaning) -> LeanModels | LeanTold:
    """Keep a model's file on the disk once, as it is served.

    A GGUF file and its packed weights hold the same numbers in two orders. A lean model has only the packed ones. Its file is made again
    from them, bit for bit, wherever it is read: to tune, learn, export or verify. It goes only when that was proven by its SHA-256.

    Examples:
        ingle lean   (lists models with the room that they take on the disk)
        ingle lean qwen3-8b
        ingle lean qwen3-8b --whole   (the file as it came lies there again)
    """
    home = house.home
    if not asked.name:
        if asked.whole:
            raise ConfigError("NAME", "is missing: --whole is about one model", "", "Say: ingle lean NAME --whole")
        return LeanModels("list", tuple(_lean_model(home, kept) for kept in list_kept(home)))
    from ingle.engine.lean_base import make_lean, make_whole

    kept = get_kept(home, asked.name)
    moved = (make_whole if asked.whole else make_lean)(home, kept, house.watch.pieces)
    if moved.freed:
        house.record(moved.event)
    return LeanTold(kept.name, kept.base, not asked.whole, moved.freed)


def _lean_model(home: Home, kept: Kept) -> LeanModel:
    folders = {home.base_folder(kept.base), home.pack_folder(kept.base), home.pack_folder(kept.digest)}
    nbytes = read_base(home, kept.base).nbytes
    return LeanModel(kept.name, nbytes, sum(map(bytes_in, folders)), is_lean(home.base_folder(kept.base)))


@dataclass(frozen=True, slots=True)
class BackingUp:
    """A file for everything that this home keeps."""

    to: Annotated[Path, About("The file to write, or a folder for it; best on another disk.", "FILE", placed=True)]
    force: Annotated[bool, About("Replace an earlier file, once the new one is whole.", also=("--force",))] = False


@dataclass(frozen=True, slots=True)
class BackupTold:
    """A backup that was written, and read back."""

    file: str
    backup: str  # its digest
    files: int
    bytes: int
    facts: int
    models: tuple[str, ...]
    database: bool
    left_out: tuple[str, ...]
    seconds: float


def _says_backup(told: BackupTold) -> Iterable[Said]:
    if not told.database:
        yield Note(
            "The facts and conversations are NOT in it: they are in the database that INGLE_DATABASE_URL names. Back that up now too, for"
        )
        yield Note("example with pg_dump. It must be the later one of the two: the ledger's head in here must not be ahead of its rows.")
    if told.left_out:
        yield Note(f"Left out, because Ingle does not know it: {', '.join(told.left_out)}.")
    what = f"{counted(len(told.models), 'model')}, {counted(told.facts, 'fact')}, {counted(told.files, 'file')}"
    yield f"{told.file} holds {what}: {size(told.bytes)}, read back and whole."
    yield f"Digest {told.backup}"
    yield "The ledger's keys are in it: whoever reads this file can sign in this home's name, and read what was said. Mode 600."


@operation("home backup", right="owner", says=_says_backup)
def backup(house: House, asked: BackingUp) -> BackupTold:
    """Write everything that this home keeps into one file.

    A server may go on answering meanwhile: the backup is the home at one moment. It is verified, written, and read back. The ledger's
    keys are in it, so keep it as safe as the home itself. What Ingle makes again is left out: packed weights, compiled kernels, saved
    states, downloads and unfinished trainings.

    Examples:
        ingle home backup /media/stick/ingle.tar
        ingle home backup /media/stick   (names the file by the time: ingle-20261130-0715.tar)
        ingle home backup ~/ingle.tar --force --json   (replaces the last one, when the new one is whole)
    """
    from ingle.adapt.forget import OWED
    from ingle.home.backup import back_up

    home, watch, start = house.home, house.watch, time.monotonic()
    path = asked.to.expanduser().absolute()
    if path.is_dir():
        path /= f"ingle-{datetime.now(UTC):%Y%m%d-%H%M}.tar"
    # What is being forgotten must not be half in it: that lock is taken for the moment, too.
    done = back_up(home, path, check_ledger, watch.bytes, watch.say, locks=(OWED,), replace=asked.force)
    manifest = done.manifest
    facts: dict[str, Fact] = {"backup": manifest.digest, "files": len(manifest.files), "bytes": manifest.nbytes, "facts": done.facts}
    with open_ledger(home) as ledger:
        ledger.append(Event("backup", "", facts | {"database": manifest.has_database}))
    return BackupTold(
        str(path), manifest.digest, len(manifest.files), manifest.nbytes, done.facts, tuple(done.models), manifest.has_database,
        tuple(done.left_out), round(time.monotonic() - start, 2),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Restoring:
    """A backup."""

    file: Annotated[Path, About("A file that `ingle home backup` wrote.", "FILE", placed=True)]
    digest: Annotated[str, About("The digest that the backup must have, as `ingle home backup` printed it.")] = ""


@dataclass(frozen=True, slots=True)
class RestoredTold:
    """A home that came back."""

    home: str
    backup: str  # its digest
    made_at: str
    database: bool
    files: int
    bytes: int
    facts: int | None  # None: they were in a database elsewhere
    models: tuple[str, ...]
    seconds: float


def _says_restored(told: RestoredTold) -> Iterable[Said]:
    if told.facts is None:
        yield Note(
            "The facts and conversations were in a database elsewhere, and are not in this backup. Restore that database too, and set"
        )
        yield Note("INGLE_DATABASE_URL: until then this home can record nothing.")
    known = [counted(told.facts, "fact")] if told.facts is not None else []
    what = ", ".join([counted(len(told.models), "model"), *known, counted(told.files, "file")])
    yield f"{told.home} is what it was at {told.made_at[:16].replace('T', ' ')} UTC: {what}, {size(told.bytes)}."
    yield "Weights are packed again when a model is first asked."


@operation("home restore", right="owner", says=_says_restored)
def restore(house: House, asked: Restoring) -> RestoredTold:
    """Bring a backup back into an empty home.

    Every byte is checked before anything is moved into place; then the home is what it was when the backup was made, and the ledger says
    that it came back. A home that holds anything is refused.

    Examples:
        ingle home restore /media/stick/ingle.tar
        INGLE_HOME=~/tried ingle home restore ingle.tar   (into another folder, to look at it)
        ingle home restore ingle.tar --digest 1f0c…   (only if it is the backup that `ingle home backup` named)
    """
    from ingle.home.restore import restore as bring_back

    start = time.monotonic()
    back = bring_back(house.home, asked.file.expanduser().absolute(), check_ledger, house.watch.bytes, house.watch.say, asked.digest)
    manifest = back.manifest
    if back.facts is not None:
        facts: dict[str, Fact] = {"backup": manifest.digest, "made_at": manifest.made_at, "files": len(manifest.files)}
        with open_ledger(house.home) as ledger:
            ledger.append(Event("restore", "", facts | {"bytes": manifest.nbytes, "facts": back.facts}))
    return RestoredTold(
        str(house.home.root), manifest.digest, manifest.made_at, manifest.has_database, len(manifest.files), manifest.nbytes, back.facts,
        tuple(back.models), round(time.monotonic() - start, 2),
    )  # fmt: skip
