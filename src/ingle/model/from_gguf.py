"""Convert GGUF to a `ModelConfig` and tensors with Hugging Face's names.

GGUF's `llama` files store the rows of q and k so that RoPE turns neighbours (2i, 2i+1); Hugging Face's turns (i, i + d/2). The rows
are put back as raw bytes, so quantised blocks, which lie along the columns, stay as they are. `qwen2` and `qwen3` are not permuted.
Source: llama.cpp's `convert_hf_to_gguf.py` (`permute`, `rope_freqs`), `gguf-py/gguf/constants.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ingle.core.errors import CheckpointError
from ingle.core.spec import LayerSpec, ModelConfig, Rope
from ingle.model.config import blame_checkpoint, full_layers, mixing, norm_eps
from ingle.model.family import families
from ingle.model.fields import Fields
from ingle.model.fused import parts_of
from ingle.model.gguf_header import GGUF
from ingle.model.gguf_parts import as_ours
from ingle.model.rope import check_rope, llama3_from_factors, yarn_attention
from ingle.model.tensor import Tensor, decode

OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_qkv": "self_attn.qkv_proj", "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip


def tensors_from_gguf(gguf: GGUF) -> tuple[ModelConfig, dict[str, Tensor], dict[str, int]]:
    """Return config, tensors by Hugging Face's name, and the numbers of heads of tensors with interleaved rows."""
    path, config = gguf.path, config_from_gguf(gguf)
    tensors, own = dict[str, Tensor](), {**INNER, **families()[config.family].gguf_names}
    for name, stored in gguf.tensors.items():
        if name.startswith(("rope_freqs.", "rope_factors_")) or _is_ahead(name, config):  # read into the config; not needed
            continue
        hf_name = _hf_name(name, own)
        if hf_name is None or hf_name in tensors:
            raise CheckpointError(
                f"{path}: {name}", f"is not a tensor of a {config.family} model", "", "This model has parts that Ingle would leave out."
            )
        tensors[hf_name] = Tensor(hf_name, stored.shape, stored.kind, stored.data)
    tensors = parts_of(config, as_ours(config, tensors, str(path)))
    heads: dict[str, int] = {}
    if families()[config.family].interleaved:
        for name in tensors:
            for part, count in ((".q_proj.", config.num_heads), (".k_proj.", config.num_kv_heads)):
                if part in name:
                    heads[name] = count
    return config, tensors, heads


