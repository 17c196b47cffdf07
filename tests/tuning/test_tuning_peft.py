"""PEFT's files and ours: what one writes, the other reads, and both compute the same on the same model."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ingle.core.errors import CheckpointError, ConfigError, DeltaError, IngleError
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.module import load_module
from ingle.tuning.peft_files import CONFIG, WEIGHTS, read_peft, write_peft
from ingle.tuning.tuning_method import find_method
from ingle.tuning.virtual import prompt_tensors
from tests.model.tiny_models import hf_model, random_weights, tiny_config
from tests.tuning.applied import checkpoint_of, logits_with

IDS = torch.arange(2, 26).reshape(2, 12) * 5 % 96
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
THEIRS: dict[str, Callable[[], peft.PeftConfig]] = {
    "lora": lambda: peft.LoraConfig(r=4, lora_alpha=12, target_modules=LINEARS, task_type="CAUSAL_LM"),
    "all-linear": lambda: peft.LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"),
    "a pattern": lambda: peft.LoraConfig(r=4, target_modules=r".*layers\.1\.(self_attn|mlp)\.(q|up)_proj", task_type="CAUSAL_LM"),
    "some layers": lambda: peft.LoraConfig(
        r=4, target_modules=["v_proj", "up_proj"], layers_to_transform=[1], layers_pattern="layers", task_type="CAUSAL_LM"
    ),
    "excluded": lambda: peft.LoraConfig(r=4, target_modules=LINEARS, exclude_modules=["mlp.up_proj"], task_type="CAUSAL_LM"),
    "patterns of ranks": lambda: peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=LINEARS, rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6},
        alpha_pattern={"layers.0.self_attn.q_proj": 5, "down_proj": 3}, task_type="CAUSAL_LM",
    ),
    "rslora": lambda: peft.LoraConfig(r=9, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    "dora": lambda: peft.LoraConfig(r=4, lora_alpha=10, use_dora=True, target_modules=LINEARS, task_type="CAUSAL_LM"),
    "gaussian": lambda: peft.LoraConfig(r=4, init_lora_weights="gaussian", target_modules=["o_proj"], task_type="CAUSAL_LM"),
    "ia3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    ),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    "projected prefix": lambda: peft.PrefixTuningConfig(
        num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=20, task_type="CAUSAL_LM"
    ),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM"),
}  # fmt: skip
KIND = {"dora": "dora", "ia3": "ia3", "prefix": "prefix", "projected prefix": "prefix", "prompt": "prompt"}


def checkpoint(family: str = "llama") -> Checkpoint:
    """The weights that `hf_model` has."""
    config = tiny_config(family)
    return checkpoint_of(config, random_weights(config))


def shake(model: torch.nn.Module, size: float = 0.1) -> None:
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=draw)


def whole(base: Checkpoint, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What was read, and if it is a prompt, its keys and values."""
    if "prompt_embeddings" in tensors and "prefix.keys" not in tensors:
        made = prompt_tensors(load_module(base), torch.from_numpy(tensors["prompt_embeddings"]))
        return {name: tensor.numpy() for name, tensor in made.items()}
    return dict(tensors)


@torch.no_grad()
def their_logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return logits[:, -ids.shape[1] :]


def write_theirs(folder: Path, config: peft.PeftConfig, family: str = "llama") -> torch.Tensor:
    """An adapter by PEFT, far from where it begins, saved; and its logits."""
    torch.manual_seed(0)
    model = peft.get_peft_model(hf_model(family), config).eval()
    shake(model)
    model.save_pretrained(folder)
    return their_logits(model)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("name", THEIRS)
def test_theirs_are_read(name: str, family: str, tmp_path: Path) -> None:
    expected = write_theirs(tmp_path, THEIRS[name](), family)
    base = checkpoint(family)
    kind, tensors = read_peft(tmp_path, base.config)
    assert kind == KIND.get(name, "lora")
    assert all(value.dtype == np.float32 for value in tensors.values())
    assert (their_logits(hf_model(family)) - expected).abs().max() > 0.05
    torch.testing.assert_close(logits_with(base, kind, whole(base, tensors), IDS), expected, rtol=1e-4, atol=1e-4)


def test_a_converted_pissa_is_a_lora(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights="pissa", target_modules=LINEARS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(hf_model("llama"), config).eval()
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "first")
    model.peft_config["default"].init_lora_weights = "pissa"
    shake(model)
    model.save_pretrained(tmp_path / "raw")
    model.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "first"))
    base = checkpoint()
    with pytest.raises(DeltaError, match=r"init_lora_weights.*pissa.*path_initial_model_for_weight_conversion"):
        read_peft(tmp_path / "raw", base.config)
    kind, tensors = read_peft(tmp_path / "converted", base.config)
    assert tensors["model.layers.0.self_attn.q_proj.lora_A.weight"].shape[0] == 8
    torch.testing.assert_close(logits_with(base, kind, tensors, IDS), their_logits(model), rtol=1e-4, atol=1e-4)


