"""The ledger as people read it."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from ingle.app.house import House
from ingle.app.operation import About, Note, Said, operation
from ingle.app.sentences import entries
from ingle.core.config import Bounds
from ingle.core.report import Fact
from ingle.ledger.chain import Ledger
from ingle.ledger.row import Row


@dataclass(frozen=True, slots=True)
class LogAsked:
    """Facts of the ledger."""

    model: Annotated[str, About("Only this model and its deltas.", "[MODEL]", placed=True)] = ""
    last: Annotated[int, Bounds(ge=1), About("How many lines, the newest at the end.", also=("--last", "-n"))] = 20
    kind: Annotated[str, About("Only this kind and those below it: answer, pull, gate and so on.")] = ""
    subject: Annotated[str, About("Only what concerns exactly this model, delta or key.")] = ""
    facts: Annotated[bool, About("Print the figures of every fact instead of sentences.", also=("--facts",))] = False


@dataclass(frozen=True, slots=True)
class FactTold:
    """A fact of the ledger."""

    seq: int
    at: str
    kind: str
    subject: str
    facts: dict[str, Fact]
    hash: str


@dataclass(frozen=True, slots=True)
class LogTold:
    """Facts, the oldest first, and lines about them."""

    object: str
    data: tuple[FactTold, ...]
    lines: tuple[str, ...]
    note: str


def _says(told: LogTold) -> Iterable[Said]:
    return told.lines or (Note(told.note),)


@operation("log", right="owner", says=_says)
def log(house: House, asked: LogAsked) -> LogTold:
    """Show what happened in this home.

    This is the ledger. It holds figures and keyed digests, never the words of a conversation.

    Examples:
        ingle log
        ingle log smollm2   (the life of this model and its deltas)
        ingle log --last 5 --kind answer --facts
        ingle log --subject smollm2 --json
    """
    home, model = house.home, asked.model
    if not home.other_database and not home.database_file.exists():
        return LogTold("lines", (), (), "Nothing has been recorded in this home yet.")
    rows = Ledger(house.engine, home.keys).read(asked.kind or None, asked.subject or None)
    mine = (row for row in rows if not model or row.subject == model or row.subject.startswith(f"{model}+"))
    found, lines = list[Row](), list[str]()
    if asked.facts:
        found = list(islice(mine, asked.last))[::-1]
        lines = [_figures(row) for row in found]
    else:  # a line may stand for several answers
        lines = [entry.line for entry in entries((found.append(row) or row for row in mine), asked.last)]  # type: ignore[func-returns-value]
        found = found[: asked.last][::-1]
    told = tuple(FactTold(row.seq, row.at, row.kind, row.subject, dict(row.values), row.hash) for row in found)
    return LogTold("lines", told, tuple(lines), f"Nothing was recorded about {model}." if model else "No such fact.")


def _figures(row: Row) -> str:
    values = "  ".join(f"{key}={_short(value)}" for key, value in row.values.items() if value not in (None, ""))
    return f"{row.seq:>5}  {row.at[:19].replace('T', ' ')}  {row.kind:<8} {row.subject:<12} {values}"


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"{text[:12]}…" if is_digest else text
