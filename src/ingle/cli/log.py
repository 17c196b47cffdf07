"""`ingle log`."""

from typing import Annotated

import typer

EXAMPLES = """
ingle log
ingle log smollm2   (its life in sentences)
ingle log --last 5 --kind answer
ingle log --subject smollm2 --json
"""


def command(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="Tell the life of this model and its deltas.")] = "",
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many facts, the newest at the end.")] = 20,
    kind: Annotated[str | None, typer.Option(help="Only this kind and those below it: answer, pull, delta …")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what concerns this model or delta.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show the ledger: what happened in this home.

    It holds figures and keyed digests, never the words of a conversation.
    """
    import json
    from itertools import islice

    from ingle.cli.house import enter, open_ledger
    from ingle.cli.output import note, printable

    home = enter()
    if not home.other_database and not home.database_file.exists():
        note("Nothing has been recorded in this home yet.")
        return
    with open_ledger(home) as ledger:
        if model and not as_json:
            from ingle.cli.biography import entries

            told = entries(ledger.read(kind, subject), model, last)
            print(*(printable(entry.line) for entry in told), sep="\n")
            if not told:
                note(f"Nothing was recorded about {model}.")
            return
        of = (row for row in ledger.read(kind, subject) if not model or row.subject == model or row.subject.startswith(f"{model}+"))
        rows = list(islice(of, last))[::-1]
    for row in rows:
        if as_json:
            facts = {"seq": row.seq, "at": row.at, "kind": row.kind, "subject": row.subject, "facts": row.values, "hash": row.hash}
            print(json.dumps(facts, ensure_ascii=False))
        else:
            values = "  ".join(f"{key}={_short(value)}" for key, value in row.values.items() if value not in (None, ""))
            print(printable(f"{row.seq:>5}  {row.at[:19].replace('T', ' ')}  {row.kind:<8} {row.subject:<12} {values}"))
    if not rows:
        note("No such fact.")


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"{text[:12]}…" if is_digest else text
