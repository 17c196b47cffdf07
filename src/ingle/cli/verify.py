"""`ingle verify`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ingle.home.place import Home
    from ingle.ledger.stamp import Stamp
    from ingle.ledger.verify import Verification
    from ingle.serve.examined import Examined

EXAMPLES = """
ingle verify
ingle verify --models
ingle verify --head /media/stick/ingle.head
ingle verify --head ingle.head --tsa-roots tsa-roots.pem   (its time-stamp too)
ingle verify --bundle proof --key 3f2a90   (what `ingle prove attest` wrote, here or elsewhere)
ingle verify --bundle letters-hf           (what `ingle export --sign` wrote)
"""
BROKEN = 7
_MOST_NAMED = 10  # most facts that are named in one line


def command(
    head: Annotated[Path | None, typer.Option(help="A head that was exported earlier: it must be part of the chain.")] = None,
    tsa_roots: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Root certificates (PEM) of time-stamp authorities: also check the time-stamp beside --head."),
    ] = None,
    models: Annotated[bool, typer.Option("--models", help="Also read every file of every kept model and delta again.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Check this bundle or signed export instead, whoever's it is; needs no home.")
    ] = None,
    key: Annotated[str, typer.Option(help="With --bundle: how the fingerprint of its key must begin.")] = "",
    accept_loss: Annotated[bool, typer.Option("--accept-loss", help="Go on after facts were lost; this itself becomes a fact.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prove that the ledger and what is kept are unchanged.

    The database and the ledger's key are checked; answers, what was taught, API keys and reports of deltas are compared with the ledger;
    --models reads the models too. Nothing is written, so a read-only copy will do. Exit code 7 if anything is not as it was signed.
    """
    from dataclasses import asdict

    if bundle is not None or key:
        _check(bundle, key, as_json)
        return
    from ingle.app.house import enter
    from ingle.cli.output import print_json, printable
    from ingle.ledger.head import load_head
    from ingle.serve.examined import examine

    home = enter()
    exported = load_head(head) if head else None
    stamp, stamp_fault = _stamp(head, tsa_roots)
    accepted = _accept(home) if accept_loss else None
    kept = examine(home, exported)
    result = kept.ledger
    faults = list(_faults(home)) if models else []
    if as_json:
        problem = {"seq": result.problem.seq, "what": result.problem.what} if result.problem else None
        summary: dict[str, object] = {
            "facts": result.count,
            "problem": problem,
            "head": result.head.seq if result.head else None,
            "accepted_loss": accepted,
        }
        summary |= {"keys": result.keys, "stamp": stamp and asdict(stamp), "stamp_fault": stamp_fault}
        print_json({**summary, **_table(kept), "models": [{"model": name, "fault": what} for name, what in faults] if models else None})
    else:
        if accepted:
            print(f"The loss is now fact {accepted}.")
        print(printable(_chain(result)))
        _tell(kept)
        if stamp:
            print(printable(f"The time-stamp is sound: {stamp.authority} says that this head was there at {stamp.at}."))
            print("So its row and all before it are older; what came later, and whether the facts were true, it does not say.")
        elif stamp_fault:
            print(printable(f"BROKEN time-stamp: {stamp_fault}"))
        for name, what in faults:
            print(printable(f"BROKEN {name}: {what}" if name.startswith("delta ") else f"BROKEN model {name}: {what}"))
        if models and not faults:
            print("Every file of every kept model and delta is as it was kept.")
    if not kept.whole or faults or stamp_fault:
        raise typer.Exit(BROKEN)


def _chain(result: "Verification") -> str:
    """Return what was found in the chain of facts, as a sentence."""
    if result.problem:
        where = f"fact {result.problem.seq}" if result.problem.seq else "the ledger"
        return f"BROKEN at {where}: {result.problem.what}. The {result.count} facts before it are sound."
    key = f", key {result.head.fingerprint[:12]}" if result.head else ""
    key += f", the last of {len(result.keys)} that handed over to each other" if len(result.keys) > 1 else ""
    return f"The ledger is whole: {result.count} facts{key}."


def _check(bundle: Path | None, key: str, as_json: bool) -> None:
    """Check a bundle or a signed export, and print what it proves."""
    from ingle.cli.output import note, print_json, printable
    from ingle.core.errors import ConfigError, LedgerError, counted
    from ingle.ethics.bundle import check_bundle
    from ingle.ethics.model_signature import check_model, signature_of

    if bundle is None:
        raise ConfigError("--key", "A key is checked with a bundle", "", "Say which: --bundle DIR")
    if signature_of(bundle)[0].is_file():
        model = check_model(bundle)
        if not model.signer.startswith(key):
            raise LedgerError(str(bundle), f"must be signed with the key {key[:64]}", model.signer)
        lines = [f"All is as it was signed: {counted(model.files, 'file')}, key {model.signer}. Nothing was added or removed."]
        sound = True
    else:
        found = check_bundle(bundle, key)
        lines, sound = list(found.lines), found.sound
    if as_json:
        print_json({"sound": sound, "lines": lines})
    else:
        print(printable("\n".join(lines)))
    if not sound:
        raise typer.Exit(BROKEN)
    if not key and not as_json:
        note("Whose key that is, only its owner can tell you; --key FINGERPRINT checks it.")


