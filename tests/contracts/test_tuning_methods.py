"""What every tuning method must do, over the listing of their folder: a new file there is tested by being there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ingle.core.errors import ConfigError
from ingle.core.registry import titles
from ingle.core.spec import ModelConfig
from ingle.engine.delta_kinds import KINDS, VIRTUAL
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import CausalLM, load_module
from ingle.train.forward import final_states
from ingle.train.loop import train
from ingle.train.loop_settings import TrainSettings
from ingle.train.objectives import cross_entropy
from ingle.train.optimisers import OptimiserSettings, Trained, check_names
from ingle.train.packing import Batch, Data, make_batch
from ingle.tuning.linears import chosen_layers
from ingle.tuning.tuning_method import METHODS as FOLDER
from ingle.tuning.tuning_method import Attached, Method, attached, check_touched, find_method
from ingle.tuning.virtual import with_virtual
from tests.engine.tiny import random_checkpoint, tiny_config
from tests.train.tiny_train import HYBRID, corpus_of, documents, gradients, some_data, tiny_module
from tests.tuning.applied import logits_with

METHODS = list(titles(FOLDER))
CONFIGS: dict[str, Callable[[], ModelConfig]] = {
    "transformer": tiny_config,
    "hybrid with biases": lambda: tiny_config(layers=HYBRID, biases=True, tied=False),
    "q and k normed": lambda: tiny_config(qk_norm=True),
}
IDS = torch.arange(3, 23).reshape(2, 10) * 3 % 70


def small(method: Method, **changes: Any) -> Any:
    """Settings that fit a tiny model."""
    settings = method.Settings()
    return replace(settings, **({"rank": 4} if hasattr(settings, "rank") else {}), **changes)


def attach(name: str, config: ModelConfig | None = None, layers: str = "all", seed: int = 0) -> tuple[CausalLM, Attached, Checkpoint]:
    checkpoint = random_checkpoint(config or tiny_config(), 1)
    module, method = load_module(checkpoint), find_method(name)
    return module, method.attach(module, chosen_layers(checkpoint.config, layers), small(method), seed), checkpoint


def shake(got: Attached, size: float = 0.05) -> None:
    """Away from where the method begins, as training would."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in got.parameters.values():
            parameter += size * torch.randn(parameter.shape, generator=draw)


def freeze_others(module: CausalLM, got: Attached) -> None:
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in got.parameters)


def packed(got: Attached, config: ModelConfig) -> Batch:
    corpus = with_virtual(corpus_of(documents([7, 3, 12])), got.virtual_tokens, config.vocab_size)
    return make_batch(corpus, [2, 0, 1])


def loss_of(module: CausalLM, batch: Batch, recompute: bool = False) -> torch.Tensor:
    return cross_entropy(final_states(module, batch, recompute=recompute), module.lm_head.weight, batch.targets)


def applied(checkpoint: Checkpoint, kind: str, got: Attached) -> torch.Tensor:
    """Logits of IDS from the original model and the delta's tensors, which are of the right types."""
    tensors = {name: tensor.numpy() for name, tensor in got.collect().items()}
    assert all(value.dtype == ("float16" if kind == "full" else "float32") for value in tensors.values())
    return logits_with(checkpoint, kind, tensors, IDS)


def tuned_logits(module: CausalLM, count: int) -> torch.Tensor:
    virtual = torch.arange(count).expand(len(IDS), -1) + module.config.vocab_size
    return module(torch.cat((virtual, IDS), 1))[:, count:]


def test_the_methods_that_are_promised() -> None:
    promised = {"lora", "rslora", "dora", "pissa", "ia3", "prefix", "prompt", "houlsby", "pfeiffer", "bitfit", "full"}
    assert promised <= set(METHODS)
    with pytest.raises(ConfigError, match=r"Did you mean lora\?"):
        find_method("lorra")


