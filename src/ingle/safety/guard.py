"""Guards: their contract, their limits, and their modes in words. To add one, put a file into safety/guards.

It holds NAME, ABOUT, LOOKS_AT, ORDER, MODES, EDITS, HOLDS_BACK and `make`. One that a person may set on the page has a TITLE, too. If a
policy may say more of it than a mode, the file names these fields in TAKES; if they can be wrong, `check` raises ConfigError. One that may
ask a guard model has `make_asking`, too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ingle.core import registry
from ingle.core.config import read_table, with_overrides
from ingle.core.errors import ConfigError, IngleError, NotKept, RequestError
from ingle.core.message import Request
from ingle.safety.middleware import Guard, GuardLayer
from ingle.safety.opinion import AskGuard, nobody
from ingle.safety.policy import TABLE, USUAL, GuardPolicy, GuardRule, KnownGuard, LooksAt, Mode, read_policy, rule_of


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The input of every guard's `make`. Raises ConfigError for a limit below 1."""

    max_context_tokens: int  # tokens of the model's context, prompt and answer together
    # Most bytes of UTF-8 that one token can stand for. A text longer than this times the context can't fit, so it is not tokenised.
    #
    # Where the tokenizer makes text shorter before it cuts it (Unicode normalisation), the caller multiplies by as much. A text of
    # characters that the tokenizer leaves out, or a template trims away, is refused, too.
    longest_token_bytes: int
    control_names: tuple[str, ...]  # names of the model's control tokens: `<|im_end|>`, …
    max_messages: int = 1024  # messages of a conversation: more than any context holds, few enough that guards stay fast
    max_message_bytes: int = 1 << 20  # bytes of UTF-8 of one message's text, or of one call's arguments
    max_request_bytes: int = 4 << 20  # bytes of UTF-8 of all messages, or of a plain prompt
    # Stop strings. OpenAI allows 4.
    max_stop: int = 16
    max_stop_bytes: int = 256  # bytes of UTF-8 of one stop string; each is searched for at every token
    max_logit_bias: int = 1024  # biased tokens of a request; their logits change at every token
    max_tool_bytes: int = 256 << 10  # bytes of all tools together, about as in JSON
    max_constraint_bytes: int = 256 << 10  # bytes of UTF-8 of a schema, grammar or regular expression

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "control_names" and value < 1:
                raise ConfigError(field.name, "must be at least 1", value)


@dataclass(frozen=True, slots=True)
class GuardFile:
    name: str  # name of the file; it signs the guard's verdicts and errors
    order: int  # lower is further out: it sees the request earlier and the answer later
    # Modes that a policy may set, the usual first. A guard without `off` can't be turned off.
    modes: tuple[Mode, ...]
    edits: bool  # whether it may change the request or the answer, which it then reports in a verdict
    holds_back: int  # most characters of an answer that it may hold back, beside the piece that it was given last
    make: Callable[[RequestLimits, GuardRule], Guard]  # makes the guard for one model, by a rule whose mode is not `off`
    about: str  # its subject, in a sentence for anybody
    looks_at: tuple[LooksAt, ...]  # places that it looks at
    title: str = ""  # its name for people who set it on the page; empty = it is too technical for that
    takes: tuple[str, ...] = ()  # choices of a policy beside its mode: fields of `GuardRule`
    check: Callable[[GuardRule], object] | None = None  # raises ConfigError for a rule that the guard can't follow
    # Reads a request and remembers what it found, for a guard that takes milliseconds: a server does it in a thread beforehand.
    judge_ahead: Callable[[GuardRule, Request], object] | None = None
    make_asking: Callable[[RequestLimits, GuardRule, AskGuard], Guard] | None = None  # makes a guard that may ask a guard model


@cache
def guard_files() -> tuple[GuardFile, ...]:
    """Return every guard, the outermost first."""
    return tuple(sorted(map(_file, registry.modules("ingle.safety.guards").values()), key=lambda file: file.order))


def guard_policy(path: Path, overrides: Iterable[str] = ()) -> GuardPolicy:
    """Return the guard policy of a policy.toml with overrides (`output=block`) on top; the usual one if the file or its table is missing.

    Raises ConfigError for a file that can't be read, for unknown guards, modes and fields, and for rules that a guard can't follow.
    """
    table = read_table(path).get(TABLE, {}) if path.exists() else {}
    if isinstance(table, Mapping):
        table = with_overrides(table, [one.removeprefix(f"{TABLE}.") for one in overrides])
    return policy_of(table, path.parent)


