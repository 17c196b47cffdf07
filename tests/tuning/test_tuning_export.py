"""Models and deltas as files for others: whole or not there, read back by our own readers, by transformers and by llama.cpp."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ingle.core.errors import CheckpointError, ConfigError, DeltaError, HomeError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, open_weights
from ingle.home.base import read_base
from ingle.home.deltas import put_delta
from ingle.home.kept import get_kept, list_kept
from ingle.home.place import Home
from ingle.model.checkpoint import open_checkpoint
from ingle.model.export_formats import narrowed, words_of, write_gguf, write_hf
from ingle.model.gguf import Mapped, read_gguf
from ingle.model.module import load_module
from ingle.model.tokenizer import Tokenizer, TokenizerFacts, make_facts, tokenizer_from_gguf
from ingle.tuning.exporting import check_type, export, merge, new_folder
from tests.homes import lent
from tests.model.tiny_models import interleave, random_weights, tiny_config
from tests.model.tiny_tokenizers import TEXTS, byte_level, pieces
from tests.tuning.place import kept

BIASED = {"attention_bias": True, "mlp_bias": True}
LLAMA3 = {
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    },
    "rope_theta": 500000.0,
}  # fmt: skip
YARN = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}
LINEAR = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "tie_word_embeddings": True}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}), "biases": ("llama", BIASED), "llama3": ("llama", LLAMA3), "yarn": ("llama", YARN), "linear": ("llama", LINEAR),
    "qwen2": ("qwen2", {}), "qwen3": ("qwen3", {}),
}  # fmt: skip


def bytes_words(template: str | None = "{{ messages }}") -> Tokenizer:
    return make_facts(byte_level(), TokenizerFacts("bytes", (2,), chat_template=template), "tiny")


def pieces_words() -> Tokenizer:
    facts = TokenizerFacts("pieces", (2,), bos_id=1, add_bos=True, space_prefix=True, unknown_id=0)
    return make_facts(pieces(), facts, "tiny")


def written(path: Path, config: ModelConfig, weights: dict[str, np.ndarray], kind: Any = "f32", tokenizer: Tokenizer | None = None) -> Path:
    words = words_of(tokenizer or bytes_words(), config.vocab_size, {})
    write_gguf(path, config, weights.__getitem__, kind, words, "tiny")
    return path


@torch.no_grad()
def logits(path: Path, ids: list[int]) -> np.ndarray:
    values: np.ndarray = load_module(open_checkpoint(path))(torch.tensor([ids]))[0].numpy()
    return values


@pytest.mark.parametrize("name", MODELS)
def test_a_gguf_file_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    family, changes = MODELS[name]
    config = tiny_config(family, vocab_size=bytes_words().vocab_size + 3, **changes)
    weights = random_weights(config)
    checkpoint = open_checkpoint(written(tmp_path / "f32.gguf", config, weights))
    assert replace(checkpoint.config, rope=config.rope) == config
    assert checkpoint.config.rope.kind == config.rope.kind
    for key, values in weights.items():
        np.testing.assert_array_equal(checkpoint.tensor(key).to_float32(), values)
    back = tokenizer_from_gguf(checkpoint.metadata)
    assert back.facts == bytes_words().facts
    ids = list(range(40))
    exact = logits(tmp_path / "f32.gguf", ids)
    for kind, most in (("f16", 0.02), ("q8_0", 0.6)):
        apart = np.abs(logits(written(tmp_path / f"{kind}.gguf", config, weights, kind), ids) - exact).max()
        assert 0 < apart < most


def test_rows_and_biases_of_q_and_k_lie_as_llama_cpp_turns_them(tmp_path: Path) -> None:
    config = tiny_config("llama", vocab_size=bytes_words().vocab_size, **BIASED)
    weights = random_weights(config)
    stored = read_gguf(Mapped(written(tmp_path / "x.gguf", config, weights))).tensors
    for part, heads in (("q", config.num_heads), ("k", config.num_kv_heads)):
        for ending in ("weight", "bias"):
            ours = weights[f"model.layers.1.self_attn.{part}_proj.{ending}"]
            theirs = stored[f"blk.1.attn_{part}.{ending}"].data.view("<f4").reshape(ours.shape)
            np.testing.assert_array_equal(theirs, interleave(ours, heads))
            assert not np.array_equal(theirs, ours)
    for theirs_name, ours_name in (("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"), ("ffn_down", "mlp.down_proj")):
        np.testing.assert_array_equal(stored[f"blk.0.{theirs_name}.bias"].data.view("<f4"), weights[f"model.layers.0.{ours_name}.bias"])


def test_what_llama_cpp_would_run_as_another_model_is_refused(tmp_path: Path) -> None:
    for family, flags in (("qwen2", {"mlp_bias": True}), ("qwen2", {"output_bias": True}), ("qwen3", {"qkv_bias": True})):
        config = replace(tiny_config(family), **flags)
        with pytest.raises(ConfigError, match=r"are not read by llama\.cpp"):
            write_gguf(tmp_path / "x.gguf", config, random_weights(config).__getitem__, "f32", {}, "x")
    hybrid = tiny_config("llama").with_layers((LayerSpec((0,), window=8), LayerSpec((0, 1))))
    with pytest.raises(ConfigError, match="full attention"):
        write_gguf(tmp_path / "x.gguf", hybrid, random_weights(hybrid).__getitem__, "f32", {}, "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [bytes_words, pieces_words])
def test_words_come_back_as_they_were(make: Any) -> None:
    tokenizer = make()
    words = words_of(tokenizer, tokenizer.vocab_size + 2, {})
    assert len(words["tokenizer.ggml.tokens"]) == tokenizer.vocab_size + 2
    back = tokenizer_from_gguf({**words, **{key: np.asarray(words[key]) for key in words if key.endswith(("token_type", "scores"))}})
    assert back.facts == tokenizer.facts
    assert back.control == tokenizer.control
    for text in TEXTS:
        assert back.encode(text) == tokenizer.encode(text)
    assert words_of(tokenizer, 5, {"tokenizer.ggml.model": "x", "general.name": "y"}) == {"tokenizer.ggml.model": "x"}


def test_words_that_llama_cpp_has_no_name_for_are_refused() -> None:
    from tokenizers import Regex, pre_tokenizers

    fast = type(byte_level()).from_str(byte_level().to_str())
    split = pre_tokenizers.Split(Regex(r"[a-m]+|[^a-m]+"), "isolated")
    fast.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    with pytest.raises(CheckpointError, match=r"llama\.cpp knows by name"):
        words_of(make_facts(fast, bytes_words().facts, "odd"), 800, {})


def test_a_type_that_is_too_narrow_is_an_error(tmp_path: Path) -> None:
    config = tiny_config("llama", vocab_size=bytes_words().vocab_size)
    weights = random_weights(config)
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    with pytest.raises(CheckpointError, match="Write it as f32"):
        written(tmp_path / "x.gguf", config, weights, "f16")
    with pytest.raises(CheckpointError, match="Write it as f32"):
        write_hf(tmp_path, config, weights.__getitem__, "float16")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="damaged"):
        narrowed(np.array([np.nan], np.float32), "float32", "x")


def llama_cpp_logits(path: Path, ids: list[int]) -> np.ndarray:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, type_k=0, type_v=0, n_threads=1, n_gpu_layers=0, verbose=False)
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def ik_llama_cpp_logits(path: Path, ids: list[int]) -> np.ndarray:
    """llama.cpp's fork for CPUs, whose wheel needs no compiler; token by token, as its own sampling reads them."""
    ik = pytest.importorskip("ik_llama_cpp")
    from ik_llama_cpp import _ctypes_api as c
    from ik_llama_cpp._internals import make_batch_range

    model, rows = ik.IkLlama(str(path), n_ctx=256, n_threads=1, verbose=False), []
    size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model._model.model))
    for at, token in enumerate(ids):
        batch = make_batch_range([token], pos_start=at, logits_last=True)
        assert c.llama_decode(model.ctx, batch) == 0
        c.llama_batch_free(batch)
        rows.append(np.ctypeslib.as_array(c.llama_get_logits_ith(model.ctx, -1), (size,)).copy())
    return np.array(rows)


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_the_same(tmp_path: Path, name: str) -> None:
    pytest.importorskip("llama_cpp")
    family, changes = MODELS[name]
    config = tiny_config(family, vocab_size=bytes_words().vocab_size + 3, **changes)
    path = written(tmp_path / "x.gguf", config, random_weights(config))
    ids = np.random.default_rng(0).integers(0, 700, 40).tolist()
    np.testing.assert_allclose(llama_cpp_logits(path, ids), logits(path, ids), atol=1e-4)


