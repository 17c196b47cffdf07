"""The recurrent memory of streaming groups: it takes in tokens that left the window, by the gated delta rule (arXiv 2412.06464).

When the token at position t is read, the token at p = t − window enters the memory, unless it is a sink:

    S ← α S (I − β φ φᵀ) + β v φᵀ,  φ = unit(k_map k),  α = sigmoid(decay·[k; v]),  β = sigmoid(write·[k; v])

and then each query head of the group reads y = S unit(q_map q). The head's output is (1 − λ) · window + λ · y with

    λ = sigmoid(gate·q + age · log(n / (n + window))),

n the tokens that have entered. By age = 1 a memory weighs as much as its share of the tokens, as attention alike to all would have it;
without it a memory of a few tokens, whose y is near 0, would dilute the window's output. q and k are those before RoPE, so nothing
here knows how long ago a token was. The order is: who leaves the window enters first, then the memory is read; between the two, no token
is counted twice and none is missed.

Three forms give the same: token by token (tests/model/test_memory.py), `chunked` (in parallel over the tokens of a chunk, and over the
chunks but for a short walk), and the step of the decoder kernel (kernels/mixers.py). Differs from the source: what enters is the key that
left the window; α and β follow from that key and its value, so that nothing else has to be kept of a token while it is in the window.

Shapes: n sequences of L tokens, G groups, R query heads a group, D head_dim.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ingle.core.spec import LayerSpec, ModelConfig


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

    queries: Tensor  # unit vectors that read the memory: [..., G, R, D]
    keys: Tensor  # unit vectors that address its writes: [..., G, D]
    values: Tensor  # written values: [..., G, D]
    decay: Tensor  # log α: [..., G]
    write: Tensor  # β: [..., G]

    def shaped(self, *sizes: int) -> "Features":
        """Return the features with other leading sizes."""
        parts = (self.queries, self.keys, self.values, self.decay, self.write)
        return Features(*(part.reshape(*sizes, *part.shape[-end:]) for part, end in zip(parts, (3, 2, 2, 1, 1), strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class Entering:
    """The tokens of packed documents that enter memories, in order."""

    # int [N]: places in the row. The reader of a memory is `window` tokens after the token that enters.
    tokens: Tensor
    lengths: tuple[int, ...]  # the number of such tokens in each document that has any

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

    def packed(self, window: Tensor, q: Tensor, k: Tensor, v: Tensor, spec: LayerSpec, bounds: Sequence[int]) -> Tensor:
        """Read documents on end in one row: window and q [T, G, R, D], k and v [T, G, D] → [T, G, R, D]. None sees another."""
        entering = Entering.among(bounds, spec, q.device)
        if not len(entering.tokens):
            return window
        walks, places = _walks(entering)
        real, tokens = (places >= 0).to(q.device), entering.tokens[places.clamp(min=0).to(q.device)]
        features = self.features(_rows(q, tokens + spec.window), _rows(k, tokens), _rows(v, tokens), real)
        y = _by_chunks(features, [walk.to(q.device) for walk in walks])
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


def chunked(features: Features, chunk: int = CHUNK) -> Tensor:
    """Return what each token reads, features [n, L, …] → y [n, L, G, R, D], in chunks (eqs. 8 and 9 and appendix of the source, by a
    triangular solve)."""
    n, length = features.queries.shape[:2]
    size = min(chunk, length)
    each = -(-length // size)
    rest = each * size - length
    if rest:
        features = Features(*(nn.functional.pad(part, [0, 0] * (part.ndim - 2) + [0, rest]) for part in _parts(features)))
    walks = [torch.arange(n, device=features.queries.device) * each + i for i in range(each)]
    y = _by_chunks(features.shaped(n * each, size), walks)
    return y.reshape(n, each * size, *y.shape[2:])[:, :length]


def _parts(features: Features) -> tuple[Tensor, ...]:
    return features.queries, features.keys, features.values, features.decay, features.write


def _by_chunks(features: Features, walks: Sequence[Tensor]) -> Tensor:
    """Features of c chunks [c, C, …] → y [c, C, G, R, D]. walks[i]: the numbers of those chunks that are the i-th of their sequence,
    longest sequence first.

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
    s = q.new_zeros(lengths[0], groups, width, width)
    starts, updates = list[Tensor](), list[Tensor]()
    in_turn = (part.index_select(0, order).split(lengths) for part in (own, carried, fading, last.exp()[..., None]))
    for mine, theirs, left, kept in zip(*in_turn, strict=True):
        s = s[: len(mine)]
        new = mine - theirs @ s.mT  # (·, G, C, D)
        starts.append(s)
        updates.append(new)
        s = s * kept + new.mT @ left
    back = order.argsort()
    start, update = (torch.cat(parts).index_select(0, back) for parts in (starts, updates))
    y = turned.flatten(2, 3) @ start.mT + within.flatten(2, 3) @ update
    return y.view(count, groups, size, repeats, width).movedim(1, 2)


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


