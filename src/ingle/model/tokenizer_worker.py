"""The process behind `TokenizerApart`. `python -P -m ingle.model.tokenizer_worker`; it ends with its standard input."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.apart import Answer, answer_calls
from ingle.core.config import to_table
from ingle.core.errors import CheckpointError, RequestError
from ingle.core.process import limit_memory
from ingle.model.template import encode_chat, render
from ingle.model.tokenizer import ControlToken, Tokenizer, open_tokenizer

_NICE = 10  # niceness: the worker gives way to threads that compute answers
_OPENING_BYTES, _WORKING_BYTES = 4 << 30, 1 << 30  # address space for opening a tokenizer, and for a text beyond what the opened one takes
# Ids of one text; and tokens of a vocabulary, the sum of their bytes, and how many may control: the server keeps these.
_MOST_TOKENS, _MOST_VOCABULARY, _MOST_WORD_BYTES, _MOST_CONTROL = 4_000_000, 1_000_000, 32 << 20, 65_536
# Processor time for one answer: more than its asker waits for. It ends a process that holds its interpreter when the asker is gone.
_CPU_S = 75


def main() -> None:
    """Answer until standard input ends."""
    ids: dict[str, Callable[..., list[int]]] = {
        "encode": Tokenizer.encode,
        "encode_trusted": Tokenizer.encode_trusted,
        "encode_prompt": Tokenizer.encode_prompt,
        "encode_pieces": _pieces,
        "encode_chat": encode_chat,
    }
    answer_calls({"open": _about, "render": _render, **{name: partial(_ids, call) for name, call in ids.items()}}, nice=_NICE, cpu_s=_CPU_S)


@cache
def _open(folder: str) -> Tokenizer:
    """Raises CheckpointError, also for a vocabulary that would hold the server while it is taken in."""
    limit_memory(_OPENING_BYTES)
    tokenizer = open_tokenizer(Path(folder))
    nbytes = sum(map(len, tokenizer.fast.get_vocab(with_added_tokens=True)))
    for what, got, most in (
        ("tokens", tokenizer.vocab_size, _MOST_VOCABULARY),
        ("control tokens", len(tokenizer.control), _MOST_CONTROL),
        ("characters in its tokens", nbytes, _MOST_WORD_BYTES // 4),
    ):
        if got > most:
            raise CheckpointError("tokenizer", f"must have at most {most:,} {what}", f"{got:,}")
    limit_memory(_WORKING_BYTES)
    return tokenizer


def _about(question: dict[str, Any], _data: bytes) -> Answer:
    tokenizer = _open(question["folder"])
    about = {"facts": to_table(tokenizer.facts), "control": dict(tokenizer.control), "longest_token": tokenizer.longest_token}
    words = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    return {**about, "tokens": len(words)}, np.array([len(word) for word in words], np.int32).tobytes() + b"".join(words)


def _render(question: dict[str, Any], _data: bytes) -> Answer:
    pieces = render(_open(question["folder"]), *question["arguments"])
    return {"pieces": [[piece.name] if isinstance(piece, ControlToken) else piece for piece in pieces]}, b""


def _ids(call: Callable[..., list[int]], question: dict[str, Any], _data: bytes) -> Answer:
    ids = call(_open(question["folder"]), *question["arguments"])
    if len(ids) > _MOST_TOKENS:
        rule = f"This model's tokenizer makes more than {_MOST_TOKENS:,} tokens of this text"
        raise RequestError("text", rule, f"{len(ids):,}", "Ask in fewer words.")
    return {}, np.array(ids, np.int32).tobytes()


def _pieces(tokenizer: Tokenizer, pieces: list[Any]) -> list[int]:
    return tokenizer.encode_pieces(ControlToken(piece[0]) if isinstance(piece, list) else piece for piece in pieces)


if __name__ == "__main__":
    main()
