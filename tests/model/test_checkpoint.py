"""Checkpoints open whole or not at all, and the weights that come out are those that went in."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tiny_models import gguf_name, hf_table, random_weights, tiny_config, write_gguf

from ingle.core.errors import CheckpointError
from ingle.core.spec import LayerSpec, Rope
from ingle.model.checkpoint import check_finite, open_checkpoint
from ingle.model.family import whole_of
from ingle.model.hf_config import config_to_own, inverse_frequencies
from ingle.model.tensor import Tensor, check_kind, expected_shapes
from tests.examples import examples

SLOW_FIXTURE = settings(examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
Weights = dict[str, np.ndarray]


def write_folder(folder: Path, table: dict[str, Any], weights: Weights, shards: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(table))
    names = list(weights)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file({name: weights[name] for name in names[i::shards]}, folder / file)
        where |= dict.fromkeys(names[i::shards], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def tiny_folder(folder: Path, shards: int = 1, **changes: Any) -> tuple[Path, Weights]:
    table = hf_table("llama", **changes)
    weights = random_weights(tiny_config("llama", **changes))
    return write_folder(folder / "hf", table, weights, shards), weights


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}])
def test_safetensors_come_out_as_they_went_in(tmp_path: Path, shards: int, changes: dict[str, Any]) -> None:
    folder, weights = tiny_folder(tmp_path, shards, **changes)
    checkpoint = open_checkpoint(folder)
    assert set(checkpoint.names) == set(weights)
    assert len(checkpoint.files) == shards
    for name, weight in weights.items():
        tensor = checkpoint.tensor(name)
        assert tensor.raw.base is not None, "copied instead of mapped"
        np.testing.assert_array_equal(tensor.to_float32(), weight)
    check_finite(checkpoint)


def test_a_hybrid_of_before_there_were_ages_has_ages_of_0(tmp_path: Path) -> None:
    full = tiny_config("llama")
    config = full.with_layers((LayerSpec((), 5, 2, "gated_delta"), *full.layers[1:]))
    weights = random_weights(config)
    [name] = [name for name in weights if name.endswith(".age")]
    age = weights.pop(name)
    checkpoint = open_checkpoint(write_folder(tmp_path / "older", config_to_own(config, "float32"), weights))
    assert name in checkpoint.names and not checkpoint.tensor(name).to_float32().any()
    check_finite(checkpoint)
    newer = open_checkpoint(write_folder(tmp_path / "newer", config_to_own(config, "float32"), {**weights, name: age}))
    np.testing.assert_array_equal(newer.tensor(name).to_float32(), age)


def test_bfloat16_and_float16_are_read_exactly(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    config = tiny_config("qwen3")
    folder = tmp_path
    (folder / "config.json").write_text(json.dumps(hf_table("qwen3")))
    weights = {name: torch.from_numpy(w).to(torch.bfloat16) for name, w in random_weights(config).items()}
    weights["model.norm.weight"] = weights["model.norm.weight"].to(torch.float16)
    save_torch(weights, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensor("model.norm.weight").kind == "F16"
    for name, weight in weights.items():
        np.testing.assert_array_equal(checkpoint.tensor(name).to_float32(), weight.to(torch.float32).numpy())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_gguf_rows_are_put_back_without_touching_a_bit(tmp_path: Path, family: str, kind: str) -> None:
    changes = {"attention_bias": True} if family == "llama" else {}
    config = tiny_config(family, rope_theta=5000.0, tie_word_embeddings=True, **changes)
    weights = random_weights(config)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", config, weights, kind))
    assert checkpoint.config == config
    member = gguf.GGMLQuantizationType[kind]
    for name, weight in weights.items():
        tensor = checkpoint.tensor(name)
        if weight.ndim == 2:
            packed = gguf.quants.quantize(weight, member)
            assert tensor.kind == kind
            np.testing.assert_array_equal(tensor.raw, packed.view(np.uint8).reshape(len(weight), -1))
            np.testing.assert_array_equal(tensor.to_float32(), gguf.quants.dequantize(packed, member))
            np.testing.assert_array_equal(np.concatenate(list(tensor.row_chunks(500))), tensor.to_float32())
        else:
            np.testing.assert_array_equal(tensor.to_float32(), weight)


def test_gguf_rope_scalings(tmp_path: Path) -> None:
    config = tiny_config("llama", rope_theta=500000.0, head_dim=64)
    weights = random_weights(config)
    plain, _ = inverse_frequencies(config)
    table = hf_table("llama", rope_theta=500000.0, head_dim=64)
    scaled = tiny_config(**{**table, "family": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})  # fmt: skip
    wanted, _ = inverse_frequencies(scaled)

    def with_divisors(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("rope_freqs.weight", plain / wanted)

    def with_yarn(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(64)

    def with_longrope(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)

    assert open_checkpoint(write_gguf(tmp_path / "a.gguf", config, weights, extra=with_divisors)).config == scaled
    yarn = tiny_config("llama", rope_theta=500000.0, head_dim=64, rope_scaling={"type": "yarn", "factor": 4.0,
                       "original_max_position_embeddings": 64})  # fmt: skip
    assert open_checkpoint(write_gguf(tmp_path / "b.gguf", config, weights, extra=with_yarn)).config == yarn
    with pytest.raises(CheckpointError, match=r"rope\.scaling\.type"):
        open_checkpoint(write_gguf(tmp_path / "c.gguf", config, weights, extra=with_longrope))


def test_the_real_file_is_the_one_that_the_library_reads(smollm2_gguf: Path) -> None:
    checkpoint = open_checkpoint(smollm2_gguf)
    assert checkpoint.config.rope == Rope(theta=100000.0)
    assert checkpoint.config.norm_eps == 1e-5
    assert checkpoint.config.tie_embeddings
    theirs = gguf.GGUFReader(smollm2_gguf)
    names = {gguf_name(name): name for name in checkpoint.names if ".layers." not in name or ".layers.2." in name}
    compared = [tensor for tensor in theirs.tensors if tensor.name in names]
    assert len(compared) == 11
    for tensor in compared:
        mine = checkpoint.stored[names[tensor.name]]
        assert mine.kind == tensor.tensor_type.name
        np.testing.assert_array_equal(mine.raw, tensor.data.view(np.uint8).reshape(mine.raw.shape))
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.chat_template", "llama.rope.freq_base"):
        assert checkpoint.metadata[key] == theirs.fields[key].contents()


# What is wrong with a checkpoint is said by name.


def test_missing_tensor_wrong_shape_and_leftovers(tmp_path: Path) -> None:
    folder, weights = tiny_folder(tmp_path)
    table = hf_table("llama")
    lost = {name: w for name, w in weights.items() if name != "model.layers.1.mlp.up_proj.weight"}
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        open_checkpoint(write_folder(folder, table, lost))
    turned = {**weights, "model.norm.weight": np.zeros(63, np.float32)}
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight must have shape \(64,\), as the config says, not \(63,\)"):
        open_checkpoint(write_folder(folder, table, turned))
    more = {**weights, "model.layers.0.self_attn.q_norm.weight": np.zeros(16, np.float32)}
    with pytest.raises(CheckpointError, match=r"q_norm\.weight is not a tensor of a model with this config"):
        open_checkpoint(write_folder(folder, table, more))
    old = {**weights, "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32)}
    assert open_checkpoint(write_folder(folder, table, old)).names == tuple(expected_shapes(tiny_config("llama")))
    wrong = {**weights, "model.norm.weight": np.zeros(64, np.int32)}
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight.*I32.*Known: F32, F16, BF16"):
        open_checkpoint(write_folder(folder, table, wrong))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight|norm\.weight"):
        open_checkpoint(folder).tensor("nothing")


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder, _ = tiny_folder(tmp_path, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        open_checkpoint(folder)


def test_an_index_cannot_point_outside_or_lie(tmp_path: Path) -> None:
    folder, _ = tiny_folder(tmp_path, shards=2)
    index = folder / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    first = next(iter(table["weight_map"]))
    for value, message in (("../../secret.safetensors", "same folder"), (7, "same folder"), ("model-00002-of-00002.safetensors", "shard")):
        index.write_text(json.dumps({"weight_map": {**table["weight_map"], first: value}}))
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(folder)


def test_folders_without_weights_say_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json is needed"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(hf_table("llama")))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="pickles"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[1,")
    with pytest.raises(CheckpointError, match="valid JSON"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["F32", "Q4_1"])
def test_weights_that_are_no_numbers_are_found(tmp_path: Path, value: float, kind: str) -> None:
    config = tiny_config("llama")
    weights = random_weights(config)
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = value
    with np.errstate(all="ignore"):
        checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", config, weights, kind))
    seen: list[int] = []
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.down_proj\.weight must hold finite"):
        check_finite(checkpoint, seen.append)
    assert len(seen) == list(checkpoint.names).index("model.layers.1.mlp.down_proj.weight")


def test_gguf_of_unknown_parts(tmp_path: Path) -> None:
    config = tiny_config("llama")
    weights = random_weights(config)

    def attempt(message: str, extra: Any) -> None:
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(write_gguf(tmp_path / "m.gguf", config, weights, extra=extra))

    attempt("ffn_gate_exps", lambda w: w.add_tensor("blk.0.ffn_gate_exps.weight", np.zeros((2, 32), np.float32)))
    attempt("expert_count", lambda w: w.add_expert_count(8))
    attempt("96 rows.*not 97 tokens", lambda w: w.add_token_list([f"t{i}" for i in range(97)]))
    attempt("split.count.*llama-gguf-split", lambda w: w.add_uint16("split.count", 3))
    attempt("rope.dimension_count", lambda w: w.add_rope_dimension_count(8))
    attempt("three dimensions", lambda w: w.add_tensor("blk.0.x.weight", np.zeros((2, 2, 2, 32), np.float32)))
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"Known: .*llama, .*qwen2, qwen3"):
        open_checkpoint(tmp_path / "other.gguf")


def test_damaged_files_of_a_family_with_fused_matrices_are_refused(tmp_path: Path) -> None:
    config = tiny_config("phi3")
    weights = random_weights(config)

    def attempt(message: str, rows: dict[str, np.ndarray]) -> None:
        whole = {name: make() for name, (_, make) in whole_of(config, weights.__getitem__).items()} | rows
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(write_folder(tmp_path / "hf", hf_table("phi3"), whole))

    qkv = "model.layers.0.self_attn.qkv_proj.weight"
    attempt(r"qkv_proj\.weight must have 128 rows", {qkv: np.zeros((127, 64), np.float32)})
    attempt(r"qkv_proj\.weight must have one to 5 dimensions", {qkv: np.zeros((), np.float32)})
    attempt(r"q_proj\.weight must have shape", {qkv: np.zeros((128, 32), np.float32)})
    short = replace(config, rope=replace(config.rope, divisors=(1.0,) * 6))
    with pytest.raises(CheckpointError, match=r"rope\.divisors must be 6"):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", short, weights, extra=_factors_of_five))


def test_damaged_files_of_families_with_other_sublayers_are_refused(tmp_path: Path) -> None:
    def attempt(family: str, message: str, change: Callable[[Any], None]) -> None:
        config = tiny_config(family)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(write_gguf(tmp_path / "m.gguf", config, random_weights(config), extra=change))

    def instead(name: str, tensor: np.ndarray) -> Callable[[Any], None]:
        def change(writer: Any) -> None:
            add = writer.add_tensor
            writer.add_tensor = lambda own, values, **more: add(own, tensor if own == name else values, **({} if own == name else more))

        return change

    experts = "blk.0.ffn_gate_exps.weight"
    attempt("olmoe", "must hold 8 experts", instead(experts, np.zeros((7, 48, 64), np.float32)))
    attempt("olmoe", "must hold 8 experts", instead(experts, np.zeros((8, 64), np.float32)))
    attempt("olmoe", r"experts\.0\.gate_proj\.weight must have shape", instead(experts, np.zeros((8, 47, 64), np.float32)))
    attempt("olmoe", "experts.count must be at most 65536", lambda writer: writer.add_expert_count(60_000))
    attempt("qwen3_moe", "experts.chosen must be at most count", lambda writer: writer.add_expert_used_count(9))
    attempt("lfm2", r"conv\.conv\.weight must have shape", instead("blk.0.shortconv.conv.weight", np.zeros((64, 4), np.float32)))
    attempt("lfm2", "head_count_kv must be one number, but for layers", lambda writer: writer.add_head_count_kv([0, 0, 2, 4]))
    attempt("lfm2", "head_count_kv must be 4 numbers", lambda writer: writer.add_head_count_kv([0, 2]))
    attempt("lfm2", "head_count_kv", lambda writer: writer.add_head_count_kv([0, 0, 0, 0]))
    attempt("qwen3_5_text", "numbers below 0", instead("blk.0.ssm_a", np.zeros(4, np.float32)))
    attempt("qwen3_5_text", r"ssm\.inner_size must be", lambda writer: writer.add_ssm_inner_size(48))
    attempt("qwen3_5_text", "layers, kv heads", lambda writer: writer.add_uint32("qwen35.nextn_predict_layers", 4))
    config = tiny_config("qwen3_5_text")
    ahead = {"blk.4.nextn.eh_proj.weight": np.zeros((64, 128), np.float32)}
    path = write_gguf(tmp_path / "m.gguf", config, random_weights(config), extra=partial(_with_layers_ahead, ahead))
    assert len(open_checkpoint(path).config.layers) == 4, "layers that guess the tokens after the next are left out"


def _with_layers_ahead(ahead: dict[str, np.ndarray], writer: Any) -> None:
    writer.add_block_count(5)
    writer.add_uint32("qwen35.nextn_predict_layers", 1)
    for name, values in ahead.items():
        writer.add_tensor(name, values)


def _factors_of_five(writer: gguf.GGUFWriter) -> None:
    name = "rope_factors_short.weight"
    for tensors in writer.tensors:
        tensors.pop(name)
    writer.add_tensor(name, np.ones(5, np.float32))


def test_every_kind_that_the_library_decodes_is_open_to_us_and_others_are_named() -> None:
    draw = np.random.default_rng(0)
    for kind in ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q5_0", "IQ4_XS"):
        check_kind(kind, "t")
        member = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[member]
        raw = draw.integers(0, 255, (3, 512 // block * size), np.uint8)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(Tensor("t", (3, 512), kind, raw).to_float32(), gguf.quants.dequantize(raw, member))
    with pytest.raises(CheckpointError, match=r"cannot be decoded \(I32\).*Known: F32, F16, BF16, .*Q4_K"):
        check_kind("I32", "t")


def test_other_files_are_not_taken_for_weights(tmp_path: Path) -> None:
    for content in (b"", b"GG", b"PK\3\4 a zip", b"GGUF"):
        (tmp_path / "m.gguf").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"m\.gguf"):
            open_checkpoint(tmp_path / "m.gguf")


def small_gguf(folder: Path) -> bytes:
    config = tiny_config("llama")

    def extra(writer: gguf.GGUFWriter) -> None:
        writer.add_token_list([f"t{i}" for i in range(20)])
        writer.add_token_types([1] * 20)

    return write_gguf(folder / "whole.gguf", config, random_weights(config), "Q4_1", extra).read_bytes()


@SLOW_FIXTURE
@given(data=st.data())
def test_a_damaged_gguf_header_is_an_error_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "whole.gguf"
    whole = path.read_bytes() if path.exists() else small_gguf(tmp_path)
    end = whole.index(b"blk.1.ffn_down.weight") + 200
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, end))
        damaged[at] ^= data.draw(st.integers(1, 255))
    (tmp_path / "damaged.gguf").write_bytes(damaged)
    try:
        checkpoint = open_checkpoint(tmp_path / "damaged.gguf")
    except CheckpointError:
        return
    assert all(checkpoint.tensor(name).raw.nbytes for name in checkpoint.names)


@SLOW_FIXTURE
@given(keep=st.floats(0, 1, exclude_max=True))
def test_a_cut_off_gguf_is_an_error(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "whole.gguf"
    whole = path.read_bytes() if path.exists() else small_gguf(tmp_path)
    last = len(whole) - 32  # the writer pads the end
    (tmp_path / "cut.gguf").write_bytes(whole[: int(keep * last)])
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "cut.gguf")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40])
@pytest.mark.parametrize("at", [8, 16, 24])
def test_hostile_lengths_cost_nothing(tmp_path: Path, length: int, at: int) -> None:
    damaged = bytearray(small_gguf(tmp_path))
    damaged[at : at + 8] = struct.pack("<Q", length)  # tensor count, key count, length of the first key
    (tmp_path / "m.gguf").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="needs"):
        open_checkpoint(tmp_path / "m.gguf")


@SLOW_FIXTURE
@given(data=st.data())
def test_a_damaged_safetensors_header_is_an_error_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "whole").exists():
        folder, _ = tiny_folder(tmp_path)
        (folder / "model.safetensors").rename(tmp_path / "whole")
    folder, whole = tmp_path / "hf", (tmp_path / "whole").read_bytes()
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        header = 8 + int.from_bytes(whole[:8], "little")
        damaged[data.draw(st.integers(0, header - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "model.safetensors").write_bytes(damaged)
    try:
        checkpoint = open_checkpoint(folder)
    except CheckpointError:
        return
    assert len(damaged) == len(whole), "a cut-off file was opened"
    assert all(checkpoint.tensor(name).raw.nbytes for name in checkpoint.names)