def policy_of(table: Any, folder: Path) -> GuardPolicy:
    """Return the policy in a table of a policy.toml that lies in this folder. Raises ConfigError as `guard_policy` does."""
    files = {file.name: file for file in guard_files()}
    policy = read_policy(table, {name: KnownGuard(file.modes, file.takes) for name, file in files.items()}, folder)
    for rules in policy.tables.values():
        for name, rule in rules.items():
            try:
                if (check := files[name].check) is not None:
                    check(rule)
            except ConfigError as error:
                raise ConfigError(f"{TABLE}.{name}.{error.field}", error.rule, error.got, error.cure) from error
    return replace(policy, judge=judge_file(folder))


def judge_file(home: Path) -> Path:
    """Return where a home's own judge lies, if it has one."""
    return home / "guards" / "judge.safetensors"


def make_guards(
    limits: RequestLimits, policy: GuardPolicy = USUAL, model: str = "", key: str = "", ask: AskGuard = nobody
) -> tuple[GuardLayer, ...]:  # fmt: skip
    """Return every guard that is not off, the outermost first, for `middleware.wrap`.

    `model`, `key`: names for which a policy may say something else. `ask`: asks the guard models that a policy may name.
    """

    def made(file: GuardFile, rule: GuardRule) -> Guard:
        return file.make(limits, rule) if file.make_asking is None else file.make_asking(limits, rule, ask)

    return tuple(GuardLayer(file.name, made(file, rule), rule.mode) for file, rule in _on(policy, model, key))


def judge_ahead(request: Request, policy: GuardPolicy = USUAL, model: str = "", key: str = "") -> None:
    """Let the guards that take milliseconds read a request, so that they need none when it passes them."""
    for file, rule in _on(policy, model, key):
        if file.judge_ahead is not None:
            with suppress(IngleError):  # the guard itself says so
                file.judge_ahead(rule, request)


def _on(policy: GuardPolicy, model: str, key: str) -> Iterator[tuple[GuardFile, GuardRule]]:
    """Yield the guards that are not off, each with its rule."""
    rules = policy.rules(model, key)
    for file in guard_files():
        rule = replace(rule_of(rules, file.name, file.modes), judge=policy.judge)
        if rule.mode != "off":
            yield file, rule


def _file(module: Any) -> GuardFile:
    takes, check, ahead = getattr(module, "TAKES", ()), getattr(module, "check", None), getattr(module, "judge_ahead", None)
    words = module.ABOUT, module.LOOKS_AT, getattr(module, "TITLE", "")
    order = module.NAME, module.ORDER, module.MODES, module.EDITS, module.HOLDS_BACK
    return GuardFile(*order, module.make, *words, takes, check, ahead, getattr(module, "make_asking", None))


# Modes in words that anybody understands: on the page, at a terminal, and by the API. Mode names are taken as well.


# By mode, the mildest first: the word for it.
WORDS: Mapping[Mode, str] = MappingProxyType({"off": "off", "tell": "tell", "edit": "hide", "block": "stop"})
# By mode: how a button calls it.
LABELS: Mapping[Mode, str] = MappingProxyType({"off": "Off", "tell": "Tell me", "edit": "Hide it", "block": "Stop it"})
# By mode: what it does, in a sentence.
DOES: Mapping[Mode, str] = MappingProxyType({
    "off": "Nobody looks.",
    "tell": "It is answered all the same, and you are told.",
    "edit": "It is taken out, and the rest goes on.",
    "block": "It is not answered, or the answer ends there.",
})  # fmt: skip
# Choices of a policy that say what a guard looks for; the guards that take them find nothing without.
_LOOKED_FOR = ("words", "patterns", "topics", "harm")


def known_guard(name: str) -> GuardFile:
    """Return a guard by its name. Raises NotKept."""
    found = next((file for file in guard_files() if file.name == name), None)
    if found is None:
        raise NotKept("guard", "There is no such guard", name[:80], f"Known: {', '.join(file.name for file in guard_files())}.")
    return found


def mode_named(file: GuardFile, word: str) -> Mode:
    """Return the mode of a guard by its word or its name. Raises RequestError for one that the guard hasn't."""
    said = word.strip().lower()
    found = next((mode for mode in file.modes if said in (mode, WORDS[mode])), None)
    if found is None:
        words = ", ".join(words_of(file.modes))
        cure = "" if len(file.modes) > 1 else "It always does that."
        raise RequestError("mode", f"must be one of {words} for the guard {file.name}", repr(word[:40]), cure)
    return found


def by_mildness(modes: tuple[Mode, ...]) -> tuple[Mode, ...]:
    return tuple(mode for mode in WORDS if mode in modes)


def words_of(modes: tuple[Mode, ...]) -> tuple[str, ...]:
    return tuple(WORDS[mode] for mode in by_mildness(modes))


def is_idle(file: GuardFile, rule: GuardRule) -> bool:
    """Return whether the policy gives a guard nothing to look for."""
    looked_for = [name for name in _LOOKED_FOR if name in file.takes]
    return bool(looked_for) and not any(getattr(rule, name) for name in looked_for)
