"""`ingle run`."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

if TYPE_CHECKING:
    from ingle.adapt.choosing import Choice
    from ingle.cli.generate import ShownAnswer
    from ingle.cli.settings import Settings
    from ingle.core.errors import IngleError
    from ingle.core.message import Message, Request
    from ingle.engine.language_model import LanguageModel
    from ingle.home.kept import Kept
    from ingle.home.place import Home
    from ingle.safety.policy import GuardPolicy

EXAMPLES = """
ingle run "Why is the sky blue?"
ingle run "Summarise this:" < letter.txt
cat poem.txt | ingle run - smollm2 --raw --max-tokens 60
ingle run "Name three rivers." --json --seed 1
"""


def command(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to ask; '-' or nothing reads standard input.")] = None,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model or MODEL+DELTA; by default smollm2, or the only one.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Go on from plain text, without the chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
    system: Annotated[str | None, typer.Option(help="System prompt: what the model is told first.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens; by default 1024.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    logprobs: Annotated[int | None, typer.Option(help="With --json: log-probabilities, and so many alternatives per token.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Randomness; 0 = always the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw only from the likeliest tokens that together reach this probability.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw only from the k likeliest tokens; 0 = all.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Draw only from tokens at least this likely, as a share of the likeliest.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer; by default a new one.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format of the weights: auto, int4, int8, bf16, fp32.")] = None,
    cache: Annotated[str | None, typer.Option(help="Format of the key-value cache: auto, float16, float32, int8.")] = None,
    threads: Annotated[int | None, typer.Option(help="Number of threads; by default one per core.")] = None,
    think: Annotated[bool | None, typer.Option(help="Let the model think aloud before it answers, if it can.")] = None,
    keep: Annotated[bool | None, typer.Option(help="Keep question and answer until the next one, for `ingle why --last`.")] = None,
    memory: Annotated[bool | None, typer.Option(help="Use what you taught, where the question is about it.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of config.toml.")] = None,
) -> None:
    """Answer one prompt, from the command line or a pipe.

    The prompt and what comes through a pipe are put together, with an empty line between them.
    """
    from ingle.cli.choose import open_kept
    from ingle.cli.generate import generate
    from ingle.cli.house import enter
    from ingle.cli.settings import read_settings
    from ingle.cli.taught import choose_once
    from ingle.core.errors import RequestError
    from ingle.robustness.guard_model import guard_opener
    from ingle.safety.guard import guard_policy

    home = enter()
    chat = {"model": model, "format": format_, "cache": cache, "threads": threads, "system": system}
    chat |= {"max_tokens": max_tokens, "memory": memory, "keep": keep, "think": think}
    drawn = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "seed": seed}
    options = {f"{part}.{key}": value for part, given in (("chat", chat), ("sampling", drawn)) for key, value in given.items()}
    settings = read_settings(home, overrides or (), options)
    _check_options(logprobs is not None and not as_json, raw and bool(system))
    kept, text = _choose(home, settings.chat.model, prompt), _read_prompt(prompt)
    opened = open_kept(home, kept, settings.chat, bool(think))
    messages = () if raw else _messages(opened, text, settings.chat.system, bool(system))
    request = _request(settings, messages, text, stop or (), logprobs)
    show, policy = _silent if as_json else _shower(), guard_policy(home.policy)
    guards = guard_opener(home, policy, lambda one: open_kept(home, one, settings.chat))
    try:
        choice = choose_once(home, kept, settings.chat.memory, opened, request)
        outcome = generate(choice.model, choice.request, show, drafts=settings.serve.drafts, policy=policy, open_guard=guards)
    except RequestError as error:
        _record_refusal(home, opened, request, error, policy)
        raise
    _finish(home, choice, request, outcome, as_json, policy, settings.chat.keep)


def _request(
    settings: "Settings", messages: "tuple[Message, ...]", text: str, stop: Sequence[str], logprobs: int | None
) -> "Request":  # fmt: skip
    from ingle.core.message import Request
    from ingle.serve.record import new_seed

    return Request(
        messages, None if messages else text, max_tokens=settings.chat.max_tokens, stop=tuple(stop), logprobs=logprobs,
        sampling=settings.sampling.sampling(new_seed()), think=settings.chat.think,
    )  # fmt: skip


def _check_options(unseen_logprobs: bool, system_of_raw: bool) -> None:
    """Raise ConfigError for options that can't go together."""
    from ingle.core.errors import ConfigError

    if unseen_logprobs:
        raise ConfigError("--logprobs", "needs --json", "", "Add --json.")
    if system_of_raw:
        raise ConfigError("--system", "Plain text (--raw) has no place for --system", "", "Leave one of them out.")


def _record_refusal(home: "Home", model: "LanguageModel", request: "Request", error: "IngleError", policy: "GuardPolicy") -> None:
    from ingle.cli.house import record
    from ingle.serve.answers_key import answer_key
    from ingle.serve.record import refusal_event

    record(home, refusal_event(answer_key(home), model, request, error, policy=policy))


