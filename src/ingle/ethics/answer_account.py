"""The account of one answer: who gave it, what acted on it, which rules, how it is proved, and how it is contested. From records alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ingle.ethics.card import STYLE


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    lines: tuple[tuple[str, str], ...]  # (name, value)


@dataclass(frozen=True, slots=True)
class Account:
    row: int
    row_hash: str
    sections: tuple[Section, ...]


def section(title: str, lines: Sequence[tuple[str, object]]) -> Section:
    """Return a section without the lines that have nothing to say."""
    return Section(title, tuple((name, str(value)) for name, value in lines if value not in (None, "", ())))


def account_text(account: Account) -> str:
    """Return an account for a terminal."""
    lines = [f"Account of the answer in row {account.row} ({account.row_hash[:12]})"]
    for one in account.sections:
        lines += ["", one.title, *(f"  {name}: {value}" for name, value in one.lines)]
    return "\n".join(lines)


def account_html(account: Account) -> str:
    """Return an account as a page in one file."""
    parts = "".join(
        f"<h2>{escape(one.title)}</h2><table>"
        + "".join(f"<tr><td>{escape(name)}<td>{escape(value)}</tr>" for name, value in one.lines)
        + "</table>"
        for one in account.sections
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Account of an answer</title><style>{STYLE}</style>"
        f"<h1>Account of an answer</h1><p class=of>Row {account.row}, {account.row_hash}</p>{parts}</html>"
    )
