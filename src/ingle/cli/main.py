"""The `ingle` program: runs a command, and turns every error into one line and an exit code."""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from ingle import __version__
from ingle.cli.output import complain, printable
from ingle.core.errors import EXIT_INTERRUPTED, HomeError, IngleError
from ingle.core.files import not_installed

try:
    from typer import TyperException
except ImportError:  # a Typer before 0.29 raises those of Click, and joins the lines of an epilogue
    from click import ClickException as TyperException  # type: ignore[assignment, unused-ignore]

    _NEXT_LINE = "\n\n"
else:
    _NEXT_LINE = "\n"

# The commands as `ingle --help` lists them, one module each. Help reads only this table and imports none of them.
GROUPS = {
    "Talk": {
        "pull": "Download a model, check it and make it ready; or list models.",
        "chat": "Chat with a model in the terminal.",
        "run": "Answer one prompt, from the command line or a pipe.",
        "see": "Ask a model about pictures, one answer a file.",
        "draw": "Draw a small picture from words.",
        "hear": "Write down what recordings say.",
        "say": "Say a text aloud, into a file or a pipe.",
        "serve": "Serve the page and an API like OpenAI's.",
    },
    "Teach": {
        "teach": "Teach a model the answer to a question.",
        "memory": "List, add and change what is remembered.",
        "learn": "Train the weights on what users taught, or show what was learned.",
        "undo": "Undo what was taught: the model is what it was before.",
        "redo": "Bring back what was undone: it acts again.",
        "forget": "Delete something that was taught, and the lessons made from it.",
    },
    "Change a model": {
        "tune": "Fine-tune a model on your own examples.",
        "harden": "Teach a model to refuse harmful requests, also under attack.",
        "debias": "Teach a model not to judge people by their group.",
        "federate": "Learn together with other homes; every home keeps its texts.",
        "hybridize": "Turn a transformer into a hybrid: less memory for long texts.",
        "quantise": "Store a model's weights in fewer bits.",
        "prune": "Make a model smaller by removing parts of it.",
        "compress": "Find the cheapest way to serve a model within a loss of quality.",
        "merge": "Merge a model and its deltas into a new model.",
        "scale": "Say where compute pays, by laws of size and text.",
        "train": "Train a model from scratch: a transformer, a hybrid or an RNN.",
    },
    "Inspect": {
        "list": "List the models in this home and their deltas.",
        "show": "Show what a model is made of.",
        "measure": "Measure a model's quality, with confidence intervals.",
        "audit": "Measure what a model thinks of people, and what it refuses.",
        "attack": "Attack a model as it is served, and count what came through.",
        "card": "Fill a card of a model from what was measured and recorded.",
        "energy": "Show the energy that this home has used, and what a model needs.",
        "log": "Show what happened in this home.",
        "why": "Say what an answer rests on, proved by leaving it out.",
        "account": "Give an account of one answer, and how to contest it.",
        "replay": "Prove an answer by asking for it again.",
        "verify": "Prove that the ledger and what is kept are unchanged.",
        "attest": "Prove facts of the ledger to others, who need no Ingle.",
        "whose": "Tell whether a text is an answer of this home.",
    },
    "Keep house": {
        "keep": "Name a model together with its deltas.",
        "lean": "Keep a model's file on the disk once, as it is served.",
        "rm": "Delete a model or a delta.",
        "export": "Write a model or a delta for other programs.",
        "guard": "List the guards, set them, test a text, or teach them.",
        "backup": "Write everything that this home keeps into one file.",
        "restore": "Bring a backup back into an empty home.",
        "key": "Add, list and revoke API keys.",
        "head": "Export the ledger's signed head, or rotate the key that signs it.",
        "doctor": "Check this machine: what it has, what is missing, how to get it.",
    },
}
VERBS = {verb: line for verbs in GROUPS.values() for verb, line in verbs.items()}
_SPELLINGS = {"quantize": "quantise", "hybridise": "hybridize"}  # other spellings, British and American

_MARKUP = re.compile(r"\[(?=[a-z#/@][^\[]*\])")
EXIT_BUG, EXIT_PIPE_CLOSED = 70, 141


class PipeClosed(Exception):
    """The reader of our output has gone."""


