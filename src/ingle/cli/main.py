"""The `ingle` program: runs a command, and turns every error into one line and an exit code."""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from ingle import __version__
from ingle.app.operation import find, titles
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

# The commands as `ingle --help` lists them. Help reads this table and the words of operations, and imports none of them.
GROUPS = {
    "Talk": {
        "chat": "Chat with a model in the terminal.",
        "serve": "Serve the page and an API like OpenAI's.",
        "conversations": "List, search, read, change and delete conversations.",
    },
    "Models": {
        "pull": "Download a model, check it and make it ready; or list models.",
        "list": "",
        "show": "",
        "keep": "",
        "lean": "",
        "export": "",
        "rm": "",
    },
    "Teach": {"teach": "", "memory": "List, add and change what is remembered.", "undo": "", "redo": "", "forget": "", "rate": ""},
    "Make, measure, prove": {
        "make": "Make another model of one: tune, harden, quantise, prune, …",
        "measure": "Measure a model: quality, bias, attacks, energy.",
        "prove": "Prove answers and facts, to yourself and to others.",
        "why": "Say what an answer rests on, proved by leaving it out.",
        "log": "",
        "verify": "",
    },
    "Pictures and sound": {
        "see": "Ask a model about pictures, one answer a file.",
        "draw": "Draw a small picture from words.",
        "hear": "Write down what recordings say.",
        "say": "Say a text aloud, into a file or a pipe.",
    },
    "Home": {
        "home": "Look after this home: keys, guards, backups, the machine.",
        "federate": "Learn together with other homes; every home keeps its texts.",
        "scale": "Say where compute pays, by laws of size and text.",
    },
}
NOUNS = {
    "make": {},  # verbs of these two are operations
    "prove": {},
    "measure": {
        "attack": "Attack a model as it is served, and count what came through.",
        "energy": "Show the energy that this home has used, and what a model needs.",
    },
    "home": {
        "keys": "Add, list and revoke API keys.",
        "guards": "List the guards, set them, test a text, or teach them.",
        "doctor": "Check this machine: what it has, what is missing, how to get it.",
    },
}
# Words of commands that no list shows: `ingle "question"` is `run`, the server's learner is `learn`.
HIDDEN = {
    "run": "Answer one prompt, from the command line or a pipe.",
    "learn": "Train the weights on what users taught, or show what was learned.",
}
DEFAULTS = {
    "measure": "quality",
    "memory": "list",
    "conversations": "list",
    "home": "doctor",
    "home keys": "list",
}  # the verb of a noun that stands alone
_TAKES_WORDS = ("measure", "memory")  # those whose verb alone takes words, which then are no wrong verbs
# Other names of commands: spellings, and how they were called before nouns held their verbs (until the next release).
ALIASES = {
    "make quantize": "make quantise", "make hybridise": "make hybridize", "memory rm": "forget",
    "audit": "measure bias", "attack": "measure attack", "energy": "measure energy", "key": "home keys", "guard": "home guards",
    **{verb: f"make {verb}" for verb in (
        "tune", "harden", "debias", "hybridize", "quantise", "prune", "compress", "merge", "train",
    )},
    **{verb: f"prove {verb}" for verb in ("account", "card", "replay", "attest", "whose", "head")},
    **{verb: f"home {verb}" for verb in ("backup", "restore", "doctor")},
    "quantize": "make quantise", "hybridise": "make hybridize",
}  # fmt: skip
_MODULES = {"home guards": "guard"}

_MARKUP = re.compile(r"\[(?=[a-z#/@][^\[]*\])")
EXIT_BUG, EXIT_PIPE_CLOSED = 70, 141
_OWN_OPTIONS = ("-h", "--help", "--version", "--install-completion", "--show-completion")


class PipeClosed(Exception):
    """The reader of our output has gone."""


