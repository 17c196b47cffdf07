"""What hangs on each linear, and on each token at it: one reading of a few texts, forward and back, tells it of all.

A change ΔW of a linear moves its outputs by ΔW x. How far that moves what the model says, as a divergence of what it gives for the next
token, is ½ (g · ΔW x)² in the mean, with g the slope of −log p of tokens that the model itself draws: the Fisher information in the
direction of the rounding error, taken token by token: what it costs to round that linear, before it is done, to second order. Without a ΔW
yet, the mean of g² over the outputs says what an error at that token counts (arXiv 2505.07004).
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from ingle.compress.calibration import Tell
from ingle.compress.weight_formats import Form, best_grid
from ingle.model.module import CausalLM
from ingle.train.precision import choose


def sensitivities(
    module: CausalLM, rows: Tensor, parameters: Collection[str], forms: Sequence[Form], tell: Tell, seed: int = 0
) -> dict[str, dict[str, float]]:  # fmt: skip
    """By parameter and form: nats per token that rounding it alone is expected to cost. `rows`: int64 [rows, tokens].

    Measured of the first of `forms`; that of another is in proportion to the weights' squared error. `tell` is told rows done, of all.
    Takes as much memory again as the weights.
    """
    errors, shares = dict[str, Tensor](), dict[str, dict[str, float]]()
    for name in parameters:
        off = {form.name: _off(form, module.get_parameter(name).detach()) for form in forms}
        errors[name] = off[forms[0].name]
        least = errors[name].square().sum().clamp(min=1e-30)
        shares[name] = {form: float(error.square().sum() / least) for form, error in off.items()}
    sums = dict.fromkeys(parameters, 0.0)

    def add(name: str, x: Tensor, slope: Tensor) -> None:
        sums[name] += float((slope * (x @ errors[name].T)).sum(-1).double().square().sum())

    _read_back(module, rows, parameters, add, tell, seed)
    return {name: {form: share * sums[name] / 2 / rows.numel() for form, share in shares[name].items()} for name in parameters}


def _off(form: Form, weight: Tensor) -> Tensor:
    grid = best_grid(form, weight, rounds=0)
    return grid.values(grid.codes(weight)) - weight


def guidance(module: CausalLM, rows: Tensor, parameters: Collection[str], tell: Tell, seed: int = 0) -> dict[str, Tensor]:
    """By parameter: what an error of its linear's outputs counts at each token, float32 [rows · tokens], 1 in the mean.

    `rows`: int64 [rows, tokens]; `tell` is told rows done, of all.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in parameters}
    _read_back(module, rows, parameters, lambda name, _x, slope: found[name].append(slope.square().mean(-1).flatten()), tell, seed)
    weights = {name: torch.cat(parts) for name, parts in found.items()}
    return {name: weight / weight.mean().clamp(min=1e-30) for name, weight in weights.items()}


def _read_back(
    module: CausalLM, rows: Tensor, parameters: Collection[str], told: Callable[[str, Tensor, Tensor], None], tell: Tell, seed: int
) -> None:
    """Rows one by one forward, tokens drawn from what the model gives, and the slopes of −log p of these back to every linear: `told` gets
    the parameter's name, inputs [1, tokens, K] and slopes at the outputs [1, tokens, N].
    """
    half = choose("auto", module.lm_head.weight.device) == "bf16"
    draw, frozen = torch.Generator().manual_seed(seed), [parameter for parameter in module.parameters() if parameter.requires_grad]

    def watch(name: str) -> "torch.utils.hooks.RemovableHandle":
        def after(_linear: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            x = given[0].detach()
            out.register_hook(lambda slope: told(name, x.float(), slope.float()))  # type: ignore[no-untyped-call]

        return module.get_submodule(name.removesuffix(".weight")).register_forward_hook(after)

    hooks = [watch(name) for name in parameters]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        for number, row in enumerate(rows):
            tell(number, len(rows))
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                x = module.model.embed_tokens(row[None]).requires_grad_()
                cos, sin = module.angles(torch.arange(len(row), dtype=torch.float32), x.dtype)
                for layer in module.model.layers:
                    x = layer(x, cos, sin, None)
                logits = module.logits(module.model.norm(x))[0]
            nn.functional.cross_entropy(logits.float(), _drawn(logits.detach().float(), draw), reduction="sum").backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)
    tell(len(rows), len(rows))


def _drawn(logits: Tensor, draw: torch.Generator) -> Tensor:
    """A token for each row [T, V], by its probability: int64 [T]. `torch.multinomial` draws a number for each of the vocabulary."""
    sums = logits.softmax(-1).cumsum(-1)
    return torch.searchsorted(sums, torch.rand(len(sums), 1, generator=draw) * sums[:, -1:])[:, 0].clamp(max=logits.shape[-1] - 1)


def choose_forms(
    costs: Mapping[str, Mapping[Form, float]], sizes: Mapping[str, int], bits: float, fixed: Sequence[tuple[int, float]] = ()
) -> dict[str, Form]:
    """A form for each parameter, out of those that it has costs in: from the fewest bits up, always where a bit more saves most nats, as
    long as the mean over all weights stays within `bits`.

    `sizes`: weights of each parameter; `fixed`: weights and bits of what is not to choose and counts in the mean.
    """
    chosen = {name: min(ways, key=lambda form: form.bits) for name, ways in costs.items()}
    whole = sum(sizes.values()) + sum(count for count, _ in fixed)
    left = bits * whole - sum(chosen[name].bits * size for name, size in sizes.items()) - sum(count * each for count, each in fixed)

    def better() -> tuple[float, str, Form] | None:
        """What saves most a bit, of what there is room for."""
        found = None
        for name, ways in costs.items():
            for form, cost in ways.items():
                price = (form.bits - chosen[name].bits) * sizes[name]
                if 0 < price <= left + 1e-6:
                    saved = (ways[chosen[name]] - cost) / price
                    found = max(found or (0.0, "", form), (saved, name, form), key=lambda one: one[0])
        return found if found is not None and found[0] > 0 else None

    while step := better():
        _, name, form = step
        left -= (form.bits - chosen[name].bits) * sizes[name]
        chosen[name] = form
    return chosen
