"""The torch module gives transformers' logits for every switch, and the same with a cache as without one."""

import contextlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import gguf_name, hf_model, random_weights, tiny_config, write_gguf
from tiny_tokenizers import TEXTS, byte_level, gguf_metadata, pieces
from torch import nn

from ingle.core.errors import CheckpointError, ConfigError, ShapeError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.export_formats import write_hf
from ingle.model.family import as_in_files, families
from ingle.model.module import CausalLM, load_module
from ingle.model.module_parts import PackedRows, made_again
from ingle.model.tensor import Tensor
from ingle.model.tokenizer import open_tokenizer, tokenizer_from_gguf
from ingle.train.forward import attend_on
from tests.examples import examples

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
SWITCHES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
    ("llama", {"head_dim": 24, "rms_norm_eps": 1e-3}),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500000.0}),
    ("llama", {"rope_scaling": YARN}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    ("qwen3", {}),
    ("qwen3", {"attention_bias": True, "head_dim": 32, "rope_scaling": YARN}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}),
    ("mistral", {}),
    ("mistral", {"sliding_window": None, "head_dim": 24}),
    ("smollm3", {}),
    ("smollm3", {"attention_bias": True, "mlp_bias": True, "no_rope_layers": None}),
    ("granite", {}),
    ("granite", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("olmo2", {}),
    ("phi3", {}),
    ("phi3", {"partial_rotary_factor": 1.0, "rope_scaling": None, "sliding_window": 7}),
    ("gemma3_text", {"tie_word_embeddings": True}),
    ("gemma3_text", {"head_dim": 32, "num_hidden_layers": 7, "layer_types": None}),
    ("olmoe", {}),
    ("olmoe", {"norm_topk_prob": True, "num_experts_per_tok": 1}),
    ("qwen3_moe", {"mlp_only_layers": [1]}),
    ("lfm2", {}),
    ("lfm2", {"conv_bias": True, "conv_L_cache": 4, "block_auto_adjust_ff_dim": True, "block_multiple_of": 16}),
    ("qwen3_5_text", {}),
    ("qwen3_5_text", {"linear_num_key_heads": 4, "attention_bias": True, "tie_word_embeddings": True, "num_hidden_layers": 8}),
]


def memory_checkpoint(config: ModelConfig, weights: dict[str, np.ndarray]) -> Checkpoint:
    weights = {name: as_in_files(config, weights.__getitem__, name) for name in weights}
    stored = {
        name: Tensor(name, w.shape, "F32", w.view(np.uint8).reshape(w.shape[0], -1) if w.ndim == 2 else w.view(np.uint8))
        for name, w in weights.items()
    }
    return Checkpoint(config, (), stored)


def tiny_module(config: ModelConfig, seed: int = 0) -> CausalLM:
    return load_module(memory_checkpoint(config, random_weights(config, seed)))


def some_ids(batch: int, steps: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 96, (batch, steps)))


@pytest.mark.parametrize(("family", "changes"), SWITCHES)
def test_logits_and_names_are_those_of_transformers(family: str, changes: dict[str, Any]) -> None:
    theirs, mine = hf_model(family, **changes), tiny_module(tiny_config(family, **changes))
    own = families()[family]
    assert set(mine.state_dict()) == set(theirs.state_dict()) or own.fused or own.renamed or mine.config.experts
    ids = some_ids(2, 40)
    with torch.no_grad():
        expected = theirs(ids).logits
        difference = (expected - mine(ids)).abs().max()
    assert difference <= 1e-5 * max(1.0, float(expected.abs().max())), difference


@pytest.mark.parametrize("family", sorted(families()))
def test_packed_as_training_packs_it_is_each_document_alone(family: str) -> None:
    """States and gradients of documents in one row, by the training kernels, are those of the plain forward."""
    module, ids, bounds = tiny_module(tiny_config(family)), some_ids(1, 40)[0], (0, 13, 14, 40)
    documents = list(pairwise(bounds))
    slopes = []
    for packed in (True, False):
        module.zero_grad()
        if packed:
            x = module.model.embed_tokens(ids)
            positions = torch.cat([torch.arange(b - a, dtype=torch.float32) for a, b in documents])
            cos, sin = module.angles(positions, x.dtype)
            for layer in module.model.layers:
                x = layer(x, cos, sin, PackedRows(attend_on(ids.device, bounds), bounds))
            states = module.model.norm(x)
        else:
            states = torch.cat([module.hidden(ids[None, a:b])[0] for a, b in documents])
        (module.logits(states) * torch.linspace(-1, 1, 96)).sum().backward()
        slopes.append({name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None})
    assert set(slopes[0]) == set(dict(module.named_parameters()))
    for name, slope in slopes[0].items():
        torch.testing.assert_close(slope, slopes[1][name], rtol=1e-3, atol=1e-4 * float(slopes[1][name].abs().max()))


