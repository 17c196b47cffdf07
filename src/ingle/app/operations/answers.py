"""Accounts of answers, and answers asked for again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from ingle.app.answer_key import key_of_answer
from ingle.app.house import House
from ingle.app.operation import About, Said, operation
from ingle.app.replay import compare, find_row, kept_request
from ingle.app.settings import read_settings
from ingle.core.energy import energy_in
from ingle.core.errors import ConfigError, IngleError, NotKept
from ingle.ethics.answer_account import Account, Section, account_html, account_text, section
from ingle.home.deltas import get_delta
from ingle.home.examples import get_example
from ingle.home.kept import get_kept
from ingle.home.lessons import get_lesson
from ingle.home.owner import OwnerUse, owner_policy
from ingle.home.place import Home
from ingle.home.turns import find_any_completion
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens")


@dataclass(frozen=True, slots=True)
class AccountAsked:
    """An answer."""

    id: Annotated[str, About("Number of an answer in the ledger, or its id.", "EVENT", placed=True)] = ""
    last: Annotated[bool, About("Of the last thing that you asked.", also=("--last",))] = False


@dataclass(frozen=True, slots=True)
class AccountTold:
    """The account of an answer."""

    object: str
    row: int
    row_hash: str
    sections: tuple[Section, ...]


def _account(told: AccountTold) -> Account:
    return Account(told.row, told.row_hash, told.sections)


@operation(
    "prove account", "GET /v1/answers/{id}/account", says=lambda told: account_text(_account(told)).splitlines(),
    forms={".html": lambda told: account_html(_account(told))},
)  # fmt: skip
def account(house: House, asked: AccountAsked) -> AccountTold:
    """Give an account of one answer, and how to contest it.

    Who gave it, what acted on it, what guards said, and how it is proved. From the home's records alone.

    Examples:
        ingle prove account --last
        ingle prove account chatcmpl-1f0c… --out account.html
        ingle prove account 17 --json
    """
    if bool(asked.id) == asked.last:
        got = "both" if asked.last else "neither"
        raise ConfigError("EVENT", "Say which answer: EVENT or --last", got, "`ingle log --kind answer` lists them.")
    row = find_row(Ledger(house.engine, house.home.keys), asked.id or None)
    if not house.at_machine and str(row.values.get("key", "")) != house.owner:
        raise NotKept("event", f"The ledger holds no answer {asked.id[:40]}", "", "`ingle log --kind answer` lists them.")
    found = account_of(house.home, house.engine, row)
    return AccountTold("account", found.row, found.row_hash, found.sections)


def account_of(home: Home, engine: "Engine", row: "Row") -> Account:
    """Return the account of an answer's fact. What is gone is named as gone. Raises HomeError, LedgerError, ConfigError."""
    facts, ledger = row.values, Ledger(engine, home.keys)
    completion = str(facts.get("id", ""))
    turn = find_any_completion(engine, completion) if completion else None
    owner = str(facts.get("key", ""))
    told = [one for one in ledger.read(kind="guard") if completion and one.values.get("id") == completion]
    use = owner_policy(home.policy).use
    return Account(row.seq, row.hash, (
        section("The answer", (
            ("given", row.at), ("to", f"the key {owner}" if owner else "somebody on this machine, without a key"),
            ("id", completion),
            ("text", turn.message.text if turn else "not kept; the ledger has its digest"),
            ("digest of the text, keyed", facts.get("answer")),
            ("ended by", facts.get("finish")), ("tokens", facts.get("completion_tokens")), ("energy", energy_in(facts)),
        )),
        _model(home, row), _acted(engine, owner, facts), _guards(facts, told),
        section("How it was drawn", [(name, facts.get(name)) for name in _SAMPLING]),
        section("Proof", (
            ("row", f"{row.seq}, hash {row.hash}"), ("the same words again", f"ingle prove replay {row.seq}"),
            ("unchanged records", "ingle verify"),
            ("for somebody else", f"ingle prove attest {row.seq}"),
        )),
        _contest(use, owner, row.seq, turn is not None),
    ))  # fmt: skip


def _model(home: Home, row: "Row") -> Section:
    lines: list[tuple[str, object]] = [("name", row.subject), ("digest of model, deltas and format", row.values.get("model"))]
    try:
        kept = get_kept(home, row.subject)
        lines.append(("base", kept.base))
        for digest in kept.deltas:
            delta = get_delta(home, digest)
            lines.append((f"change {delta.name}", f"{delta.origin.get('command') or delta.kind} ({digest})"))
    except IngleError:
        lines.append(("now", "it is not kept here under this name any more"))
    return section("The model", lines)


