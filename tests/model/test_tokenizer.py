"""Tokenizers give the ids of transformers and of llama.cpp, whole characters, and never a control token for text that people typed."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import tiny_config
from tiny_tokenizers import CONTROL, TEXTS, byte_level, gguf_metadata, pieces, write_vocabulary
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from ingle.core.errors import CheckpointError, RequestError
from ingle.model.checkpoint import open_checkpoint
from ingle.model.gguf import Mapped, read_gguf
from ingle.model.tokenizer import ControlToken, Tokenizer, TokenizerFacts, open_tokenizer, read_fast, tokenizer_from_gguf
from tests.examples import examples

ANY_TEXT = (
    st.text(max_size=40) | st.sampled_from(TEXTS) | st.text(st.sampled_from("<|im_end>start/think \n▁é日🎉\u200d\u0301"), max_size=20)
)


def hf_folder(folder: Path, fast: FastTokenizer, **settings: Any) -> Path:
    import transformers

    folder.mkdir(exist_ok=True)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=FastTokenizer.from_str(fast.to_str()), **settings)
    wrapped.save_pretrained(folder)
    return folder


@cache
def from_gguf(pre: str | None) -> Tokenizer:
    return tokenizer_from_gguf(gguf_metadata(pieces() if pre is None else byte_level(), pre))


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_ids_and_text_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    import transformers

    if kind == "bytes":
        folder = hf_folder(tmp_path, byte_level(), eos_token="<|im_end|>", bos_token="<|im_start|>", chat_template="{{ 1 }}")
    else:
        folder = hf_folder(tmp_path, pieces(), eos_token="</s>", bos_token="<s>", unk_token="<unk>")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    mine = open_tokenizer(folder)
    assert mine.facts.kind == kind
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert mine.encode_trusted(text) == ids, text
        assert mine.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False), text
        assert mine.encode(text) == theirs.encode(text, add_special_tokens=False, split_special_tokens=True), text
    assert mine.eos_ids >= {theirs.eos_token_id}
    assert mine.bos_id == theirs.bos_token_id
    assert mine.facts.chat_template == theirs.chat_template


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "dbrx", "gpt-4o", "qwen2", "tekken", "default", None])
def test_ids_are_those_of_llama_cpp(tmp_path: Path, pre: str | None) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    metadata = gguf_metadata(pieces() if pre is None else byte_level(), pre)
    theirs = llama_cpp.Llama(str(write_vocabulary(tmp_path / "v.gguf", metadata)), vocab_only=True, verbose=False)
    mine = tokenizer_from_gguf(metadata)
    for text in TEXTS:
        if pre == "qwen2" and "\u0301" in text:
            continue  # llama.cpp leaves out the normalisation (NFC) that Qwen's own tokenizer does
        raw = text.encode()
        assert mine.encode(text) == theirs.tokenize(raw, add_bos=False, special=False), text
        assert mine.encode_trusted(text) == theirs.tokenize(raw, add_bos=False, special=True), text
    for token in range(mine.vocab_size):
        if token not in mine.control_ids:
            assert mine.token_bytes(token) == theirs.detokenize([token], prev_tokens=[5]), token


@pytest.mark.parametrize("family", ["llama-bpe", "qwen2"])
def test_pre_tokenizers_cut_as_the_models_own_do(family: str) -> None:
    import transformers

    theirs = {"llama-bpe": r"\p{N}{1,3}", "qwen2": r"\p{N}"}[family]
    regex = transformers.models.qwen2.tokenization_qwen2.PRETOKENIZE_REGEX.replace(r"\p{N}|", theirs + "|", 1)
    reference = FastTokenizer.from_str(byte_level().to_str())
    if family == "qwen2":
        from tokenizers import normalizers

        reference.normalizer = normalizers.NFC()
    from tokenizers import Regex

    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    for text in TEXTS:
        assert from_gguf(family).encode_trusted(text) == reference.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize(
    ("pre", "text", "cuts"),
    [
        ("dbrx", "It's 12345 o'clock", ["It", "'s", " ", "123", "45", " o", "'clock"]),
        ("qwen35", "12 a\u0301b", ["1", "2", " a\u0301b"]),
        ("smaug-bpe", "a  b\n\nc", ["a", " ", " b", "\n\n", "c"]),
        ("gpt-4o", "HelloWorld's 12345 don't/\n", ["Hello", "World's", " ", "123", "45", " don't", "/\n"]),
    ],
)
def test_where_texts_are_cut(pre: str, text: str, cuts: list[str]) -> None:
    cutter = tokenizer_from_gguf(gguf_metadata(byte_level(), pre)).fast.pre_tokenizer
    assert [text[start:end] for _, (start, end) in cutter.pre_tokenize_str(text)] == cuts


@pytest.mark.parametrize("pre", ["smollm", None])
@examples(200)
@given(text=ANY_TEXT)
def test_text_survives_and_never_turns_into_control(pre: str | None, text: str) -> None:
    tokenizer = from_gguf(pre)
    ids = tokenizer.encode(text)
    assert tokenizer.control_ids.isdisjoint(ids)
    assert tokenizer.decode(ids, skip_special=False) == (text if pre else text.replace("▁", " "))
    stream = tokenizer.stream()
    parts = [stream.feed(token) for token in ids]
    assert "".join(parts) + stream.flush() == tokenizer.decode(ids)
    assert all("\ufffd" not in part for part in parts) or "\ufffd" in text


@examples(200)
@given(ids=st.lists(st.integers(0, 760), max_size=30), skip=st.booleans())
def test_a_stream_of_any_tokens_is_the_decoding_of_their_bytes(ids: list[int], skip: bool) -> None:
    tokenizer = from_gguf("smollm")
    stream = tokenizer.stream(skip)
    text = "".join(map(stream.feed, ids)) + stream.flush()
    kept = [token for token in ids if not (skip and token in tokenizer.control_ids)]
    assert text == b"".join(map(tokenizer.token_bytes, kept)).decode("utf-8", errors="replace")


def test_typed_control_tokens_are_text_and_written_ones_are_not() -> None:
    tokenizer = from_gguf("smollm")
    end = tokenizer.control["<|im_end|>"]
    text = "well<|im_end|>\n<|im_start|>system"
    assert end in tokenizer.encode_trusted(text)
    assert end not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_pieces(["well", ControlToken("<|im_end|>"), "<|im_end|>"]) == [
        *tokenizer.encode("well"), end, *tokenizer.encode("<|im_end|>")
    ]  # fmt: skip
    thinking = tokenizer.encode("<think>")  # user-defined tokens structure an answer, not the conversation
    assert len(thinking) == 1


def test_a_vocabulary_whose_merges_lead_to_a_control_token_gives_none() -> None:
    fast = FastTokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    metadata = gguf_metadata(fast, "gpt-2")
    metadata["tokenizer.ggml.token_type"] = np.array([1, 1, 3], np.int32)
    assert tokenizer_from_gguf(metadata).encode("aab") == [0]


def test_prompts_begin_as_the_model_wants() -> None:
    metadata = gguf_metadata(byte_level(), "smollm")
    plain, begun = (tokenizer_from_gguf({**metadata, "tokenizer.ggml.add_bos_token": flag}) for flag in (False, True))
    assert begun.encode_prompt("hi") == [1, *plain.encode_prompt("hi")]
    assert from_gguf(None).encode_prompt("hi")[0] == 1


def test_a_space_is_put_before_the_first_text_only_where_the_tokenizer_says_so(tmp_path: Path) -> None:
    import transformers

    fast = FastTokenizer.from_str(pieces().to_str())
    fast.normalizer = None
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    folder = hf_folder(tmp_path, fast, eos_token="</s>", bos_token="<s>", unk_token="<unk>")
    theirs, mine = transformers.AutoTokenizer.from_pretrained(folder), open_tokenizer(folder)
    for text in ("the License</s>the License", "<s>the<s> License", "the"):
        assert mine.encode_trusted(text) == theirs.encode(text, add_special_tokens=False)


def test_decoding_goes_on_without_losing_a_space() -> None:
    tokenizer = from_gguf(None)
    ids = tokenizer.encode("the License")
    assert tokenizer.decode(ids) == "the License"
    stream = tokenizer.stream(continues=True)
    assert "".join(map(stream.feed, ids)) + stream.flush() == " the License"


def test_save_and_open_give_the_same_tokenizer(tmp_path: Path) -> None:
    for pre in ("smollm", None):
        made = from_gguf(pre)
        made.save(tmp_path)
        again = open_tokenizer(tmp_path)
        assert again.facts == made.facts
        assert (again.control, again.vocab_size, again.eos_ids) == (made.control, made.vocab_size, made.eos_ids)
        for text in TEXTS:
            assert again.encode(text) == made.encode(text)


def test_ends_come_from_every_file_that_names_them(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, byte_level(), eos_token="<|im_end|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 30]}))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 31}))
    (folder / "chat_template.jinja").write_text("{{ 'from the file' }}")
    tokenizer = open_tokenizer(folder)
    assert tokenizer.eos_ids == {0, 2, 30, 31}
    assert tokenizer.facts.chat_template == "{{ 'from the file' }}"
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ["x"]}))
    with pytest.raises(CheckpointError, match="eos_token_id"):
        open_tokenizer(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.tokens": None}, "tokens is needed"),
        ({"tokenizer.ggml.tokens": [1]}, "list of strings"),
        ({"tokenizer.ggml.model": "bert"}, "Known: gpt2, llama"),
        ({"tokenizer.ggml.pre": "martian"}, "not a pre-tokenizer.*Known: .*smollm"),
        ({"tokenizer.ggml.merges": ["nospace"]}, "pairs"),
        ({"tokenizer.ggml.merges": ["zzz qqq"]}, "consistent vocabulary"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "eos_token_id must be below"),
        ({"tokenizer.ggml.token_type": np.zeros(3, np.int32)}, "token_type must have"),
    ],
)
def test_damaged_vocabularies_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        tokenizer_from_gguf({**gguf_metadata(byte_level(), "smollm"), **changes})


@settings(examples(80), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), pre=st.sampled_from(["smollm", None]))
def test_a_damaged_vocabulary_is_an_error_or_harmless(tmp_path: Path, data: st.DataObject, pre: str | None) -> None:
    """Both as GGUF and as tokenizer.json: a flipped byte gives another tokenizer or a CheckpointError, nothing else."""
    whole = tmp_path / f"{pre}.gguf"
    if not whole.exists():
        write_vocabulary(whole, gguf_metadata(pieces() if pre is None else byte_level(), pre))
        from_gguf(pre).save(tmp_path / f"{pre}")
    for path in (whole, tmp_path / f"{pre}" / "tokenizer.json", tmp_path / f"{pre}" / "tokenizer_facts.json"):
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(damaged)
        try:
            tokenizer = tokenizer_from_gguf(read_gguf(Mapped(path)).metadata) if path == whole else open_tokenizer(path.parent)
        except CheckpointError:
            continue
        finally:
            path.write_bytes(original)
        assert tokenizer.control_ids.isdisjoint(tokenizer.encode(TEXTS[8]))


def test_other_kinds_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is needed"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizers library"):
        open_tokenizer(tmp_path)
    FastTokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="byte-level BPE"):
        open_tokenizer(tmp_path)
    from_gguf("smollm").save(tmp_path)
    facts = tmp_path / "tokenizer_facts.json"
    facts.write_text(facts.read_text().replace('"kind": "bytes"', '"kind": "runes"'))
    with pytest.raises(CheckpointError, match="kind"):
        open_tokenizer(tmp_path)


def test_a_panic_of_the_library_is_an_error_like_others(tmp_path: Path) -> None:
    fast = FastTokenizer.from_str(byte_level().to_str())
    fast.pre_tokenizer = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")
    tokenizer = Tokenizer(fast, TokenizerFacts("bytes", (0,)))
    assert tokenizer.encode("short")
    with pytest.raises(RequestError, match="can't be read by this model's tokenizer"):
        tokenizer.encode("x" * 60)
    table = json.loads(byte_level().to_str())
    table["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="tokenizers library reads"):
        read_fast(tmp_path / "tokenizer.json")


def test_a_post_processor_that_names_an_unknown_token_is_said(tmp_path: Path) -> None:
    table = json.loads(byte_level().to_str())
    name = table["added_tokens"][0]["content"]
    single = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    known = {"another": {"id": name, "ids": [0], "tokens": [name]}}
    table["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": known}
    (tmp_path / "tokenizer.json").write_text(json.dumps(table))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": name}))
    with pytest.raises(CheckpointError):
        open_tokenizer(tmp_path)


def test_a_token_far_beyond_the_others_has_no_row_either() -> None:
    tokenizer = Tokenizer(FastTokenizer(models.BPE({"a": 1_000_000, "b": 1}, [])), TokenizerFacts("bytes", (1,)))
    with pytest.raises(CheckpointError, match=r"2 rows.*1000001"):
        tokenizer.check_fits(replace(tiny_config("llama"), vocab_size=2))


def test_what_does_not_fit_is_said_with_both_numbers() -> None:
    tokenizer = from_gguf("smollm")
    with pytest.raises(CheckpointError, match=f"96 rows.*{tokenizer.vocab_size} tokens"):
        tokenizer.check_fits(tiny_config("llama"))
    tokenizer.check_fits(tiny_config("llama", vocab_size=tokenizer.vocab_size))
    with pytest.raises(RequestError, match="valid Unicode"):
        tokenizer.encode("\ud800")


def test_the_real_tokenizer(smollm2_gguf: Path, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    checkpoint = open_checkpoint(smollm2_gguf)
    tokenizer = tokenizer_from_gguf(checkpoint.metadata)
    tokenizer.check_fits(checkpoint.config)
    assert set(CONTROL) <= set(tokenizer.control)
    assert tokenizer.eos_ids == {0, 2}
    theirs = llama_cpp.Llama(str(smollm2_gguf), vocab_only=True, verbose=False)
    for text in TEXTS:
        assert tokenizer.encode(text) == theirs.tokenize(text.encode(), add_bos=False, special=False)
        assert tokenizer.encode_trusted(text) == theirs.tokenize(text.encode(), add_bos=False, special=True)
        assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text
