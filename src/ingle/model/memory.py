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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from ingle.core.spec import LayerSpec, ModelConfig
from ingle.model.cache import Remembered

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
