"""Proofs that records are as they were signed, for oneself and for others."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ingle.app.answer_key import accept_lost_key, key_fault, proven_by, read_answer_key
from ingle.app.examined import Examined, examine
from ingle.app.facts import answer_digest
from ingle.app.house import House, open_ledger
from ingle.app.operation import About, Note, Said, operation
from ingle.app.replay import find_row
from ingle.core.errors import ConfigError, HomeError, LedgerError, RequestError, counted
from ingle.core.files import os_errors
from ingle.engine.lean_base import verify_packs
from ingle.ethics.bundle import attest, check_bundle
from ingle.ethics.model_signature import check_model, signature_of
from ingle.ethics.notary import accept_lost_notary, notary_fault
from ingle.ethics.whose import RUN, SaidHere, whose
from ingle.home.base import verify_base
from ingle.home.database import open_database
from ingle.home.deltas import verify_delta
from ingle.home.fetch import make_opener
from ingle.home.kept import list_models
from ingle.home.parts import list_parts
from ingle.home.turns import answers_said
from ingle.ledger.chain import Ledger
from ingle.ledger.head import Head, export_head, head_bytes, load_head
from ingle.ledger.stamp import Stamp, check_stamp, stamp_file, stamp_head
from ingle.ledger.table import MIGRATIONS
from ingle.ledger.verify import Problem, Verification

if TYPE_CHECKING:
    from ingle.home.place import Home

BROKEN = 7  # exit code
_MOST_NAMED = 10  # most facts that are named in one line, and most answers that a text is told to be
_SHORT = 40  # characters: so short a text is said by many


@dataclass(frozen=True, slots=True)
class Verifying:
    """What is verified."""

    head: Annotated[Path | None, About("A head that was exported earlier: it must be part of the chain.", "FILE")] = None
    tsa_roots: Annotated[
        Path | None, About("Root certificates (PEM) of time-stamp authorities: also check the time-stamp beside --head.", "FILE")
    ] = None
    models: Annotated[bool, About("Also read every file of every kept model and delta again.", also=("--models",))] = False
    bundle: Annotated[Path | None, About("Check this bundle or signed export instead, whoever's it is; needs no home.", "DIR")] = None
    key: Annotated[str, About("With --bundle: how the fingerprint of its key must begin.")] = ""
    accept_loss: Annotated[bool, About("Go on after facts were lost; this itself becomes a fact.", also=("--accept-loss",))] = False


@dataclass(frozen=True, slots=True)
class FileFault:
    """A damaged file of a model or delta."""

    model: str
    fault: str


@dataclass(frozen=True, slots=True)
class ThingFault:
    """A kept thing that is not as the ledger says."""

    what: str
    fault: str


@dataclass(frozen=True, slots=True)
class Compared:
    """How many kept things were compared with the ledger."""

    answers: int
    taught: int
    keys: int
    unproven: int
    faults: tuple[ThingFault, ...]


@dataclass(frozen=True, slots=True)
class BundleTold:
    """What somebody's bundle or signed export proves."""

    sound: bool
    lines: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class VerifiedTold:
    """What was found in this home."""

    sound: bool
    facts: int
    problem: Problem | None
    head: int | None
    accepted_loss: int | None
    keys: tuple[str, ...]
    stamp: Stamp | None
    stamp_fault: str
    backwards: tuple[int, ...]
    database: tuple[str, ...]
    kept: Compared
    models: tuple[FileFault, ...] | None
    lines: tuple[str, ...]
    notes: tuple[str, ...]


def _says_verified(told: VerifiedTold | BundleTold) -> Iterable[Said]:
    yield from told.lines
    yield from map(Note, told.notes if isinstance(told, VerifiedTold) else [told.note] if told.note else [])


