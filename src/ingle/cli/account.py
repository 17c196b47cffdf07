"""`ingle prove account`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
ingle prove account --last
ingle prove account chatcmpl-1f0c… --out account.html
ingle prove account 17 --json
"""


def command(
    event: Annotated[str | None, typer.Argument(metavar="[EVENT]", help="Number of an answer in the ledger, or its id.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Of the last thing that you asked.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write a page (.html) or the data (.json) to a file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Give an account of one answer, and how to contest it.

    Who gave it, what acted on it, what guards said, and how it is proved. From the home's records alone.
    """
    import json

    from ingle.app.house import enter, open_rooms
    from ingle.app.replay import find_row
    from ingle.cli.output import note, print_json, printable
    from ingle.core.config import to_table
    from ingle.core.errors import ConfigError
    from ingle.core.files import write_atomic
    from ingle.ethics.answer_account import account_html, account_text
    from ingle.ledger.chain import Ledger
    from ingle.serve.account import account_of

    if out is not None and out.suffix not in (".html", ".json"):
        raise ConfigError("--out", "must end in .html or .json", out.suffix or "nothing")
    if (event is None) == (not last):
        raise ConfigError(
            "EVENT", "Say which answer: EVENT or --last", "both" if last else "neither", "`ingle log --kind answer` lists them."
        )
    home = enter()
    engine = open_rooms(home)
    try:
        ledger = Ledger(engine, home.keys)
        account = account_of(home, engine, find_row(ledger, event))
    finally:
        engine.dispose()
    table = {"object": "account", **to_table(account)}
    if out is not None:
        text = account_html(account) if out.suffix == ".html" else json.dumps(table, ensure_ascii=False, indent=1)
        write_atomic(out, text.encode(), mode=0o600)
        note(f"{out}: the account of the answer in row {account.row}. It holds the words of the answer.")
    elif as_json:
        print_json(table)
    else:
        print(printable(account_text(account)))
