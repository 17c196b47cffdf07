"""A tokenizer as GGUF's metadata: the mirror of `tokenizer_gguf`.

GGUF has no room for a pre-tokenizer's pattern, only for a name that llama.cpp knows. The right name is found by trying: the metadata are
read back under each known name, and must split test texts exactly as the tokenizer does. A tokenizer without such a name is refused,
because llama.cpp would read other tokens than the model was trained on.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ingle.core.errors import CheckpointError
from ingle.model.tokenizer import Tokenizer
from ingle.model.tokenizer_gguf import PRE_TOKENIZERS, tokenizer_from_gguf

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)  # llama.cpp's llama_token_type
_TEXTS = (
    "Hello, WORLD! it's 12345 o'clock; we'LL see 3.14 and 1234567890.", "  leading and   multiple  spaces\n\n\ttabs ", "\r\n\r\n a\r\nb ",
    "Grüße aus München, où l'été naïf 日本語テキスト 中文字符 это текст 한국어 שלום 🎉 👩‍👩‍👧",
    "camelCase snake_case x=[1,22,333]; //!?--\n}",
    "½ ² Ⅷ ٣ e\u0301 \u0301 zero\u200bwidth $100 50% a^b <b>|x|~", "ALLCAPS'S don't DON'T 'tis ''", "",
)  # fmt: skip
_CURE = "Write a Hugging Face folder, and convert that with llama.cpp's own script."


def words_of(tokenizer: Tokenizer, vocab_size: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `tokenizer.*` keys of a GGUF file: those of `metadata` where the model came from one, else made from the tokenizer.

    Raises CheckpointError for a tokenizer that llama.cpp has no name for.
    """
    existing = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    if existing:
        return existing
    table = json.loads(tokenizer.fast.to_str())
    words = _vocabulary(tokenizer, table, vocab_size)
    for more in _candidates(tokenizer, table, words["tokenizer.ggml.tokens"], words["tokenizer.ggml.token_type"]):
        candidate = {**words, **more}
        if _same(tokenizer, candidate):
            return candidate
    raise CheckpointError("tokenizer", "must be one that llama.cpp knows by name", "another way to split texts", _CURE)


def _vocabulary(tokenizer: Tokenizer, table: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    facts = tokenizer.facts
    added = {token["id"]: token for token in table["added_tokens"]}
    tokens, kinds = [], []
    for i in range(vocab_size):
        token = tokenizer.fast.id_to_token(i)
        tokens.append(f"[PAD{i}]" if token is None else token)
        kinds.append(_UNUSED if token is None else _kind(token, added.get(i), facts.kind == "pieces", i == facts.unknown_id))
    words: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2" if facts.kind == "bytes" else "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.add_bos_token": facts.add_bos,
    }
    ids = {"bos": facts.bos_id, "eos": facts.eos_ids[0] if facts.eos_ids else None, "unknown": facts.unknown_id}
    words |= {f"tokenizer.ggml.{name}_token_id": token for name, token in ids.items() if token is not None}
    if facts.chat_template:
        words["tokenizer.chat_template"] = facts.chat_template
    return words


def _kind(token: str, added: Mapping[str, Any] | None, pieces: bool, unknown: bool) -> int:
    if unknown and pieces:
        return _UNKNOWN
    if added is not None:
        return _CONTROL if added["special"] else _USER
    is_byte = pieces and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return _BYTE if is_byte else _NORMAL


def _candidates(tokenizer: Tokenizer, table: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> Iterator[dict[str, Any]]:
    """Yield every possible set of keys beside the vocabulary."""
    merges = [merge.split(" ", 1) if isinstance(merge, str) else list(merge) for merge in table["model"]["merges"]]
    if tokenizer.facts.kind == "bytes":
        merge_keys = {"tokenizer.ggml.merges": [" ".join(merge) for merge in merges]}
        yield from ({"tokenizer.ggml.pre": name, **merge_keys} for name in PRE_TOKENIZERS)
        return
    rank: dict[str, int] = {}
    for i, (left, right) in enumerate(merges):
        rank.setdefault(left + right, i)
    last = len(merges)
    scores = [-float(rank.get(token, last)) if kind == _NORMAL else 0.0 for token, kind in zip(tokens, kinds, strict=True)]
    yield {
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": tokenizer.facts.space_prefix,
    }


def _same(tokenizer: Tokenizer, words: Mapping[str, Any]) -> bool:
    numbers = ("tokenizer.ggml.token_type", "tokenizer.ggml.scores")
    typed = {key: np.asarray(value) if key in numbers else value for key, value in words.items()}
    try:
        other = tokenizer_from_gguf(typed)
    except CheckpointError:
        return False
    return all(tokenizer.encode(text) == other.encode(text) for text in _TEXTS)
