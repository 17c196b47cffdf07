"""The commands of a chat, one function each, by name."""

import difflib
import mimetypes
import sys
from collections.abc import Callable
from pathlib import Path

from ingle.cli.conversation import TerminalConversation
from ingle.cli.opinions import bad, fix, good, meant, remember
from ingle.cli.output import note, printable
from ingle.cli.screen import make_screen
from ingle.cli.talk import Talk, expand
from ingle.core.energy import amount
from ingle.core.errors import ConfigError, RequestError, counted, size
from ingle.core.files import os_errors
from ingle.core.message import ImagePart
from ingle.media.picture import read_picture


class Leave(Exception):
    """Ends the chat."""


def help_(_talk: Talk, _rest: str) -> None:
    """list the commands"""
    width = max(len(usage) for usage, _ in COMMANDS.values())
    for usage, function in COMMANDS.values():
        note(f"  {usage:<{width}}  {(function.__doc__ or '').strip()}")
    note('  Several lines: end a line with \\, or put them between """ and """. A question that begins with /: type //.')
    note("  Ctrl-C stops an answer and keeps its text so far; Ctrl-D, or Ctrl-C twice, leaves.")


def system(talk: Talk, rest: str) -> None:
    """show or set the system prompt; `/system -` removes it"""
    if not rest:
        note(talk.conversation.system or "(no system prompt)")
        return
    talk.conversation.system = "" if rest == "-" else rest
    note("Removed." if rest == "-" else "Set. It applies from the next answer on, to the whole conversation.")


def save(talk: Talk, rest: str) -> None:
    """write the conversation to a file"""
    path = _path(rest, "/save FILE")
    talk.conversation.save(path, talk.model.name)
    note(f"{counted(len(talk.conversation.turns), 'message')} in {path}.")


def load(talk: Talk, rest: str) -> None:
    """continue a saved conversation"""
    loaded = TerminalConversation.load(_path(rest, "/load FILE"))
    talk.conversation = loaded
    note(f"{counted(len(loaded.turns), 'message')} loaded" + ("; the last one:" if loaded.turns else "."))
    if loaded.turns:
        _show(talk, loaded.turns[-1].text)


def image(talk: Talk, rest: str) -> None:
    """show the model a picture with your next question"""
    path = _path(rest, "/image FILE")
    if talk.model.seer is None or talk.plain:
        raise RequestError("/image", f"{talk.model.name} can't see pictures", "", "Run: ingle pull sight, and ingle chat smollm2+sight.")
    with os_errors(path):
        data = path.read_bytes()
    height, width, _ = read_picture(data, str(path)).pixels.shape
    talk.shown.append(ImagePart(data, mimetypes.guess_type(path)[0] or "image/png"))
    note(f"{path.name}, {width}×{height} pixels, goes with your next question.")


def undo(talk: Talk, _rest: str) -> None:
    """remove the last question and its answer"""
    question = talk.conversation.undo()
    if question is None:
        note("There is nothing to undo.")
    else:
        note(f"Removed: {' '.join(question.split())[:60]}")


def regenerate(talk: Talk, _rest: str) -> None:
    """answer the last question again, with another seed"""
    before = list(talk.conversation.turns)
    question = talk.conversation.undo()
    if question is None:
        note("There is no question to answer again.")
    else:
        try:
            talk.ask(question, again=True)
        finally:
            if len(talk.conversation.turns) < len(before):  # there is no other answer: the one before stays
                talk.conversation.turns = before
                note("(the answer before it stays)")


def clear(talk: Talk, _rest: str) -> None:
    """begin a new conversation; the system prompt stays"""
    talk.conversation.turns = []
    print("\x1b[2J\x1b[H" if sys.stdout.isatty() else "", end="", flush=True)
    note("Cleared.")


def stats(talk: Talk, _rest: str) -> None:
    """speed, context, memory, and which model this is"""
    tally, context = talk.tally, talk.model.backend.config.context_length
    last = talk.last.usage if talk.last else None
    lines = []
    if talk.last and last:
        read = last.prompt_tokens - last.cached_tokens
        lines.append(("last answer", f"{counted(last.completion_tokens, 'token')} at {talk.last.decode_tokens_per_s:.0f} tokens/s"))
        if last.drafted:
            lines.append(("its drafts", f"{last.accepted} of {last.drafted} guessed tokens came true"))
        cached = f"{last.cached_tokens} of {last.prompt_tokens} were known from before"
        lines.append(("its prompt", f"{counted(read, 'token')} read at {talk.last.prefill_tokens_per_s:.0f} tokens/s; {cached}"))
    if tally.decode_s:
        written = f"{counted(tally.written_tokens, 'token')} at {tally.written_tokens / tally.decode_s:.0f} tokens/s"
        together = f"{counted(tally.answers, 'answer')}, {written}"
        lines.append(("all of them", together))
        lines.append(
            ("energy", f"{talk.tally.energy}; the last answer {amount(last.energy.joules)}" if last and last.energy else "unknown")
        )
    lines.append(("context", f"{talk.used_tokens:,} of {context:,} tokens, {size(talk.state_bytes)} of state"))
    lines.append(("memory", f"{size(resident_bytes())} resident"))
    lines.append(("model", f"{talk.model.name}, digest {talk.model.digest}"))
    for label, value in lines:
        note(f"  {label:<12} {value}")


def quit_(_talk: Talk, _rest: str) -> None:
    """leave"""
    raise Leave


COMMANDS: dict[str, tuple[str, Callable[[Talk, str], None]]] = {
    "help": ("/help", help_),
    "system": ("/system [TEXT]", system),
    "save": ("/save FILE", save),
    "load": ("/load FILE", load),
    "image": ("/image FILE", image),
    "undo": ("/undo", undo),
    "regenerate": ("/regenerate", regenerate),
    "clear": ("/clear", clear),
    "good": ("/good [TEXT]", good),
    "bad": ("/bad [TEXT]", bad),
    "fix": ("/fix TEXT", fix),
    "meant": ("/meant", meant),
    "remember": ("/remember TEXT", remember),
    "stats": ("/stats", stats),
    "quit": ("/quit", quit_),
}
_OTHER_NAMES = {"exit": "quit", "bye": "quit", "retry": "regenerate", "?": "help"}


def is_command(turn: str) -> bool:
    """Return whether a line is a command: `/` and a word. A path or `//` is a question."""
    word = turn.partition(" ")[0][1:]
    return turn.startswith("/") and "\n" not in turn and (word.isalpha() or word == "?")


def obey(talk: Talk, turn: str) -> None:
    """Carry out a command. Raises ConfigError for an unknown one, Leave to end the chat, and the errors of commands."""
    word, _, rest = turn[1:].partition(" ")
    name = _OTHER_NAMES.get(word, word)
    if name not in COMMANDS:
        close = difflib.get_close_matches(word, COMMANDS, n=1)
        cure = f"Did you mean /{close[0]}?" if close else "/help lists them; a question that begins with / is typed with //."
        raise ConfigError(f"/{word}", "is not a command", "", cure)
    COMMANDS[name][1](talk, rest.strip())


def resident_bytes() -> int:
    """Return this process's memory in RAM; its peak, if the system doesn't say."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * resource.getpagesize()
    except (ImportError, OSError):
        pass
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    except ImportError:
        return 0


def _show(talk: Talk, text: str) -> None:
    screen = make_screen(talk.settings.chat.markdown)
    screen.show(printable(text))
    screen.finish()


def _path(rest: str, usage: str) -> Path:
    if not rest:
        raise ConfigError("FILE", f"Say which file: {usage}")
    return expand(rest)
