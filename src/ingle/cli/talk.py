"""A conversation with a model at a terminal, turn by turn."""

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.cli.conversation import TerminalConversation
from ingle.cli.generate import ShownAnswer, events_of, generate
from ingle.cli.interrupt import silent_keys
from ingle.cli.output import complain, note
from ingle.cli.screen import make_screen
from ingle.cli.settings import Settings
from ingle.cli.taught import TaughtHere
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import ContextError, IngleError, RequestError
from ingle.core.message import ImagePart, Message, Request, TextPart
from ingle.home.place import Home
from ingle.model.template import has_template
from ingle.serve.answers_key import answer_key
from ingle.serve.record import Recorder, new_seed, refusal_event

if TYPE_CHECKING:
    from ingle.adapt.choosing import Choice
    from ingle.cli.voice import TerminalVoice
    from ingle.core.example import Example
    from ingle.engine.language_model import LanguageModel

NEARLY_FULL = 0.85  # share of the context beyond which the user is warned


@dataclass
class TalkTally:
    """Totals of all answers."""

    answers: int = 0
    read_tokens: int = 0
    written_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    energy: Energy = NOTHING

    def add(self, outcome: ShownAnswer) -> None:
        """Adds one answer."""
        if outcome.usage:
            self.answers += 1
            self.read_tokens += outcome.usage.prompt_tokens - outcome.usage.cached_tokens
            self.written_tokens += outcome.usage.completion_tokens
            self.prefill_s += outcome.usage.prefill_s
            self.decode_s += outcome.usage.decode_s
            self.energy = self.energy + (outcome.usage.energy or NOTHING)