@examples(40)
@given(data=st.data())
def test_any_layers_agree_with_the_plain_mask(data: st.DataObject) -> None:
    def spec() -> LayerSpec:
        groups = data.draw(st.sampled_from([(), (0,), (1,), (0, 1)]))
        return LayerSpec(groups, window=data.draw(st.integers(1, 12)), sinks=data.draw(st.integers(0, 5)))

    config = tiny_config("qwen3").with_layers((spec(), spec()))
    module = tiny_module(config)
    steps = data.draw(st.integers(1, 30))
    ids = some_ids(2, steps, seed=steps)
    with torch.no_grad():
        assert (module(ids) - naive_logits(module, ids)).abs().max() <= 1e-5


def naive_logits(module: CausalLM, ids: torch.Tensor) -> torch.Tensor:
    """The same model with every head by itself, a loop over queries, and the rule of sight written out."""
    config, x = module.config, module.model.embed_tokens(ids)
    angle = torch.arange(ids.shape[1])[:, None] * module.turns[0][0]
    for index, layer in enumerate(module.model.layers):
        attention, spec = layer.self_attn, config.layers[index]
        h = layer.input_layernorm(x)
        q, k, v = (p(h).unflatten(-1, (-1, config.head_dim)) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        q, k = attention.q_norm(q), attention.k_norm(k)
        q, k = (torch.stack([_turned(t[:, i], angle[i]) for i in range(ids.shape[1])], 1) for t in (q, k))
        out = torch.zeros_like(q)
        for head in range(config.num_heads):
            group = head // config.queries_per_group
            for i in range(ids.shape[1]):
                full = group in spec.retrieval
                seen = [p for p in range(i + 1) if full or p > i - spec.window or p < spec.sinks]
                scores = torch.einsum("bd,bpd->bp", q[:, i, head], k[:, seen, group]) / config.head_dim**0.5
                out[:, i, head] = torch.einsum("bp,bpd->bd", scores.softmax(-1), v[:, seen, group])
        x = x + attention.o_proj(out.flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return module.lm_head(module.model.norm(x))


def _turned(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()), -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_gate_are_the_plain_formulas_forward_and_back(dtype: torch.dtype) -> None:
    """Forward to the last bit; back within rounding, with less kept for it."""
    module = tiny_module(tiny_config("llama")).to(dtype)
    norm, mlp = module.model.norm, module.model.layers[0].mlp

    def plain_norm(x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return norm.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).to(x.dtype)

    def plain_mlp(x: torch.Tensor) -> torch.Tensor:
        return mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))

    for mine, plain, owner in ((norm, plain_norm, norm), (mlp, plain_mlp, mlp)):
        results = []
        for function in (mine, plain):
            x = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
            y = function(x)
            slope = torch.linspace(-1, 2, y.numel()).view_as(y).to(dtype)
            results.append((y.detach(), *torch.autograd.grad(y, [x, *owner.parameters()], slope)))
        assert torch.equal(results[0][0], results[1][0])
        with torch.inference_mode():
            assert torch.equal(mine(x.detach()), results[1][0])
        tolerance = 1e-4 if dtype == torch.float32 else 3e-2
        for a, b in zip(results[0][1:], results[1][1:], strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def test_gradients_reach_every_weight() -> None:
    module = tiny_module(tiny_config("qwen3").with_layers((LayerSpec((1,), window=4, sinks=1), LayerSpec((), window=4))))
    module(some_ids(2, 12)).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_other_types_stay_close_and_tied_weights_are_one() -> None:
    config = tiny_config("llama", tie_word_embeddings=True)
    checkpoint = memory_checkpoint(config, random_weights(config))
    exact, rough = load_module(checkpoint), load_module(checkpoint, torch.bfloat16)
    assert rough.lm_head.weight is rough.model.embed_tokens.weight
    assert {p.dtype for p in rough.parameters()} == {torch.bfloat16}
    assert all(not p.is_meta for p in rough.parameters())
    with torch.no_grad():
        ids = some_ids(1, 20)
        assert (exact(ids) - rough(ids).float()).abs().max() < 0.3


def test_what_the_module_cannot_do() -> None:
    config = tiny_config("llama")
    with pytest.raises(ShapeError, match="at least one token"):
        tiny_module(config)(torch.zeros((1, 0), dtype=torch.long))


# Export


@pytest.mark.parametrize(
    ("family", "changes", "pre"),
    [(*SWITCHES[1], "smollm"), (*SWITCHES[1], None), (*SWITCHES[5], "llama-bpe"), (*SWITCHES[8], "qwen2"), (*SWITCHES[10], "qwen2")],
)
def test_transformers_reopens_what_is_exported(tmp_path: Path, family: str, changes: dict[str, Any], pre: str | None) -> None:
    import transformers

    metadata = gguf_metadata(pieces() if pre is None else byte_level(), pre)
    tokenizer = tokenizer_from_gguf({**metadata, "tokenizer.ggml.add_bos_token": True})
    config = tiny_config(family, **changes, vocab_size=tokenizer.vocab_size)
    module = tiny_module(config)
    write_hf(tmp_path, config, lambda name: module.get_parameter(name).detach().numpy(), "float32", tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = some_ids(1, 24)
    with torch.no_grad():
        assert (theirs(ids).logits - module(ids)).abs().max() <= 1e-5
    assert open_checkpoint(tmp_path).config == config
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    again = open_tokenizer(tmp_path)
    assert (again.eos_ids, again.bos_id, again.facts.add_bos) == (tokenizer.eos_ids, tokenizer.bos_id, True)
    for text in TEXTS:
        assert words.encode(text, add_special_tokens=False) == tokenizer.encode_trusted(text)
    assert words.encode("the License") == tokenizer.encode_prompt("the License") == again.encode_prompt("the License")


def test_what_does_not_fit_is_not_exported(tmp_path: Path) -> None:
    config = tiny_config("llama")
    weights = random_weights(config)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight must have shape \(64,\)"):
        write_hf(tmp_path, config, {**weights, "model.norm.weight": np.zeros(3, np.float32)}.__getitem__, "float32")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_hf(tmp_path, replace(config, qk_norm=True), weights.__getitem__, "float32")
    assert list(tmp_path.iterdir()) == []


# GGUF, through llama.cpp's order of rows, against implementations that are not ours


def test_a_gguf_gives_the_logits_of_the_model_it_was_made_from(tmp_path: Path) -> None:
    theirs = hf_model("llama", attention_bias=True)
    config = tiny_config("llama", attention_bias=True)
    mine = load_module(open_checkpoint(write_gguf(tmp_path / "m.gguf", config, random_weights(config))))
    with torch.no_grad():
        assert (theirs(some_ids(1, 30)).logits - mine(some_ids(1, 30))).abs().max() <= 1e-5


def hf_from_gguf(path: Path) -> Any:
    """transformers' model, filled by the gguf library's reader, names and numbers; rows by the inverse of llama.cpp's `permute`."""
    import gguf
    import transformers

    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True,
            )
        )  # fmt: skip
    model.to_empty(device="cpu")
    model.lm_head.weight = model.model.embed_tokens.weight
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = stored[gguf_name(name)]
            rows = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            for part, heads in (("q_proj", 9), ("k_proj", 3)):
                if part in name:
                    rows = rows.reshape(heads, 32, 2, 576).swapaxes(1, 2).reshape(rows.shape)
            parameter.copy_(torch.from_numpy(rows.reshape(parameter.shape).copy()))
    return model.eval()