@pytest.mark.parametrize("name", METHODS)
def test_it_says_what_it_is(name: str) -> None:
    method = find_method(name)
    title = titles(FOLDER)[name]
    assert "arXiv" in title or name == "full"
    assert len(title) < 130
    assert method.KIND in KINDS
    assert 0 < method.RATE < 1
    method.Settings()


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", METHODS)
def test_it_changes_nothing_at_first_and_touches_all(name: str, config: str) -> None:
    module, got, checkpoint = attach(name, CONFIGS[config]())
    before = load_module(checkpoint)(IDS)
    if find_method(name).KIND not in VIRTUAL:
        torch.testing.assert_close(module(IDS), before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(applied(checkpoint, find_method(name).KIND, got), before, rtol=1e-4, atol=1e-4)
    check_names(got.parameters, module)
    check_touched(got)
    assert set(got.touched) == set(got.intended)
    assert got.share == 1
    assert {id(p) for p in module.parameters()} >= {id(p) for p in got.parameters.values()}
    assert {n for n, _ in module.named_parameters()} >= set(checkpoint.names) - {"lm_head.weight"}, "the model's own names are gone"


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", METHODS)
def test_the_delta_on_the_original_model_is_the_tuned_module(name: str, config: str) -> None:
    module, got, checkpoint = attach(name, CONFIGS[config]())
    before = tuned_logits(module, got.virtual_tokens)
    shake(got, 0.002 if name == "full" else 0.05)  # its float16 is exact to a 2,000th of the change
    after = tuned_logits(module, got.virtual_tokens)
    assert (after - before).abs().max() > 0.02
    torch.testing.assert_close(applied(checkpoint, find_method(name).KIND, got), after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_slopes_and_reach_all_that_is_trained_and_nothing_else(name: str) -> None:
    module, got, _ = attach(name, tiny_config(layers=HYBRID, biases=True))
    shake(got)
    freeze_others(module, got)
    batch = packed(got, module.config)
    loss_of(module, batch).backward()
    slopes = gradients(module)
    assert slopes.keys() == got.parameters.keys()
    assert all(slope.abs().max() > 0 for slope in slopes.values())
    plain = {n: s.clone() for n, s in slopes.items()}
    module.zero_grad()
    loss_of(module, batch, recompute=True).backward()
    for part, slope in gradients(module).items():
        torch.testing.assert_close(slope, plain[part], rtol=1e-4, atol=1e-5, msg=part)
    if name == "dora":
        return  # its gradient isn't the slope: the paper takes the norm for a constant (its section 4.3); see test_tuning_methods.py
    draw, step = torch.Generator().manual_seed(3), 2e-3
    for part, parameter in got.parameters.items():
        way = plain[part] / plain[part].norm() + torch.randn(parameter.shape, generator=draw) / parameter.numel() ** 0.5
        with torch.no_grad():
            parameter += step * way
            high = loss_of(module, batch)
            parameter -= 2 * step * way
            low = loss_of(module, batch)
            parameter += step * way
        expected = float((plain[part] * way).sum())
        assert abs(float(high - low) / (2 * step) - expected) < 0.02 * abs(expected) + 0.05, part


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_in_bfloat16_it_computes_nearly_the_same(name: str) -> None:
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        module, got, _ = attach(name)
        shake(got, 0.02)
        Trained(got.parameters, OptimiserSettings(), dtype)
        for part, parameter in module.named_parameters():
            if part not in got.parameters:
                parameter.data = parameter.data.to(dtype)
        states = final_states(module, packed(got, module.config))
        assert states.dtype == dtype
        results.append(states.float())
    assert (results[0] - results[1]).abs().mean() < 0.02 * results[0].abs().mean()


@pytest.mark.parametrize("name", METHODS)
def test_it_learns(name: str, tmp_path: Path) -> None:
    module, got, _ = attach(name)
    data = some_data()
    data = Data(with_virtual(data.corpus, got.virtual_tokens, module.config.vocab_size), data.train, data.held_out)
    rate = max(find_method(name).RATE, 5e-3)  # the tiny model is far from all that it is to learn
    settings = TrainSettings(max_steps=30, batch_tokens=512, precision="fp32", optimiser=OptimiserSettings(learning_rate=rate))
    report = train(module, got.parameters, data, settings, tmp_path)
    assert report.first_loss is not None and report.loss is not None
    assert report.loss < 0.97 * report.first_loss, (report.first_loss, report.loss)


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_it_follows_from_its_seed(name: str) -> None:
    torch.manual_seed(1)
    _, first, _ = attach(name, seed=5)
    torch.manual_seed(2)
    _, again, _ = attach(name, seed=5)
    assert first.parameters.keys() == again.parameters.keys()
    assert all(torch.equal(first.parameters[part], again.parameters[part]) for part in first.parameters)
    tensors = again.collect()
    assert all(torch.equal(tensor, tensors[part]) for part, tensor in first.collect().items())


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_what_it_collects_stays_as_it_was(name: str) -> None:
    _, got, _ = attach(name)
    tensors = got.collect()
    kept = {part: tensor.clone() for part, tensor in tensors.items()}
    shake(got)
    assert all(torch.equal(tensor, kept[part]) for part, tensor in tensors.items())


@pytest.mark.parametrize("name", METHODS)
def test_only_the_layers_that_are_asked_for(name: str) -> None:
    method, module = find_method(name), tiny_module()
    if method.KIND in VIRTUAL:
        with pytest.raises(ConfigError, match="layers"):
            method.attach(module, (1,), small(method), 0)
        return
    got = method.attach(module, (1,), small(method), 0)
    assert all(part.startswith("model.layers.1.") for part in (*got.intended, *got.parameters, *got.collect()))


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_do_not_fit(name: str) -> None:
    method = find_method(name)
    for field, value in (("rank", 0), ("rank", 1000), ("dropout", 1.0), ("alpha", 0.0), ("targets", "qkv_proj"), ("tokens", 0)):
        if not hasattr(method.Settings(), field):
            continue
        module = tiny_module()
        before = [type(part) for part in module.modules()]
        with pytest.raises(ConfigError) as error:
            method.attach(module, (0, 1), replace(small(method), **{field: value}), 0)
        assert error.value.field == field
        assert [type(part) for part in module.modules()] == before, "the module was half changed"


@pytest.mark.parametrize("name", [name for name in METHODS if name != "full"])
def test_not_twice_on_one_module(name: str) -> None:
    module, _, _ = attach(name)
    if name == "bitfit":
        return  # biases are biases
    with pytest.raises(ConfigError, match="anew"):
        method = find_method(name)
        method.attach(module, (0, 1), small(method), 0)


def test_layers() -> None:
    config = tiny_config(layers=(tiny_config().layers[0],) * 6)
    assert chosen_layers(config, "all") == (0, 1, 2, 3, 4, 5)
    assert chosen_layers(config, "upper-third") == (4, 5)
    assert chosen_layers(config, "0,2-3") == (0, 2, 3)
    for wrong in ("6", "0-9", "", "-1", "3-1", "upper", "1,,2"):
        with pytest.raises(ConfigError, match="layers"):
            chosen_layers(config, wrong)


def test_too_few_touched_is_an_error() -> None:
    module, got, _ = attach("lora")
    some = dict(list(got.parameters.items())[:2])
    few = attached(module, got.intended, some, got.collect)
    assert 0 < few.share < 0.1
    with pytest.raises(ConfigError, match="must touch every intended part") as error:
        check_touched(few)
    assert "1, without model.layers.0.self_attn.k_proj" in str(error.value)
    stranger = attached(tiny_module(), got.intended, got.parameters, got.collect)
    assert stranger.share == 0
    with pytest.raises(ConfigError, match="0, without"):
        check_touched(stranger)
    with pytest.raises(ConfigError, match="none asked for"):
        check_touched(attached(module, (), {}, dict))