@operation("verify", right="owner", says=_says_verified, code=lambda told: 0 if told.sound else BROKEN)
def verify(house: House, asked: Verifying) -> VerifiedTold | BundleTold:
    """Prove that the ledger and what is kept are unchanged.

    The database and the ledger's key are checked; answers, what was taught, API keys and reports of deltas are compared with the ledger;
    --models reads the models too. Nothing is written, so a read-only copy will do. Exit code 7 if anything is not as it was signed.

    Examples:
        ingle verify
        ingle verify --models
        ingle verify --head /media/stick/ingle.head
        ingle verify --head ingle.head --tsa-roots tsa-roots.pem   (its time-stamp too)
        ingle verify --bundle proof --key 3f2a90   (what `ingle prove attest` wrote, here or elsewhere)
        ingle verify --bundle letters-hf           (what `ingle export --sign` wrote)
    """
    if asked.bundle is not None or asked.key:
        return _check(asked.bundle, asked.key)
    home = house.home
    exported = load_head(asked.head) if asked.head else None
    stamp, stamp_fault, notes = _stamp(asked.head, asked.tsa_roots)
    accepted = _accept(home) if asked.accept_loss else None
    kept = examine(home, exported)
    result, proofs = kept.ledger, kept.proofs
    faults = tuple(FileFault(*one) for one in _faults(house)) if asked.models else None
    lines = [f"The loss is now fact {accepted}."] if accepted else []
    lines += [_chain(result), *_found(kept)]
    if stamp:
        lines += [
            f"The time-stamp is sound: {stamp.authority} says that this head was there at {stamp.at}.",
            "So its row and all before it are older; what came later, and whether the facts were true, it does not say.",
        ]
    elif stamp_fault:
        lines.append(f"BROKEN time-stamp: {stamp_fault}")
    if faults is not None:
        lines += [f"BROKEN {'' if one.model.startswith('delta ') else 'model '}{one.model}: {one.fault}" for one in faults]
        lines += [] if faults else ["Every file of every kept model and delta is as it was kept."]
    compared = Compared(proofs.answers, proofs.taught, proofs.keys, proofs.unproven, tuple(ThingFault(*one) for one in proofs.faults))
    return VerifiedTold(
        kept.whole and not faults and not stamp_fault, result.count, result.problem, result.head.seq if result.head else None, accepted,
        result.keys, stamp, stamp_fault, result.backwards, kept.database, compared, faults, tuple(lines), (*notes, *_remarks(kept)),
    )  # fmt: skip


def _chain(result: Verification) -> str:
    """Return what was found in the chain of facts, as a sentence."""
    if result.problem:
        where = f"fact {result.problem.seq}" if result.problem.seq else "the ledger"
        return f"BROKEN at {where}: {result.problem.what}. The {result.count} facts before it are sound."
    key = f", key {result.head.fingerprint[:12]}" if result.head else ""
    key += f", the last of {len(result.keys)} that handed over to each other" if len(result.keys) > 1 else ""
    return f"The ledger is whole: {result.count} facts{key}."


def _found(kept: Examined) -> Iterator[str]:
    """Yield what was found in the database, as sentences."""
    proofs = kept.proofs
    yield from (f"BROKEN the database: {fault}" for fault in kept.database)
    yield from (f"BROKEN {what}: {fault}" for what, fault in proofs.faults)
    if kept.whole and (proofs.answers or proofs.taught or proofs.keys):
        yield f"{proofs.answers} kept answers, {proofs.taught} taught examples and {proofs.keys} keys are as the ledger says."


def _remarks(kept: Examined) -> Iterator[str]:
    """Yield what can't be compared, and where clocks went backwards."""
    unproven, stale, back = kept.proofs.unproven, kept.ledger.stale, kept.ledger.backwards
    if unproven:
        yield f"{unproven} kept texts can't be compared: the ledger holds no digest of them."
    if stale:
        yield f"{stale} hashes that proofs are made of are damaged; whoever proves with them makes them anew from the facts."
    if back:
        which = ", ".join(map(str, back[:_MOST_NAMED])) + (" …" if len(back) > _MOST_NAMED else "")
        yield f"A clock went backwards: {len(back)} facts are dated before the one before ({which}). Their order is proven all the same."


