"""Answers by the module itself, several prompts at a time, for training on a model's own words. Greedy, or drawn (`Drawn`).

The engine serves people; here a module in training answers a few short questions, in one row that grows by a token a document and step.
`write_each` is the naive reference: one prompt after the other, through the module's own cache.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.model.module import CausalLM
from ingle.model.module_parts import Cache, PackedRows, turn
from ingle.train.examples import Document
from ingle.train.forward import read_packed
from ingle.train.shared import make_row, sees, sharing

Choice = Callable[[Tensor, Sequence[int], int], Tensor]
"""(logits [n, V], number of the answer of each, index of the token in its answer) → the chosen tokens, int [n]."""


Stop = Callable[[Sequence[int]], bool]
"""Whether an answer, as far as it is written, ends here."""


def never(_answer: Sequence[int]) -> bool:
    """Let the answer go on to its end."""
    return False


def likeliest(logits: Tensor, _numbers: Sequence[int], _step: int) -> Tensor:
    """Choose the likeliest token: greedy."""
    return logits.argmax(-1)


class Drawn:
    """Random choice of tokens. Each answer has random numbers of its own, so it is the same whatever is written beside it."""

    def __init__(self, count: int, most_tokens: int, temperature: float, seed: Sequence[int]) -> None:
        """`count`: answers; `seed`: equal seeds draw equal answers."""
        self._temperature = temperature
        self._numbers = torch.from_numpy(np.random.default_rng(list(seed)).random((count, most_tokens)))

    def __call__(self, logits: Tensor, numbers: Sequence[int], step: int) -> Tensor:
        """See `Choice`."""
        below = (logits.double() / self._temperature).softmax(-1).cumsum(-1)
        return torch.searchsorted(below, self._numbers[list(numbers), step, None] * below[:, -1:], right=True).squeeze(-1)


@torch.no_grad()
def write_all(
    module: CausalLM, prompts: Sequence[Sequence[int]], most_tokens: int, ends: frozenset[int],
    choose: Choice = likeliest, stop: Stop = never,
) -> list[list[int]]:  # fmt: skip
    """Write the answers, each with the token that ends it, if it came within `most_tokens`."""
    if any(spec.memory != "none" for spec in module.config.layers):
        return write_each(module, prompts, most_tokens, ends, choose, stop)
    documents = [Document(np.array(ids, np.int32), np.zeros(len(ids), np.bool_)) for ids in prompts]
    row = make_row(documents, sharing(module, documents))
    attend = _Growing(row.owners, row.positions)
    x = _read(module, row.ids, row.positions, attend, row.own.edges)
    last = torch.tensor(row.own.bounds[1:]) - 1
    x, open_, positions = x[last], torch.arange(len(prompts)), row.positions[last]
    answers: list[list[int]] = [[] for _ in prompts]
    for step in range(most_tokens):
        tokens = choose(module.logits(module.model.norm(x)), open_.tolist(), step)
        for number, token in zip(open_.tolist(), tokens.tolist(), strict=True):
            answers[number].append(token)
        pairs = zip(open_.tolist(), tokens.tolist(), strict=True)
        going = torch.tensor([token not in ends and not stop(answers[number]) for number, token in pairs])
        open_, tokens, positions = open_[going], tokens[going], positions[going] + 1
        if not len(open_):
            break
        attend.add(open_, positions)
        x = _read(module, tokens, positions, attend, (0, len(tokens)))
    return answers


@torch.no_grad()
def write_each(
    module: CausalLM, prompts: Sequence[Sequence[int]], most_tokens: int, ends: frozenset[int],
    choose: Choice = likeliest, stop: Stop = never,
) -> list[list[int]]:  # fmt: skip
    """Write the same answers one after the other: the naive reference of `write_all`."""
    answers = []
    for number, prompt in enumerate(prompts):
        cache, ids, answer = Cache(), list(prompt), list[int]()
        while len(answer) < most_tokens and not (answer and (answer[-1] in ends or stop(answer))):
            token = int(choose(module(torch.tensor([ids]), cache)[0, -1:], [number], len(answer)))
            answer.append(token)
            ids = [token]
        answers.append(answer)
    return answers


def _read(module: CausalLM, ids: Tensor, positions: Tensor, attend: "_Growing", bounds: tuple[int, ...]) -> Tensor:
    """States above the last layer: [tokens, hidden]."""
    x: Tensor = module.model.embed_tokens(ids)
    cos, sin = module.angles(positions, x.dtype)
    for layer in module.model.layers:
        x = layer(x, cos, sin, PackedRows(attend, bounds, read=read_packed))
    attend.layer = 0
    return x


class _Growing:
    """Attention that keeps the keys and values it has seen, layer by layer (see `ingle.model.module.Attend`)."""

    def __init__(self, owners: Tensor, positions: Tensor) -> None:
        self.layer = 0
        self._owners, self._positions, self._new = owners, positions, len(owners)
        self._held: list[tuple[Tensor, Tensor]] = []

    def add(self, owners: Tensor, positions: Tensor) -> None:
        """Add the next tokens."""
        self._owners, self._positions, self._new = torch.cat([self._owners, owners]), torch.cat([self._positions, positions]), len(owners)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        groups, repeats = k.shape[1], q.shape[1] // k.shape[1]
        keys, values = turn(k.transpose(0, 1), cos, sin), v.transpose(0, 1)  # (G, n, D)
        if self.layer < len(self._held):
            before = self._held[self.layer]
            keys, values = torch.cat([before[0], keys], 1), torch.cat([before[1], values], 1)
            self._held[self.layer] = keys, values
        else:
            self._held.append((keys, values))
        self.layer += 1
        streaming = set(spec.streaming(groups)) if spec.window else set()
        masks = [self._mask(spec if group in streaming else None) for group in range(groups)] if streaming else [self._mask(None)]
        mask = torch.stack(masks).repeat_interleave(repeats if streaming else 1, 0)
        ks, vs = (t.repeat_interleave(repeats, 0)[None] for t in (keys, values))
        y = torch.nn.functional.scaled_dot_product_attention(turn(q.transpose(0, 1), cos, sin)[None], ks, vs, attn_mask=mask[None])
        seen = y[0].transpose(0, 1)
        blind = set() if spec.window else set(spec.streaming(groups))
        if not blind:
            return seen
        return seen * torch.tensor([g not in blind for g in range(groups)]).repeat_interleave(repeats).to(q)[:, None]

    def _mask(self, spec: LayerSpec | None) -> Tensor:
        new = slice(len(self._owners) - self._new, None)
        return sees(self._owners[new], self._positions[new], self._owners, self._positions, spec)
