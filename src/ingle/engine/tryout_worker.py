"""The process behind `tryout`. `python -P -m ingle.engine.tryout_worker`; it ends with its standard input."""

import os
from pathlib import Path
from typing import Any

from ingle.core.apart import Answer, answer_calls
from ingle.core.config import from_table
from ingle.core.errors import CheckpointError, TemplateError
from ingle.core.message import Message, Request, Sampling
from ingle.core.process import limit_memory
from ingle.engine.answer import answer
from ingle.engine.loading import Opener
from ingle.engine.packs import checkpoint_tokenizer, kept_source, pack_folders, warm
from ingle.engine.threads import Cores
from ingle.engine.tryout import CURE
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.model.checkpoint import open_checkpoint
from ingle.model.template import encode_chat, has_template
from ingle.model.tokenizer import open_tokenizer

_MORE_BYTES = 2 << 30  # address space beyond what the files take
_TOKENS = 4  # tokens that are written
_SAMPLES = ("Hello, world!", "aA1 " * 500, "a" * 4000, "\n\t" * 500, "Grüße 你好 🙂 \u202eabc", "<|im_end|>" * 50, "0123456789" * 100)
_MOST_GROWTH = 64  # tokens for one character of these
_PACKING_NICE = 10  # niceness: packing gives way to computing programs


def _words(question: dict[str, Any], _data: bytes) -> Answer:
    folder = Path(question["folder"])
    limit_memory(_MORE_BYTES + 2 * sum(path.stat().st_size for path in folder.iterdir()))
    weights = any(path.suffix.lower() in (".safetensors", ".gguf") for path in folder.iterdir())
    tokenizer = checkpoint_tokenizer(open_checkpoint(folder), folder) if weights else open_tokenizer(folder)
    for text in _SAMPLES:
        count = len(tokenizer.encode(text))
        if count > _MOST_GROWTH * len(text):
            rule = f"must make at most {_MOST_GROWTH} tokens of a character"
            raise CheckpointError("tokenizer", rule, f"{count:,} of {len(text):,} characters", CURE)
    if not has_template(tokenizer):
        return {}, b""
    turns = [Message.of("user", "Hello!"), Message.of("assistant", "Hi."), Message.of("user", "x" * 1000)]
    for messages in ([Message.of("system", "Be kind."), *turns], turns, turns[:1]):
        try:
            encode_chat(tokenizer, messages)
        except TemplateError as error:  # some take no system message, or none of several turns
            if error.rule.startswith("must stay within"):
                raise
    return {}, b""


def _step(question: dict[str, Any], _data: bytes) -> Answer:
    home, kept = Home(Path(question["home"])), from_table(Kept, question["kept"])
    packs = pack_folders(kept_source(home, kept))
    size = sum(path.stat().st_size for folder in packs for path in folder.iterdir() if path.is_file())
    limit_memory(2 * _MORE_BYTES + 3 * size)
    model = Opener(question["format"], Cores(1, gives_way=False), question["cache"])(home, kept)
    request = Request(prompt="Hello", max_tokens=_TOKENS, sampling=Sampling(temperature=0))
    for _chunk in answer(model, request, drafts=False):
        pass
    return {}, b""


def _pack(question: dict[str, Any], _data: bytes) -> Answer:
    if os.name == "posix":
        os.nice(_PACKING_NICE)
    source = kept_source(Home(Path(question["home"])), from_table(Kept, question["kept"]))
    warm(source, question["format"], question["cache"])
    return {}, b""


if __name__ == "__main__":
    answer_calls({"words": _words, "step": _step, "pack": _pack})
