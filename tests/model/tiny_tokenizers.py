"""Small tokenizers, trained in a moment on the project's licence and some lines in other scripts."""

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER = ["<think>", "</think>"]
LINES = [
    "Grüße aus München, où l'été naïf 日本語テキスト 中文字符 это текст 한국어 שלום 🎉 emoji 👩‍👩‍👧",
    "tabs\tand\r\nnewlines\n\n\n  x = [1, 22, 333]",
    "it's we'LL DON'T I've numbers 1234567890 3.14 ½ ² <|im_end|> <s> </s> e\u0301 \u0301 zero\u200bwidth   spaces    here ",
]
TEXTS = [
    "", " ", "a", "hello world", "Hello, WORLD! it's 12345 o'clock", "  leading and   multiple  spaces\n\n\ttabs ", *LINES,
    "the License shall mean", "\r\n\r\n", "x" * 100, "\u0301combining", "<|im_end|>", "a<|im_start|>b", "<think>x</think>",
    "1 22 333 4444 55555", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f3fd",
]  # fmt: skip


def corpus() -> list[str]:
    licence = Path(__file__).parents[2] / "LICENSE"
    return [*licence.read_text("utf-8").splitlines(), *LINES * 20]


@cache
def byte_level(size: int = 700) -> Tokenizer:
    """GPT-2 style, control tokens first as in SmolLM2, two user-defined tokens last as in Qwen3."""
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=CONTROL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    fast.train_from_iterator(corpus(), trainer)
    fast.add_tokens([AddedToken(token, normalized=False) for token in USER])
    return fast


@cache
def pieces(size: int = 800) -> Tokenizer:
    """Llama 2 style: ▁ for a space, bytes for what has no piece."""
    fast = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    fast.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False))
    fast.pre_tokenizer = None
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    rebuilt = Tokenizer.from_str(fast.to_str())
    return without_added(rebuilt, {"<unk>", "<s>", "</s>"})


def without_added(fast: Tokenizer, keep: set[str]) -> Tokenizer:
    """The same with fewer added tokens: the trainer marks the bytes as special, which they are not."""
    import json

    table = json.loads(fast.to_str())
    table["added_tokens"] = [token for token in table["added_tokens"] if token["content"] in keep]
    return Tokenizer.from_str(json.dumps(table))


def gguf_metadata(fast: Tokenizer, pre: str | None) -> dict[str, Any]:
    """What a GGUF file says about this tokenizer: byte-level with `pre`, or pieces with scores where `pre` is None."""
    import json

    table = json.loads(fast.to_str())
    vocab = fast.get_vocab(with_added_tokens=True)
    tokens = sorted(vocab, key=vocab.__getitem__)
    special = {token["content"]: token["special"] for token in table["added_tokens"]}
    kinds = [1 if t not in special else 3 if special[t] else 4 for t in tokens]
    metadata: dict[str, Any] = {"tokenizer.ggml.tokens": tokens}
    if pre is None:
        kinds = [2 if t == "<unk>" else 6 if t.startswith("<0x") else kind for t, kind in zip(tokens, kinds, strict=True)]
        metadata |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.scores": np.array([0.0 if kind != 1 else -float(i) for i, kind in enumerate(kinds)], np.float32),
            "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        }  # fmt: skip
    else:
        metadata |= {
            "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.merges": [" ".join(m) for m in table["model"]["merges"]],
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.add_bos_token": False,
        }  # fmt: skip
    return metadata | {"tokenizer.ggml.token_type": np.array(kinds, np.int32)}


def write_vocabulary(path: Path, metadata: dict[str, Any]) -> Path:
    """A GGUF file of this vocabulary alone, which llama.cpp opens with `vocab_only`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(metadata["tokenizer.ggml.tokens"]))
    add_keys(writer, metadata)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def add_keys(writer: gguf.GGUFWriter, metadata: dict[str, Any]) -> None:
    """Add what a file says about its tokenizer."""
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, np.ndarray):
            writer.add_array(key, value.tolist())
        else:
            writer.add_array(key, value)