def test_the_real_model_against_transformers(smollm2_gguf: Path) -> None:
    checkpoint = open_checkpoint(smollm2_gguf)
    mine, theirs = load_module(checkpoint), hf_from_gguf(smollm2_gguf)
    tokenizer = tokenizer_from_gguf(checkpoint.metadata)
    ids = torch.tensor([tokenizer.encode("The fire in the ingle had burned low, and the old clock on the wall")])
    with torch.no_grad():
        assert (theirs(ids).logits - mine(ids)).abs().max() <= 1e-3
        told = theirs.generate(ids, max_new_tokens=30, do_sample=False, eos_token_id=None)
        assert mine(told)[0, ids.shape[1] - 1 : -1].argmax(-1).tolist() == told[0, ids.shape[1] :].tolist()


def test_what_is_made_again_is_not_kept_and_gradients_are_the_same() -> None:
    torch.manual_seed(0)
    base, weight = torch.randn(7, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    made: list[int] = []

    def product() -> torch.Tensor:
        made.append(1)
        return base.detach() * 2

    def run(again: bool) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        base.grad = weight.grad = None
        x = base * 2
        with made_again(x, product) if again else contextlib.nullcontext():
            y = nn.functional.linear(x.view(7, 5), weight)
        with torch.no_grad():
            x.zero_() if again else None  # whoever had kept it would now be wrong
        y.square().sum().backward()
        return base.grad, weight.grad

    plain, other = run(False), run(True)
    assert made == [1]
    assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True) if a is not None and b is not None)
