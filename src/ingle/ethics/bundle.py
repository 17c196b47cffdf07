"""Bundles for strangers: facts of the ledger with their proofs, cards, the public keys, and the program that verifies them without Ingle.

ledger.dsse.json    signed statement: the facts, their paths, the ledger's head, and the digest of every other file here
NAME.dsse.json      signed statement about a card
signer.pub          the key that signed these statements; the first fact says that it is the home's
ledger.pub          the key that signed the head
verify.py           verifies all of it; here it is ethics/verify_bundle.py
"""

import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.digest import canonical_json, digest_bytes
from ingle.core.errors import ConfigError, LedgerError
from ingle.core.files import atomic_file, os_errors, sync_folder, write_atomic
from ingle.core.report import Event, Fact
from ingle.ethics.notary import Notary, card_statement, extract_statement, named, notary, signed
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.ledger.proof import Extract, extract

if TYPE_CHECKING:
    from sqlalchemy import Engine

ATTEST = "attest"  # kind of the fact that facts were handed out with their proofs
EXTRACT, SIGNER, LEDGER, PROGRAM = "ledger.dsse.json", "signer.pub", "ledger.pub", "verify.py"
_PROGRAM = Path(__file__).with_name("verify_bundle.py")
_STATED = ".dsse.json"
_LISTED = 10  # most numbers of facts that the fact about them lists


@dataclass(frozen=True, slots=True)
class BundleCheck:
    """The words of the bundle's program."""

    lines: tuple[str, ...]
    sound: bool


def attest(home: Home, engine: "Engine", seqs: Iterable[int], cards: Mapping[str, bytes], out: Path) -> Extract:
    """Write a bundle that proves these facts, and cards by their file names, to a new folder or a `.zip`; that it was is a fact of its own.

    Raises ConfigError for a place that is taken or a card's name that can't be used, NotKept for a number that is no fact, LedgerError for
    what can't be proven or signed. Then nothing is written.
    """
    check_out(out)
    _check_cards(cards)
    wanted = sorted(set(seqs))
    ledger = Ledger(engine, home.keys)
    signer = notary(home, ledger)
    birth = named(ledger)
    assert birth is not None, "the key was made above"
    found = extract(engine, home.keys, [birth.seq, *(seq for seq in wanted if seq != birth.seq)])
    files = bundle_files(signer, found, cards)
    listed = " ".join(map(str, wanted[:_LISTED])) + (" …" if len(wanted) > _LISTED else "")
    facts: dict[str, Fact] = {"facts": len(wanted), "seqs": listed, "cards": len(cards), "statement": digest_bytes(files[EXTRACT])}
    ledger.append(Event(ATTEST, "ledger", facts))  # before they are: nothing leaves without its fact
    write_bundle(out, files)
    return found


def bundle_files(signer: Notary, found: Extract, cards: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return a bundle's files. The first fact of the extract must be the one that names the signer."""
    files = {**cards, SIGNER: signer.public, LEDGER: found.key.encode(), PROGRAM: _PROGRAM.read_bytes()}
    for name, data in cards.items():
        files[Path(name).stem + _STATED] = canonical_json(signed(signer, card_statement(name, digest_bytes(data), found)))
    digests = {name: digest_bytes(data) for name, data in files.items()}
    return {**files, EXTRACT: canonical_json(signed(signer, extract_statement(digests, found)))}


def write_bundle(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the files to a new folder, or to one file if its name ends in `.zip`: all of them or none."""
    if out.suffix.lower() == ".zip":
        with atomic_file(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in sorted(files.items()):
                archive.writestr(zipfile.ZipInfo(f"{out.stem}/{name}", (1980, 1, 1, 0, 0, 0)), data)
        return
    building = out.absolute().with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        with os_errors(out):
            building.mkdir(parents=True)
        for name, data in files.items():
            write_atomic(building / name, data)
        with os_errors(out):
            if out.is_dir():
                out.rmdir()
            building.rename(out)
            sync_folder(out.absolute().parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_out(out: Path) -> None:
    """Raise ConfigError where something lies that a bundle would replace."""
    if out.exists() and not (out.is_dir() and out.suffix.lower() != ".zip" and not any(out.iterdir())):
        raise ConfigError("--out", "must be a new name", f"{out}, which is there already", "Choose another one.")


def check_bundle(folder: Path, key: str = "") -> BundleCheck:
    """Verify a bundle as a stranger would, but with our own copy of its program.

    `key`: how the fingerprint of the ledger's key must begin. Raises LedgerError for what is no bundle.
    """
    if not (folder / EXTRACT).is_file():
        cure = "Unpack it first." if folder.suffix.lower() == ".zip" else ""
        rule = f"must be a folder with {EXTRACT}, as `ingle prove attest` writes it, or an export with its signature"
        raise LedgerError(str(folder), rule, "", cure)
    command = [sys.executable, "-I", "-X", "utf8", str(_PROGRAM), str(folder), *filter(None, [key])]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    return BundleCheck(tuple((done.stdout + done.stderr).splitlines()), done.returncode == 0)


def _check_cards(cards: Mapping[str, bytes]) -> None:
    taken = {SIGNER, LEDGER, PROGRAM, EXTRACT}
    for name in cards:
        stated = Path(name).stem + _STATED
        if {name, stated} & taken or name.endswith(_STATED) or not name.isprintable() or name.startswith("."):
            raise ConfigError("--card", "must have a file name of its own in the bundle", repr(name), "Rename the file.")
        taken |= {name, stated}
