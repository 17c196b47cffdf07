"""The recurrent memory of streaming groups: it takes in tokens that left the window, by the gated delta rule (arXiv 2412.06464).

When the token at position t is read, the token at p = t − window enters the memory, unless it is a sink:

    S ← α S (I − β φ φᵀ) + β v φᵀ,  φ = unit(k_map k),  α = sigmoid(decay·[k; v]),  β = sigmoid(write·[k; v])

and then each query head of the group reads y = S unit(q_map q). The head's output is (1 − λ) · window + λ · y with

    λ = sigmoid(gate·q + age · log(n / (n + window))),

n the tokens that have entered. By age = 1 a memory weighs as much as its share of the tokens, as attention alike to all would have it;
without it a memory of a few tokens, whose y is near 0, would dilute the window's output. q and k are those before RoPE, so nothing
here knows how long ago a token was. The order is: who leaves the window enters first, then the memory is read; between the two, no token
is counted twice and none is missed.

Three forms give the same: `naive` (token by token), `chunked` (in parallel over the tokens of a chunk, and over the chunks but for a short
walk), and the step of the decoder kernel (kernels/mixers.py). Differs from the source: what enters is the key that left the window;
α and β follow from that key and its value, so that nothing else has to be kept of a token while it is in the window.

Shapes: n sequences of L tokens, G groups, R query heads a group, D head_dim.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ingle.core.errors import CannotRewind
from ingle.core.spec import LayerSpec, ModelConfig

# The PyTorch module's state of a sequence: keys and values, and the contents of recurrent memories.
# Shapes: B sequences of equal length, T new tokens, K keys, G groups, D head_dim.


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Keys and values of one kind of group in one layer: [B, groups, K, D] each, and the K positions. Never written in place."""

    keys: Tensor
    values: Tensor
    positions: Tensor

    def keep(self, wanted: Tensor) -> "Held":
        """Return the entries for which `wanted` (bool [K]) is true."""
        if wanted.all():
            return self
        mask = wanted.to(self.keys.device)
        return Held(self.keys[:, :, mask], self.values[:, :, mask], self.positions[wanted])


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """The memories of one layer, and the tokens that will enter next. Never written in place."""

    state: Tensor
    """float32 [B, G, D, D]: rows are values, columns keys."""
    keys: Tensor
    """[B, window, G, D], before RoPE, of the tokens that are still in the window."""
    values: Tensor
    """[B, window, G, D]."""


