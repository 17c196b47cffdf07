"""Optimisers and the number format that they work in."""

import fnmatch
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from ingle.core.config import NotNegative, Part, check_bounds
from ingle.core.errors import ConfigError, ShapeError
from ingle.kernels.cpu import features

# Precision: the number format in which a machine multiplies matrices fastest, by its instructions.


Precision = Literal["auto", "bf16", "fp32"]
Device = Literal["auto", "cpu", "cuda"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


PROGRAMS = "64"


def keep_few_programs() -> None:
    """Let PyTorch's library (oneDNN) keep the programs of the last 64 kinds of product, not of 1,024, unless its variable is set.

    They and their memory came to 200 MB in 16 rows; a row takes some 30, and rows have few lengths (see `packing.ROUND`).
    Call this before the first product of the process.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PROGRAMS)


def choose(precision: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """Choose the number format. `auto`: bfloat16 where the processor multiplies it, for it costs exactness; the same on every day."""
    if precision != "auto":
        return precision
    return "bf16" if multiplies_bf16(device) else "fp32"


def device_of(name: Device) -> str:
    """Name the device. `auto`: cuda where there is a GPU. Raises ConfigError for a device that isn't there."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("device", "must be there: PyTorch sees no GPU", name, "Set device = auto or cpu.")
    return "cuda" if there and name != "cpu" else "cpu"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether this device has instructions for products in bfloat16. Elsewhere they take many times as long as in float32.

    False for Arm processors: PyTorch's products there have not been measured.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool({"avx512bf16", "amx-bf16"} & features())


# Trained parameters in float32, flat, and the steps that move them: AdamW, and Muon for matrices.
# All parameters of a group lie in one flat tensor. The module's parameters are views of it (or, where it computes in bfloat16, views of a
# bfloat16 copy). So a step of AdamW is one call, a norm is one number, and one tensor per group travels between processes.


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Keller Jordan's, whose 5 rounds bring singular values to about 0.7 … 1.2
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """A rule for the parameters whose names match; the first rule that matches a name holds."""

    # Pattern as shells match files, e.g. `*norm.weight`.
    names: str
    method: Literal["adamw", "muon"] = "adamw"
    rate: float = 1.0  # multiplies the learning rate
    decay: float = 1.0  # multiplies the weight decay


ADAMW_RULES = (UpdateRule("*norm.weight", decay=0.0), UpdateRule("*.bias", decay=0.0), UpdateRule("*"))
# Muon is for the matrices between embedding and head; what has one dimension goes to AdamW in any case.
MUON_RULES = (
    UpdateRule("model.embed_tokens.*"), UpdateRule("lm_head.*"), UpdateRule("*norm.weight", decay=0.0), UpdateRule("*.bias", decay=0.0),
    UpdateRule("*", "muon"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OptimiserSettings:
    # Muon moves matrices by orthogonalised momentum, scaled so that AdamW's learning rates fit (arXiv 2502.16982).
    method: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 2e-4  # learning rate at the peak of the schedule
    weight_decay: NotNegative = 0.0  # decoupled: a weight shrinks by this × the learning rate at every step
    beta1: Part = 0.9  # AdamW: how much of the last step's mean gradient stays
    beta2: Part = 0.999  # AdamW: how much of the last step's mean square stays
    eps: float = 1e-8  # AdamW: added to the root of the mean square
    momentum: Part = 0.95  # muon: how much of the last step's momentum stays
    clip_norm: NotNegative = 1.0  # gradients longer than this, all together, are shortened to it; 0 = never

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 100:
            raise ConfigError("learning_rate", "must be above 0", self.learning_rate)
        check_bounds(self)
        if not self.eps > 0:
            raise ConfigError("eps", "must be above 0, or a parameter without a gradient is divided by 0", self.eps)


@dataclass(slots=True, eq=False)
class Group:
    """Parameters that move alike, by one rule."""

    rule: UpdateRule
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    master: Tensor  # parameters, float32, flat
    gradient: Tensor  # their gradient, float32, flat
    computed: Tensor  # parameters that the module computes with: the master itself, or its bfloat16 copy
    computed_gradient: Tensor  # gradient that autograd adds to: `gradient` itself, or bfloat16
    state: dict[str, Tensor] = field(default_factory=dict)  # state of the optimiser, flat
    adamw: torch.optim.AdamW | None = None  # PyTorch's optimiser, which works on `state`

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of one of the flat tensors, by name and in shape."""
        parts = torch.split(flat, [shape.numel() for shape in self.shapes])
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}


class Trained:
    """The parameters that are trained. From here on they are views of flat tensors; nothing else may replace them."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: OptimiserSettings, dtype: torch.dtype) -> None:
        self.settings = settings
        rules = MUON_RULES if settings.method == "muon" else ADAMW_RULES
        members: dict[UpdateRule, dict[str, nn.Parameter]] = {}
        for name, parameter in parameters.items():
            rule = next(rule for rule in rules if fnmatch.fnmatchcase(name, rule.names))
            if rule.method == "muon" and parameter.ndim != 2:
                rule = UpdateRule(rule.names, "adamw", rule.rate, rule.decay)
            members.setdefault(rule, {})[name] = parameter
        self.groups = [_group(rule, chosen, dtype) for rule, chosen in members.items()]

    def collect(self) -> None:
        """Add the gradients that autograd computed for a batch to the float32 gradients."""
        for group in self.groups:
            if group.computed_gradient is not group.gradient:
                group.gradient += group.computed_gradient
                group.computed_gradient.zero_()

    def norm(self) -> Tensor:
        """Length of all gradients together."""
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(group.gradient) for group in self.groups]))
        return norm

    def step(self, number: int, factor: float) -> None:
        """Move all parameters once, then set the gradients to zero. `number` counts from 1; `factor` is the schedule's."""
        for group in self.groups:
            rate = self.settings.learning_rate * factor * group.rule.rate
            (_muon if group.rule.method == "muon" else _adamw)(group, self.settings, rate, number)
            group.gradient.zero_()
            if group.computed is not group.master:
                group.computed.copy_(group.master)

    def values(self) -> dict[str, Tensor]:
        """The float32 parameters by name: views."""
        return {name: value for group in self.groups for name, value in group.views(group.master).items()}

    def state(self) -> dict[str, Tensor]:
        """State of the optimiser, by `NUMBER.WHAT`."""
        return {f"{i}.{what}": tensor for i, group in enumerate(self.groups) for what, tensor in group.state.items()}

    def load(self, values: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Put back the results of `values` and `state`. Raises ShapeError if they are of other parameters."""
        expected = {name: shape for group in self.groups for name, shape in zip(group.names, group.shapes, strict=True)}
        if {name: tuple(value.shape) for name, value in values.items()} != {name: tuple(shape) for name, shape in expected.items()}:
            raise ShapeError("checkpoint", f"must hold these {len(expected)} parameters", f"{len(values)} others", "Give another folder.")
        for i, group in enumerate(self.groups):
            for name, view in group.views(group.master).items():
                view.copy_(values[name])
            group.computed.copy_(group.master)
            prefix = f"{i}."
            group.state = {key[len(prefix) :]: t.to(group.master.device) for key, t in state.items() if key.startswith(prefix)}
            group.adamw = None


def _group(rule: UpdateRule, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype) -> Group:
    first = next(iter(parameters.values()))
    shapes = tuple(parameter.shape for parameter in parameters.values())
    master = torch.cat([parameter.detach().float().flatten() for parameter in parameters.values()])
    gradient = torch.zeros_like(master)
    same = dtype == torch.float32
    computed, computed_gradient = (master, gradient) if same else (master.to(dtype), gradient.to(dtype))
    group = Group(rule, tuple(parameters), shapes, master.to(first.device), gradient, computed, computed_gradient)
    values, slopes = group.views(group.computed), group.views(group.computed_gradient)
    for name, parameter in parameters.items():
        parameter.data, parameter.grad = values[name], None
        parameter.requires_grad_(True)
        parameter.grad = slopes[name]
    return group


def _adamw(group: Group, settings: OptimiserSettings, rate: float, number: int) -> None:
    """Step of AdamW, arXiv 1711.05101, by PyTorch's fused kernel: one walk through memory."""
    if group.adamw is None:
        master = nn.Parameter(group.master)
        master.grad = group.gradient
        if not group.state:
            group.state = {"exp_avg": torch.zeros_like(group.master), "exp_avg_sq": torch.zeros_like(group.master)}
        betas, decay = (settings.beta1, settings.beta2), settings.weight_decay * group.rule.decay
        group.adamw = torch.optim.AdamW([master], rate, betas, settings.eps, decay, fused=True)
        group.adamw.state[master] = {"step": torch.tensor(float(number - 1)), **group.state}
    group.adamw.param_groups[0]["lr"] = rate
    group.adamw.step()


def _muon(group: Group, settings: OptimiserSettings, rate: float, number: int) -> None:
    """Muon: Nesterov momentum, orthogonalised (kellerjordan.github.io/posts/muon), with the update's size of arXiv 2502.16982 eq. 4."""
    if not group.state:
        group.state = {"momentum": torch.zeros_like(group.master)}
    group.master.mul_(1 - rate * settings.weight_decay * group.rule.decay)
    momentum = group.state["momentum"].mul_(settings.momentum).add_(group.gradient)
    ahead = group.gradient.add(momentum, alpha=settings.momentum)
    moves, masters = group.views(ahead), group.views(group.master)
    by_shape: dict[torch.Size, list[str]] = {}
    for name, shape in zip(group.names, group.shapes, strict=True):
        by_shape.setdefault(shape, []).append(name)
    for shape, names in by_shape.items():
        whole = orthogonalised(torch.stack([moves[name] for name in names]), group.computed.dtype)
        for name, move in zip(names, whole, strict=True):
            masters[name].sub_(move, alpha=rate * 0.2 * math.sqrt(max(shape)))


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """[n, rows, columns] → the nearest matrices with orthonormal rows or columns, roughly: singular values between 0.6 and 1.3.

    Newton–Schulz in `dtype`; five rounds of a polynomial that doesn't converge to 1 but gets near it fast.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    done: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return done


def check_names(parameters: Mapping[str, nn.Parameter], module: nn.Module) -> None:
    """Raises ConfigError unless these are parameters of the module, under its names."""
    own = {name: id(parameter) for name, parameter in module.named_parameters(remove_duplicate=False)}
    strangers: Sequence[str] = [name for name, parameter in parameters.items() if own.get(name) != id(parameter)]
    if not parameters or strangers:
        got = ", ".join(strangers[:3]) or "none"
        raise ConfigError("parameters", "must be parameters of the module, by its names, and at least one", got)
    if len({id(parameter) for parameter in parameters.values()}) != len(parameters):
        cure = "Leave lm_head.weight out: it is the embedding."
        raise ConfigError("parameters", "must not name one parameter twice", "a tied pair", cure)
