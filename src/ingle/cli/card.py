"""`ingle prove card`."""

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
ingle prove card smollm2
ingle prove card smollm2+fair --as annex-xi
ingle prove card smollm2 --as energy --out energy.html
ingle prove card smollm2 --check card.json   (does it still say what the records say?)
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, or MODEL+DELTA.")],
    kind: Annotated[str, typer.Option("--as", help="model, data, energy, annex-iv, annex-xi, annex-xii, nist-rmf or iso-42001.")] = "model",
    out: Annotated[Path | None, typer.Option(help="Write it to a file: .md, .html, .txt or .json.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Compare a card in JSON with the records of now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Fill a card of a model from what was measured and recorded.

    Every number is measured or recorded, and names its row in the ledger and its digests. What the owner states in policy.toml says so.
    What nobody measured says how to. No sentence is written by a model, and no card says that a law is met.

    Exit code 1 if --check finds a difference.
    """
    from ingle.app.house import enter, open_rooms
    from ingle.cli.output import note, print_json, printable
    from ingle.core.config import to_table
    from ingle.core.files import write_atomic
    from ingle.ethics.card import FORMS, as_text, differences, form_of
    from ingle.home.kept import get_kept
    from ingle.serve.cards import card_of, hashes

    suffix = form_of(out.suffix) if out is not None else ""
    home = enter()
    kept, engine = get_kept(home, model), open_rooms(home)
    try:
        card, rows = card_of(home, engine, kept, kind), hashes(engine, home)
    finally:
        engine.dispose()
    table = {"object": "card", "digest": card.digest, **to_table(card)}
    if check is not None:
        told = differences(_read(check), card, rows)
        for line in told or ["It says what the records say."]:
            print(printable(line))
        if told:
            raise typer.Exit(1)
        return
    if out is not None:
        text = json.dumps(table, ensure_ascii=False, indent=1) if suffix == ".json" else FORMS[suffix](card)
        write_atomic(out, text.encode())
        note(f"{out}: {card.title}, {sum(bool(item.facts) for item in card.items)} of {len(card.items)} clauses have a fact.")
    elif as_json:
        print_json(table)
    else:
        print(printable(as_text(card)))


def _read(path: Path) -> dict[str, object]:
    """Return a card in a file. Raises ConfigError."""
    from ingle.core.errors import ConfigError
    from ingle.core.files import os_errors

    with os_errors(path):
        text = path.read_bytes()
    try:
        table = json.loads(text)
        digest = table.pop("digest")
        assert table.pop("object") == "card" and isinstance(digest, str)
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise ConfigError(str(path), "must be a card that `ingle prove card --out FILE.json` wrote", type(error).__name__) from error
    return dict(table)
