"""`ingle prove whose`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ingle.ethics.whose import Whose

EXAMPLES = """
ingle prove whose letter.txt
ingle "Name a colour." smollm2 | ingle prove whose -
ingle prove whose letter.txt --json
"""
_MOST = 10
_SHORT = 40  # characters: so short a text is said by many


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A text; - reads standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Tell whether a text is an answer of this home.

    A whole answer is found by its digest in the ledger, whether its words are kept or not; a part of one only where they are kept. Nothing
    is stored. Exit code 1 if neither was found.
    """
    from functools import partial

    from ingle.app.answer_key import proven_by, read_answer_key
    from ingle.app.facts import answer_digest
    from ingle.app.house import enter, open_rooms
    from ingle.cli.output import print_json
    from ingle.ethics.whose import whose
    from ingle.home.turns import answers_said
    from ingle.ledger.chain import Ledger

    text, home = _text(file), enter()
    engine = open_rooms(home)
    try:
        ledger = Ledger(engine, home.keys)
        key = read_answer_key(home)
        proven = proven_by(ledger, key) if key is not None else lambda _seq: False
        found = whose(text, ledger.read("answer"), partial(answer_digest, key or b""), proven, answers_said(engine))
    finally:
        engine.dispose()
    if as_json:
        print_json(_table(found))
    else:
        _tell(found, text)
    if not found.said and not found.shared:
        raise typer.Exit(1)


def _text(file: Path) -> str:
    import sys

    from ingle.core.errors import RequestError
    from ingle.core.files import os_errors

    with os_errors(file):
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(str(file), "must be text in UTF-8", f"byte {error.start}") from error
    if not text.strip():
        raise RequestError(str(file), "must hold words", "nothing")
    return text


def _table(found: "Whose") -> dict[str, Any]:
    said = [{"seq": one.seq, "at": one.at, "model": one.model} for one in found.said]
    shared = [{"seq": one.seq, "share": one.share, "longest_words": one.words} for one in found.shared]
    counts = {"answers": found.answers, "unknown": found.unknown, "kept": found.kept}
    return {"ours": found.ours, "said": said, "shared": shared, "share": found.share, **counts}


def _tell(found: "Whose", text: str) -> None:
    from ingle.cli.output import note, printable
    from ingle.core.errors import counted
    from ingle.ethics.whose import RUN

    for one in found.said[-_MOST:]:
        print(printable(f"Yes, word for word: fact {one.seq}, {one.at[:19].replace('T', ' ')}, {one.model}."))
    if len(found.said) > _MOST:
        print(f"And {counted(len(found.said) - _MOST, 'time')} before.")
    if found.said and len(text) < _SHORT:
        note("So short a text is said by many: that this home said it, too, says little about where it comes from.")
    if found.said:
        note(f"ingle prove attest {found.said[-1].seq} --out DIR hands the fact out with its proof.")
    if not found.said:
        print(f"No answer of this home is this text as a whole ({counted(found.answers, 'answer')} compared).")
        for part in found.shared[:_MOST]:
            where = f"the answer of fact {part.seq}" if part.seq else "a kept answer"
            print(f"{part.share:.0%} of it stands in {where}; the longest stretch has {part.words} words.")
        if found.shared:
            print(f"Together {found.share:.0%} of its runs of {RUN} words are in kept answers.")
    _cannot(found)


def _cannot(found: "Whose") -> None:
    """Say what can't be told."""
    from ingle.cli.output import note
    from ingle.core.errors import counted
    from ingle.ethics.whose import RUN

    if found.unknown:
        note(f"{counted(found.unknown, 'answer')} can't be compared: the key of their digests was lost.")
    if found.said:
        return
    if not found.runs:
        note(f"It has fewer than {RUN} words, so parts were not looked for.")
    hidden = found.answers + found.unknown - found.kept
    if hidden > 0:
        note(f"The words of {counted(hidden, 'answer')} are not kept: whether this is a part or a changed copy of one can't be told.")