def _accept(home: "Home") -> int:
    from ingle.app.answer_key import accept_lost_key, key_fault
    from ingle.app.house import open_ledger
    from ingle.core.errors import LedgerError
    from ingle.ethics.notary import accept_lost_notary, notary_fault

    with open_ledger(home) as ledger:
        lost = [accept for fault, accept in ((key_fault, accept_lost_key), (notary_fault, accept_lost_notary)) if fault(home, ledger)]
        if not lost:
            return ledger.accept_loss().seq
        try:
            ledger.ready()
        except LedgerError:  # both are lost
            ledger.accept_loss()
        return [accept(home, ledger).seq for accept in lost][-1]


def _table(kept: "Examined") -> dict[str, Any]:
    """Return as JSON what was found in the database."""
    proofs = kept.proofs
    compared = {"answers": proofs.answers, "taught": proofs.taught, "keys": proofs.keys, "unproven": proofs.unproven}
    faults = [{"what": what, "fault": fault} for what, fault in proofs.faults]
    return {"backwards": list(kept.ledger.backwards), "database": list(kept.database), "kept": {**compared, "faults": faults}}


def _tell(kept: "Examined") -> None:
    """Print what was found in the database, and where clocks went backwards."""
    from ingle.cli.output import note, printable

    for fault in kept.database:
        print(printable(f"BROKEN the database: {fault}"))
    for what, fault in kept.proofs.faults:
        print(printable(f"BROKEN {what}: {fault}"))
    proofs, back = kept.proofs, kept.ledger.backwards
    if kept.whole and (proofs.answers or proofs.taught or proofs.keys):
        print(f"{proofs.answers} kept answers, {proofs.taught} taught examples and {proofs.keys} keys are as the ledger says.")
    if proofs.unproven:
        note(f"{proofs.unproven} kept texts can't be compared: the ledger holds no digest of them.")
    if kept.ledger.stale:
        note(f"{kept.ledger.stale} hashes that proofs are made of are damaged; whoever proves with them makes them anew from the facts.")
    if back:
        which = ", ".join(map(str, back[:_MOST_NAMED])) + (" …" if len(back) > _MOST_NAMED else "")
        note(f"A clock went backwards: {len(back)} facts are dated before the one before ({which}). Their order is proven all the same.")


def _stamp(head: Path | None, roots: Path | None) -> tuple["Stamp | None", str]:
    """Return what the time-stamp beside an exported head says, and what is wrong with it."""
    from ingle.cli.output import note
    from ingle.core.errors import ConfigError, LedgerError
    from ingle.core.files import os_errors
    from ingle.ledger.stamp import check_stamp, stamp_file

    if roots is None or head is None:
        if roots is not None:
            raise ConfigError("--tsa-roots", "A time-stamp lies beside an exported head", "", "Say which: --head FILE")
        if head is not None and stamp_file(head).exists():
            note(f"The time-stamp in {stamp_file(head)} was not checked; --tsa-roots FILE does it.")
        return None, ""
    with os_errors(head):
        answer, data, trusted = stamp_file(head).read_bytes(), head.read_bytes(), roots.read_bytes()
    try:
        return check_stamp(answer, data, trusted), ""
    except LedgerError as error:
        return None, error.sentence


def _faults(home: "Home") -> Iterator[tuple[str, str]]:
    """Yield (model, fault) for every faulty file of every kept model, delta and pack."""
    from ingle.cli.progress import watching
    from ingle.core.errors import HomeError
    from ingle.engine.lean_base import verify_packs
    from ingle.home.base import verify_base
    from ingle.home.deltas import verify_delta
    from ingle.home.kept import list_models
    from ingle.home.parts import list_parts

    damaged: list[tuple[str, str]] = []
    models = list_models(home, lambda name, error: damaged.append((name, str(error))))
    yield from damaged
    with watching() as watch:
        parts = {part.base: part.name for part in list_parts(home)}
        for base, name in ({kept.base: kept.name for kept in reversed(models)} | parts).items():
            try:
                for fault in verify_base(home, base, watch.bytes):
                    yield name, f"{fault.file} is {fault.what} (expected {fault.expected}, got {fault.got})"
            except HomeError as error:
                yield name, str(error)
        names = {digest: kept.name for kept in models for digest in kept.deltas[-1:]}
        named = {digest for kept in models for digest in kept.deltas}
        there = {path.name for path in home.deltas.iterdir()} if home.deltas.is_dir() else set()
        for done, digest in enumerate(sorted(named | there)):
            watch.pieces("reading deltas", done, len(named | there))
            for what in verify_delta(home, digest):
                yield names.get(digest, f"delta {digest[:12]}"), what
        yield from verify_packs(home, watch.pieces)