Read = Callable[[RecurrentMemory, Tensor, Tensor, Tensor, Tensor, LayerSpec, Sequence[int]], Tensor]  # `Memory.packed`, or an equivalent


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Documents on end in one row; none sees another."""

    attend: Attend  # the attention; it knows the documents' bounds
    bounds: tuple[int, ...]  # the documents' beginnings, and T
    # int [N]: tokens whose states the last layer returns; None = all. For the others it computes keys and values only.
    wanted: Tensor | None = None
    read: Read = RecurrentMemory.packed  # the reading of memories


def rows_of(count: int, length: int) -> PackedRows:
    """Return so many documents of equal length on end."""
    bounds = tuple(range(0, count * length + 1, length))
    return PackedRows(EachAttention(bounds), bounds)


class EachAttention:
    """Attention by PyTorch's own function, one document after the other."""

    def __init__(self, bounds: tuple[int, ...], wanted: Tensor | None = None) -> None:
        self._documents = documents_of(bounds, wanted)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `Attend`."""
        groups, repeats = k.shape[1], q.shape[1] // k.shape[1]
        streaming, out = set(spec.streaming(groups)), []
        for whole, rows, positions in self._documents:
            rows, positions = (rows, positions) if some else (whole, torch.arange(whole.stop - whole.start))
            places = positions.to(q.device)
            qs = turn(q[rows].transpose(0, 1), cos[whole][places], sin[whole][places])  # (heads, n, D)
            ks, vs = turn(k[whole].transpose(0, 1), cos[whole], sin[whole]), v[whole].transpose(0, 1)
            windowed = streaming if spec.window else set()
            masks = [visible(positions, torch.arange(ks.shape[1]), spec if g in windowed else None) for g in range(groups)]
            mask = torch.stack(masks).repeat_interleave(repeats, 0).to(q.device)
            ks, vs = (t.repeat_interleave(repeats, 0) for t in (ks, vs))
            plain = not some and not streaming
            y = nn.functional.scaled_dot_product_attention(
                qs[None], ks[None], vs[None], attn_mask=None if plain else mask[None], is_causal=plain
            )
            out.append(y[0].transpose(0, 1))
        seen = torch.cat(out)
        if spec.window or not streaming:
            return seen
        return seen * torch.tensor([g not in streaming for g in range(groups)]).repeat_interleave(repeats).to(q)[:, None]


def documents_of(bounds: Sequence[int], wanted: Tensor | None) -> list[tuple[slice, slice, Tensor]]:
    """For each document: its tokens, its wanted tokens among all wanted, and their positions in it."""
    documents = []
    for start, stop in pairwise(bounds):
        if wanted is None:
            rows, positions = slice(start, stop), torch.arange(stop - start)
        else:
            first, last = (int(torch.searchsorted(wanted, edge)) for edge in (start, stop))
            rows, positions = slice(first, last), wanted[first:last].cpu() - start
        documents.append((slice(start, stop), rows, positions))
    return documents


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
# Shapes: B sequences of equal length, T tokens, C channels.


def convolved(x: Tensor, taps: nn.Conv1d) -> Tensor:
    """Return each channel's convolution with its taps, [B, T, C] → same shape. Before the first token lie zeros."""
    whole = nn.functional.pad(x, (0, 0, taps.kernel_size[0] - 1, 0))
    return nn.functional.conv1d(whole.mT, taps.weight, taps.bias, groups=taps.groups).mT


