"""`ingle prove replay`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.app.replay import Replay

EXAMPLES = """
ingle log --kind answer --last 3
ingle prove replay 17
ingle prove replay chatcmpl-1f0c… --json
"""


def command(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Number of an answer in the ledger, or its id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of config.toml.")] = None,
) -> None:
    """Prove an answer by asking for it again.

    The same model answers the same question with the same seed, and the answer is compared with the ledger.

    Works where the text is kept: conversations of the page, and requests with `store: true`; and as long as what was taught and acted
    then is kept too. Exit code 1 if it differs.
    """
    from ingle.adapt.choosing import Chooser
    from ingle.app.answer_key import key_of_answer
    from ingle.app.house import enter
    from ingle.app.replay import compare, find_row, kept_request
    from ingle.app.settings import read_settings
    from ingle.cli.choose import answer_here, open_watched
    from ingle.home.kept import get_kept
    from ingle.ledger.chain import Ledger

    home = enter()
    settings = read_settings(home, overrides or ())
    here = answer_here(home, settings)
    try:
        row = find_row(Ledger(here.engine, home.keys), event)
        key = key_of_answer(home, here.engine, row.seq)
        request, kept = kept_request(here.engine, str(row.values.get("id", "")))
        stands = get_kept(home, row.subject)
        owner, *acted = (str(row.values.get(name, "")) for name in ("key", "memories", "lessons"))
        memories, lessons = (names.split() for names in acted)
        model = open_watched(home, stands, settings.chat)
        choice = Chooser(home, here.engine).again(owner, model, stands, request, memories, lessons)
        result = compare(key, row, choice.model, request, kept, here.again(choice.model, choice.request, owner))
    finally:
        here.close()
    _show(result, as_json)
    if not result.proven:
        raise typer.Exit(1)


def _show(result: "Replay", as_json: bool) -> None:
    from ingle.cli.output import print_json, printable

    checks = {
        "the kept question is the one of the ledger": result.request_same,
        "the kept answer is the one of the ledger": result.kept_same,
        "the model is the one that answered": result.model_same,
        "it gives the same answer again": result.answer_same,
    }
    if as_json:
        names = ("request_same", "kept_same", "model_same", "answer_same", "proven")
        print_json({"seq": result.row.seq} | {name: getattr(result, name) for name in names} | {"kept": result.kept, "now": result.now})
        return
    for said, holds in checks.items():
        print(f"{'yes' if holds else 'NO '}  {said}")
    if not result.answer_same:
        print(f"\nkept:\n{printable(result.kept)}\n\nnow:\n{printable(result.now)}")