class Verbs(TyperGroup):
    """A command group that imports a command when it is needed."""

    listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands, group by group."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; while the help lists them, just its name and one line."""
        cmd_name = _SPELLINGS.get(cmd_name, cmd_name)
        if cmd_name not in VERBS:
            return None
        if self.listing:
            return _command(cmd_name, _nothing, "")
        module = importlib.import_module(f"ingle.cli.{cmd_name}")
        return _command(cmd_name, module.command, module.EXAMPLES)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of `ingle` itself."""
        self.listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self.listing = False

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or suggest the closest one."""
        self.commands = dict.fromkeys(VERBS, _command("run", _nothing, ""))  # the names are all that suggestions are made of
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. A closed pipe is caught here, before the library turns it into an exit code of its own."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise PipeClosed from error
        return result


def main(arguments: Sequence[str] | None = None, program: Any = None, name: str = "ingle") -> int:
    """Run the program and return its exit code. `program`, `name`: another one, e.g. a recipe's, whose errors are told as ours are."""
    _write_anything()
    try:
        result = (program or _program()).main(arguments, prog_name=name, standalone_mode=False)
    except IngleError as error:
        complain(error)
        return _with_traceback(error, error.exit_code)
    except TyperException as error:
        verb = next((word for word in arguments or sys.argv[1:] if word in VERBS or word in _SPELLINGS), "")
        print(f"ingle: {printable(error.format_message())} See `{' '.join([name, verb]).strip()} --help`.", file=sys.stderr)
        return 2
    except (PipeClosed, SystemExit):  # the second is how the library that prints help says the same; nobody else raises it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more when it ends, and would complain
        return EXIT_PIPE_CLOSED
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except OSError as error:
        # The machine's fault, not ours: a full disk behind standard output, a terminal that is gone.
        complain(HomeError(str(error.filename or "input or output"), "failed", error.strerror or error))
        return _with_traceback(error, HomeError.exit_code)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (lacking := not_installed(error.name or "")) is not None:
            complain(lacking)
            return _with_traceback(error, lacking.exit_code)
        print(f"ingle: this is a bug in Ingle: {type(error).__name__}: {printable(str(error))[:300]}.", file=sys.stderr, end=" ")
        print("Run it again with INGLE_DEBUG=1 to see where.", file=sys.stderr)
        return _with_traceback(error, EXIT_BUG)
    return result if isinstance(result, int) else 0


def _program() -> Any:
    app = typer.Typer(
        cls=Verbs, rich_markup_mode="rich", pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
    )
    app.callback(invoke_without_command=True, epilog="Start with: ingle pull smollm2, then: ingle chat")(_ingle)
    return typer.main.get_command(app)


def _ingle(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False
) -> None:
    """A language model kept at home: fast without a GPU, yours to change, and accountable for every change."""
    if version:
        print(f"ingle {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def _command(name: str, function: Any, examples: str) -> Any:
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    lines = ["[bold]Examples[/bold]", *(f"  {_plain(line)}" for line in examples.strip().splitlines())]
    epilog = _NEXT_LINE.join(lines) if examples else None
    group = next(group for group, verbs in GROUPS.items() if name in verbs)
    app.command(name, help=VERBS[name] if function is _nothing else None, epilog=epilog, rich_help_panel=group)(function)
    command: Any = typer.main.get_command(app)
    command.name, command.help = name, _plain(command.help)
    hints = get_type_hints(function, include_extras=True)
    for parameter in command.params:
        if parameter.name in hints:  # of these a Typer before 0.29 with a Click of today loses the words
            parameter.help = _plain(hints[parameter.name].__metadata__[0].help)
    return command


def _plain(text: str | None) -> str:
    """Escape text so that the help shows it unchanged, brackets included."""
    return _MARKUP.sub(r"\\[", text or "")


def _nothing() -> None: ...


def _write_anything() -> None:
    """Make output robust: characters that an old terminal's encoding lacks become '?', and closed streams are replaced."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")  # type: ignore[union-attr, unused-ignore]


def _with_traceback(error: BaseException, code: int) -> int:
    if os.environ.get("INGLE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    return code


if __name__ == "__main__":
    sys.exit(main())