class Verbs(TyperGroup):
    """Commands that are imported when they are needed: all of Ingle, or the verbs of a noun."""

    noun = ""
    listing = False

    @property
    def words(self) -> dict[str, str]:
        """The commands with their words, as the help lists them."""
        return verbs_of(self.noun)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands, group by group."""
        return list(self.words)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; while the help lists them, just its name and one line."""
        path = f"{self.noun} {cmd_name}".strip()
        path = ALIASES.get(path, path)
        if self.listing:
            return _command(cmd_name, _nothing, self.words[cmd_name], "", "" if self.noun else cmd_name)
        return _noun(path) if _is_noun(path) else _leaf(path)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of `ingle` itself, or of a noun."""
        self.listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self.listing = False

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Put in the verb that is meant where none is named: a noun's own, or `run` for a question."""
        first = args[0] if args else ""
        option = first.startswith("-") and first not in _OWN_OPTIONS
        if not self.noun and (len(first.split()) > 1 or option):
            args = ["run", *args]
        elif self.noun in DEFAULTS and (not first or option or self._is_word(first)):
            args = [DEFAULTS[self.noun], *args]
        return super().parse_args(ctx, args)

    def _is_word(self, first: str) -> bool:
        """Return whether what follows a noun is for its own verb, and no verb."""
        return self.noun in _TAKES_WORDS and first not in {*self.words, *_OWN_OPTIONS} and f"{self.noun} {first}" not in ALIASES

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or suggest the closest one."""
        if self.get_command(ctx, args[0]) is None:  # the names are all that suggestions are made of
            self.commands = dict.fromkeys(self.words, _command("run", _nothing, "", "", ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. A closed pipe is caught here, before the library turns it into an exit code of its own."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise PipeClosed from error
        return result


def verbs_of(noun: str = "") -> dict[str, str]:
    """Return the verbs of a noun, or all first words of commands, with their words; operations say theirs themselves."""
    declared = titles()
    if noun:
        own = {path.removeprefix(f"{noun} "): words for path, words in declared.items() if path.startswith(f"{noun} ")}
        return {**NOUNS.get(noun, {}), **{verb: words for verb, words in own.items() if " " not in verb}}
    listed = {verb: words or declared[verb] for verbs in GROUPS.values() for verb, words in verbs.items()}
    more = {path.split(" ")[0]: words for path, words in declared.items()}
    return listed | {verb: words for verb, words in more.items() if verb not in listed}


def main(arguments: Sequence[str] | None = None, program: Any = None, name: str = "ingle") -> int:
    """Run the program and return its exit code. `program`, `name`: another one, e.g. a recipe's, whose errors are told as ours are."""
    _write_anything()
    try:
        result = (program or _program()).main(arguments, prog_name=name, standalone_mode=False)
    except IngleError as error:
        complain(error)
        return _with_traceback(error, error.exit_code)
    except TyperException as error:
        said = " ".join([name, *_path(arguments or sys.argv[1:])])
        print(f"ingle: {printable(error.format_message())} See `{said} --help`.", file=sys.stderr)
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
    app.callback(invoke_without_command=True, epilog='Start with: ingle pull smollm2, then: ingle "What is a hearth good for?"')(_ingle)
    return typer.main.get_command(app)


def _ingle(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False
) -> None:
    """A language model kept at home: fast without a GPU, yours to change, and accountable for every change.

    `ingle "question"` answers it.
    """
    if version:
        print(f"ingle {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def _is_noun(name: str) -> bool:
    return name in NOUNS or name in DEFAULTS or (not _told_here(name) and any(path.startswith(f"{name} ") for path in titles()))


def _told_here(path: str) -> str:
    """Return the words of a command that is a module of this room; "" for one that is an operation, or none."""
    noun, _, verb = path.rpartition(" ")
    if noun:
        return NOUNS.get(noun, {}).get(verb, "")
    return next((one[verb] for one in (HIDDEN, *GROUPS.values()) if one.get(verb)), "")


def _noun(name: str) -> Any:
    """Return the group of a noun's verbs."""

    class Noun(Verbs):
        noun = name

    def callback(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            print(context.get_help())

    above, _, verb = name.rpartition(" ")
    words = verbs_of(above)[verb]
    app = typer.Typer(cls=Noun, rich_markup_mode="rich", add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    epilog = f"`ingle {name}` alone is `ingle {name} {DEFAULTS[name]}`." if name in DEFAULTS else None
    app.callback(invoke_without_command=True, help=words, epilog=epilog)(callback)
    group: Any = typer.main.get_command(app)
    group.name = verb
    return group


def _leaf(path: str) -> Any:
    """Return a command by its path; None if there is none."""
    verb = path.rpartition(" ")[2]
    if _told_here(path):
        module = importlib.import_module(f"ingle.cli.{_MODULES.get(path, verb)}")
        return _command(verb, module.command, "", module.EXAMPLES, path)
    if (found := find(path)) is not None:
        from ingle.cli.operation_commands import command_of

        return _command(verb, command_of(found), "", "\n".join(found.examples), path)
    return None


def _command(verb: str, function: Any, words: str, examples: str, path: str) -> Any:
    """Return a command. `words`: instead of the function's own, where it is only listed; `path`: finds its group in the list."""
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    lines = ["[bold]Examples[/bold]", *(f"  {_plain(line)}" for line in examples.strip().splitlines())]
    epilog = _NEXT_LINE.join(lines) if examples else None
    group = next((group for group, verbs in GROUPS.items() if path in verbs), None)
    help_ = words or _flowing(inspect.getdoc(function) or "")
    app.command(verb, help=help_, epilog=epilog, rich_help_panel=group)(function)
    command: Any = typer.main.get_command(app)
    command.name, command.help = verb, _plain(help_)
    hints = get_type_hints(function, include_extras=True)
    for parameter in command.params:
        if parameter.name in hints:  # of these a Typer before 0.29 with a Click of today loses the words
            parameter.help = _plain(hints[parameter.name].__metadata__[0].help)
    return command


def _path(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line that name a command."""
    path = list[str]()
    known: Mapping[str, str] = {**verbs_of(), **HIDDEN, **ALIASES}
    for word in (word for word in arguments if not word.startswith("-")):
        if word not in known:
            break
        path.append(word)
        said = " ".join(path)
        known = verbs_of(ALIASES.get(said, said))
    return path


def _plain(text: str | None) -> str:
    """Escape text so that the help shows it unchanged, brackets included."""
    return _MARKUP.sub(r"\\[", text or "")


def _flowing(text: str) -> str:
    """Return text with one line a paragraph, which the help breaks where the terminal ends."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


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
