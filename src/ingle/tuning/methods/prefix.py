"""Prefix tuning: learnt keys and values in front of every text, in all layers (arXiv 2101.00190)."""

from typing import Any

import torch
from torch import Tensor, nn

from ingle.model.module import CausalLM
from ingle.model.module_parts import turn
from ingle.train.low_rank import plain_linear, replace_module
from ingle.tuning.tuning_method import Attached, attached
from ingle.tuning.virtual import EMBEDDING, VirtualEmbedding, VirtualSettings, check_virtual, some_tokens

KIND = "prefix"
RATE = 1e-2
Settings = VirtualSettings


class PrefixLinear(nn.Module):
    """W x + b; but for virtual tokens a row of `prefix` [n, N], whatever x is."""

    def __init__(self, linear: nn.Linear, embedding: VirtualEmbedding, prefix: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.prefix = nn.Parameter(prefix)
        self._embedding = [embedding]  # in a list, so that it is no submodule

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: x [..., K] → y [..., N]."""
        y = nn.functional.linear(x.flatten(0, -2), self.weight, self.bias)
        rows, numbers = self._embedding[0].last
        if len(rows):
            y = _Put.apply(y, self.prefix, rows, numbers)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)


class _Put(torch.autograd.Function):
    """Writes prefix[numbers] into these rows of y [T, N], in place."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, prefix: Tensor, rows: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(rows, numbers)
        ctx.count = len(prefix)
        ctx.mark_dirty(y)
        return y.index_copy_(0, rows, prefix[numbers])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (rows, numbers), [g] = ctx.saved_tensors, grads
        to_prefix = g.new_zeros(ctx.count, g.shape[1]).index_add_(0, numbers, g[rows])
        return g.index_fill(0, rows, 0), to_prefix, None, None


def attach(module: CausalLM, layers: tuple[int, ...], settings: VirtualSettings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`. Unlike most, it changes the module's output: every text now has something before it.

    It begins with the keys and values of some frequent tokens. Raises ConfigError unless all layers are asked for, because a layer
    without a prefix has nothing at those positions.
    """
    check_virtual(module, layers, settings)
    intended = tuple(f"model.layers.{layer}.self_attn.{part}" for layer in layers for part in ("k_proj", "v_proj"))
    linears = {name: plain_linear(module, name) for name in intended}
    seen = _outputs(module, linears, some_tokens(module.config.vocab_size, settings.tokens, seed))
    embedding = VirtualEmbedding(module.model.embed_tokens)
    replace_module(module, EMBEDDING, embedding)
    prefixed = {name: PrefixLinear(linear, embedding, seen[name]) for name, linear in linears.items()}
    for name, new in prefixed.items():
        replace_module(module, name, new)

    @torch.no_grad()
    def collect() -> dict[str, Tensor]:
        turned, values = [], []
        cos, sin = module.angles(torch.arange(settings.tokens, dtype=torch.float32, device=module.lm_head.weight.device), torch.float32)
        for layer in layers:
            attention = f"model.layers.{layer}.self_attn"
            keys, value = (prefixed[f"{attention}.{part}"].prefix.detach().float() for part in ("k_proj", "v_proj"))
            shape, rope = (settings.tokens, module.config.num_kv_heads, -1), module.config.rope_of(layer)
            if module.config.qk_norm:
                whole = module.config.ways.whole_norm
                keys = module.get_submodule(f"{attention}.k_norm")(keys if whole else keys.view(shape))
            turned.append(turn(keys.view(shape).transpose(0, 1), cos[rope], sin[rope]))
            values.append(value.view(shape).transpose(0, 1))
        return {"prefix.keys": torch.stack(turned), "prefix.values": torch.stack(values)}

    parameters = {f"{name}.prefix": new.prefix for name, new in prefixed.items()}
    return attached(module, intended, parameters, collect, settings.tokens)


@torch.no_grad()
def _outputs(module: CausalLM, linears: dict[str, nn.Linear], ids: Tensor) -> dict[str, Tensor]:
    """Outputs of these linears on a text, float32 [T, N]."""
    seen: dict[str, Tensor] = {}
    hooks = [
        linear.register_forward_hook(lambda _m, _x, y, name=name: seen.update({name: y.float().clone()}))
        for name, linear in linears.items()
    ]
    module.hidden(ids[None].to(module.lm_head.weight.device))
    for hook in hooks:
        hook.remove()
    return seen
