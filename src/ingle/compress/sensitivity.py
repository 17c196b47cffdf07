"""What it costs to round one linear, before it is done: nats per token, to second order.

A change ΔW of a linear moves its outputs by ΔW x. How far that moves what the model says, as a divergence of what it gives for the next
token, is ½ (g · ΔW x)² in the mean, with g the slope of −log p of tokens that the model itself draws: the Fisher information in the
direction of the rounding error, taken token by token. One reading of a few texts, forward and back, tells it of all linears.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ingle.compress.calibration import Tell
from ingle.compress.forms import Form, best_grid
from ingle.model.module import CausalLM


def sensitivities(module: CausalLM, rows: Tensor, forms: Mapping[str, Form], tell: Tell, seed: int = 0) -> dict[str, float]:
    """By parameter: nats per token that rounding it alone to its form is expected to cost. `rows`: int64 [rows, tokens].

    `tell` is told rows done, of all. Takes as much memory again as the weights.
    """
    errors = dict[str, Tensor]()
    for name, form in forms.items():
        weight = module.get_parameter(name).detach()
        grid = best_grid(form, weight, rounds=0)
        errors[name] = grid.values(grid.codes(weight)) - weight
    sums, draw = dict.fromkeys(forms, 0.0), torch.Generator().manual_seed(seed)
    hooks = [_watch(module, name, error, sums) for name, error in errors.items()]
    frozen = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        for number, row in enumerate(rows):
            tell(number, len(rows))
            _read_back(module, row[None], draw)
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)
    tell(len(rows), len(rows))
    return {name: total / 2 / rows.numel() for name, total in sums.items()}


def _watch(module: CausalLM, name: str, error: Tensor, sums: dict[str, float]) -> "torch.utils.hooks.RemovableHandle":
    def after(_linear: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        moved = given[0].detach() @ error.T
        out.register_hook(add(moved))  # type: ignore[no-untyped-call]

    def add(moved: Tensor) -> Callable[[Tensor], None]:
        def told(slope: Tensor) -> None:
            sums[name] += float((slope * moved).sum(-1).double().square().sum())

        return told

    return module.get_submodule(name.removesuffix(".weight")).register_forward_hook(after)


def _read_back(module: CausalLM, ids: Tensor, draw: torch.Generator) -> None:
    """One row forward, tokens drawn from what the model gives, and their slopes back to every linear."""
    x = module.model.embed_tokens(ids).requires_grad_()
    cos, sin = module.angles(torch.arange(ids.shape[1], dtype=torch.float32), x.dtype)
    for layer in module.model.layers:
        x = layer(x, cos, sin, None)
    logits = module.logits(module.model.norm(x))[0]
    drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]
    nn.functional.cross_entropy(logits, drawn, reduction="sum").backward()  # type: ignore[no-untyped-call]


def choose_forms(
    costs: Mapping[str, float], sizes: Mapping[str, int], few: Form, many: Form, bits: float, fixed: Sequence[tuple[int, float]] = ()
) -> dict[str, Form]:
    """Gives `many` bits to the parameters where a bit saves most nats, as long as the mean over all weights stays within `bits`.

    `sizes`: weights of each parameter; `fixed`: weights and bits of what is not to choose and counts in the mean.
    """
    whole = sum(sizes.values()) + sum(count for count, _ in fixed)
    left = bits * whole - few.bits * sum(sizes.values()) - sum(count * each for count, each in fixed)
    forms = dict.fromkeys(costs, few)
    for name in sorted(costs, key=lambda name: (-costs[name] / sizes[name], name)):
        price = (many.bits - few.bits) * sizes[name]
        if price <= left + 1e-6:
            forms[name], left = many, left - price
    return forms