def _finish(
    home: "Home", choice: "Choice", request: "Request", outcome: "ShownAnswer", as_json: bool, policy: "GuardPolicy", keep: bool
) -> None:  # fmt: skip
    """Record the fact even if nobody reads the output, keep the words if they may be kept, show the rest, and return the exit code."""
    from ingle.cli.generate import events_of
    from ingle.cli.house import record
    from ingle.cli.output import note
    from ingle.home.turns import LAST
    from ingle.serve.answers_key import answer_key

    try:
        completion = f"{LAST}{uuid4().hex}" if keep and request.messages and outcome.finish in ("stop", "length") else ""
        events = events_of(answer_key(home), choice, request, outcome, policy, completion)
        *_, row = record(home, *events)
        if completion:
            _keep(home, choice, request, outcome, completion, {**events[-1].facts, "seq": row.seq})
    finally:
        if not as_json and outcome.fault is None and not outcome.text.endswith("\n"):
            print(flush=True)
    if outcome.fault is not None:
        raise outcome.fault
    if as_json:
        _print_json(choice, request, outcome)
    elif outcome.finish == "repetition":
        note("(stopped because it only repeated itself)")
    elif choice.nearly is not None:
        note(
            f"(You taught: “{choice.nearly.in_short}”. If that is what you mean, teach it in these words too: ingle teach QUESTION ANSWER)"
        )
    if outcome.finish == "cancelled":
        raise typer.Exit(130)


def _keep(home: "Home", choice: "Choice", request: "Request", outcome: "ShownAnswer", completion: str, facts: dict[str, object]) -> None:
    from ingle.core.message import Message
    from ingle.home.turns import keep_last
    from ingle.serve.replay import parameters
    from ingle.serve.rooms import open_rooms

    kept = facts | {"model_name": choice.model.name, "request": parameters(request, system=False)}
    engine = open_rooms(home)
    try:
        keep_last(engine, "", Message.of("assistant", outcome.text), completion, kept, request.messages)
    finally:
        engine.dispose()


def _choose(home: "Home", asked: str, prompt: str | None) -> "Kept":
    """Return the model. Raises the errors of `choose`, and ConfigError if its name is in the place of the prompt."""
    from ingle.cli.choose import choose
    from ingle.core.errors import ConfigError, NotKept
    from ingle.home.kept import list_kept

    try:
        return choose(home, asked)
    except NotKept:
        if prompt not in {kept.name for kept in list_kept(home)}:
            raise
        raise ConfigError("MODEL", "The model comes after the prompt", "", f'Swap them: ingle run "…" {prompt}') from None


def _messages(model: "LanguageModel", text: str, system: str, asked_for: bool) -> "tuple[Message, ...]":
    """Return the messages; none for a base model, which continues text. Raises ConfigError if `asked_for` a system prompt there."""
    from ingle.cli.output import note
    from ingle.core.errors import ConfigError
    from ingle.core.message import Message
    from ingle.model.template import has_template

    if has_template(model.tokenizer):
        return (*((Message.of("system", system),) if system else ()), Message.of("user", text))
    if asked_for:
        raise ConfigError("--system", f"{model.name} has no chat template, so there is no place for --system", "", "Leave it out.")
    note(f"{model.name} has no chat template: it goes on from your text (as with --raw).")
    return ()


def _read_prompt(argument: str | None) -> str:
    """Return the prompt: the argument, standard input, or both. Raises RequestError for an empty one, or for bytes that aren't UTF-8."""
    from ingle.cli.lines import decode, piped
    from ingle.core.errors import RequestError

    # In an old locale Python reads arguments as something else than UTF-8; fsencode gives back the bytes that were typed.
    prompt = decode(os.fsencode(argument), "prompt") if argument and argument != "-" else ""
    piped_text = decode(piped()).strip("\n") if argument != "" else ""
    text = "\n\n".join(part for part in (prompt, piped_text) if part)
    if not text.strip():
        raise RequestError("prompt", "must not be empty", "", 'Give some text: ingle run "…", or through a pipe.')
    return text


def _silent(_text: str) -> None: ...


def _shower() -> Callable[[str], None]:
    """Write to standard output: unchanged into a pipe, without control characters to a terminal."""
    from ingle.cli.output import is_terminal, printable

    harmless = is_terminal(sys.stdout)

    def show(text: str) -> None:
        sys.stdout.write(printable(text) if harmless else text)
        sys.stdout.flush()

    return show


def _print_json(choice: "Choice", request: "Request", outcome: "ShownAnswer") -> None:
    from ingle.cli.output import print_json

    model = choice.model
    usage = asdict(outcome.usage) if outcome.usage else {}
    if outcome.usage and outcome.usage.energy:
        usage["energy"] = outcome.usage.energy.table()
    speeds = {"prefill_tokens_per_s": round(outcome.prefill_tokens_per_s, 1), "decode_tokens_per_s": round(outcome.decode_tokens_per_s, 1)}
    result: dict[str, object] = {"text": outcome.text, "finish": outcome.finish, "usage": usage | speeds}
    result |= {"model": model.name, "model_digest": model.digest, "seed": request.sampling.seed}
    result["parameters"] = asdict(request.sampling) | {"max_tokens": request.max_tokens, "stop": list(request.stop)}
    result |= {"memories": list(choice.memories), "lessons": list(choice.lessons)}
    result["nearly"] = choice.nearly.id if choice.nearly is not None else ""
    if request.logprobs is not None:
        result["logprobs"] = [asdict(entry) for entry in outcome.logprobs]
    print_json(result)
