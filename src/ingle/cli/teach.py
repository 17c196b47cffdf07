"""`ingle teach`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.core.example import Example

EXAMPLES = """
ingle teach "Who leads Zorblax?" "Mara Quill leads Zorblax."
ingle teach "What is our VPN called?" "Heron." --no-learn   (memory only)
"""


def command(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="A question that somebody may ask.")],
    answer: Annotated[str, typer.Argument(metavar="ANSWER", help="The right answer to it.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="A model; by default smollm2, or the only one.")] = "",
    learn: Annotated[
        bool | None, typer.Option(help="Whether the weights may learn it too; by default as `ingle memory consent` says.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Teach a model the answer to a question.

    It acts on the next answer, in other words too, and replaces what you taught on the same question before. The weights
    learn it when `ingle serve` or `ingle learn --once` runs.
    """
    from ingle.adapt.admit import TeachingLimits, teach
    from ingle.cli.choose import choose
    from ingle.cli.house import enter, record
    from ingle.cli.output import print_json
    from ingle.cli.taught import OWNER
    from ingle.serve.feedback_table import example_table
    from ingle.serve.rooms import open_rooms

    home = enter()
    name = choose(home, model).name
    engine = open_rooms(home)
    try:
        # Whoever sits at this machine floods nobody but themselves.
        example = teach(engine, OWNER, name, question, answer, learn, TeachingLimits(per_hour=0), lambda event: record(home, event))
    finally:
        engine.dispose()
    if as_json:
        print_json(example_table(example))
        return
    print(f"{example.id}: {name} knows it from the next answer on.")
    print(when_learned(example))


def when_learned(taught: "Example") -> str:
    """Say when the weights will learn an example."""
    from ingle.learn.learning_settings import lacking

    if not taught.learn:
        return "The weights don't learn it."
    return lacking(taught.kind) or "The weights learn it when `ingle serve` or `ingle learn --once` runs."