OURS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "lora": ("lora", {"rank": 4}, (0, 1)),
    "lora, upper layer": ("lora", {"rank": 3, "targets": "mlp"}, (1,)),
    "rslora": ("rslora", {"rank": 4}, (0, 1)),
    "dora": ("dora", {"rank": 4}, (0, 1)),
    "pissa": ("pissa", {"rank": 4}, (0, 1)),
    "ia3": ("ia3", {}, (0, 1)),
    "ia3, upper layer": ("ia3", {"outputs": "q_proj", "inputs": "up_proj,o_proj"}, (1,)),
    "prefix": ("prefix", {"tokens": 4}, (0, 1)),
    "prompt": ("prompt", {"tokens": 4}, (0, 1)),
}


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("name", OURS)
def test_ours_are_loaded_by_peft(name: str, family: str, tmp_path: Path) -> None:
    method_name, changes, layers = OURS[name]
    method, base = find_method(method_name), checkpoint(family)
    module = load_module(base)
    got = method.attach(module, layers, replace(method.Settings(), **changes), 0)
    draw = torch.Generator().manual_seed(5)
    for parameter in got.parameters.values():
        parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    virtual = torch.arange(got.virtual_tokens).expand(len(IDS), -1) + base.config.vocab_size
    expected = module(torch.cat((virtual, IDS), 1))[:, got.virtual_tokens :]
    tensors = {part: tensor.numpy() for part, tensor in got.collect().items()}
    write_peft(tmp_path, method.KIND, tensors, "somebody/model")
    model = peft.PeftModel.from_pretrained(hf_model(family), str(tmp_path)).eval()
    torch.testing.assert_close(their_logits(model), expected, rtol=1e-4, atol=1e-4)
    assert model.peft_config["default"].base_model_name_or_path == "somebody/model"
    kind, again = read_peft(tmp_path, base.config)
    assert kind == method.KIND
    for part, values in again.items():
        np.testing.assert_allclose(values, tensors[part], rtol=1e-6, atol=1e-7, err_msg=part)
    assert set(again) == {part for part in tensors if method_name != "prompt" or part == "prompt_embeddings"}


def test_ranks_that_differ_go_there_and_back(tmp_path: Path) -> None:
    draw, tensors = np.random.default_rng(0), {}
    base = checkpoint()
    for linear, rank, rows, columns in (("0.self_attn.q_proj", 3, 64, 64), ("0.mlp.up_proj", 5, 96, 64), ("1.self_attn.q_proj", 3, 64, 64)):
        tensors[f"model.layers.{linear}.lora_A.weight"] = draw.standard_normal((rank, columns)).astype(np.float32)
        tensors[f"model.layers.{linear}.lora_B.weight"] = 0.1 * draw.standard_normal((rows, rank)).astype(np.float32)
    write_peft(tmp_path, "lora", tensors, "base")
    model = peft.PeftModel.from_pretrained(hf_model("llama"), str(tmp_path)).eval()
    torch.testing.assert_close(their_logits(model), logits_with(base, "lora", tensors, IDS), rtol=1e-4, atol=1e-4)
    _, again = read_peft(tmp_path, base.config)
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)


def test_bfloat16_and_names_without_the_prefix(tmp_path: Path) -> None:
    write_theirs(tmp_path, THEIRS["lora"]())
    base = checkpoint()
    _, before = read_peft(tmp_path, base.config)
    import safetensors.torch

    tensors = safetensors.torch.load_file(tmp_path / WEIGHTS)
    halves = {name.removeprefix("base_model.model."): tensor.bfloat16() for name, tensor in tensors.items()}
    safetensors.torch.save_file(halves, tmp_path / WEIGHTS)
    _, after = read_peft(tmp_path, base.config)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=2**-8)


@pytest.mark.parametrize("kind", ["full", "bias", "bottleneck"])
def test_kinds_that_peft_has_no_file_for(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=kind):
        write_peft(tmp_path / "new", kind, {}, "base")
    assert not (tmp_path / "new").exists()


