"""`ingle "question"`."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

if TYPE_CHECKING:
    from ingle.adapt.choosing import Choice
    from ingle.app.answering import AnswerRun
    from ingle.app.settings import Settings
    from ingle.cli.generate import ShownAnswer
    from ingle.core.message import Message, Request
    from ingle.engine.language_model import LanguageModel
    from ingle.home.kept import Kept
    from ingle.home.place import Home

EXAMPLES = """
ingle "Why is the sky blue?"
ingle "Summarise this:" < letter.txt
cat poem.txt | ingle - smollm2 --raw --max-tokens 60
ingle "Name three rivers." --json --seed 1
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
    from ingle.app.answering import Ask, Keep
    from ingle.app.house import enter
    from ingle.app.settings import read_settings
    from ingle.cli.choose import answer_here, open_watched
    from ingle.cli.generate import generate
    from ingle.cli.output import note
    from ingle.home.turns import LAST

    home = enter()
    chat = {"model": model, "format": format_, "cache": cache, "threads": threads, "system": system}
    chat |= {"max_tokens": max_tokens, "memory": memory, "keep": keep, "think": think}
    drawn = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "seed": seed}
    options = {f"{part}.{key}": value for part, given in (("chat", chat), ("sampling", drawn)) for key, value in given.items()}
    settings = read_settings(home, overrides or (), options)
    _check_options(logprobs is not None and not as_json, raw and bool(system))
    kept, text = _choose(home, settings.chat.model, prompt), _read_prompt(prompt)
    opened = open_watched(home, kept, settings.chat, bool(think))
    messages = () if raw else _messages(opened, text, settings.chat.system, bool(system))
    request = _request(settings, messages, text, stop or (), logprobs)
    stored = settings.chat.keep and bool(messages)
    ask = Ask(request, id=f"{LAST}{uuid4().hex}" if stored else "", keep=Keep() if stored else None, memory=settings.chat.memory)
    here = answer_here(home, settings, note)
    answer, show = here.run(ask, kept, opened), _silent if as_json else _shower()
    try:
        outcome = generate(here, answer, show)
    finally:
        here.close()
    _finish(answer, outcome, as_json)


def _request(
    settings: "Settings", messages: "tuple[Message, ...]", text: str, stop: Sequence[str], logprobs: int | None
) -> "Request":  # fmt: skip
    from ingle.app.facts import new_seed
    from ingle.core.message import Request

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


def _finish(answer: "AnswerRun", outcome: "ShownAnswer", as_json: bool) -> None:
    """Show the rest, and return the exit code."""
    from ingle.cli.output import note

    assert answer.choice is not None, "it was chosen before anything was written"
    if not as_json and outcome.fault is None and not outcome.text.endswith("\n"):
        print(flush=True)
    if outcome.fault is not None:
        raise outcome.fault
    if as_json:
        _print_json(answer.choice, answer.ask.request, outcome)
    elif outcome.finish == "repetition":
        note("(stopped because it only repeated itself)")
    elif answer.choice.nearly is not None:
        taught = answer.choice.nearly.in_short
        note(f"(You taught: “{taught}”. If that is what you mean, teach it in these words too: ingle teach QUESTION ANSWER)")
    if outcome.finish == "cancelled":
        raise typer.Exit(130)


def _choose(home: "Home", asked: str, prompt: str | None) -> "Kept":
    """Return the model. Raises the errors of `choose`, and ConfigError if its name is in the place of the prompt."""
    from ingle.app.choose import choose
    from ingle.core.errors import ConfigError, NotKept
    from ingle.home.kept import list_kept

    try:
        return choose(home, asked)
    except NotKept:
        if prompt not in {kept.name for kept in list_kept(home)}:
            raise
        raise ConfigError("MODEL", "The model comes after the prompt", "", f'Swap them: ingle "…" {prompt}') from None


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
        raise RequestError("prompt", "must not be empty", "", 'Give some text: ingle "…", or through a pipe.')
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
