"""Sensitivity: the cost of rounding each linear, and the weight of each token at it, from one reading of a few texts, forward and back.

A change ΔW of a linear moves its outputs by ΔW x. To second order this moves the model's next-token distribution by a divergence of
½ (g · ΔW x)² in the mean, where g is the gradient of −log p of tokens that the model itself draws. That is the Fisher information in the
direction of the rounding error, token by token: the cost of rounding that linear, known before it is done. Without a ΔW yet, the mean of
g² over the outputs weighs an error at that token (arXiv 2505.07004).
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from ingle.compress.calibration import Tell
from ingle.compress.weight_formats import WeightFormat, best_grid
from ingle.model.module import CausalLM
from ingle.train.precision import choose


def sensitivities(
    module: CausalLM, rows: Tensor, parameters: Collection[str], formats: Sequence[WeightFormat], tell: Tell, seed: int = 0
) -> dict[str, dict[str, float]]:  # fmt: skip
    """By parameter and format: nats per token that rounding it alone is expected to cost. `rows`: int64 [rows, tokens].

    Measured for the first of `formats`; for the others in proportion to the weights' squared error. `tell` hears rows done, of all.
    Takes as much memory again as the weights.
    """
    errors, shares = dict[str, Tensor](), dict[str, dict[str, float]]()
    for name in parameters:
        off = {format_.name: _off(format_, module.get_parameter(name).detach()) for format_ in formats}
        errors[name] = off[formats[0].name]
        least = errors[name].square().sum().clamp(min=1e-30)
        shares[name] = {format_: float(error.square().sum() / least) for format_, error in off.items()}
    sums = dict.fromkeys(parameters, 0.0)

    def add(name: str, x: Tensor, slope: Tensor) -> None:
        sums[name] += float((slope * (x @ errors[name].T)).sum(-1).double().square().sum())

    _read_back(module, rows, parameters, add, tell, seed)
    return {name: {format_: share * sums[name] / 2 / rows.numel() for format_, share in shares[name].items()} for name in parameters}


def _off(format_: WeightFormat, weight: Tensor) -> Tensor:
    grid = best_grid(format_, weight, rounds=0)
    return grid.values(grid.codes(weight)) - weight


def guidance(module: CausalLM, rows: Tensor, parameters: Collection[str], tell: Tell, seed: int = 0) -> dict[str, Tensor]:
    """By parameter: the weight of an error of its linear's outputs at each token, float32 [rows · tokens], 1 in the mean.

    `rows`: int64 [rows, tokens]; `tell` hears rows done, of all.
    """
    squares: dict[str, list[Tensor]] = {name: [] for name in parameters}
    _read_back(module, rows, parameters, lambda name, _x, slope: squares[name].append(slope.square().mean(-1).flatten()), tell, seed)
    weights = {name: torch.cat(parts) for name, parts in squares.items()}
    return {name: weight / weight.mean().clamp(min=1e-30) for name, weight in weights.items()}


def _read_back(
    module: CausalLM, rows: Tensor, parameters: Collection[str], add: Callable[[str, Tensor, Tensor], None], tell: Tell, seed: int
) -> None:
    """Read rows one by one forward, draw tokens from the model's predictions, and send the gradients of their −log p back to every linear.
    `add` gets the parameter's name, inputs [1, tokens, K] and gradients at the outputs [1, tokens, N].
    """
    half = choose("auto", module.lm_head.weight.device) == "bf16"
    draw, frozen = torch.Generator().manual_seed(seed), [parameter for parameter in module.parameters() if parameter.requires_grad]

    def watch(name: str) -> "torch.utils.hooks.RemovableHandle":
        def after(_linear: nn.Module, arguments: tuple[Tensor, ...], out: Tensor) -> None:
            x = arguments[0].detach()
            out.register_hook(lambda slope: add(name, x.float(), slope.float()))  # type: ignore[no-untyped-call]

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
    """Draw a token for each row [T, V], by its probability: int64 [T]. `torch.multinomial` draws a number for each of the vocabulary."""
    sums = logits.softmax(-1).cumsum(-1)
    return torch.searchsorted(sums, torch.rand(len(sums), 1, generator=draw) * sums[:, -1:])[:, 0].clamp(max=logits.shape[-1] - 1)


def choose_formats(
    costs: Mapping[str, Mapping[WeightFormat, float]], sizes: Mapping[str, int], bits: float, fixed: Sequence[tuple[int, float]] = ()
) -> dict[str, WeightFormat]:
    """Choose a format for each parameter, out of those that it has costs in, so that the mean over all weights stays within `bits`.

    From the fewest bits up, the next bit always goes where it saves most nats. `sizes`: weights of each parameter; `fixed`: weights and
    bits of linears without a choice, which count in the mean.
    """
    chosen = {name: min(ways, key=lambda format_: format_.bits) for name, ways in costs.items()}
    whole = sum(sizes.values()) + sum(count for count, _ in fixed)
    left = bits * whole - sum(chosen[name].bits * size for name, size in sizes.items()) - sum(count * each for count, each in fixed)

    def better() -> tuple[float, str, WeightFormat] | None:
        """The step that saves most nats a bit, of those that there is room for."""
        best = None
        for name, ways in costs.items():
            for format_, cost in ways.items():
                price = (format_.bits - chosen[name].bits) * sizes[name]
                if 0 < price <= left + 1e-6:
                    saved = (ways[chosen[name]] - cost) / price
                    best = max(best or (0.0, "", format_), (saved, name, format_), key=lambda one: one[0])
        return best if best is not None and best[0] > 0 else None

    while step := better():
        _, name, format_ = step
        left -= (format_.bits - chosen[name].bits) * sizes[name]
        chosen[name] = format_
    return chosen