@pytest.mark.parametrize("make", [bytes_words, pieces_words])
def test_llama_cpp_reads_the_same_words(tmp_path: Path, make: Any) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    config = tiny_config("llama", vocab_size=make().vocab_size)
    model = llama_cpp.Llama(
        str(written(tmp_path / "x.gguf", config, random_weights(config), tokenizer=make())), vocab_only=True, verbose=False
    )
    for text in filter(None, TEXTS):
        assert model.tokenize(text.encode(), add_bos=False, special=False) == make().encode(text)


@pytest.fixture
def with_deltas(tiny_home: Home) -> Iterator[Home]:
    """tiny+lora, tiny+bias (some linears only) and tiny+prefix."""
    draw, base = np.random.default_rng(0), kept(tiny_home).digest

    def random(*shape: int) -> np.ndarray:
        return (0.3 * draw.standard_normal(shape)).astype(np.float32)

    q = "model.layers.0.self_attn.q_proj"
    put_delta(tiny_home, "lora", "lora", base, {f"{q}.lora_A.weight": random(4, 64), f"{q}.lora_B.weight": random(64, 4)}, {})
    put_delta(tiny_home, "bias", "bias", base, {f"{q}.bias": random(64), "model.layers.1.mlp.down_proj.bias": random(64)}, {})
    put_delta(tiny_home, "prefix", "prefix", base, {name: random(2, 2, 3, 16) for name in ("prefix.keys", "prefix.values")}, {})
    yield tiny_home


