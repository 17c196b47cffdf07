"""Every family on the CPU backend: logits are transformers', from safetensors that it wrote and from GGUF, however a text is cut."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ingle.core.spec import ModelConfig
from ingle.engine.backend import Segment
from ingle.model.checkpoint import open_checkpoint
from ingle.model.export_formats import write_hf
from ingle.model.hf_config import all_frequencies
from tests.engine.tiny import backend_of, read_in_cuts
from tests.model.tiny_models import hf_model, hf_table, random_weights, tiny_config, write_gguf

CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}), ("qwen2", {}), ("qwen3", {}), ("mistral", {}),
    ("smollm3", {"no_rope_layers": None}), ("granite", {}), ("olmo2", {}), ("phi3", {}),
    ("gemma3_text", {"num_hidden_layers": 7, "layer_types": None, "query_pre_attn_scalar": 16, "rope_local_base_freq": 10000.0}),
    ("olmoe", {}), ("qwen3_moe", {}), ("lfm2", {}), ("qwen3_5_text", {}),
]  # fmt: skip
"""SmolLM3 and Gemma as llama.cpp knows them: every fourth layer without positions; the sixth sees everything, scores scaled by a head's
width."""
IDS = np.random.default_rng(3).integers(0, 96, 60).tolist()


def theirs(family: str, changes: dict[str, Any]) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = hf_model(family, **changes)(torch.tensor([IDS])).logits[0].numpy()
    return logits


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_logits_are_those_of_transformers_from_its_own_files(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    model = hf_model(family, **changes)
    model.save_pretrained(tmp_path / "hf")
    checkpoint = open_checkpoint(tmp_path / "hf")
    assert checkpoint.config == tiny_config(family, **changes)
    backend = backend_of(tmp_path, checkpoint)
    [got] = backend.forward([Segment(backend.new_state(), IDS, "all")])
    assert np.abs(got - theirs(family, changes)).max() <= 1e-4


@pytest.mark.parametrize(("family", "changes"), [case for case in CASES if case[0] != "mistral"])
def test_logits_are_those_of_transformers_from_gguf(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    config = tiny_config(family, **changes)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", config, random_weights(config)))
    assert near(checkpoint.config, config)
    backend = backend_of(tmp_path, checkpoint)
    [got] = backend.forward([Segment(backend.new_state(), IDS, "all")])
    assert np.abs(got - theirs(family, changes)).max() <= 1e-4


@pytest.mark.parametrize("family", ["gemma3_text", "qwen3_5_text"])
def test_of_a_model_with_eyes_the_words_are_run_and_it_is_said(tmp_path: Path, family: str) -> None:
    import transformers

    name = {"gemma3_text": "Gemma3", "qwen3_5_text": "Qwen3_5"}[family]
    told = {key: value for key, value in hf_table(family).items() if key != "architectures"}
    eyes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 4, "image_size": 16}
    more = {"num_hidden_layers": 1} if name == "Gemma3" else {"depth": 1, "num_heads": 2, "out_hidden_size": 64}
    config = getattr(transformers, f"{name}Config")(text_config=told, vision_config=eyes | more, tie_word_embeddings=False)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval().float()
    model.save_pretrained(tmp_path / "hf")
    checkpoint = open_checkpoint(tmp_path / "hf")
    assert checkpoint.config.family == family and checkpoint.left_out == "eyes"
    backend = backend_of(tmp_path, checkpoint)
    [got] = backend.forward([Segment(backend.new_state(), IDS, "all")])
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(got - expected).max() <= 1e-4
    assert not open_checkpoint(write_gguf(tmp_path / "m.gguf", tiny_config("llama"), random_weights(tiny_config("llama")))).left_out


def near(one: ModelConfig, other: ModelConfig) -> bool:
    """The same, but for the rounding of factors to float32 in GGUF."""
    names = ("embedding", "residual", "attention", "logit")
    scales = [[getattr(config.ways, f"{name}_scale") for name in names] for config in (one, other)]
    turns = [np.concatenate([np.concatenate(turn) for turn in all_frequencies(config)]) for config in (one, other)]
    return np.allclose(*scales, rtol=1e-6) and np.allclose(*turns, rtol=1e-6) and one.layers == other.layers


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_exported_transformers_opens_it_as_the_same_model(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    config = tiny_config(family, **changes)
    write_hf(tmp_path / "ours", config, random_weights(config).__getitem__, "float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        got = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(got - theirs(family, changes)).max() <= 1e-5


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_cut_anywhere_a_text_is_read_the_same(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    model = hf_model(family, **changes)
    model.save_pretrained(tmp_path / "hf")
    backend = backend_of(tmp_path, open_checkpoint(tmp_path / "hf"), "int8", cache="float16")
    whole = backend.forward([Segment(backend.new_state(), IDS, "all")])[0].copy()
    np.testing.assert_array_equal(read_in_cuts(backend, IDS, [1, 22, 1, 36]), whole)
