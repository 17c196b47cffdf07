"""Flat parameters move as PyTorch's optimisers would move them one by one; schedules are functions of the step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ingle.core.errors import ConfigError, ShapeError
from ingle.train.loop_settings import Schedule
from ingle.train.optimisers import OptimiserSettings, Trained, UpdateRule, check_names, orthogonalised
from tests.train.tiny_train import tiny_module, trained_parts

SETTINGS = {method: OptimiserSettings(method, 0.01, weight_decay=0.1) for method in ("adamw", "muon")}  # type: ignore[arg-type]


def module_of(dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(6, 4), "b": nn.Linear(4, 6, bias=False), "input_layernorm": nn.LayerNorm(6, bias=False)}).to(dtype)


def set_gradients(module: nn.Module, step: int) -> None:
    draw = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        slope = torch.randn(parameter.shape, generator=draw).to(parameter.dtype)
        if parameter.grad is None:
            parameter.grad = slope
        else:
            parameter.grad.copy_(slope)


@pytest.mark.parametrize("method", SETTINGS)
def test_flat_is_one_by_one(method: str) -> None:
    flat, plain = module_of(), module_of()
    trained = Trained(dict(flat.named_parameters()), SETTINGS[method], torch.float32)
    matrices = [p for p in plain.parameters() if p.ndim == 2]
    vectors = [p for p in plain.parameters() if p.ndim == 1]
    if method == "adamw":
        others = [torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], 0.01, weight_decay=0.1)]
    else:
        muon = pytest.importorskip("torch", minversion="2.9").optim.Muon
        others = [
            muon(matrices, 0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(vectors, 0.01, weight_decay=0.0),
        ]
    for step in range(1, 6):
        for module in (flat, plain):
            set_gradients(module, step)
        for other in others:
            for group in other.param_groups:
                group["lr"] = 0.01 / step
            other.step()
        trained.step(step, 1 / step)
        assert all(not group.gradient.any() for group in trained.groups)
    tolerance = 1e-6 if method == "adamw" else 2e-3  # PyTorch's Newton–Schulz is always in bfloat16
    for name, parameter in flat.named_parameters():
        torch.testing.assert_close(parameter, plain.get_parameter(name), rtol=tolerance, atol=tolerance, msg=name)


def test_masters_are_float32_beside_bfloat16() -> None:
    module = module_of()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    trained = Trained(dict(module.named_parameters()), OptimiserSettings(learning_rate=1e-5), torch.bfloat16)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert all(torch.equal(value, before[name]) for name, value in trained.values().items()), "nothing is lost by beginning"
    for step in range(1, 40):  # each step is far below what bfloat16 can tell apart
        for parameter in module.parameters():
            parameter.grad.fill_(1.0)
        trained.collect()
        trained.step(step, 1.0)
    for name, value in trained.values().items():
        torch.testing.assert_close(value, before[name] - 39e-5, rtol=0, atol=1e-6)
        assert torch.equal(module.get_parameter(name), value.bfloat16())


def test_gradients_of_several_batches_add_up_in_float32() -> None:
    module = module_of()
    trained = Trained(dict(module.named_parameters()), OptimiserSettings(), torch.bfloat16)
    x = torch.ones(1, 6, dtype=torch.bfloat16)
    for _ in range(300):  # bfloat16 would stop counting at 256
        module["a"](x).sum().backward()
        trained.collect()
    [group] = [group for group in trained.groups if "a.weight" in group.names]
    assert group.views(group.gradient)["a.weight"].unique().tolist() == [300.0]
    assert float(trained.norm()) == pytest.approx(math.sqrt((24 + 4) * 300**2))


@pytest.mark.parametrize("method", SETTINGS)
def test_state_saved_and_loaded_goes_on_the_same(method: str) -> None:
    modules = [module_of(), module_of()]
    runs = [Trained(dict(module.named_parameters()), SETTINGS[method], torch.bfloat16) for module in modules]
    for step in range(1, 7):
        if step == 4:
            runs[1].load({n: v.clone() for n, v in runs[0].values().items()}, {n: t.clone() for n, t in runs[0].state().items()})
        for module, run in zip(modules, runs, strict=True):
            if step >= 4 or run is runs[0]:
                set_gradients(module, step)
                run.collect()
                run.step(step, 1.0)
    assert all(torch.equal(value, runs[1].values()[name]) for name, value in runs[0].values().items())
    assert all(torch.equal(p, modules[1].get_parameter(name)) for name, p in modules[0].named_parameters())
    with pytest.raises(ShapeError, match="checkpoint"):
        runs[0].load({"a.weight": torch.zeros(2)}, {})


def test_muon_takes_the_matrices_between_embedding_and_head() -> None:
    module = tiny_module()
    trained = Trained(dict(module.named_parameters()), SETTINGS["muon"], torch.float32)
    methods = {name: group.rule.method for group in trained.groups for name in group.names}
    for name, parameter in module.named_parameters():
        expected = "muon" if parameter.ndim == 2 and "layers" in name else "adamw"
        assert methods[name] == expected, name
    assert {group.rule.decay for group in trained.groups for name in group.names if "norm" in name} == {0.0}
    assert UpdateRule("*").decay == 1.0


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 16), (2, 16, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape), dtype))
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_parameters_that_are_not_the_modules_are_refused() -> None:
    module = tiny_module()
    for parameters in ({}, {"x": nn.Parameter(torch.zeros(2))}, {"model.norm.weight": nn.Parameter(torch.zeros(2))}):
        with pytest.raises(ConfigError, match="must be parameters of the module"):
            check_names(parameters, module)
    with pytest.raises(ConfigError, match="must not name one parameter twice"):
        check_names({name: module.lm_head.weight for name in ("lm_head.weight", "model.embed_tokens.weight")}, module)
    check_names(trained_parts(module, "mlp"), module)


@given(
    kind=st.sampled_from(["wsd", "cosine", "constant"]), warm_up=st.floats(0, 0.5), decay=st.floats(0, 0.5), floor=st.floats(0, 1),
    steps=st.integers(1, 300),
)  # fmt: skip
def test_schedules_rise_stay_and_fall(kind: str, warm_up: float, decay: float, floor: float, steps: int) -> None:
    schedule = Schedule(kind, warm_up, decay, floor)  # type: ignore[arg-type]
    factors = [schedule.factor(step, steps) for step in range(steps)]
    top = factors.index(max(factors))
    assert max(factors) == 1
    assert min(factors) > 0 or floor == 0
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if kind == "constant":
        assert factors[-1] == 1


def test_schedules_by_hand() -> None:
    assert [Schedule("wsd", 0.2, 0.4).factor(step, 10) for step in range(10)] == pytest.approx(
        [0.5, 1, 1, 1, 1, 1, 1, 1 - math.sqrt(0.25), 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)]
    )
    assert [Schedule("cosine", 0, floor=0.5).factor(step, 4) for step in range(4)] == pytest.approx([1, 0.9267767, 0.75, 0.5732233])
    with pytest.raises(ConfigError, match="must not add up"):
        Schedule("wsd", 0.6, 0.5)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "beta1", "momentum", "clip_norm"])
def test_settings_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        OptimiserSettings(**{name: -1.0})  # type: ignore[arg-type]
