"""`ingle forget`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ingle.core.errors import counted

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.adapt.forget import Forgotten

EXAMPLES = """
ingle forget ex-2f9c…   (its id: ingle learn --list)
ingle forget ex-2f9c… --with-conversations   (also kept messages in which its words stand)
"""


def command(
    example: Annotated[str, typer.Argument(metavar="EXAMPLE", help="The id of what was taught.")],
    with_conversations: Annotated[
        bool, typer.Option("--with-conversations", help="Delete kept messages that hold its words too, and what follows them.")
    ] = False,
    owner: Annotated[str, typer.Option(help="Id of the API key that owns it; by default your own.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Delete something that was taught, and the lessons made from it.

    Lessons that learned from it are learned again without it, and are then exactly those of a model that never saw it.
    """
    from ingle.adapt.forget import forget, holding
    from ingle.app.house import enter, open_rooms
    from ingle.cli.output import confirm, is_terminal, note
    from ingle.core.errors import NotKept
    from ingle.home.examples import get_example
    from ingle.ledger.chain import Ledger

    home = enter()
    engine = open_rooms(home)
    try:
        try:
            one = get_example(engine, owner, example)
        except NotKept:  # nor is one that a kill left half forgotten, which is finished without a question
            yes = True
        if not yes and is_terminal(sys.stdin) and not confirm(f"Forget “{(one.question or one.answer)[:60]}” for good?"):
            note("Nothing was forgotten.")
            raise typer.Exit(1)
        if not yes and not with_conversations and is_terminal(sys.stdin) and (turns := holding(engine, owner, one)):
            stands = f"Its words are in {counted(len(turns), 'kept message')} too."
            with_conversations = confirm(f"{stands} Delete what holds them, with all that follows?")
        gone = forget(home, engine, owner, example, Ledger(engine, home.keys).append, with_conversations)
        show_forgotten(engine, owner, gone, as_json)
    finally:
        engine.dispose()


def show_forgotten(engine: "Engine", owner: str, gone: "Forgotten", as_json: bool) -> None:
    """Say what was deleted, and what is left for the user to delete."""
    from ingle.cli.output import note, print_json
    from ingle.serve.feedback_table import forgotten_table

    if as_json:
        print_json({"id": gone.id} | forgotten_table(gone))
        return
    lessons = f", and with it {counted(gone.lessons, 'lesson')} that learned from it" if gone.lessons else ""
    print(f"{gone.id} is forgotten{lessons}.")
    if gone.again:
        print(f"To be learned again without it: {counted(gone.again, 'other')}. `ingle serve` does so, or `ingle learn`.")
    for ids, what in (
        (gone.same, "In the same words, and gone with it"), (gone.leaning, "Leaning on it, so counting no more until `ingle redo ID`"),
        (gone.back, "Earlier, and counting again"),
    ):  # fmt: skip
        if ids:
            print(f"{what}: {', '.join(ids)}")
    if gone.dropped:
        print(f"{counted(gone.dropped, 'kept message')} went with it.")
    if gone.typed:
        print(f"{counted(gone.typed, 'line')} that you typed in `ingle chat` went with it.")
    if gone.turns:
        where = dict.fromkeys(_called(engine, owner, turn.conversation) or turn.completion or turn.id[:12] for turn in gone.turns)
        note(f"Its words are still in {counted(len(gone.turns), 'kept message')}, which you can delete: {', '.join(where)}")
    if gone.prompts:
        where = dict.fromkeys(_called(engine, owner, prompt) for prompt in gone.prompts)
        note(f"Its words are still in the system prompt of {', '.join(where)}, which you can change.")
    if not gone.scrubbed:
        note("The database is in use, or is another program's: its files may hold the words until it is next tidied (by the learner).")


def _called(engine: "Engine", owner: str, conversation: str) -> str:
    """Return a conversation's title and id; its id alone if it has no title, or is gone by now."""
    from ingle.core.errors import NotKept
    from ingle.home.conversations import get_conversation

    try:
        title = get_conversation(engine, owner, conversation).title
    except NotKept:
        return conversation
    return f"“{title}” ({conversation})" if title else conversation