@torch.no_grad()
def model_logits(home: Home, name: str, ids: list[int]) -> np.ndarray:
    values: np.ndarray = load_module(open_weights(home, get_kept(home, name)))(torch.tensor([ids]))[0].numpy()
    return values


@pytest.mark.parametrize("name", ["tiny", "tiny+lora", "tiny+bias"])
@pytest.mark.parametrize("format_", ["hf", "gguf"])
def test_a_model_with_a_delta_as_a_folder_or_a_file(with_deltas: Home, tmp_path: Path, name: str, format_: str) -> None:
    out = export(with_deltas, kept(with_deltas, name), format_, tmp_path / "out", "f32")
    ids = list(range(3, 60))
    expected = model_logits(with_deltas, name, ids)
    np.testing.assert_allclose(logits(out, ids), expected, atol=1e-5)
    if "+" in name:
        assert np.abs(expected - model_logits(with_deltas, "tiny", ids)).max() > 0.1
    if format_ == "gguf":
        assert out == tmp_path / "out" / f"{name.replace('+', '-')}.F32.gguf"
        return
    transformers = pytest.importorskip("transformers")
    with torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(out)(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(theirs, expected, atol=1e-4)
    words = transformers.AutoTokenizer.from_pretrained(out)
    assert words.encode("hello") == open_model(kept_source(with_deltas, kept(with_deltas))).tokenizer.encode("hello")


@pytest.mark.parametrize("theirs", [llama_cpp_logits, ik_llama_cpp_logits])
def test_llama_cpp_computes_a_model_with_its_delta(smollm2_home: Home, tmp_path: Path, theirs: Any) -> None:
    """What was learned here, alone or with others, runs where llama.cpp does. It rounds keys and values to float16, so nearly the same."""
    home, draw = lent(smollm2_home, tmp_path / "home"), np.random.default_rng(0)
    linears = [f"model.layers.{layer}.self_attn.q_proj" for layer in (10, 20)]
    shapes = {"lora_A": (8, 576), "lora_B": (576, 8)}
    change = {f"{one}.{part}.weight": draw.normal(0, 0.15, shape).astype(np.float32) for one in linears for part, shape in shapes.items()}
    put_delta(home, "learned", "lora", kept(home, "smollm2").digest, change, {})
    out = export(home, kept(home, "smollm2+learned"), "gguf", tmp_path / "out", "f16")
    ids = open_model(kept_source(home, kept(home, "smollm2"))).tokenizer.encode("The hearth is the place where the fire")
    expected, before = (model_logits(home, name, ids) for name in ("smollm2+learned", "smollm2"))
    got = theirs(out, ids)
    out.unlink()  # 270 MB
    assert np.abs(expected - before).max() > 0.5 > 4 * np.abs(got - expected).max()
    assert (got.argmax(1) == expected.argmax(1)).all()


def test_kinds_that_a_format_can_not_hold_say_why(with_deltas: Home, tmp_path: Path) -> None:
    for format_ in ("hf", "gguf"):
        with pytest.raises(DeltaError, match="can't become part of the weights"):
            export(with_deltas, kept(with_deltas, "tiny+prefix"), format_, tmp_path / "out", "f32")
    with pytest.raises(ConfigError, match="The PEFT library has no file for the kind bias"):
        export(with_deltas, kept(with_deltas, "tiny+bias"), "peft", tmp_path / "out", "f32")
    with pytest.raises(ConfigError, match=r"must have one delta.*Name one"):
        export(with_deltas, kept(with_deltas), "peft", tmp_path / "out", "f32")
    assert list(tmp_path.glob("out*")) == list(tmp_path.glob(".out*")) == []
    assert (check_type("gguf", None), check_type("hf", "f16")) == ("f16", "f16")
    with pytest.raises(ConfigError, match="must be one of f32, f16 for hf"):
        check_type("hf", "q8_0")


def test_nothing_is_replaced_unasked_and_nothing_half_is_left(with_deltas: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, out = kept(with_deltas, "tiny+lora"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    gguf = tmp_path / "x.gguf"
    gguf.write_text("mine")
    for format_, target in (("hf", out), ("peft", out), ("gguf", gguf)):
        with pytest.raises(ConfigError, match="there already"):
            export(with_deltas, one, format_, target, "f32")

    def killed(*_: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ingle.model.export_formats.narrowed", killed)
        patch.setattr("ingle.model.export_formats.narrowed", killed)
        for format_, target in (("hf", out), ("gguf", gguf)):
            with pytest.raises(KeyboardInterrupt):
                export(with_deltas, one, format_, target, "f32", force=True)
    assert (out / "mine.txt").read_text() == gguf.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["out", "x.gguf"]
    with pytest.raises(ConfigError, match=r"earlier export.*mine\.txt"):
        export(with_deltas, one, "peft", out, "f32", force=True)
    (out / "mine.txt").rename(out / "alice-lora.safetensors")
    with pytest.raises(ConfigError, match=r"alice-lora\.safetensors"):
        export(with_deltas, one, "peft", out, "f32", force=True)
    with pytest.raises(ConfigError, match="is a file"):
        export(with_deltas, one, "peft", gguf, "f32", force=True)
    (out / "alice-lora.safetensors").rename(out / "adapter_config.json")
    (out / "model-00001-of-00002.safetensors").write_text("an earlier export's")
    export(with_deltas, one, "peft", out, "f32", force=True)
    export(with_deltas, one, "gguf", gguf, "f32", force=True)
    assert sorted(path.name for path in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert gguf.read_bytes().startswith(b"GGUF")
    with pytest.raises(ConfigError, match="there already"), new_folder(gguf):
        pass


def test_a_full_disk_is_said(with_deltas: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gguf.GGUFWriter.write_tensor_data", full)
    monkeypatch.setattr("ingle.model.export_formats.narrowed", full)
    for format_ in ("gguf", "hf"):
        with pytest.raises(HomeError, match="Free some disk space"):
            export(with_deltas, kept(with_deltas, "tiny+lora"), format_, tmp_path / "out", "f32")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and with_deltas.root not in path.parents]


def test_merged_it_is_a_base_of_its_own(with_deltas: Home) -> None:
    one, ids = kept(with_deltas, "tiny+lora"), list(range(3, 60))
    new = merge(with_deltas, one, "merged")
    assert new.deltas == ()
    assert new == merge(with_deltas, one, "merged"), "once more changes nothing"
    base = read_base(with_deltas, new.base)
    assert (base.source, base.revision) == ("merge:tiny+lora", one.digest)
    np.testing.assert_allclose(model_logits(with_deltas, "merged", ids), model_logits(with_deltas, "tiny+lora", ids), atol=1e-6)
    with pytest.raises(ConfigError, match="is taken by a model"):
        merge(with_deltas, kept(with_deltas, "tiny+bias"), "merged")
    with pytest.raises(ConfigError, match="must have deltas"):
        merge(with_deltas, kept(with_deltas), "other")
    with pytest.raises(DeltaError, match="can't become part of the weights"):
        merge(with_deltas, kept(with_deltas, "tiny+prefix"), "other")
    assert [model.name for model in list_kept(with_deltas)] == ["merged", "tiny"]
    assert list(with_deltas.staging.iterdir()) == []
