"""Shows one answer as it comes, until it ends or Ctrl-C stops it."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.cli.interrupt import Interrupt, Stopped
from ingle.cli.output import colourful
from ingle.core.message import Chunk, Finish, TokenLogprob, Usage, Verdict

if TYPE_CHECKING:
    from ingle.app.answering import AnswerRun
    from ingle.app.here import Here

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

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens written per second."""
        return self.usage.completion_tokens / self.usage.decode_s if self.usage and self.usage.decode_s else 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        """New prompt tokens read per second."""
        return (self.usage.prompt_tokens - self.usage.cached_tokens) / self.usage.prefill_s if self.usage and self.usage.prefill_s else 0.0


def generate(here: "Here", run: "AnswerRun", show: Callable[[str], None]) -> ShownAnswer:
    """Give an answer. `show` gets each piece of text. Ctrl-C ends it with finish `cancelled`, and so does `show` by an OSError.

    Raises what answering raises.
    """
    began = time.monotonic()
    shown = False
    chunks: list[Chunk] = []
    fault: OSError | None = None
    with Interrupt() as interrupt:

        def reading(done: int, total: int) -> None:
            nonlocal shown
            if interrupt.asked():
                raise Stopped
            if colourful(sys.stderr) and time.monotonic() - began > _SILENCE_S and (shown or done < total):
                shown = True
                text = f"\x1b[2mreading the prompt: {done:,} of {total:,} tokens\x1b[0m" if done < total else ""
                print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

        try:
            for chunk in here.answer(run, interrupt.asked, reading):
                chunks.append(chunk)
                try:
                    if chunk.text and fault is None:
                        show(chunk.text)
                except OSError as error:  # a pipe that was closed, a disk that is full
                    fault = error
                    interrupt.ask()
        except Stopped:
            if shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    logprobs = tuple(one for chunk in chunks for one in chunk.logprobs)
    last = chunks[-1] if chunks else Chunk("", finish="cancelled")
    return ShownAnswer("".join(chunk.text for chunk in chunks), last.finish or "cancelled", last.usage, logprobs, last.verdicts, fault)