@dataclass(eq=False)
class Cache:
    """The state of a sequence: all keys and values of retrieval groups; of streaming groups the sinks, the window before the last call,
    that call's tokens, and the memories."""

    length: int = 0
    """Tokens read so far."""
    held: dict[tuple[int, bool], Held] = field(default_factory=dict)
    """By (layer, whether the groups are streaming)."""
    memories: dict[int, Remembered] = field(default_factory=dict)
    """By layer."""
    earliest_rewind: int = 0
    """The smallest length above 0 that `rewind` accepts."""
    mixed: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    """States of other mixers than attention, by layer: tensors that are never written in place (model/module_parts.py)."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and memories."""
        return sum(nbytes for _, nbytes in self.pieces())

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield identity and bytes of each tensor; forks share tensors until one of them moves on."""
        for h in self.held.values():
            yield from ((id(tensor), tensor.nbytes) for tensor in (h.keys, h.values))
        for m in self.memories.values():
            yield from ((id(tensor), tensor.nbytes) for tensor in (m.state, m.keys, m.values))
        for states in self.mixed.values():
            yield from ((id(tensor), tensor.nbytes) for tensor in states)

    def fork(self) -> "Cache":
        """Return an independent cache; tensors are shared until one of them moves on."""
        return replace(self, held=dict(self.held), memories=dict(self.memories), mixed=dict(self.mixed))

    def rewind(self, length: int) -> None:
        """Go back to the first `length` tokens.

        Raises CannotRewind where a window no longer holds its tokens, or a memory has taken in a token since.
        """
        if not 0 <= length <= self.length:
            raise CannotRewind("length", f"must be between 0 and {self.length}", length)
        if 0 < length < self.earliest_rewind:
            cure = "Read the prompt again from a fork."
            raise CannotRewind("length", f"This cache can go back to {self.earliest_rewind} at the earliest", length, cure)
        self.held = {place: h.keep(h.positions < length) for place, h in self.held.items()} if length else {}
        gone = self.length - length
        if gone:  # then no memory has taken in anything yet
            self.memories = {i: replace(m, keys=m.keys[:, :-gone], values=m.values[:, :-gone]) for i, m in self.memories.items() if length}
            self.mixed = {}
        self.length, self.earliest_rewind = length, min(self.earliest_rewind, length)

    def rollback_point(self, _earlier: "Cache | None" = None) -> "Cache":
        """Return the present position, for `rollback`: a fork, which costs nothing."""
        return self.fork()

    def rollback(self, length: int, point: "Cache") -> None:
        """Go back to the first `length` tokens, of which some were read since `point`; where that is impossible, to the point itself."""
        if length >= self.earliest_rewind:
            self.rewind(length)
        else:
            self.length, self.earliest_rewind = point.length, point.earliest_rewind
            self.held, self.memories, self.mixed = dict(point.held), dict(point.memories), dict(point.mixed)

    def extend(self, layer: int, spec: LayerSpec | None, keys: Tensor, values: Tensor) -> Held:
        """Append keys and values [B, groups, T, D] and return all; `spec` is the layer's if the groups are streaming."""
        place = (layer, spec is not None)
        new = Held(keys, values, torch.arange(self.length, self.length + keys.shape[2]))
        before = self.held.get(place)
        if before is not None and spec is not None:
            oldest = self.length - spec.window + 1
            before = before.keep((before.positions >= oldest) | (before.positions < spec.sinks))
            if oldest > spec.sinks:  # something between the sinks and the window is gone for good
                self.earliest_rewind = max(self.earliest_rewind, self.length)  # a layer before it may have moved on
        if before is not None:
            joined = [torch.cat(pair, 2) for pair in ((before.keys, keys), (before.values, values))]
            new = Held(joined[0], joined[1], torch.cat((before.positions, new.positions)))
        self.held[place] = new
        return new

    def remember(self, layer: int, spec: LayerSpec, after: Remembered, steps: int) -> None:
        """Store a layer's memories after `steps` more tokens."""
        self.memories[layer] = after
        if self.length + steps > spec.window + spec.sinks:  # one has entered
            self.earliest_rewind = self.length + steps

    def mix(self, layer: int, states: tuple[Tensor, ...], steps: int) -> None:
        """Store the states of a layer's mixer after `steps` more tokens."""
        self.mixed[layer] = states
        self.earliest_rewind = self.length + steps


def visible(queries: Tensor, keys: Tensor, spec: LayerSpec | None) -> Tensor:
    """Return which key positions [K] each query position [T] sees: bool [T, K]; `spec` for streaming groups."""
    q, p = queries[:, None], keys[None]
    seen = p <= q
    if spec is not None:
        seen &= (p > q - spec.window) | (p < spec.sinks)
    return seen


