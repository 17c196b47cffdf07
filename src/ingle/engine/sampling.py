"""Which token comes next: penalties, bias, temperature and the filters of `Sampling`, exactly and without sorting the vocabulary."""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import KernelError, RequestError
from ingle.core.message import Sampling
from ingle.kernels.jit import kernel

Array = npt.NDArray[Any]
_REACHES = (2.0, 5.0, 9.0, 16.0, np.inf)  # candidates within e^−2 of the likeliest are looked at first; more if they don't suffice


class Sampler:
    """Draws the tokens of one answer. Same seed and same logits give the same tokens."""

    def __init__(self, sampling: Sampling, vocab_size: int, prompt: Sequence[int] = ()) -> None:
        for token, _ in sampling.logit_bias:
            if token >= vocab_size:
                raise RequestError("logit_bias", f"must name token ids below {vocab_size}", token)
        self.sampling = sampling
        self.seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
        self._random = np.random.Generator(np.random.PCG64(self.seed))
        self._recent = _Recent(sampling.repetition_window, prompt, vocab_size) if sampling.repetition_window else None
        self._seen = {token for token in prompt if token < vocab_size}
        self._counts: Counter[int] = Counter()
        self._logits = np.full(-(-vocab_size // 16) * 16, -np.inf, np.float32)
        self._vocab_size = vocab_size
        self._numbers = np.zeros(4, np.float32)  # see kernels/rows.py
        self._token = np.zeros(1, np.int64)

    def pick(
        self, logits: npt.NDArray[np.float32], restrict: Callable[[Array], None] | None = None, spared: bool = False
    ) -> int:  # fmt: skip
        """The next token, given float32 logits [vocabulary], which stay as they are. `restrict` sets those of forbidden tokens to −∞.

        `spared`: a window's penalty is not applied, as it isn't where there is a `restrict`: what a language demands again and again is no
        repetition: brackets, quotes, the names of fields and functions, indents.
        """
        adjusted = self._logits[: self._vocab_size]
        adjusted[:] = logits
        if np.isnan(adjusted.max()):
            cure = "Run `ingle verify --models`; if all is whole, the model itself (or what was added to it) is broken."
            raise KernelError("logits", "must be numbers", "NaN", cure)
        if restrict is not None:
            restrict(adjusted)
        self._adjust(adjusted, spared or restrict is not None)
        if self.sampling.temperature == 0:
            token = int(adjusted.argmax())
        elif self.sampling.top_k or self.sampling.top_p < 1 or self.sampling.min_p:
            ids, weights = kept(adjusted, self.sampling, self._mass())
            point = self._random.random() * weights.sum()
            token = int(ids[min(np.searchsorted(np.cumsum(weights), point, side="right"), len(ids) - 1)])
        else:
            token = self._draw()
        if restrict is not None and adjusted[token] == -np.inf:
            token = int(adjusted.argmax())  # the far end of a rounded sum
        self._seen.add(token)
        if self._recent is not None:
            self._recent.add(token)
        self._counts[token] += 1
        return token

    def _adjust(self, logits: Array, spared: bool) -> None:
        s = self.sampling
        if s.repetition_penalty == 1:
            pass
        elif self._recent is None:
            _penalise(logits, np.fromiter(self._seen, np.int64), s.repetition_penalty)
        elif not spared:
            copied = self._recent.copied  # what the prompt says is there to be said again, letter by letter
            before = logits[copied]
            _penalise(logits, self._recent.tokens, s.repetition_penalty)
            logits[copied] = before
        if (s.presence_penalty or s.frequency_penalty) and self._counts:
            tokens = np.fromiter(self._counts.keys(), np.int64)
            counts = np.fromiter(self._counts.values(), np.float32)
            logits[tokens] -= np.float32(s.presence_penalty) + counts * np.float32(s.frequency_penalty)
        for token, bias in s.logit_bias:
            logits[token] += bias

    def _draw(self) -> int:
        """From the whole distribution, by the inverse of its cumulative sum."""
        self._softmax(self._random.random(dtype=np.float32))
        return min(int(self._token[0]), self._vocab_size - 1)

    def _mass(self) -> float | None:
        """The sum of the whole distribution, where top-p needs it."""
        if self.sampling.top_p == 1 or self.sampling.top_k:
            return None
        self._softmax(0.0)
        return float(self._numbers[3])

    def _softmax(self, point: float) -> None:
        self._numbers[:2] = 1 / self.sampling.temperature, point
        kernel("softmax_pick")(self._logits.ctypes.data, len(self._logits), self._numbers.ctypes.data, self._token.ctypes.data)


class _Recent:
    """The last tokens of an answer, and what it would be copying from its prompt."""

    def __init__(self, window: int, prompt: Sequence[int], vocab_size: int) -> None:
        pairs = np.array([prompt[:-1], prompt[1:]], np.int64)
        words = pairs[:, pairs[1] < vocab_size]
        self._first: Array = words[0]
        self._second: Array = words[1]
        self._ring = np.zeros(window, np.int64)
        self._count = 0
        self._last = prompt[-1] if prompt else -1

    @property
    def tokens(self) -> Array:
        """In no order. One that came twice stands there twice."""
        return self._ring[: self._count]

    @property
    def copied(self) -> Array:
        """The tokens that stand after the last one in the prompt."""
        following: Array = self._second[self._first == self._last]
        return following

    def add(self, token: int) -> None:
        self._ring[self._count % len(self._ring)] = self._last = token
        self._count += 1


def _penalise(logits: Array, tokens: Array, penalty: float) -> None:
    values = logits[tokens]
    logits[tokens] = np.where(values > 0, values / penalty, values * penalty)


def kept(logits: Array, sampling: Sampling, mass: float | None = None) -> tuple[Array, Array]:
    """Token ids that top-k, top-p and min-p leave, likeliest first, and their unnormalised float64 probabilities.

    Looks at tokens near the likeliest first, and further off only if those can't be known to hold everything that is kept. `mass`:
    Σ e^((x − largest) / T), if it is known already.
    """
    top, temperature = float(logits.max()), sampling.temperature
    if mass is None and sampling.top_p < 1 and not sampling.top_k:
        mass = float(np.exp((logits - np.float32(top)) / np.float32(temperature)).sum(dtype=np.float64))
    for reach in _REACHES:
        near = np.flatnonzero(logits >= top - reach * temperature)
        if sampling.top_k > len(near) and reach < np.inf:
            continue
        order = near[np.argsort(-logits[near], kind="stable")][: sampling.top_k or None]
        weights = np.exp((logits[order].astype(np.float64) - top) / temperature)
        enough = bool(sampling.top_k) or sampling.min_p > np.exp(-reach)
        if sampling.top_p < 1:
            whole = float(weights.sum()) if sampling.top_k or mass is None else mass
            reached = np.cumsum(weights) >= sampling.top_p * whole
            if reached.any():
                enough, count = True, int(reached.argmax()) + 1
                order, weights = order[:count], weights[:count]
        if enough:
            break
    likely = weights >= sampling.min_p
    return order[likely], weights[likely]


def log_probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """log softmax [..., vocabulary] in float64, in nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