def config_from_gguf(gguf: GGUF) -> ModelConfig:
    """Return the `ModelConfig` of a GGUF file. Raises CheckpointError, naming the key, for all that Ingle cannot run."""
    where = str(gguf.path)
    name, prefix = _family(Fields(gguf.metadata, where))
    fields = Fields({k.removeprefix(prefix): v for k, v in gguf.metadata.items() if k.startswith(prefix)}, f"{where}: {prefix[:-1]}")
    hidden, heads, context = fields.whole("embedding_length"), fields.whole("attention.head_count"), fields.whole("context_length")
    kv_heads = _groups(fields, heads)
    head_dim = fields.whole("attention.key_length", hidden // max(heads, 1))
    turned = fields.whole("rope.dimension_count", head_dim)
    for key, value in (("attention.value_length", fields.whole("attention.value_length", head_dim)), ("rope.dimension_count", turned)):
        if value != head_dim and (key == "attention.value_length" or not families()[name].part or value < 2):
            raise CheckpointError(f"{where}: {prefix}{key}", f"must be the head's width {head_dim}", value)
    count = fields.whole("block_count") - fields.whole("nextn_predict_layers", 0)
    layers = full_layers(count, kv_heads, where)
    with blame_checkpoint(where):
        traits = families()[name].gguf_traits(fields, count)
    if fields.whole("expert_count", 0) and traits.experts is None:
        raise CheckpointError(f"{where}: {prefix}expert_count", "must be 0 in this family", fields.whole("expert_count"))
    ways, layers = traits.ways, mixing(layers, traits)
    window = fields.whole("attention.sliding_window", 0)
    if ways.local and 0 < window < context:
        layers = tuple(LayerSpec((), window) if i in ways.local else layer for i, layer in enumerate(layers))
    elif 0 < window < context:
        raise CheckpointError(f"{where}: {prefix}attention.sliding_window", "must be off", window)
    names = gguf.tensors
    if "token_embd.weight" not in names:
        raise CheckpointError(f"{where}: token_embd.weight", "is missing", "", "The file is incomplete; pull it again.")
    vocab_size = names["token_embd.weight"].shape[0]
    tokens = gguf.metadata.get("tokenizer.ggml.tokens", ())
    if not isinstance(tokens, list | tuple) or len(tokens) > vocab_size:
        got = f"{len(tokens)} tokens" if isinstance(tokens, list | tuple) else type(tokens).__name__
        raise CheckpointError(f"{where}: tokenizer.ggml.tokens", f"must be at most the embedding's {vocab_size} rows", got)
    rope = _rope(gguf, fields, head_dim, context)
    attention = f"blk.{next((i for i, spec in enumerate(layers) if spec.mixer == 'attention'), 0)}"
    with blame_checkpoint(where):
        return ModelConfig(
            family=name,
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=fields.whole("feed_forward_length"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            layers=layers,
            context_length=rope.original_context if rope.kind == "longrope" else context,
            rope=rope,
            norm_eps=_shortest(norm_eps(fields, "attention.layer_norm_rms_epsilon")),
            tie_embeddings="output.weight" not in names,
            qkv_bias=f"{attention}.attn_q.bias" in names,
            output_bias=f"{attention}.attn_output.bias" in names,
            mlp_bias="blk.0.ffn_gate.bias" in names,
            qk_norm=f"{attention}.attn_q_norm.weight" in names,
            ways=ways if turned == head_dim else replace(ways, turned=turned),
            convolution=traits.convolution,
            delta=traits.delta,
            experts=traits.experts,
        )


def _family(top: Fields) -> tuple[str, str]:
    """Return a file's family, and the prefix of its keys."""
    architecture = top.text("general.architecture")
    known_ones = {family.gguf: name for name, family in families().items() if family.gguf}
    if architecture not in known_ones:
        known = f"Known: {', '.join(known_ones)}."
        raise CheckpointError(f"{top.where}: general.architecture", "is not an architecture that Ingle knows", architecture, known)
    if top.whole("split.count", 1) > 1:
        raise CheckpointError(f"{top.where}: split.count", "must be 1", top.whole("split.count"), "Merge it with llama-gguf-split --merge.")
    return known_ones[architecture], f"{architecture}."


def _groups(fields: Fields, heads: int) -> int:
    """Return the number of key-value groups: the most of any layer, where each layer has a number of its own."""
    if not isinstance(fields.table.get("attention.head_count_kv"), np.ndarray):
        return fields.whole("attention.head_count_kv", heads)
    counts = fields.numbers("attention.head_count_kv")
    if counts is None or not len(counts) or len({int(count) for count in counts if count}) != 1:
        raise CheckpointError(f"{fields.where}.attention.head_count_kv", "must be one number, but for layers without attention", counts)
    return int(max(counts))


def _is_ahead(name: str, config: ModelConfig) -> bool:
    """Return whether a tensor is of a layer behind the model's own: those guess the tokens after the next."""
    number = name.split(".")[1] if name.startswith("blk.") else ""
    return number.isdecimal() and int(number) >= len(config.layers)


def _rope(gguf: GGUF, fields: Fields, head_dim: int, context: int) -> Rope:
    theta = _shortest(fields.number("rope.freq_base", 10_000.0))
    kind = fields.text("rope.scaling.type", "none")
    factor = _shortest(fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0)))
    short = gguf.tensors.get("rope_factors_short.weight")
    if short is not None:
        if short.kind != "F32" or len(short.shape) != 1:
            raise CheckpointError(f"{gguf.path}: rope_factors_short.weight", "must be an F32 vector", f"{short.kind} {short.shape}")
        original, scale = fields.whole("rope.scaling.original_context_length", context), fields.number("rope.scaling.attn_factor", 1.0)
        own = tuple(map(float, decode("F32", short.data)))
        return check_rope(Rope(theta, "longrope", 1.0, original, attention_factor=scale, divisors=own), fields.where)
    divisors = gguf.tensors.get("rope_freqs.weight")
    if divisors is not None:
        if divisors.kind != "F32" or len(divisors.shape) != 1 or kind != "none":
            got = f"{divisors.kind} {divisors.shape}, scaling {kind}"
            raise CheckpointError(f"{gguf.path}: rope_freqs.weight", "must be an F32 vector, without another scaling", got)
        check_rope(Rope(theta), fields.where)
        return check_rope(llama3_from_factors(decode("F32", divisors.data), theta, head_dim, context, str(gguf.path)), fields.where)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return check_rope(Rope(theta, "linear", factor) if factor != 1.0 else Rope(theta), fields.where)
    if kind == "linear":
        return check_rope(Rope(theta, "linear", factor), fields.where)
    if kind != "yarn" or fields.number("rope.scaling.yarn_log_multiplier", 0.0):
        raise CheckpointError(f"{fields.where}.rope.scaling.type", "must be none, linear or (plain) yarn", kind)
    fast, slow = fields.number("rope.scaling.yarn_beta_fast", 32.0), fields.number("rope.scaling.yarn_beta_slow", 1.0)
    original = fields.whole("rope.scaling.original_context_length", context)
    attention = fields.number("rope.scaling.attn_factor", 1.0) * yarn_attention(factor)
    return check_rope(Rope(theta, "yarn", factor, original, beta_fast=fast, beta_slow=slow, attention_factor=attention), fields.where)


def _shortest(value: float) -> float:
    """Return the decimal that someone typed before it became a float32: 9.999999747378752e-06 → 1e-05."""
    return float(str(np.float32(value))) if math.isfinite(np.float32(value)) else value


def _hf_name(name: str, inner: Mapping[str, str]) -> str | None:
    """Return Hugging Face's name: `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; None for an unknown one."""
    head, _, rest = name.partition(".")
    number, _, part = rest.partition(".")
    in_layer = head == "blk" and number.isdecimal()
    layer, whole = (f"model.layers.{int(number)}.", part) if in_layer else ("", name)
    names = inner if in_layer else {**OUTER, **inner}
    if whole in names:
        return layer + names[whole]
    stem, _, ending = whole.rpartition(".")
    return f"{layer}{names[stem]}.{ending}" if ending in ("weight", "bias") and stem in names else None
