"""The process behind `TokenizerApart`: reads one job a line from standard input, answers with a header line and bytes.

`python -P -m ingle.model.tokenizer_worker FOLDER`
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.config import to_table
from ingle.core.errors import CheckpointError, IngleError, RequestError, fault_of
from ingle.core.process import limit_memory, write_message
from ingle.model.template import encode_chat, render
from ingle.model.tokenizer import ControlToken, Tokenizer, open_tokenizer

_NICE = 10
"""Niceness: the worker gives way to threads that compute answers."""
_OPENING_BYTES, _WORKING_BYTES = 4 << 30, 1 << 30
"""Address space for opening a tokenizer, and for a text beyond what the opened one takes."""
_MOST_TOKENS, _MOST_VOCABULARY, _MOST_WORD_BYTES, _MOST_CONTROL = 4_000_000, 1_000_000, 32 << 20, 65_536
"""Ids of one text; and tokens of a vocabulary, the sum of their bytes, and how many may control: the server keeps these."""
_GRACE_S = 5
"""Seconds after the limit at which the process ends itself, if the one that asked is gone."""


def main() -> None:
    """Serve jobs until standard input ends."""
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    if hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    limit_memory(_OPENING_BYTES)
    try:
        tokenizer = open_tokenizer(Path(sys.argv[1]))
        _check_size(tokenizer)
        words = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    except IngleError as error:
        write_message(answers, {"fault": fault_of(error)})
        return
    about = {"facts": to_table(tokenizer.facts), "control": dict(tokenizer.control), "longest_token": tokenizer.longest_token}
    sizes = np.array([len(word) for word in words], np.int32).tobytes()
    write_message(answers, {**about, "tokens": len(words)}, sizes + b"".join(words))
    limit_memory(_WORKING_BYTES)
    for line in jobs:
        job = json.loads(line)
        _alarm(int(job["seconds"]) + _GRACE_S)
        write_message(answers, *_answer(tokenizer, job["call"], job["arguments"]))
        _alarm(0)


def _answer(tokenizer: Tokenizer, call: str, arguments: list[Any]) -> tuple[dict[str, Any], bytes]:
    try:
        if call == "render":
            pieces = render(tokenizer, *arguments)
            return {"pieces": [[piece.name] if isinstance(piece, ControlToken) else piece for piece in pieces]}, b""
        ids = _CALLS[call](tokenizer, *arguments)
        if len(ids) > _MOST_TOKENS:
            rule = f"This model's tokenizer makes more than {_MOST_TOKENS:,} tokens of this text"
            raise RequestError("text", rule, f"{len(ids):,}", "Ask in fewer words.")
    except IngleError as error:
        return {"fault": fault_of(error)}, b""
    return {}, np.array(ids, np.int32).tobytes()


def _pieces(tokenizer: Tokenizer, pieces: list[Any]) -> list[int]:
    return tokenizer.encode_pieces(ControlToken(piece[0]) if isinstance(piece, list) else piece for piece in pieces)


_CALLS: dict[str, Callable[..., list[int]]] = {
    "encode": Tokenizer.encode,
    "encode_trusted": Tokenizer.encode_trusted,
    "encode_prompt": Tokenizer.encode_prompt,
    "encode_pieces": _pieces,
    "encode_chat": encode_chat,
}


def _check_size(tokenizer: Tokenizer) -> None:
    """Raise CheckpointError for a vocabulary that would hold the server while it is taken in."""
    nbytes = sum(map(len, tokenizer.fast.get_vocab(with_added_tokens=True)))
    for what, got, most in (
        ("tokens", tokenizer.vocab_size, _MOST_VOCABULARY),
        ("control tokens", len(tokenizer.control), _MOST_CONTROL),
        ("characters in its tokens", nbytes, _MOST_WORD_BYTES // 4),
    ):
        if got > most:
            raise CheckpointError("tokenizer", f"must have at most {most:,} {what}", f"{got:,}")


def _alarm(seconds: int) -> None:
    """End this process after so many seconds, whatever it does then; 0 = don't."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


if __name__ == "__main__":
    main()