def _acted(engine: "Engine", owner: str, facts: Mapping[str, Any]) -> Section:
    lines = list[tuple[str, object]]()
    for id_ in str(facts.get("memories") or "").split():
        try:
            lines.append((f"memory {id_}", get_example(engine, owner, id_).answer))
        except NotKept:
            lines.append((f"memory {id_}", "forgotten since"))
    for digest in str(facts.get("lessons") or "").split():
        try:
            lesson = get_lesson(engine, owner, digest)
            lines.append((f"lesson {digest[:12]}", f"learned from {', '.join(lesson.examples)}{'' if lesson.acting else '; undone since'}"))
        except NotKept:
            lines.append((f"lesson {digest[:12]}", "gone since"))
    return section("What was taught and acted", lines or [("nothing", "neither a memory nor a lesson acted")])


def _guards(facts: Mapping[str, Any], told: list["Row"]) -> Section:
    lines: list[tuple[str, object]] = [("what they said", facts.get("verdicts") or "nothing")]
    for row in told:
        values = row.values
        lines.append(
            (
                f"row {row.seq}",
                f"{values.get('guard')}: {row.kind.removeprefix('guard.')}, rule {values.get('rule')}, mode {values.get('mode')}",
            )
        )
    return section("Guards", lines)


def _contest(use: OwnerUse, owner: str, seq: int, kept: bool) -> Section:
    return section("How to contest it", (
        ("say what it should have been", "Correct it on the page, `ingle teach`, or POST /v1/feedback: the next answer knows it."),
        ("take back what was taught", "`ingle undo` or *undo* on the page; `ingle forget` deletes the words."),
        ("why it said that", f"ingle why {seq}" if kept else ""),
        ("a person to ask", use.contact or "not stated: use.contact in policy.toml"),
        ("who looks at answers", use.oversight),
    ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReplayAsked:
    """An answer to be asked for again."""

    event: Annotated[str, About("Number of an answer in the ledger, or its id.", "EVENT", placed=True)]


@dataclass(frozen=True, slots=True)
class ReplayTold:
    """How an answer that was asked for again compares with what the ledger says."""

    seq: int
    request_same: bool
    kept_same: bool
    model_same: bool
    answer_same: bool
    proven: bool
    kept: str
    now: str


def _says_replay(told: ReplayTold) -> Iterable[Said]:
    checks = {
        "the kept question is the one of the ledger": told.request_same,
        "the kept answer is the one of the ledger": told.kept_same,
        "the model is the one that answered": told.model_same,
        "it gives the same answer again": told.answer_same,
    }
    for said, holds in checks.items():
        yield f"{'yes' if holds else 'NO '}  {said}"
    if not told.answer_same:
        yield f"\nkept:\n{told.kept}\n\nnow:\n{told.now}"


@operation("prove replay", right="owner", says=_says_replay, code=lambda told: not told.proven)
def replay(house: House, asked: ReplayAsked) -> ReplayTold:
    """Prove an answer by asking for it again.

    The same model answers the same question with the same seed, and the answer is compared with the ledger.

    Works where the text is kept: conversations of the page, and requests with `store: true`; and as long as what was taught and acted
    then is kept too. Exit code 1 if it differs.

    Examples:
        ingle log --kind answer --last 3
        ingle prove replay 17
        ingle prove replay chatcmpl-1f0c… --json
    """
    from ingle.adapt.choosing import Chooser  # it loads NumPy and the kernels, which an account needs not
    from ingle.app.choose import open_kept
    from ingle.app.here import Here

    home, settings = house.home, read_settings(house.home)
    here = Here(house, lambda kept: open_kept(home, kept, settings.chat, house.watch), settings.serve.drafts)
    row = find_row(Ledger(here.engine, home.keys), asked.event)
    key = key_of_answer(home, here.engine, row.seq)
    request, kept = kept_request(here.engine, str(row.values.get("id", "")))
    stands = get_kept(home, row.subject)
    owner, *acted = (str(row.values.get(name, "")) for name in ("key", "memories", "lessons"))
    memories, lessons = (names.split() for names in acted)
    model = open_kept(home, stands, settings.chat, house.watch)
    choice = Chooser(home, here.engine).again(owner, model, stands, request, memories, lessons)
    found = compare(key, row, choice.model, request, kept, here.again(choice.model, choice.request, owner))
    same = found.request_same, found.kept_same, found.model_same, found.answer_same
    return ReplayTold(row.seq, *same, found.proven, found.kept, found.now)