def mixed(mix: Callable[[Tensor], Tensor], x: Tensor, packed: PackedRows, last: bool) -> Tensor:
    """Apply a mixer to each document by itself: [T, hidden] → [T or N, hidden]."""
    y = torch.cat([mix(x[None, start:stop])[0] for start, stop in pairwise(packed.bounds)])
    return y[packed.wanted] if last and packed.wanted is not None else y


class ConvolutionMixer(nn.Module):
    """LFM2's mixer: see `core.spec.ShortConvolution`."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        own, hidden = config.convolution, config.hidden_size
        assert own is not None, "ModelConfig checks it"
        self.last = index == len(config.layers) - 1
        self.in_proj, self.out_proj = (nn.Linear(hidden, rows, bias=own.bias) for rows in (3 * hidden, hidden))
        self.conv = nn.Conv1d(hidden, hidden, own.length, groups=hidden, bias=own.bias)

    def forward(self, x: Tensor, _cos: Tensor, _sin: Tensor, packed: PackedRows) -> Tensor:
        """Apply it: see `mixed`."""
        return mixed(self._mix, x, packed, self.last)

    def _mix(self, x: Tensor) -> Tensor:
        into, out, values = self.in_proj(x).chunk(3, -1)
        y: Tensor = self.out_proj(out * convolved(into * values, self.conv))
        return y


class DeltaMixer(nn.Module):
    """Qwen 3.5's mixer: see `core.spec.DeltaRule`."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        own, hidden = config.delta, config.hidden_size
        assert own is not None, "ModelConfig checks it"
        self.sizes, self.last = own, index == len(config.layers) - 1
        values = own.value_heads * own.dim
        self.in_proj_qkv, self.in_proj_z = (nn.Linear(hidden, rows, bias=False) for rows in (own.channels, values))
        self.in_proj_b, self.in_proj_a = (nn.Linear(hidden, own.value_heads, bias=False) for _ in range(2))
        self.conv1d = nn.Conv1d(own.channels, own.channels, own.length, groups=own.channels, bias=False)
        self.dt_bias, self.A_log = (nn.Parameter(torch.zeros(own.value_heads)) for _ in range(2))
        self.norm = RMSNorm(own.dim, config.norm_eps)
        self.out_proj = nn.Linear(values, hidden, bias=False)

    def forward(self, x: Tensor, _cos: Tensor, _sin: Tensor, packed: PackedRows) -> Tensor:
        """Apply it: see `mixed`."""
        return mixed(self._mix, x, packed, self.last)

    def _mix(self, x: Tensor) -> Tensor:
        own, each = self.sizes, self.sizes.value_heads // self.sizes.key_heads
        heads = _apart(nn.functional.silu(convolved(self.in_proj_qkv(x), self.conv1d)).float(), own.dim)
        q, k, v = heads[..., : own.key_heads, :], heads[..., own.key_heads : 2 * own.key_heads, :], heads[..., 2 * own.key_heads :, :]
        q, k = (unit(t) for t in (q, k))
        q, k = (torch.cat([t] * each, -2) if own.tiled else t.repeat_interleave(each, -2) for t in (q, k))
        decay = -self.A_log.float().exp() * nn.functional.softplus(self.in_proj_a(x).float() + self.dt_bias.float())
        write = torch.sigmoid(self.in_proj_b(x).float())
        features = Features((q * own.dim**-0.5)[..., None, :], k, v, decay, write)
        gate = _apart(nn.functional.silu(self.in_proj_z(x).float()), own.dim)
        out: Tensor = self.out_proj((self.norm(chunked(features).squeeze(-2)) * gate).flatten(-2).to(x.dtype))
        return out


def _apart(x: Tensor, dim: int) -> Tensor:
    """[..., heads · D] → [..., heads, D]."""
    return x.reshape(*x.shape[:-1], -1, dim)