def _check(bundle: Path | None, key: str) -> BundleTold:
    """Check a bundle or a signed export."""
    if bundle is None:
        raise ConfigError("--key", "A key is checked with a bundle", "", "Say which: --bundle DIR")
    whose_key = "" if key else "Whose key that is, only its owner can tell you; --key FINGERPRINT checks it."
    if not signature_of(bundle)[0].is_file():
        found = check_bundle(bundle, key)
        return BundleTold(found.sound, tuple(found.lines), whose_key if found.sound else "")
    model = check_model(bundle)
    if not model.signer.startswith(key):
        raise LedgerError(str(bundle), f"must be signed with the key {key[:64]}", model.signer)
    line = f"All is as it was signed: {counted(model.files, 'file')}, key {model.signer}. Nothing was added or removed."
    return BundleTold(True, (line,), whose_key)


def _accept(home: "Home") -> int:
    with open_ledger(home) as ledger:
        lost = [accept for fault, accept in ((key_fault, accept_lost_key), (notary_fault, accept_lost_notary)) if fault(home, ledger)]
        if not lost:
            return ledger.accept_loss().seq
        try:
            ledger.ready()
        except LedgerError:  # both are lost
            ledger.accept_loss()
        return [accept(home, ledger).seq for accept in lost][-1]


def _stamp(head: Path | None, roots: Path | None) -> tuple[Stamp | None, str, list[str]]:
    """Return what the time-stamp beside an exported head says, what is wrong with it, and remarks."""
    if roots is None or head is None:
        if roots is not None:
            raise ConfigError("--tsa-roots", "A time-stamp lies beside an exported head", "", "Say which: --head FILE")
        unchecked = head is not None and stamp_file(head).exists()
        return None, "", [f"The time-stamp in {stamp_file(head)} was not checked; --tsa-roots FILE does it."] if head and unchecked else []
    with os_errors(head):
        answer, data, trusted = stamp_file(head).read_bytes(), head.read_bytes(), roots.read_bytes()
    try:
        return check_stamp(answer, data, trusted), "", []
    except LedgerError as error:
        return None, error.sentence, []


def _faults(house: House) -> Iterator[tuple[str, str]]:
    """Yield (model, fault) for every faulty file of every kept model, delta and pack."""
    home, watch = house.home, house.watch
    damaged: list[tuple[str, str]] = []
    models = list_models(home, lambda name, error: damaged.append((name, str(error))))
    yield from damaged
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


@dataclass(frozen=True, slots=True)
class Heading:
    """What is done with the signed head."""

    action: Annotated[Literal["export", "rotate"], About("What to do: export or rotate.", "[ACTION]", placed=True)] = "export"
    out: Annotated[Path | None, About("File to write it to; by default it is printed.", "FILE")] = None
    timestamp: Annotated[
        str, About("Have it time-stamped (RFC 3161) by the authority at URL, which learns its SHA-256 and no more.", "URL")
    ] = ""


@dataclass(frozen=True, slots=True)
class HeadTold:
    """The signed head, as its file holds it, or the rotation of its key."""

    head: str
    lines: tuple[str, ...]
    note: str = ""


def _says_head(told: HeadTold) -> Iterable[Said]:
    yield from told.lines
    if told.note:
        yield Note(told.note)


