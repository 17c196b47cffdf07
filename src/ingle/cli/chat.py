"""`ingle chat`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.cli.talk import Talk
    from ingle.home.place import Home

EXAMPLES = """
ingle chat
ingle chat smollm2 --system "You answer in one sentence."
ingle chat --voice   (press Enter and speak)
ingle chat --temperature 0   (always the likeliest words)
ingle chat --set chat.history=false
"""
SAMPLE = "What can I do with a language model at home? Name three things."


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model or MODEL+DELTA; by default smollm2, or the only one.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt: what the model is told first.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens; by default 1024.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Randomness; 0 = always the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw only from the likeliest tokens that together reach this probability.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw only from the k likeliest tokens; 0 = all.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Draw only from tokens at least this likely, as a share of the likeliest.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answers; by default a new one each time.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format of the weights: auto, int4, int8, bf16, fp32.")] = None,
    cache: Annotated[str | None, typer.Option(help="Format of the key-value cache: auto, float16, float32, int8.")] = None,
    threads: Annotated[int | None, typer.Option(help="Number of threads; by default one per core.")] = None,
    history: Annotated[bool | None, typer.Option(help="Keep what you type as history for the next time.")] = None,
    markdown: Annotated[bool | None, typer.Option(help="Show answers as Markdown.")] = None,
    think: Annotated[bool | None, typer.Option(help="Let the model think aloud before it answers, if it can.")] = None,
    memory: Annotated[bool | None, typer.Option(help="Use what you taught, where a question is about it.")] = None,
    voice: Annotated[bool, typer.Option("--voice", help="Speak instead of typing (Enter alone begins), and hear the answers.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of config.toml.")] = None,
) -> None:
    """Chat with a model in the terminal.

    Without a terminal it answers each line of standard input, or a sample question if there is none.
    """
    from ingle.app.house import enter
    from ingle.app.settings import read_settings
    from ingle.cli.choose import answer_here, choose_or_pull, open_watched
    from ingle.cli.output import is_terminal, note
    from ingle.cli.talk import Talk

    home = enter()
    chat = {"model": model, "system": system, "max_tokens": max_tokens, "format": format_, "cache": cache, "threads": threads}
    switches = {"history": history, "markdown": markdown, "memory": memory, "think": think}
    drawn = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "seed": seed}
    options = {f"chat.{key}": value for key, value in {**chat, **switches}.items()}
    settings = read_settings(home, overrides or (), options | {f"sampling.{key}": value for key, value in drawn.items()})
    kept = choose_or_pull(home, settings.chat.model, settings.chat.format)
    here = answer_here(home, settings, note)
    talk = Talk(here, kept, open_watched(home, kept, settings.chat, bool(think)), settings)
    try:
        if voice:
            talk.talk_aloud()
        code = _converse(home, talk) if is_terminal(sys.stdin) else _answer_lines(talk)
    finally:
        talk.close()
    if code:
        raise typer.Exit(code)


def _converse(home: "Home", talk: "Talk") -> int:
    """Run the chat at a terminal."""
    from ingle.cli.commands import COMMANDS, Leave
    from ingle.cli.lines import TypedLines, read_turn
    from ingle.cli.output import complain, note
    from ingle.cli.talk import banner
    from ingle.core.errors import IngleError

    lines = TypedLines(home.history if talk.settings.chat.history else None, [f"/{name}" for name in COMMANDS])
    banner(talk)
    leaving = False
    while True:
        try:
            print()
            turn = read_turn(lines)
            if turn is None:
                print()
                return 0
            leaving = False
            lines.remember(turn)
            _take(talk, turn)
        except KeyboardInterrupt:
            print()
            if lines.typed():  # it cleared the line, as in a shell
                continue
            if leaving:
                return 0
            leaving = True
            note("Ctrl-C once more leaves.")
        except Leave:
            return 0
        except IngleError as error:
            complain(error)


def _take(talk: "Talk", turn: str) -> None:
    """Handle one line of the user: a command or a question."""
    from ingle.cli.commands import is_command, obey

    if talk.voice is not None and not turn.strip():
        turn = talk.voice.listen()
        print(f"› {turn}" if turn else "(Nothing was said.)")
    if is_command(turn):
        obey(talk, turn)
    elif turn.strip():
        print()
        talk.ask(turn.removeprefix("/") if turn.startswith("//") else turn)


def _answer_lines(talk: "Talk") -> int:
    """Run without a terminal: every line is a turn; without any, ask the sample question. Returns an exit code."""
    from ingle.cli.commands import Leave, is_command
    from ingle.cli.lines import PipeLines, read_turn
    from ingle.core.errors import EXIT_INTERRUPTED, RequestError

    lines, turns, code = PipeLines(), 0, 0
    while (turn := read_turn(lines)) is not None:
        if not turn.strip() and talk.voice is None:
            continue
        turns, before = turns + 1, talk.last
        try:
            _take(talk, turn)
        except Leave:
            return code
        if talk.last is not None and talk.last is not before and talk.last.finish == "cancelled":
            return EXIT_INTERRUPTED
        if talk.last is before and not is_command(turn):
            code = RequestError.exit_code
    if turns:
        return code
    print(f"› {SAMPLE}\n")
    return 0 if talk.ask(SAMPLE) else 1
