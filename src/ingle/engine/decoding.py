"""One answer on its way: which tokens to read next, and what comes of the logits. Whoever runs the backend drives it.

while chunk is None or chunk.finish is None:
    [rows] = backend.forward([decoding.next()])
    chunk = decoding.take(rows)
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.media import NO_VECTORS, Kind, Vectors, kind_of
from ingle.core.message import Chunk, Finish, Request, TokenLogprob, ToolCall, Usage
from ingle.core.spec import ModelConfig
from ingle.core.state import REMEMBERING_STEP_TOKENS, STEP_TOKENS, State
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.sampling import Sampler, log_probabilities
from ingle.engine.speculative import ALONE, BatchLoad, Drafter, StepTimer
from ingle.engine.tools import CallsMade, ToolCallStream

if TYPE_CHECKING:
    from ingle.engine.grammar import Grammar

# Passages that repeat themselves in an answer, and where it may.
# An answer ends when it has long said nothing that it did not say three times before.
# A token is stale if the passage of twelve tokens that ends with it stood in the answer three times already. One new word makes the next
# twelve tokens fresh. So tables, lists and code with similar lines go on, a refrain is forgiven once a new verse begins, and what ends is a
# text that nothing new enters. A limit in tokens, not in rounds, lets short lines be repeated more often than long paragraphs.


_PASSAGE = 12  # tokens that are compared: some eight words of English
_ROUNDS = 3  # times that a passage must have stood there before
_MOST_KNOWN = 1 << 15  # passages that are remembered, a few MB: an answer longer than that begins anew
_FENCE_COLUMNS = 40  # how far from its beginning a line's fence is looked for


class Repeats:
    """Watches the tokens of one answer."""

    def __init__(self, limit: int) -> None:
        """limit: stale tokens in a row that end the answer."""
        self._limit = limit
        self._passage = deque[int](maxlen=_PASSAGE)
        self._seen = Counter[int]()
        self._stale = 0

    def add(self, token: int) -> bool:
        """Whether the answer is to end with this token."""
        self._passage.append(token)
        if len(self._passage) < _PASSAGE:
            return False
        if len(self._seen) >= _MOST_KNOWN:
            self._seen.clear()
        passage = hash(tuple(self._passage))
        self._stale = self._stale + 1 if self._seen[passage] >= _ROUNDS else 0
        self._seen[passage] += 1
        return self._stale >= self._limit


class CodeBlock:
    """Where an answer in Markdown stands: within a fenced block, or outside. Code says the same words again because it has to."""

    def __init__(self) -> None:
        self.inside = False
        self._line = ""
        self._counted = False  # whether the fence on this line has been seen

    def feed(self, text: str) -> None:
        """Takes what was written next, however it is cut."""
        for part in text.splitlines(keepends=True):
            self._line = (self._line + part)[:_FENCE_COLUMNS]
            if not self._counted and self._line.lstrip().startswith("```"):
                self.inside, self._counted = not self.inside, True
            if part.endswith("\n"):
                self._line, self._counted = "", False


# Stop strings: an answer ends before the first of them, however its tokens are cut.


class StopStrings:
    """Passes text on until a stop string appears. A possible start of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """Take in text and return what can be shown."""
        if not self._stops or self.hit:
            return "" if self.hit else text
        self._held += text
        places = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if places:
            self.hit = True
            return self._held[: min(places)]
        keep = max(self._overlap(stop) for stop in self._stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """Return the held text that turned out to be no stop string."""
        rest, self._held = ("" if self.hit else self._held), ""
        return rest

    def _overlap(self, stop: str) -> int:
        """Return the length of the longest end of the held text with which `stop` begins."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if stop.startswith(self._held[-n:])), 0)


# Checkpoints of a prompt's state. A recurrent memory can't go back, so an edited or repeated prompt continues from a checkpoint.


# Prompt tokens between checkpoints: at most this many are read again. A state with windows of 64 tokens takes a few MB.
CHECKPOINT_TOKENS = 512
WORTH_KEEPING = 64  # a checkpoint must spare at least this many tokens


def needs_checkpoints(config: ModelConfig) -> bool:
    """Return whether states of this model can't go back, once they have read a little."""
    return config.is_recurrent


@dataclass
class Checkpoints:
    """The checkpoints of one prompt: every CHECKPOINT_TOKENS, and one token before the end, where the same prompt would continue."""

    last: int  # prompt tokens read at the latest checkpoint
    prompt_tokens: int
    needed: bool

    @property
    def next(self) -> int | None:
        """Position of the next checkpoint; None if there is none."""
        return self._after(self.last) if self.needed else None

    def due(self, length: int) -> bool:
        """Return whether the state is to be kept now, at `length` tokens; it then counts as kept."""
        if length != self.next:
            return False
        self.last = length
        return True

    def within(self, common: int) -> int:
        """Return how many tokens the checkpoints will spare another prompt with the same first `common` tokens."""
        if not self.needed:
            return common
        spared, place = 0, None if self.last > common else self.last
        while place is not None and place <= common:
            spared, place = place, self._after(place)
        return spared

    def _after(self, place: int) -> int | None:
        following = min(place + CHECKPOINT_TOKENS, self.prompt_tokens - 1)
        return following if following - place >= WORTH_KEEPING else None


_ECHO_TOKENS = 32  # prompt tokens whose logits are looked at together: each has one per word of the vocabulary (200 kB for 49,152)


class Decoding:
    """The state of one answer. `ids[:state.length]` is what the state has read."""

    def __init__(
        self, model: LanguageModel, request: Request, ids: list[int], state: State, grammar: "Grammar | None" = None,
        asked: float | None = None, pace: StepTimer | None = None, vectors: Vectors = NO_VECTORS,
    ) -> None:  # fmt: skip
        """`state` has read the first `state.length` of `ids`, and fewer than all of them; `grammar` holds the answer to its language.

        `asked`: when, by `time.perf_counter`. `pace`: of the backend's steps; None = without drafts. `vectors`: of ids beyond the
        vocabulary.
        """
        assert state.length < len(ids), "the last token has to be read, for its logits"
        self.model, self.request, self.state = model, request, state
        self.ids = list(ids)
        self._vectors = vectors
        self.prompt_tokens, self.cached_tokens = len(ids), state.length
        self._kinds = Counter(kind_of(id_, model.backend.config.vocab_size) for id_ in ids) if vectors else Counter[Kind | None]()
        needed = needs_checkpoints(model.backend.config) and not request.echo
        self.checkpoints = Checkpoints(state.length, len(ids), needed)  # where its state should be kept while the prompt is read
        self.sampler = Sampler(request.sampling, model.backend.config.vocab_size, ids)
        self.written = 0  # tokens of the answer so far
        # A grammar counts the space with which SentencePiece begins a text, so it has to be seen.
        self._stream = model.tokenizer.stream(continues=request.prompt is not None or grammar is not None)
        self._stops = StopStrings(request.stop)
        self._calls, self._made = _calls_in(model, request), CallsMade()
        self._most = model.most_tokens(request, len(ids))
        self._grammar = grammar
        # What a language leaves open ends where the language does, and is whole only there.
        self._repeats = Repeats(request.sampling.repeat_limit) if request.sampling.repeat_limit and grammar is None else None
        self._code = CodeBlock()
        self._drafter = Drafter(pace, needs_checkpoints(model.backend.config)) if pace else None
        self._draft: list[int] = []  # tokens beyond `ids` that the next logits come with
        self._rollback_point: Any = None
        self._echoed = [TokenLogprob(ids[0], self._name(ids[0]), None)] if request.echo else []
        self._asked = time.perf_counter() if asked is None else asked
        self._began = self._read = 0.0

    @property
    def reading(self) -> bool:
        """Whether the prompt is not read whole yet."""
        return self.state.length < self.prompt_tokens and not self.written

    @property
    def unread(self) -> int:
        """Tokens that the next segments have to read."""
        return len(self.ids) - self.state.length

    def next(self, limit: int = STEP_TOKENS, company: BatchLoad = ALONE) -> Segment:
        """Return the tokens for the backend to read next: up to `limit` tokens of the prompt, or the end of the answer and perhaps a draft.

        `company`: what else is in the step.
        """
        if self.written:
            return self._next_written(company)
        self._began = self._began or time.perf_counter()
        start, echo = self.state.length, self.request.echo
        end = min(start + min(limit, _ECHO_TOKENS if echo else STEP_TOKENS), len(self.ids))
        checkpoint = self.checkpoints.next
        if self.reading and checkpoint is not None and checkpoint > start:
            end = min(end, checkpoint)
        logits: Literal["none", "last", "all"] = "last" if end == len(self.ids) else "none"
        return Segment(self.state, self.ids[start:end], "all" if echo else logits, self.model.adapter, self._vectors)

    def _next_written(self, company: BatchLoad) -> Segment:
        """The last token, and others before it if the state had to go back further than these."""
        unread = self.ids[self.state.length :]
        # What is taken back is read again with what is tried next, and rings hold so much of it.
        room = min(self._most - self.written - 1, REMEMBERING_STEP_TOKENS - len(unread))
        self._draft = self._drafter.draft(self.ids, max(0, room), company) if self._drafter else []
        if self._draft:
            self._rollback_point = self.state.rollback_point(self._rollback_point)
        return Segment(self.state, unread + self._draft, "all" if self._draft else "last", self.model.adapter, self._vectors)

    def take(self, rows: npt.NDArray[np.float32]) -> Chunk | None:
        """Take the logits of the last segment, and return the chunk that comes of them; None while the prompt is being read."""
        if self.request.echo and not self.written:
            self._echo(rows)
        if self.state.length < len(self.ids):
            return None
        self._read = self._read or time.perf_counter()
        echoed = self._take_echo()
        if self._most == 0:
            return Chunk("", (), echoed, "length", self.usage())
        return self._write(rows[len(rows) - 1 - len(self._draft) :], echoed)

    def end(self, finish: Finish) -> Chunk:
        """The last chunk of an answer that is ended from outside: what was held back, and what it took."""
        text = self._stops.feed(self._stream.flush()) + self._stops.flush()
        return Chunk(text, finish=finish, usage=self.usage())

    def usage(self) -> Usage:
        """Return what it took so far."""
        now = time.perf_counter()
        began, read = self._began or now, self._read or now
        return Usage(
            self.prompt_tokens, self.cached_tokens, self.written, read - began, now - read, self.state.nbytes, began - self._asked,
            self.model.digest, self.sampler.seed, drafted=self._drafter.drafted if self._drafter else 0,
            accepted=self._drafter.accepted if self._drafter else 0, image_tokens=self._kinds["image"], audio_tokens=self._kinds["audio"],
        )  # fmt: skip

    def _write(self, rows: npt.NDArray[np.float32], echoed: tuple[TokenLogprob, ...]) -> Chunk:
        """Draw tokens from the logits: one token, and one more for every token of the draft that it turns out to be."""
        texts, tokens, logprobs = list[str](), list[int](), [*echoed]
        finish: Finish | None = None
        for logits, guess in zip(rows, (*self._draft, None), strict=True):
            text, finish = self._write_one(logits, tokens, logprobs)
            texts.append(text)
            if finish is not None or tokens[-1] != guess:
                break
        if self._draft:
            self.state.rollback(len(self.ids) - (finish is None), self._rollback_point)
        if self._drafter:
            self._drafter.took(tokens)
        self._draft = []
        return Chunk("".join(texts), tuple(tokens), tuple(logprobs), finish, self.usage() if finish else None)

    def _write_one(self, logits: npt.NDArray[np.float32], tokens: list[int], logprobs: list[TokenLogprob]) -> tuple[str, Finish | None]:
        """Draws a token, adds it to both lists, and returns what can be shown and whether the answer is at its end."""
        tokenizer, request = self.model.tokenizer, self.request
        spared = self._code.inside or (self._calls is not None and self._calls.in_call)
        token = self.sampler.pick(logits, self._grammar.allow if self._grammar else None, spared)
        if self._grammar:
            self._grammar.take(token)
        self.written += 1
        tokens.append(token)
        circling = self._repeats is not None and self._repeats.add(token)
        ended = token in tokenizer.eos_ids
        written = "" if ended else self._stream.feed(token)
        self._code.feed(written)
        text = "" if ended else self._stops.feed(written)
        if request.logprobs is not None:
            logprobs += self._logprobs(logits[None], [token])
        finish: Finish | None = None
        again = self._calls is not None and any(
            not self._made.add(piece) for piece in self._calls.feed(text) if isinstance(piece, ToolCall)
        )
        if ended or again or self._stops.hit or (self._grammar and self._grammar.finished):
            finish = "stop"
        elif circling:
            finish = "repetition"
        elif self.written == self._most:
            finish = "length"
        if finish is None:
            self.ids.append(token)
            return text, None
        text += self._stops.feed(self._stream.flush()) + self._stops.flush()
        return text, "stop" if self._stops.hit else finish

    def _echo(self, rows: npt.NDArray[np.float32]) -> None:
        """Log-probabilities of prompt tokens: row i of a segment tells of the token after its i-th."""
        end = self.state.length
        following = self.ids[end - len(rows) + 1 : end + 1]
        self._echoed += self._logprobs(rows[: len(following)], following)

    def _take_echo(self) -> tuple[TokenLogprob, ...]:
        echoed, self._echoed = tuple(self._echoed), []
        return echoed

    def _logprobs(self, rows: npt.NDArray[np.float32], tokens: list[int]) -> list[TokenLogprob]:
        """For each row [vocabulary] the token that followed and the likeliest ones."""
        if not tokens:
            return []
        count, values = self.request.logprobs or 0, log_probabilities(rows)
        best = np.argpartition(values, -count, axis=1)[:, -count:] if count else np.zeros((len(tokens), 0), np.int64)
        return [self._entry(values[i], token, best[i]) for i, token in enumerate(tokens)]

    def _entry(self, values: npt.NDArray[np.float64], token: int, best: Any) -> TokenLogprob:
        ranked = sorted((int(i) for i in best), key=lambda i: (-values[i], i))
        top = tuple((i, self._name(i), float(values[i])) for i in ranked)
        predicted = float(values[token]) if token < len(values) else None  # nothing predicts a part of a picture or a sound
        return TokenLogprob(token, self._name(token), predicted, top)

    def _name(self, token: int) -> str:
        """As it stands within a text: with the space that one loses at its start."""
        return self.model.tokenizer.token_bytes(token).decode("utf-8", "replace")


def _calls_in(model: LanguageModel, request: Request) -> ToolCallStream | None:
    """Reads the calls out of an answer that may have some, which ends where it makes one again."""
    if not request.tools:
        return None
    from ingle.engine.tools import style_of

    return ToolCallStream(style_of(model.tokenizer))
