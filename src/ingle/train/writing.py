"""Answers by the module itself, several prompts at a time, for training on a model's own words. Greedy, or drawn (`Drawn`).

The engine serves people; here a module in training answers a few short questions, in one row that grows by a token a document and step.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.model.module import CausalLM
from ingle.model.module_parts import PackedRows, RecurrentMemory, turn, visible
from ingle.train.example_files import Document
from ingle.train.shared import make_row, sharing
from ingle.train.shared_rows import START

# (logits [n, V], number of the answer of each, index of the token in its answer) → the chosen tokens, int [n].
Choice = Callable[[Tensor, Sequence[int], int], Tensor]


Stop = Callable[[Sequence[int]], bool]  # whether an answer, as far as it is written, ends here


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
    attention = all(spec.mixer == "attention" for spec in module.config.layers)
    x, attend = _read(module, prompts)
    open_, positions = torch.arange(len(prompts)), torch.tensor([len(ids) - 1.0 for ids in prompts])
    answers: list[list[int]] = [[] for _ in prompts]
    for step in range(most_tokens):
        tokens = choose(module.logits(module.model.norm(x)), open_.tolist(), step)
        pairs = list(zip(open_.tolist(), tokens.tolist(), strict=True))
        for number, token in pairs:
            answers[number].append(token)
        going = torch.tensor([token not in ends and not stop(answers[number]) for number, token in pairs])
        open_, tokens, positions = open_[going], tokens[going], positions[going] + 1
        if not len(open_):
            break
        if attention:
            attend.add(open_, positions)
            x = module.read(tokens, positions, PackedRows(attend, (0, len(tokens)), read=attend.read))
        else:  # other mixers keep nothing: all is read again
            x, _ = _read(module, [[*prompts[number], *answers[number]] for number in open_.tolist()])
    return answers


def _read(module: CausalLM, texts: Sequence[Sequence[int]]) -> "tuple[Tensor, GrowingAttention]":
    """Return the states above the last layer at each text's last token, [texts, hidden], and the attention that has read them."""
    documents = [Document(np.array(ids, np.int32), np.zeros(len(ids), np.bool_)) for ids in texts]
    row = make_row(documents, sharing(module, documents))
    attend = GrowingAttention(row.owners, row.positions)
    x = module.read(row.ids, row.positions, PackedRows(attend, row.own.edges, read=attend.read))
    return x[torch.tensor(row.own.bounds[1:]) - 1], attend


class GrowingAttention:
    """Attention that keeps the keys and values that it has seen, layer by layer, so that the row can grow (see `Attend`)."""

    def __init__(self, owners: Tensor, positions: Tensor, held: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        """owners int [T]: each token's document, START = it belongs to all; positions [T]: its place there; held: the keys, turned by RoPE,
        and values [G, T, D] of every layer, if these tokens have been read."""
        self._owners, self._positions, self._new, self._layer, self._held = owners, positions, len(owners), 0, list(held)
        self._entering: dict[RecurrentMemory, tuple[Tensor, Tensor]] = {}

    def add(self, owners: Tensor, positions: Tensor) -> None:
        """Let the row grow by the tokens that are read next."""
        self._owners, self._positions = torch.cat([self._owners, owners]), torch.cat([self._positions, positions])
        self._new, self._layer = len(owners), 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `Attend`."""
        groups, repeats = k.shape[1], q.shape[1] // k.shape[1]
        keys, values = turn(k.transpose(0, 1), cos, sin), v.transpose(0, 1)
        if self._layer < len(self._held):
            before = self._held[self._layer]
            keys, values = torch.cat([before[0], keys], 1), torch.cat([before[1], values], 1)
            self._held[self._layer] = keys, values
        else:
            self._held.append((keys, values))
        self._layer += 1
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
        """bool [new tokens, T]: which tokens each sees."""
        new = slice(len(self._owners) - self._new, None)
        own = (self._owners == START) | (self._owners == self._owners[new, None])
        return own & visible(self._positions[new], self._positions, spec)

    def read(
        self, memory: RecurrentMemory, window: Tensor, q: Tensor, k: Tensor, v: Tensor, spec: LayerSpec, _bounds: Sequence[int]
    ) -> Tensor:
        """See `Read`: what the new tokens read, after all that came before. Every token has an owner then."""
        if memory in self._entering:
            k, v = (torch.cat(pair) for pair in zip(self._entering[memory], (k, v), strict=True))
        self._entering[memory] = k, v
        order = self._positions.argsort(stable=True)
        order = order[self._owners[order].argsort(stable=True)]  # one document after the other
        new = order.argsort()[len(order) - self._new :]
        window, q = (t.new_zeros(len(order), *t.shape[1:]).index_copy(0, new, t) for t in (window, q))
        return memory.packed(window, q, k[order], v[order], spec, (0, *self._owners.bincount().cumsum(0).tolist()))[new]
