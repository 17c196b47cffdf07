"""`ingle log`."""

from typing import Annotated

import typer

EXAMPLES = """
ingle log
ingle log smollm2   (the life of this model and its deltas)
ingle log --last 5 --kind answer --facts
ingle log --subject smollm2 --json
"""


def command(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="Only this model and its deltas.")] = "",
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many lines, the newest at the end.")] = 20,
    kind: Annotated[str | None, typer.Option(help="Only this kind and those below it: answer, pull, gate …")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what concerns exactly this model, delta or key.")] = None,
    facts: Annotated[bool, typer.Option("--facts", help="Print the figures of every fact instead of sentences.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show what happened in this home.

    This is the ledger. It holds figures and keyed digests, never the words of a conversation.
    """
    import json
    from itertools import islice

    from ingle.app.house import enter, open_ledger
    from ingle.cli.output import note, printable
    from ingle.cli.sentences import entries

    home = enter()
    if not home.other_database and not home.database_file.exists():
        note("Nothing has been recorded in this home yet.")
        return
    with open_ledger(home) as ledger:
        of = (row for row in ledger.read(kind, subject) if not model or row.subject == model or row.subject.startswith(f"{model}+"))
        lines = [entry.line for entry in entries(of, last)] if not facts and not as_json else []
        rows = list(islice(of, last))[::-1] if facts or as_json else []
    for row in rows:
        if as_json:
            table = {"seq": row.seq, "at": row.at, "kind": row.kind, "subject": row.subject, "facts": row.values, "hash": row.hash}
            lines.append(json.dumps(table, ensure_ascii=False))
        else:
            values = "  ".join(f"{key}={_short(value)}" for key, value in row.values.items() if value not in (None, ""))
            lines.append(f"{row.seq:>5}  {row.at[:19].replace('T', ' ')}  {row.kind:<8} {row.subject:<12} {values}")
    for line in lines:
        print(line if as_json else printable(line))
    if not lines:
        note(f"Nothing was recorded about {model}." if model else "No such fact.")


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"{text[:12]}…" if is_digest else text
