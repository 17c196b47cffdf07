"""`ingle replay`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.serve.replay import Replay

EXAMPLES = """
ingle log --kind answer --last 3
ingle replay 17
ingle replay chatcmpl-1f0c… --json
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
    from ingle.cli.choose import open_kept
    from ingle.cli.house import enter
    from ingle.cli.settings import read_settings
    from ingle.home.api_keys import list_keys
    from ingle.home.kept import get_kept
    from ingle.ledger.chain import Ledger
    from ingle.robustness.guard_model import asks_here, guard_opener
    from ingle.safety.guard import guard_policy
    from ingle.serve.answers_key import key_of_answer
    from ingle.serve.replay import again, compare, find_row, kept_request
    from ingle.serve.rooms import open_rooms

    home = enter()
    settings = read_settings(home, overrides or ())
    engine = open_rooms(home)
    try:
        row = find_row(Ledger(engine, home.keys), event)
        key = key_of_answer(home, engine, row.seq)
        request, kept = kept_request(engine, str(row.values.get("id", "")))
        stands = get_kept(home, row.subject)
        owner, *acted = (str(row.values.get(name, "")) for name in ("key", "memories", "lessons"))
        memories, lessons = (names.split() for names in acted)
        asker = next((one.name for one in list_keys(engine) if one.id == owner), "") if owner else ""
        choice = Chooser(home, engine).again(owner, open_kept(home, stands, settings.chat), stands, request, memories, lessons)
    finally:
        engine.dispose()
    policy = guard_policy(home.policy)
    guards = guard_opener(home, policy, lambda one: open_kept(home, one, settings.chat))
    now = "".join(chunk.text for chunk in again(choice.model, choice.request, policy, asker, asks_here(guards)))
    result = compare(key, row, choice.model, request, kept, now)
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
