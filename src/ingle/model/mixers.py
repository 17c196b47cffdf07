"""Mixers of tokens beside attention, in PyTorch: the gated short convolution and the gated delta rule. Parameter names are Hugging Face's.

Shapes: B sequences of equal length, T new tokens, C channels. Their states lie in `Cache.mixed`.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ingle.core.spec import ModelConfig
from ingle.model.cache import Cache
from ingle.model.memory import Features, chunked, unit
from ingle.model.packed_rows import PackedRows
from ingle.model.pieces import RMSNorm

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
