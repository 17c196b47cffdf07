"""Generates one answer and shows it as it comes, until it ends or Ctrl-C stops it."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

from ingle.cli.interrupt import Interrupt, Stopped
from ingle.cli.output import colourful
from ingle.core.message import Finish, Request, TokenLogprob, Usage, Verdict
from ingle.core.report import Event
from ingle.safety.opinion import NO_COST, GuardCost
from ingle.safety.policy import USUAL, GuardPolicy
from ingle.serve.record import answer_event, told_events

if TYPE_CHECKING:
    from ingle.adapt.choosing import Choice
    from ingle.engine.answer import Session
    from ingle.engine.language_model import LanguageModel
    from ingle.robustness.guard_model import OpenGuard

_SILENCE_S = 2.0  # time after which the progress of reading a prompt is shown


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """The outcome of one answer."""

    text: str
    finish: Finish
    usage: Usage | None  # none if it was stopped before its first token
    logprobs: tuple[TokenLogprob, ...] = ()
    verdicts: tuple[Verdict, ...] = ()  # verdicts of the guards
    fault: OSError | None = None  # why the end of the answer could not be shown
    guarding: GuardCost = NO_COST  # the cost of guard models that were asked about it

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens written per second."""
        return self.usage.completion_tokens / self.usage.decode_s if self.usage and self.usage.decode_s else 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        """New prompt tokens read per second."""
        return (self.usage.prompt_tokens - self.usage.cached_tokens) / self.usage.prefill_s if self.usage and self.usage.prefill_s else 0.0


def events_of(
    key: bytes, choice: "Choice", request: Request, outcome: ShownAnswer, policy: GuardPolicy = USUAL, completion: str = ""
) -> list[Event]:  # fmt: skip
    """Return the ledger's facts of an answer, even of one stopped before its first token: what guards said, and the answer's own, last.

    `request`: as it came; `completion`: the id under which the answer is kept.
    """
    model = choice.model
    nothing = Usage(0, 0, 0, 0.0, 0.0, 0, model_digest=model.digest, seed=request.sampling.seed or 0)
    event = answer_event(key, model.name, request, outcome.text, outcome.finish, outcome.usage or nothing, outcome.verdicts, completion)
    told = told_events(key, model, request, outcome.text, outcome.verdicts, policy, completion)
    return [*told, replace(event, facts={**event.facts, **choice.facts, **outcome.guarding.facts()})]


def generate(
    model: "LanguageModel", request: Request, show: Callable[[str], None], session: "Session | None" = None, drafts: bool = True,
    policy: GuardPolicy = USUAL, open_guard: "OpenGuard | None" = None,
) -> ShownAnswer:  # fmt: skip
    """Answer `request` behind the guards of this policy. `show` gets each piece of text; `open_guard` opens the guard models that it names.

    Ctrl-C ends it with finish `cancelled`, and so does `show` by an OSError.
    Raises what `engine.answer.answer` raises.
    """
    from ingle.engine.answer import answer
    from ingle.robustness.guard_model import asks_here, not_open
    from ingle.safety.guard import make_guards
    from ingle.safety.middleware import drive, from_iterator, wrap
    from ingle.serve.limits import limits_of

    began = time.monotonic()
    shown = False
    words: list[str] = []
    logprobs: list[TokenLogprob] = []
    verdicts: list[Verdict] = []
    took: list[Usage] = []
    costs: list[GuardCost] = []
    with Interrupt() as interrupt:

        def reading(done: int, total: int) -> None:
            nonlocal shown
            if interrupt.asked():
                raise Stopped
            if colourful(sys.stderr) and time.monotonic() - began > _SILENCE_S and (shown or done < total):
                shown = True
                text = f"\x1b[2mreading the prompt: {done:,} of {total:,} tokens\x1b[0m" if done < total else ""
                print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

        finish: Finish = "cancelled"
        usage: Usage | None = None
        fault: OSError | None = None
        try:
            guarded = wrap(
                make_guards(limits_of(model), policy, model.name, ask=asks_here(open_guard or not_open, costs.append)),
                lambda asked: from_iterator(answer(model, asked, session, interrupt.asked, reading, drafts, took.append)),
            )
            for chunk in drive(guarded(request)):
                words.append(chunk.text)
                verdicts += chunk.verdicts
                logprobs += chunk.logprobs
                try:
                    if chunk.text and fault is None:
                        show(chunk.text)
                except OSError as error:  # a pipe that was closed, a disk that is full
                    fault = error
                    interrupt.ask()
                finish, usage = chunk.finish or finish, chunk.usage or usage
        except Stopped:
            if shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    usage = usage or next(iter(took), None)  # a guard that ends an answer doesn't know what it took
    return ShownAnswer("".join(words), finish, usage, tuple(logprobs), tuple(verdicts), fault, reduce(GuardCost.plus, costs, NO_COST))


def with_seed(request: Request, seed: int) -> Request:
    """Return the request with another seed."""
    return replace(request, sampling=replace(request.sampling, seed=seed))
