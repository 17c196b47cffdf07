"""Every error that a user can meet, as one tree.

An error says four things: the *field* at fault, the *rule* that it breaks, the value that we *got*, and the *cure*. Together they read as
sentences: a rule continues its field ("temperature" "must be between 0 and 2"), or begins with a capital and is a whole sentence ("Port
5790 is in use"). The command line renders an error in one place (exit code), the server in another (HTTP status, the field as
`param`); rooms only raise.
"""

import re
from collections.abc import Mapping

# Values of `got` that add nothing to the rule, and are left out of the sentence.
_NOTHING = {"nothing", "none", "neither", "more", "others"}
# Values short enough to follow "not" in a sentence.
_SHORT = re.compile(r"\S+|an? .+|one .+|[\d,.]+ \w+|[(\[].*[)\]]|'.*'|NaN or infinity")

EXIT_INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


class IngleError(Exception):
    """A failure: the field, the rule, the value that came instead, and the cure."""

    exit_code = 1
    http_status = 500

    def __init__(self, field: str, rule: str, got: object = "", cure: str = "") -> None:
        super().__init__(field, rule, got, cure)
        self.field, self.rule, self.got, self.cure = field, rule, str(got), cure
        self.guard = ""  # the guard that raised it, where one did; see safety/middleware.py
        self.told = False  # whether a fact of it stands in the ledger

    @property
    def sentence(self) -> str:
        """The problem as a sentence, without the cure."""
        text = self.rule if self.rule[:1].isupper() else f"{self.field} {self.rule}"
        got = self.got.rstrip(".")
        if not got or got in _NOTHING:
            return text
        if not self.rule.startswith("must"):
            return f"{text} ({got})"
        return f"{text}, not {got}" if _SHORT.fullmatch(got) else f"{text}: {got}"

    def __str__(self) -> str:
        return f"{self.sentence}. {self.cure}" if self.cure else self.sentence


class ConfigError(IngleError):
    """A setting, option or configuration key that cannot be used."""

    exit_code, http_status = 2, 400


class RequestError(IngleError):
    """A request that cannot be answered as it stands (parameters, messages, encoding)."""

    exit_code, http_status = 2, 400


class NotLearnt(RequestError):
    """A wish for something that a model was never shown."""


class ContextError(RequestError):
    """A prompt (with its answer) that does not fit into the model's context."""


class TemplateError(RequestError):
    """A chat template that fails on these messages, or tries something that it must not."""


class NotKept(IngleError):
    """A model, delta or file that this home does not hold."""

    exit_code, http_status = 3, 404


class CheckpointError(IngleError):
    """Weights or tokenizer files that are damaged, incomplete or of an unknown kind."""

    exit_code = 4


class ShapeError(IngleError):
    """Arrays whose shapes or types do not fit together."""

    exit_code = 4


class PullError(IngleError):
    """A download that could not be completed. Earlier downloads are untouched."""

    exit_code = 5


class HomeError(IngleError):
    """The home cannot be read or written."""

    exit_code = 6


class DamagedError(HomeError):
    """A database that holds what Ingle never wrote: a failing disk, or another program's hand."""


class LedgerError(IngleError):
    """The chain of facts is broken, or its key is missing or exposed."""

    exit_code = 7


class KernelError(IngleError):
    """A kernel could not be compiled or loaded on this machine."""

    exit_code = 8


class DeltaError(IngleError):
    """A delta that does not fit the base that it is applied to."""

    exit_code, http_status = 4, 409


class Stale(IngleError):
    """A change of something that somebody else has changed since. `newer`: what it is now, for whoever may see it."""

    exit_code, http_status = 4, 409
    newer: object = None


class Refused(IngleError):
    """A candidate that the gate rejected. Its files stay, so that the owner can still admit it."""

    exit_code, http_status = 13, 409


class FederatedError(IngleError):
    """A federated round that can't go on: a message that is not what was agreed, or too few homes. Nothing of this home was told by it."""

    exit_code, http_status = 14, 409


class CannotRewind(IngleError):
    """A state that cannot go back to a position, because its tokens have left the window or entered the memory."""

    exit_code = 9


class Busy(IngleError):
    """Too many requests, to the server or by one user; retrying later may work."""

    exit_code, http_status = 10, 429

    def __init__(self, field: str, rule: str, got: object = "", cure: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(field, rule, got, cure)
        self.retry_after_s = retry_after_s


class Closing(Busy):
    """A server that is shutting down."""

    http_status = 503


class NoMemory(Busy):
    """A machine without memory for one more answer."""

    http_status = 503


class NotAllowed(IngleError):
    """A key that is missing, unknown or revoked."""

    exit_code, http_status = 11, 401


class NoRight(NotAllowed):
    """A good key that may not do this."""

    http_status = 403


class ServeError(IngleError):
    """A server that can't be started as asked: the port is taken, the address needs a key."""

    exit_code = 12


class MediaError(IngleError):
    """A sound or picture that can't be made or read, because the program for it broke off."""

    exit_code, http_status = 15, 503


class GuardError(IngleError):
    """A guard model that can't judge: its labels, its numbers or its template are of no use."""


class Interrupted(IngleError):
    """A long task that was told to stop. Finished work is kept, and the same call continues from there."""

    exit_code = 130


def fault_of(error: IngleError) -> dict[str, str]:
    """Return an error as plain values, so that another process can raise it (`raised`)."""
    return {"kind": type(error).__name__, "field": error.field, "rule": error.rule, "got": error.got, "cure": error.cure}


def raised(fault: Mapping[str, str]) -> IngleError:
    """Return the error that `fault_of` described."""
    kinds: dict[str, type[IngleError]] = {}
    waiting: list[type[IngleError]] = [IngleError]
    while waiting:
        kind = waiting.pop()
        kinds[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return kinds[fault["kind"]](fault["field"], fault["rule"], fault["got"], fault["cure"])


# Numbers and quotations in sentences.


def counted(number: int, noun: str) -> str:
    """Return `1 token`, `1,200 tokens`. The noun is given in the singular and takes an s in the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(text: str, most: int = 90) -> str:
    """Return the beginning of a text in one line, at most so many characters."""
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def size(nbytes: float) -> str:
    """Return a number of bytes for people: 98.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"