def edit_config(folder: Path, **changes: Any) -> None:
    table = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(table | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def put(name: str, value: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: edit_tensors(folder, lambda tensors: tensors.update({name: value}))


def without(part: str) -> Callable[[Path], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return lambda folder: edit_tensors(folder, change)


def settings(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_config(folder, **changes)


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
BAD: dict[str, tuple[str, Callable[[Path], None], type[IngleError], str]] = {
    "no folder": ("lora", lambda folder: (folder / CONFIG).unlink(), CheckpointError, "must hold adapter_config.json"),
    "no JSON": ("lora", lambda folder: (folder / CONFIG).write_text("{"), CheckpointError, "must be valid JSON"),
    "no weights": ("lora", lambda folder: (folder / WEIGHTS).unlink(), CheckpointError, "must hold adapter_model.safetensors"),
    "a pickle": ("lora", pickled, CheckpointError, "adapter_model.bin.*never loaded.*safe_serialization=True"),
    "cut off": ("lora", cut, CheckpointError, "whole safetensors"),
    "unknown type": ("lora", settings(peft_type="VERA"), DeltaError, "peft_type.*LORA, IA3, PREFIX_TUNING, PROMPT_TUNING.*VERA"),
    "no type": ("lora", settings(peft_type=None), CheckpointError, "peft_type"),
    "targets that match nothing": (
        "lora", settings(target_modules=["query_key_value"]), DeltaError, "match nothing in this model.*query_key_value.*self_attn.q_proj"
    ),
    "a pattern that matches nothing": ("a pattern", settings(target_modules=r".*h\.1\.attn"), DeltaError, "match nothing"),
    "no pattern": ("a pattern", settings(target_modules="(("), DeltaError, "regular expression"),
    "no pattern of ranks": ("lora", settings(rank_pattern={"((": 3}), DeltaError, "rank_pattern.*regular expression"),
    "targets of another type": ("lora", settings(target_modules=7), CheckpointError, "target_modules.*list of strings"),
    "layers of another type": ("lora", settings(layers_to_transform=["one"]), DeltaError, "layers_to_transform.*whole numbers"),
    "more targets than tensors": ("rslora", settings(target_modules=LINEARS), DeltaError, "must hold all 28 tensors.*: 8, without"),
    "fewer targets than tensors": ("lora", settings(target_modules=["q_proj"]), DeltaError, "no part of what the settings target"),
    "a layer missing": ("lora", without("layers.1."), DeltaError, "must hold all 28 tensors.*layers.1.*cut short"),
    "a B missing": ("lora", without("layers.1.mlp.up_proj.lora_B"), DeltaError, "without model.layers.1.mlp.up_proj.lora_B"),
    "more layers": (
        "lora", put(A.replace("layers.0", "layers.7"), np.ones((4, 64), np.float32)), DeltaError, "layers.7.*no part of what the settings"
    ),
    "wrong columns": ("lora", put(A, np.ones((4, 63), np.float32)), DeltaError, r"q_proj.lora_A.*must have shape.*\(4, 63\)"),
    "wrong rows": ("lora", put(A.replace("_A", "_B"), np.ones((65, 4), np.float32)), DeltaError, r"q_proj.lora_B.*\(65, 4\)"),
    "ranks that differ": ("lora", put(A, np.ones((5, 64), np.float32)), DeltaError, "must have shape"),
    "another rank": ("lora", settings(r=8), DeltaError, "r must be the rank of the tensors.*8, and 4"),
    "rank 0": ("lora", settings(r=0), DeltaError, "r must be the rank"),
    "not finite": ("lora", put(A, np.full((4, 64), np.nan, np.float32)), DeltaError, "finite"),
    "integers": ("lora", put(A, np.ones((4, 64), np.int64)), CheckpointError, "type"),
    "on the head": (
        "lora", put("base_model.model.lm_head.lora_A.weight", np.ones((4, 64), np.float32)), DeltaError, "the embedding or the head"
    ),
    "on the embedding": (
        "lora", put("base_model.model.model.embed_tokens.lora_embedding_A", np.ones((4, 96), np.float32)), DeltaError, "the embedding or"
    ),
    "whole modules": ("lora", settings(modules_to_save=["lm_head"]), DeltaError, "modules_to_save.*not supported.*Merge it with PEFT"),
    "biases": ("lora", settings(bias="all"), DeltaError, "bias must be none"),
    "turned": ("lora", settings(fan_in_fan_out=True), DeltaError, "fan_in_fan_out"),
    "layers twice": ("lora", settings(layer_replication=[[0, 2], [1, 2]]), DeltaError, "layer_replication"),
    "another base": ("lora", settings(init_lora_weights="olora"), DeltaError, "must not change the base"),
    "dora without magnitudes": ("lora", settings(use_dora=True), DeltaError, "must hold all 42 tensors.*lora_magnitude_vector"),
    "lora with magnitudes": ("dora", settings(use_dora=False), DeltaError, "lora_magnitude_vector.*no part of"),
    "ia3 of a wrong side": (
        "ia3", put("base_model.model.model.layers.0.mlp.down_proj.ia3_l", np.ones((96, 1), np.float32)), DeltaError, "must have shape"
    ),
    "a prefix of more layers": ("prefix", put("prompt_embeddings", np.ones((5, 192), np.float32)), DeltaError, r"\(5, 128\) on this"),
    "a prefix of other tokens": ("prefix", settings(num_virtual_tokens=6), DeltaError, r"must have shape \(6, 128\)"),
    "a prefix with more": ("prefix", put("other", np.ones(3, np.float32)), DeltaError, "prompt_embeddings and nothing else.*other"),
    "a prompt that is too wide": ("prompt", put("prompt_embeddings", np.ones((6, 65), np.float32)), DeltaError, r"\(6, 64\)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder by PEFT of each kind, made once."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name.replace(" ", "_"))
            write_theirs(made[name], THEIRS[name]())
        return made[name]

    return find


def test_adapters_of_fused_matrices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeltaError, match=r"for phi3, which has self_attn\.qkv_proj and mlp\.gate_up_proj there.*--format hf"):
        read_peft(tmp_path, tiny_config("phi3"))


@pytest.mark.parametrize("what", BAD)
def test_bad_folders(what: str, tmp_path: Path, saved: Callable[[str], Path]) -> None:
    kind, harm, error, message = BAD[what]
    for part in (CONFIG, WEIGHTS):
        (tmp_path / part).write_bytes((saved(kind) / part).read_bytes())
    read_peft(tmp_path, tiny_config("llama"))
    harm(tmp_path)
    with pytest.raises(error, match=f"(?s){message}"):
        read_peft(tmp_path, tiny_config("llama"))


@pytest.mark.parametrize("pattern", ["(.+)+!", "((a*)b)+x", r"(?:\w|.)*!", ".*" * 9 + "q_proj", "q" * 3000])
def test_patterns_that_could_take_for_ever(pattern: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    table = json.loads((saved("lora") / CONFIG).read_text()) | {"target_modules": pattern}
    (tmp_path / CONFIG).write_text(json.dumps(table))
    (tmp_path / WEIGHTS).write_bytes((saved("lora") / WEIGHTS).read_bytes())
    with pytest.raises(DeltaError, match="repetitions, none of a group"):
        read_peft(tmp_path, tiny_config("llama"))


def test_another_model(saved: Callable[[str], Path]) -> None:
    with pytest.raises(DeltaError, match="must hold all 42"):
        read_peft(saved("lora"), tiny_config("llama", num_hidden_layers=3))
    with pytest.raises(DeltaError, match="must have shape"):
        read_peft(saved("lora"), tiny_config("llama", intermediate_size=128))
    with pytest.raises(DeltaError, match="on this model"):
        read_peft(saved("prefix"), tiny_config("llama", num_key_value_heads=1))


@torch.no_grad()
def test_on_a_real_model(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Ours on SmolLM2, loaded by PEFT on Hugging Face's own model of the same weights."""
    import transformers

    base = open_checkpoint(smollm2_gguf)
    config, method = base.config, find_method("dora")
    module = load_module(base)
    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=config.vocab_size, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
                num_hidden_layers=len(config.layers), num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads,
                rms_norm_eps=config.norm_eps, rope_parameters={"rope_type": "default", "rope_theta": config.rope.theta},
                tie_word_embeddings=config.tie_embeddings,
            )
        )  # fmt: skip
    theirs.load_state_dict(module.state_dict(), assign=True)
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(theirs.config)
    ids = torch.tensor([[504, 3575, 282, 4649, 314, 7042, 30, 1691]])
    torch.testing.assert_close(their_logits(theirs.eval(), ids), module(ids), rtol=0, atol=2e-4)
    got = method.attach(module, tuple(range(30)), method.Settings(), 0)
    draw = torch.Generator().manual_seed(5)
    for parameter in got.parameters.values():
        parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
    write_peft(tmp_path, "dora", {part: tensor.numpy() for part, tensor in got.collect().items()}, "SmolLM2")
    before, expected = their_logits(theirs, ids), module(ids)
    model = peft.PeftModel.from_pretrained(theirs, str(tmp_path)).eval()
    found = their_logits(model, ids)
    assert (found - before).abs().max() > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)  # 5e-5 as measured, of logits up to 29