CHUNK = 64  # tokens that are computed together
_EPS = 1e-6
# Where a memory begins: it keeps almost all, writes half, and is hardly read; so an untrained hybrid is nearly its window.
KEEP, WRITE, READ = 6.0, 0.0, -3.0


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The inputs of a memory, in float32: one entry a token."""

    queries: Tensor
    """Unit vectors that read the memory: [..., G, R, D]."""
    keys: Tensor
    """Unit vectors that address its writes: [..., G, D]."""
    values: Tensor
    """Written values: [..., G, D]."""
    decay: Tensor
    """log α: [..., G]."""
    write: Tensor
    """β: [..., G]."""

    def shaped(self, *sizes: int) -> "Features":
        """Return the features with other leading sizes."""
        parts = (self.queries, self.keys, self.values, self.decay, self.write)
        return Features(*(part.reshape(*sizes, *part.shape[-end:]) for part, end in zip(parts, (3, 2, 2, 1, 1), strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class Entering:
    """The tokens of packed documents that enter memories, in order."""

    tokens: Tensor
    """int [N]: places in the row. The reader of a memory is `window` tokens after the token that enters."""
    lengths: tuple[int, ...]
    """The number of such tokens in each document that has any."""

    @classmethod
    def among(cls, bounds: Sequence[int], spec: LayerSpec, device: torch.device) -> "Entering":
        """Return the tokens that leave the windows of documents with these bounds, without sinks."""
        spans = [(start + spec.sinks, stop - spec.window) for start, stop in pairwise(bounds)]
        entering = [torch.arange(first, stop, device=device) for first, stop in spans if first < stop]
        return cls(torch.cat(entering) if entering else torch.zeros(0, dtype=torch.long, device=device), tuple(map(len, entering)))

    @property
    def edges(self) -> tuple[int, ...]:
        """The beginnings of these documents among the N tokens, and N."""
        return (0, *accumulate(self.lengths))

    def held(self, window: int) -> Tensor:
        """Return `log_held` after each of the N tokens has entered: float32 [N]."""
        device = self.tokens.device
        return log_held(torch.cat([torch.arange(1, length + 1, device=device) for length in self.lengths]), window)


class RecurrentMemory(nn.Module):
    """The memories of one layer's streaming groups. Its linears hold parameters by name; each group has its own rows."""

    def __init__(self, config: ModelConfig, groups: int) -> None:
        super().__init__()
        dim, self.groups, self.repeats = config.head_dim, groups, config.queries_per_group
        self.q_map = nn.Linear(dim, groups * dim, bias=False)
        self.k_map = nn.Linear(dim, groups * dim, bias=False)
        self.decay = nn.Linear(2 * dim, groups)
        self.write = nn.Linear(2 * dim, groups)
        self.gate = nn.Linear(dim, groups * self.repeats)
        self.age = nn.Parameter(torch.zeros(groups * self.repeats))

    @torch.no_grad()
    def begin(self) -> None:
        """Set the values before training: maps that change nothing, equal decay and strength for all tokens, and a share that grows with
        the share of tokens in the memory."""
        self.age.fill_(1.0)
        for linear, bias in ((self.decay, KEEP), (self.write, WRITE), (self.gate, READ)):
            linear.weight.zero_()
            linear.bias.fill_(bias)
        identity = torch.eye(self.q_map.in_features)
        for mapping in (self.q_map, self.k_map):
            mapping.weight.copy_(identity.repeat(self.groups, 1))

    def features(self, q: Tensor, k: Tensor, v: Tensor, entered: Tensor) -> Features:
        """Return features from q [..., G, R, D] of the reading tokens, and k and v [..., G, D] of those that enter then; none enters where
        not `entered` (bool, as q up to its groups)."""
        q, k, v = q.float(), k.float(), v.float()
        decay, write = self.strengths(k, v)
        queries = unit(_mapped(q, self.q_map))
        keys = unit(_mapped(k[..., None, :], self.k_map).squeeze(-2))
        return Features(queries, keys, v, decay * entered[..., None], write * entered[..., None])

    def strengths(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return log α and β of entering tokens, float32: k and v [..., G, D] → [..., G]."""
        both = torch.cat((k, v), -1)
        decay, write = (_by_group(both, linear, self.groups).squeeze(-1) for linear in (self.decay, self.write))
        return nn.functional.logsigmoid(decay), torch.sigmoid(write)

    def share(self, q: Tensor, held: Tensor) -> Tensor:
        """Return λ of each query: q [..., G, R, D], and `log_held` at its token [...] → [..., G, R, 1]; 0 where nothing has entered."""
        weight, bias, age = (t.float().view(self.groups, self.repeats, -1) for t in (self.gate.weight, self.gate.bias, self.age))
        there = torch.isfinite(held)[..., None, None, None]
        aged = age * held[..., None, None, None].masked_fill(~there, 0.0)
        return torch.sigmoid((q.float() * weight).sum(-1, keepdim=True) + bias + aged) * there

    def blend(self, window: Tensor, y: Tensor, q: Tensor, held: Tensor) -> Tensor:
        """Return the heads' output: window, y and q [..., G, R, D], `held` as in `share`. Where the memory is empty, it is the window."""
        return torch.lerp(window.float(), y, self.share(q, held)).to(window.dtype)

    def read(
        self, window: Tensor, unturned: tuple[Tensor, ...], spec: LayerSpec, before: Remembered | None, start: int
    ) -> tuple[Tensor, Remembered]:
        """Read T more tokens of B sequences of equal length, after `start` others. window [B, T, G, R, D]; unturned: q like it, k and v
        [B, T, G, D] → the heads' output, like `window`, and the new memories.
        """
        q, k, v = unturned
        if before is not None:
            k, v = torch.cat((before.keys, k), 1), torch.cat((before.values, v), 1)
        steps, waiting = q.shape[1], k.shape[1] - q.shape[1]
        missing = (0, 0, 0, 0, spec.window - waiting, 0)
        key, value = (nn.functional.pad(t, missing)[:, :steps] for t in (k, v))
        count = torch.arange(1, steps + 1, device=q.device) + (start - spec.window - spec.sinks)
        features = self.features(q, key, value, (count > 0).expand(len(q), -1))
        y, state = chunked(features, None if before is None else before.state)
        first = max(0, k.shape[1] - spec.window)
        return self.blend(window, y, q, log_held(count, spec.window)), Remembered(state, k[:, first:], v[:, first:])

    def packed(self, window: Tensor, q: Tensor, k: Tensor, v: Tensor, spec: LayerSpec, bounds: Sequence[int]) -> Tensor:
        """Read documents on end in one row: window and q [T, G, R, D], k and v [T, G, D] → [T, G, R, D]. None sees another."""
        entering = Entering.among(bounds, spec, q.device)
        if not len(entering.tokens):
            return window
        walks, places = _walks(entering)
        real, tokens = (places >= 0).to(q.device), entering.tokens[places.clamp(min=0).to(q.device)]
        features = self.features(_rows(q, tokens + spec.window), _rows(k, tokens), _rows(v, tokens), real)
        y, _ = _by_chunks(features, [walk.to(q.device) for walk in walks], None)
        real_places = torch.nonzero(real.flatten())[:, 0]
        reading = tokens.flatten()[real_places] + spec.window
        held = entering.held(spec.window).index_select(0, places.to(q.device).flatten()[real_places])
        blended = self.blend(_rows(window, reading), _rows(y.flatten(0, 1), real_places), _rows(q, reading), held)
        return window.index_copy(0, reading, blended)


def log_held(count: Tensor, window: int) -> Tensor:
    """Return log(n / (n + window)), float32, for n entered tokens (int, any shape); −infinity where none has."""
    n = count.clamp(min=0).float()
    return torch.log(n / (n + window).clamp(min=1.0))


def unit(x: Tensor) -> Tensor:
    """Return x / ‖x‖ over the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _EPS)


def naive(features: Features, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Naive reference, token by token: features [n, L, …], S [n, G, D, D] (rows are values, columns keys; None = empty) → y [n, L, G, R,
    D], S."""
    n, length, groups, _, width = features.queries.shape
    s = features.queries.new_zeros(n, groups, width, width) if state is None else state
    out = []
    for t in range(length):
        key, value, write = features.keys[:, t], features.values[:, t], features.write[:, t, :, None]
        s = s * features.decay[:, t].exp()[..., None, None]
        wrong = value - torch.einsum("ngvk,ngk->ngv", s, key)
        s = s + torch.einsum("ngv,ngk->ngvk", wrong * write, key)
        out.append(torch.einsum("ngvk,ngrk->ngrv", s, features.queries[:, t]))
    return torch.stack(out, 1), s


def chunked(features: Features, state: Tensor | None = None, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Do `naive` in chunks (eqs. 8 and 9 and appendix of the source, by a triangular solve). Same shapes."""
    n, length = features.queries.shape[:2]
    size = min(chunk, length)
    each = -(-length // size)
    rest = each * size - length
    if rest:
        features = Features(*(nn.functional.pad(part, [0, 0] * (part.ndim - 2) + [0, rest]) for part in _parts(features)))
    walks = [torch.arange(n, device=features.queries.device) * each + i for i in range(each)]
    y, s = _by_chunks(features.shaped(n * each, size), walks, state)
    return y.reshape(n, each * size, *y.shape[2:])[:, :length], s


def _parts(features: Features) -> tuple[Tensor, ...]:
    return features.queries, features.keys, features.values, features.decay, features.write


def _by_chunks(features: Features, walks: Sequence[Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features of c chunks [c, C, …] → y [c, C, G, R, D], and S after the last chunks. walks[i]: the numbers of those chunks that are the
    i-th of their sequence, longest sequence first; `state` [sequences, G, D, D] before their first ones.

    Within a chunk, S_i = γ_i S_0 + Σ_{j ≤ i} (γ_i / γ_j) u_j φ_jᵀ, γ the product of all α so far, and U = T (V − γ Φ S_0ᵀ) with
    T = (1 + tril(β Γ ⊙ Φ Φᵀ, −1))⁻¹ β, Γ_ij = γ_i / γ_j: so the chunks only wait for each other's S_0.
    """
    q, k, v, decay, write = (part.movedim(1, 2) for part in _parts(features))  # (c, G, C, …), queries (c, G, C, R, D)
    count, groups, size, repeats, width = q.shape
    logs = decay.cumsum(-1)
    seen = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    ratio = (logs[..., :, None] - logs[..., None, :]).masked_fill(~seen, -math.inf).exp()  # (c, G, C, C)
    system = (write[..., None] * ratio * (k @ k.mT)).tril(-1)
    sides = torch.cat((v, logs.exp()[..., None] * k), -1) * write[..., None]
    identity = torch.eye(size, device=q.device, dtype=q.dtype)
    own, carried = torch.linalg.solve_triangular(system + identity, sides, upper=False, unitriangular=True).split(width, -1)
    flat = q.reshape(count, groups, size * repeats, width)
    within = (flat @ k.mT).view(count, groups, size, repeats, size) * ratio[..., None, :]
    last = logs[..., -1:]
    fading = (last - logs).exp()[..., None] * k  # what of each token is left at the chunk's end
    turned = logs.exp()[..., None, None] * q
    order, lengths = torch.cat(list(walks)), [len(at) for at in walks]
    s = q.new_zeros(lengths[0], groups, width, width) if state is None else state
    ended, starts, updates = [], list[Tensor](), list[Tensor]()
    in_turn = (part.index_select(0, order).split(lengths) for part in (own, carried, fading, last.exp()[..., None]))
    for mine, theirs, left, kept in zip(*in_turn, strict=True):
        if len(mine) < len(s):
            ended.append(s[len(mine) :])
            s = s[: len(mine)]
        new = mine - theirs @ s.mT  # (·, G, C, D)
        starts.append(s)
        updates.append(new)
        s = s * kept + new.mT @ left
    back = order.argsort()
    start, update = (torch.cat(parts).index_select(0, back) for parts in (starts, updates))
    y = turned.flatten(2, 3) @ start.mT + within.flatten(2, 3) @ update
    return y.view(count, groups, size, repeats, width).movedim(1, 2), torch.cat([s, *reversed(ended)])


def _walks(entering: Entering) -> tuple[list[Tensor], Tensor]:
    """Return the chunks for `_by_chunks`, and the token in each place [c, C], −1 = none."""
    lengths, edges = entering.lengths, entering.edges
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    size = min(CHUNK, max(lengths))
    counts = [-(-lengths[i] // size) for i in longest_first]
    firsts = torch.tensor([0, *counts]).cumsum(0).tolist()
    places = torch.full((firsts[-1] * size,), -1)
    for i, first in zip(longest_first, firsts, strict=False):
        places[first * size : first * size + lengths[i]] = torch.arange(edges[i], edges[i + 1])
    walks = [torch.tensor([first + turn for first, n in zip(firsts, counts, strict=False) if turn < n]) for turn in range(counts[0])]
    return walks, places.view(-1, size)


def _mapped(x: Tensor, linear: nn.Linear) -> Tensor:
    """Map x [..., G, R, D] by each group's own matrix: one product for each group, of all its rows."""
    groups, width = x.shape[-3], x.shape[-1]
    rows = x.movedim(-3, 0)
    y = torch.bmm(rows.reshape(groups, -1, width), linear.weight.float().view(groups, width, width).mT)
    return y.view(rows.shape).movedim(0, -3)


def _rows(x: Tensor, at: Tensor) -> Tensor:
    """Return x[at] along the first axis, at of any shape; its gradient sums rows together, which indexing does one by one."""
    return x.index_select(0, at.flatten()).view(*at.shape, *x.shape[1:])


def _by_group(x: Tensor, linear: nn.Linear, groups: int) -> Tensor:
    """Map x [..., G, K] by each group's one row: [..., G, 1]."""
    weight = linear.weight.float()
    return (x * weight).sum(-1, keepdim=True) + linear.bias.float()[:, None]


# Documents that lie on end in one row of tokens, for training.


class Attend(Protocol):
    """Attention of packed documents in one row, for one layer."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """Attend: q [N, heads, D], k and v [T, G, D], none of them turned yet; cos and sin [T, D] → [N, heads, D].

        `some`: the queries are those of the `wanted` tokens only.
        """
        ...


Read = Callable[[RecurrentMemory, Tensor, Tensor, Tensor, Tensor, LayerSpec, Sequence[int]], Tensor]
"""`Memory.packed`, or an equivalent."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Documents on end in one row; none sees another."""

    attend: Attend
    """The attention; it knows the documents' bounds."""
    bounds: tuple[int, ...]
    """The documents' beginnings, and T."""
    wanted: Tensor | None = None
    """int [N]: tokens whose states the last layer returns; None = all. For the others it computes keys and values only."""
    read: Read = RecurrentMemory.packed
    """The reading of memories."""


# Operations with hand-written backward passes, because autograd would keep more tensors, and rotary positions.


class RMSNorm(nn.Module):
    """factor · x / rms(x) · weight, the mean square in float32 (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.factor = eps, factor

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: [..., size] → same shape."""
        y: Tensor = _Normed.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return y if self.factor == 1.0 else y * self.factor


class Embedding(nn.Embedding):
    """Rows of a table, times a factor."""

    def __init__(self, count: int, size: int, factor: float) -> None:
        super().__init__(count, size)
        self.factor = factor

    def forward(self, input: Tensor) -> Tensor:
        """Look up: ids int [...] → [..., size]."""
        x = super().forward(input)
        return x if self.factor == 1.0 else x * self.factor


class _Normed(torch.autograd.Function):
    """RMSNorm that keeps its input and one number a row for the backward pass, where autograd would keep five tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed, [g] = x * scale, grads
        inner = (g * weight).float()
        to_x = ((inner - normed * (inner * normed).mean(-1, keepdim=True)) * scale).to(x.dtype)
        to_weight = (g * normed).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None


def activated(kind: str, gate: Tensor) -> Tensor:
    """Return an MLP's activation of its gate: `silu`, or `gelu` in the form with tanh."""
    return nn.functional.silu(gate) if kind == "silu" else nn.functional.gelu(gate, approximate="tanh")


class Gated(torch.autograd.Function):
    """activation(gate) · up; it keeps gate and up only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        return activated(kind, gate) * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (gate, up), [g] = ctx.saved_tensors, grads
        if ctx.kind == "silu":
            slope = torch.ops.aten.silu_backward(g * up, gate)
        else:
            slope = torch.ops.aten.gelu_backward(g * up, gate, approximate="tanh")
        return slope, activated(ctx.kind, gate).mul_(g), None


@contextlib.contextmanager
def made_again(tensor: Tensor, make: Callable[[], Tensor]) -> Iterator[None]:
    """Recompute this contiguous tensor in the backward pass, instead of keeping what autograd would: less memory, for one more pass over
    it."""
    place, size = tensor.data_ptr(), tensor.numel()

    def pack(saved: Tensor) -> Tensor | torch.Size:
        return saved.shape if saved.data_ptr() == place and saved.numel() == size else saved

    def unpack(packed: Tensor | torch.Size) -> Tensor:
        return packed if isinstance(packed, Tensor) else make().view(packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE to [..., T, D]: the pair (i, i + D/2) turns by its angle."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


# Mixers of tokens beside attention, in PyTorch: the gated short convolution and the gated delta rule. Parameter names are Hugging Face's.
# Shapes: B sequences of equal length, T new tokens, C channels. Their states lie in `Cache.mixed`.


States = tuple[Tensor, ...]
Mix = Callable[[Tensor, States | None], tuple[Tensor, States]]


def convolved(x: Tensor, taps: nn.Conv1d, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return each channel's convolution with its taps, [B, T, C], and the inputs that the next tokens see: [B, length − 1, C].

    before: those inputs that this call's tokens see; None = zeros.
    """
    seen = taps.kernel_size[0] - 1
    whole = nn.functional.pad(x, (0, 0, seen, 0)) if before is None else torch.cat((before.to(x.dtype), x), 1)
    y = nn.functional.conv1d(whole.mT, taps.weight, taps.bias, groups=taps.groups)
    return y.mT, whole[:, whole.shape[1] - seen :]


def mixed(mix: Mix, x: Tensor, past: Cache | PackedRows | None, layer: int, last: bool) -> Tensor:
    """Apply a mixer: [B, T, hidden] → same shape; packed: [T, hidden] → [T or N, hidden], each document by itself."""
    if isinstance(past, PackedRows):
        y = torch.cat([mix(x[None, start:stop], None)[0][0] for start, stop in pairwise(past.bounds)])
        return y[past.wanted] if last and past.wanted is not None else y
    y, states = mix(x, None if past is None else past.mixed.get(layer))
    if past is not None:
        past.mix(layer, states, x.shape[1])
    return y


class ConvolutionMixer(nn.Module):
    """LFM2's mixer: see `core.spec.ShortConvolution`."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        own, hidden = config.convolution, config.hidden_size
        assert own is not None, "ModelConfig checks it"
        self.index, self.last = index, index == len(config.layers) - 1
        self.in_proj, self.out_proj = (nn.Linear(hidden, rows, bias=own.bias) for rows in (3 * hidden, hidden))
        self.conv = nn.Conv1d(hidden, hidden, own.length, groups=hidden, bias=own.bias)

    def forward(self, x: Tensor, _cos: Tensor, _sin: Tensor, past: Cache | PackedRows | None) -> Tensor:
        """Apply it: see `mixed`."""
        return mixed(self._mix, x, past, self.index, self.last)

    def _mix(self, x: Tensor, before: States | None) -> tuple[Tensor, States]:
        into, out, values = self.in_proj(x).chunk(3, -1)
        y, state = convolved(into * values, self.conv, None if before is None else before[0])
        return self.out_proj(out * y), (state,)


class DeltaMixer(nn.Module):
    """Qwen 3.5's mixer: see `core.spec.DeltaRule`."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        own, hidden = config.delta, config.hidden_size
        assert own is not None, "ModelConfig checks it"
        self.sizes, self.index, self.last = own, index, index == len(config.layers) - 1
        values = own.value_heads * own.dim
        self.in_proj_qkv, self.in_proj_z = (nn.Linear(hidden, rows, bias=False) for rows in (own.channels, values))
        self.in_proj_b, self.in_proj_a = (nn.Linear(hidden, own.value_heads, bias=False) for _ in range(2))
        self.conv1d = nn.Conv1d(own.channels, own.channels, own.length, groups=own.channels, bias=False)
        self.dt_bias, self.A_log = (nn.Parameter(torch.zeros(own.value_heads)) for _ in range(2))
        self.norm = RMSNorm(own.dim, config.norm_eps)
        self.out_proj = nn.Linear(values, hidden, bias=False)

    def forward(self, x: Tensor, _cos: Tensor, _sin: Tensor, past: Cache | PackedRows | None) -> Tensor:
        """Apply it: see `mixed`."""
        return mixed(self._mix, x, past, self.index, self.last)

    def _mix(self, x: Tensor, before: States | None) -> tuple[Tensor, States]:
        own, each = self.sizes, self.sizes.value_heads // self.sizes.key_heads
        qkv, inputs = convolved(self.in_proj_qkv(x), self.conv1d, None if before is None else before[0])
        heads = _apart(nn.functional.silu(qkv).float(), own.dim)
        q, k, v = heads[..., : own.key_heads, :], heads[..., own.key_heads : 2 * own.key_heads, :], heads[..., 2 * own.key_heads :, :]
        q, k = (unit(t) for t in (q, k))
        q, k = (torch.cat([t] * each, -2) if own.tiled else t.repeat_interleave(each, -2) for t in (q, k))
        decay = -self.A_log.float().exp() * nn.functional.softplus(self.in_proj_a(x).float() + self.dt_bias.float())
        write = torch.sigmoid(self.in_proj_b(x).float())
        features = Features((q * own.dim**-0.5)[..., None, :], k, v, decay, write)
        y, state = chunked(features, None if before is None else before[1])
        gate = _apart(nn.functional.silu(self.in_proj_z(x).float()), own.dim)
        out = self.norm(y.squeeze(-2)) * gate
        return self.out_proj(out.flatten(-2).to(x.dtype)), (inputs, state)


def _apart(x: Tensor, dim: int) -> Tensor:
    """[..., heads · D] → [..., heads, D]."""
    return x.reshape(*x.shape[:-1], -1, dim)