@operation("prove head", right="owner", says=_says_head)
def head(house: House, asked: Heading) -> HeadTold:
    """Export the ledger's signed head, or rotate the key that signs it.

    Whoever has a head can prove later that the ledger had these facts, even against the owner of this machine; with a time-stamp, that it
    had them by then. A rotation makes a new key, which the old one vouches for, and deletes the old private key; earlier heads stay good.

    Examples:
        ingle prove head --out /media/stick/ingle.head
        ingle verify --head /media/stick/ingle.head   (later: was anything cut off since?)
        ingle prove head --out ingle.head --timestamp https://tsa.example.org
        ingle prove head rotate                             (where somebody may have read the key)
    """
    if asked.action == "rotate" and (asked.out or asked.timestamp):
        raise ConfigError("--out", "A rotation writes no head", "", "Say: ingle prove head rotate, then: ingle prove head --out FILE")
    if asked.timestamp and not asked.out:
        raise ConfigError("--timestamp", "A time-stamp lies beside an exported head", "", "Say where: --out FILE")
    with open_ledger(house.home) as ledger:
        taken = ledger.rotate() if asked.action == "rotate" else None
        found = ledger.head()
        if found is None:
            raise LedgerError("ledger", "has no signed head yet", "", "It gets one with its first fact, or run `ingle verify`.")
        text = head_bytes(found).decode()
        if taken is not None:
            new, old = found.fingerprint[:12], str(taken.values["key"])[:12]
            said = f"Key {new} signs from fact {taken.seq} on. The private key {old} is deleted; what it signed stays proven."
            return HeadTold(text, (said,))
        if asked.out is None:
            return HeadTold(text, (text.rstrip("\n"),))
        return _exported(ledger, found, text, asked.out, asked.timestamp)


def _exported(ledger: Ledger, found: Head, text: str, out: Path, url: str) -> HeadTold:
    where = f"Row {found.seq}, key {found.fingerprint[:12]}, is in {out}."
    if not url:
        export_head(found, out)
        return HeadTold(text, (where,))
    event = stamp_head(found, out, url, make_opener())
    ledger.append(event)
    stamped = f"{event.facts['host']} stamped it at {event.facts['at']}, in {stamp_file(out)}."
    return HeadTold(text, (where, stamped), f"Nobody checked yet who signed that: ingle verify --head {out} --tsa-roots FILE")


@dataclass(frozen=True, slots=True)
class Attesting:
    """Facts to prove to others."""

    events: Annotated[tuple[str, ...], About("Numbers of facts in the ledger, or ids of answers.", "EVENT…", placed=True)]
    out: Annotated[Path, About("Folder to make, or a file NAME.zip.", "DIR")]
    card: Annotated[tuple[Path, ...], About("A card to sign and add; may be given more than once.", "FILE")] = ()


@dataclass(frozen=True, slots=True)
class AttestedTold:
    """A bundle of proven facts."""

    out: str
    seqs: tuple[int, ...]
    head: int
    key: str
    cards: tuple[str, ...]


def _says_attested(told: AttestedTold) -> Iterable[Said]:
    what = counted(len(told.seqs), "fact") + (f" and {counted(len(told.cards), 'card')}" if told.cards else "")
    return (
        f"In {told.out}: {what} of a ledger of {told.head}, with the proofs. Fact {told.seqs[0]} names the key that signed them.",
        f"The ledger's key is {told.key}.",
        Note("Give that fingerprint to those who verify by another way than the bundle: it is all that they have to trust."),
    )


@operation("prove attest", right="owner", says=_says_attested)
def attesting(house: House, asked: Attesting) -> AttestedTold:
    """Prove facts of the ledger to others, who need no Ingle.

    Writes the facts, the proof that each is in this ledger, the public keys, and verify.py, which checks all of it with Python and
    `cryptography` alone. Other facts stay at home: only hashes of them are in it.

    Examples:
        ingle log --facts   (which numbers facts have)
        ingle prove attest 17 --out proof
        ingle prove attest chatcmpl-1f0c… 3 4 --out proof.zip
        ingle prove attest 12 --card card.json --out account
        python proof/verify.py proof   (what others do with it, without Ingle)
    """
    cards = dict[str, bytes]()
    for path in asked.card:
        with os_errors(path):
            cards[path.name] = path.read_bytes()
    home = house.home
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    try:
        ledger = Ledger(engine, home.keys)
        found = attest(home, engine, [_number(ledger, event) for event in asked.events], cards, asked.out)
    finally:
        engine.dispose()
    seqs = tuple(one.row.seq for one in found.proven)
    return AttestedTold(str(asked.out), seqs, found.head.seq, found.head.fingerprint, tuple(sorted(cards)))