class Talk:
    """A conversation with its model, settings and screen."""

    def __init__(self, home: Home, model: "LanguageModel", settings: Settings, recorder: Recorder, taught: TaughtHere) -> None:
        from ingle.cli.choose import open_kept
        from ingle.engine.answer import Session
        from ingle.robustness.guard_model import guard_opener
        from ingle.safety.guard import guard_policy

        self.home, self.model, self.settings, self.taught = home, model, settings, taught
        self.conversation = TerminalConversation(settings.chat.system)
        self.session = Session(model.backend.new_state())
        self._read_by = model.digest
        self.tally = TalkTally()
        self.last: ShownAnswer | None = None
        self.nearly: Example | None = None
        self.recorder = recorder
        self._policy = guard_policy(home.policy)
        self._open_guard = guard_opener(home, self._policy, lambda kept: open_kept(home, kept, settings.chat))
        self._reading = ThreadPoolExecutor(1, "key")
        self._key: Future[bytes] | None = None
        self.shown: list[ImagePart] = []  # pictures that go with the next question
        self.voice: TerminalVoice | None = None  # hears and speaks, where that is wanted
        self.plain = not has_template(model.tokenizer)  # whether it is a base model, which continues all text so far, by either side

    def talk_aloud(self) -> None:
        """From now on, questions may be spoken and answers are heard. Raises ConfigError and NotKept, which say what is missing."""
        from ingle.cli.voice import TerminalVoice

        self.voice = TerminalVoice(self.home, lambda: self._begin_key().result(), self.recorder.add)

    def close(self) -> None:
        """End the voice, if there is one."""
        if self.voice is not None:
            self.voice.close()

    def ask(self, text: str, again: bool = False) -> ShownAnswer | None:
        """Ask a question, show the answer as it comes, and record its fact. None if it could not be answered.

        A question that can't be answered is removed again. `again`: with a new seed, whatever the settings say.
        """
        before = list(self.conversation.turns)
        self.conversation.turns.append(Message("user", (*self.shown, TextPart(text))))
        messages = self.conversation.messages
        plain = "".join(message.text for message in messages) if self.plain else None
        seed = new_seed()
        sampling = self.settings.sampling.sampling(seed)
        sampling = replace(sampling, seed=seed) if again else sampling
        request = Request(
            () if self.plain else messages,
            plain,
            max_tokens=self.settings.chat.max_tokens,
            think=self.settings.chat.think,
            sampling=sampling,
        )
        try:
            choice = self.taught.choose(self.model, request)
            outcome = self._answer(choice)
        except BaseException as error:
            self.conversation.turns = before
            if not isinstance(error, IngleError):  # Ctrl-C before the first word, or for the third time
                raise
            if isinstance(error, RequestError):
                key = self._begin_key().result()
                self.recorder.add(refusal_event(key, self.model, request, error, policy=self._policy))
            if isinstance(error, ContextError):
                cure = "Remove the last question with /undo, or start over with /clear."
                error = ContextError(error.field, error.rule, error.got, cure)
            complain(error)
            return None
        self.shown = []
        if outcome.text:
            self.conversation.turns.append(Message.of("assistant", outcome.text))
        elif outcome.finish == "cancelled":
            self.conversation.turns.pop()
        self.last = outcome
        self.tally.add(outcome)
        for event in events_of(self._begin_key().result(), choice, request, outcome, self._policy):
            self.recorder.add(event)
        if outcome.fault is not None:
            raise outcome.fault
        self._remark(outcome, choice)
        return outcome

    @property
    def used_tokens(self) -> int:
        """Number of tokens of the context in use."""
        return len(self.session.ids)

    def _answer(self, choice: "Choice") -> ShownAnswer:
        from ingle.engine.answer import Session

        if choice.model.digest != self._read_by:  # what one adapter has read is of no use to another
            self.session, self._read_by = Session(choice.model.backend.new_state()), choice.model.digest
        self._begin_key()
        screen = make_screen(self.settings.chat.markdown)
        spoken = self.voice.aloud(screen.show) if self.voice is not None else None
        outcome = None
        with silent_keys():
            try:
                show, drafts = spoken or screen.show, self.settings.serve.drafts
                outcome = generate(choice.model, choice.request, show, self.session, drafts, self._policy, self._open_guard)
            finally:
                screen.finish()
                if spoken is not None:
                    spoken.end(heard=outcome is not None and outcome.finish != "cancelled")
        return outcome

    def _begin_key(self) -> "Future[bytes]":
        """Begin to look for the key of the answers' digests, once: it takes the database, which is imported while the model writes."""
        if self._key is None or (self._key.done() and self._key.exception() is not None):
            self._key = self._reading.submit(answer_key, self.home)
        return self._key

    def _remark(self, outcome: ShownAnswer, choice: "Choice") -> None:
        """Print remarks on an answer, if there are any."""
        if choice.memories:
            note(f"(from memory: {', '.join(choice.memories)})")
        self.nearly = choice.nearly
        if choice.nearly is not None:
            note(f"(You taught: “{choice.nearly.in_short}”. Is that what you mean? Then say /meant)")
        context = self.model.backend.config.context_length
        full = self.used_tokens + 1 >= context
        if outcome.finish == "cancelled":
            note("(stopped)" if outcome.text else "(stopped before the first word; your question was removed)")
        elif outcome.finish == "blocked":
            note(f"(ended by the guard {', '.join(verdict.guard for verdict in outcome.verdicts if verdict.action == 'block')})")
        elif outcome.finish == "repetition":
            note("(stopped because it only repeated itself; /regenerate tries again)")
        elif outcome.finish == "length" and not full:
            note(f"(cut at chat.max_tokens = {self.settings.chat.max_tokens}; ask it to go on)")
        if full:
            note("(the context is full: /undo removes the last turn, /clear starts over)")
        elif self.used_tokens > NEARLY_FULL * context:
            note(f"(the context is {self.used_tokens / context:.0%} full; /undo removes the last turn, /clear starts over)")


def expand(path: str) -> Path:
    """Return a typed path, without quotation marks and with ~ expanded."""
    return Path(path.strip().strip("'\"")).expanduser()


def banner(talk: Talk) -> None:
    """Print the model's name and settings, and how to leave."""
    config, settings = talk.model.backend.config, talk.settings.chat
    weights = "weights as in its file" if settings.format == "auto" else settings.format
    weights += "" if settings.cache == "auto" else f", keys and values in {settings.cache}"
    note(f"{talk.model.name} · {weights} · context {config.context_length:,} tokens")
    if talk.plain:
        note("It has no chat template: it goes on from what you write, and you from what it wrote.")
    note("/help lists what else there is. Ctrl-C stops an answer, Ctrl-D leaves.")
    sys.stderr.flush()
