"""Which of some words a model would say next: one prefill of a prompt, the logits of the words' first tokens, and no decoding.

Most of such a prompt is a template that never changes: the state after its beginning is kept, and each prompt goes on from a fork of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import numpy.typing as npt

from ingle.core.errors import GuardError
from ingle.core.state import STEP_TOKENS
from ingle.engine.answer import Session
from ingle.engine.backend import AnyState, Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import common_length
from ingle.model.tokenizer import ControlToken, Tokenizer

Pieces = Sequence[str | ControlToken]


@dataclass(frozen=True, slots=True)
class LabelPrompt:
    """A prompt, and the tokens that are compared behind it."""

    ids: list[int]
    labels: tuple[int, ...]
    """One for each word, all different."""


def label_prompt(tokenizer: Tokenizer, pieces: Pieces, lead: str, words: Sequence[str]) -> LabelPrompt:
    """Return a rendered prompt up to the place where one of `words` would begin, behind `lead`.

    Tokens may join the lead and a word, so the words are encoded in their place: what all have in common is read, what comes next differs.
    Raises GuardError for words that this vocabulary does not tell apart.
    """
    last = max((i for i, piece in enumerate(pieces) if isinstance(piece, ControlToken)), default=-1)
    end = "".join(piece for piece in pieces[last + 1 :] if isinstance(piece, str))
    end += "" if lead and end.endswith(lead) else lead
    head = list(pieces[: last + 1])
    start = tokenizer.encode_pieces(head)
    anchor = head[-1:]  # a text behind a control token is not encoded as one at the beginning
    ends = [tokenizer.encode_pieces([*anchor, end + word])[len(anchor) :] for word in words]
    common = min(common_length(ends[0], one) for one in ends)
    labels = tuple(one[common] if len(one) > common else -1 for one in ends)
    if len(set(labels)) < len(labels) or -1 in labels:
        cure = "Is it the model that its name says?"
        raise GuardError("guard model", "must have a token of its own for each of its labels", ", ".join(map(repr, words)), cure)
    return LabelPrompt(start + ends[0][:common], labels)


def chances(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the probabilities of labels among themselves, float64 [labels]. Raises GuardError for NaN and infinity."""
    if not np.isfinite(logits).all():
        raise GuardError("guard model", "must give numbers for its labels", "NaN or infinity", "Run `ingle verify --models`.")
    odds = np.exp(logits.astype(np.float64) - float(logits.max()))
    found: npt.NDArray[np.float64] = odds / odds.sum()
    return found


@dataclass(eq=False)
class LabelReader:
    """Reads such prompts with one model. The beginnings that do not change are read once, for all who ask. Thread-safe."""

    model: LanguageModel
    _starts: dict[str, tuple[list[int], AnyState]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def session(self, kind: str) -> Session:
        """Return a session that goes on from the known beginning of this kind of prompts; from nothing, where none is known."""
        with self._lock:
            ids, state = self._starts.get(kind, ([], None))
            return Session(self.model.backend.new_state() if state is None else state.fork(), list(ids))

    def keep(self, kind: str, ids: Sequence[int], state: AnyState) -> None:
        """Keep a fork of a state as the beginning of a kind; the first one stays."""
        with self._lock:
            if kind not in self._starts and ids:
                self._starts[kind] = list(ids), state.fork()

    @property
    def nbytes(self) -> int:
        """Bytes of all beginnings."""
        with self._lock:
            return sum(state.nbytes for _, state in self._starts.values())


class LabelReading:
    """One prompt on its way through a model, in steps."""

    def __init__(self, reader: LabelReader, session: Session, prompt: LabelPrompt, kind: str = "", shared: int = 0) -> None:
        """`session`: it is continued; `shared`: tokens at the beginning that all prompts of this `kind` have in common."""
        self._reader, self._session, self._prompt, self._kind, self._shared = reader, session, prompt, kind, shared
        backend = reader.model.backend
        self.cached = session.resume(prompt.ids, backend.new_state)
        """Tokens that were known."""
        self.logits: npt.NDArray[np.float32] | None = None
        """float32 [labels], once all is read."""

    @property
    def tokens(self) -> int:
        """Tokens that have to be read, or had to."""
        return len(self._prompt.ids) - self.cached

    @property
    def state_bytes(self) -> int:
        """Bytes of its state, when all is read."""
        return self._reader.model.backend.state_bytes(len(self._prompt.ids))

    def step(self, most: int = STEP_TOKENS) -> int | None:
        """Read up to so many tokens; returns how many, None once all is read. Raises as `Backend.forward` does; the session then is new."""
        if self.logits is not None:
            return None
        session, ids, model = self._session, self._prompt.ids, self._reader.model
        at = len(session.ids)
        until = self._shared if at < self._shared else len(ids)
        chunk = ids[at : min(until, at + most, at + STEP_TOKENS)]
        last = at + len(chunk) == len(ids)
        try:
            [rows] = model.backend.forward([Segment(session.state, chunk, "last" if last else "none", model.adapter)])
        except BaseException:
            session.state, session.ids = model.backend.new_state(), []
            raise
        session.ids += chunk
        if last:
            self.logits = rows[-1][list(self._prompt.labels)].astype(np.float32)
        elif len(session.ids) == self._shared:
            self._reader.keep(self._kind, session.ids, session.state)
        return len(chunk)