def _number(ledger: Ledger, event: str) -> int:
    return int(event) if event.isdecimal() and len(event) < 16 else find_row(ledger, event).seq


@dataclass(frozen=True, slots=True)
class TextAsked:
    """A text."""

    file: Annotated[Path, About("A text; - reads standard input.", "FILE", placed=True)]


@dataclass(frozen=True, slots=True)
class PartTold:
    """How much of a text stands in a kept answer."""

    seq: int | None
    share: float
    longest_words: int


@dataclass(frozen=True, slots=True)
class WhoseTold:
    """Whether a text is an answer of this home."""

    ours: bool
    said: tuple[SaidHere, ...]
    shared: tuple[PartTold, ...]
    share: float
    answers: int
    unknown: int
    kept: int
    runs: int
    characters: int


def _says_whose(told: WhoseTold) -> Iterable[Said]:
    for one in told.said[-_MOST_NAMED:]:
        yield f"Yes, word for word: fact {one.seq}, {one.at[:19].replace('T', ' ')}, {one.model}."
    if len(told.said) > _MOST_NAMED:
        yield f"And {counted(len(told.said) - _MOST_NAMED, 'time')} before."
    if told.said and told.characters < _SHORT:
        yield Note("So short a text is said by many: that this home said it, too, says little about where it comes from.")
    if told.said:
        yield Note(f"ingle prove attest {told.said[-1].seq} --out DIR hands the fact out with its proof.")
    else:
        yield f"No answer of this home is this text as a whole ({counted(told.answers, 'answer')} compared)."
        for part in told.shared[:_MOST_NAMED]:
            where = f"the answer of fact {part.seq}" if part.seq else "a kept answer"
            yield f"{part.share:.0%} of it stands in {where}; the longest stretch has {part.longest_words} words."
        if told.shared:
            yield f"Together {told.share:.0%} of its runs of {RUN} words are in kept answers."
    if told.unknown:
        yield Note(f"{counted(told.unknown, 'answer')} can't be compared: the key of their digests was lost.")
    if told.said:
        return
    if not told.runs:
        yield Note(f"It has fewer than {RUN} words, so parts were not looked for.")
    hidden = told.answers + told.unknown - told.kept
    if hidden > 0:
        yield Note(f"The words of {counted(hidden, 'answer')} are not kept: whether this is a part or a changed copy of one can't be told.")


@operation("prove whose", right="owner", says=_says_whose, code=lambda told: not told.said and not told.shared)
def whose_text(house: House, asked: TextAsked) -> WhoseTold:
    """Tell whether a text is an answer of this home.

    A whole answer is found by its digest in the ledger, whether its words are kept or not; a part of one only where they are kept. Nothing
    is stored. Exit code 1 if neither was found.

    Examples:
        ingle prove whose letter.txt
        ingle "Name a colour." smollm2 | ingle prove whose -
        ingle prove whose letter.txt --json
    """
    text, home = _text(asked.file), house.home
    ledger, key = Ledger(house.engine, home.keys), read_answer_key(home)
    proven = proven_by(ledger, key) if key is not None else lambda _seq: False
    found = whose(text, ledger.read("answer"), partial(answer_digest, key or b""), proven, answers_said(house.engine))
    shared = tuple(PartTold(one.seq, one.share, one.words) for one in found.shared)
    return WhoseTold(
        found.ours, tuple(found.said), shared, found.share, found.answers, found.unknown, found.kept, found.runs, len(text)
    )  # fmt: skip


def _text(file: Path) -> str:
    with os_errors(file):
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(str(file), "must be text in UTF-8", f"byte {error.start}") from error
    if not text.strip():
        raise RequestError(str(file), "must hold words", "nothing")
    return text
