"""A first try of a stranger's model, in another process with limits of time and memory, before it is kept and served.

Its tokenizer and template read some words and conversations; its weights take some steps. What would end or freeze a server ends this
process, and `ingle pull` says so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ingle.core.config import from_table, to_table
from ingle.core.errors import CheckpointError, IngleError, KernelError, TemplateError, fault_of, raised
from ingle.core.process import limit_memory
from ingle.home.kept import Kept
from ingle.home.place import Home

_WORDS_S, _STEP_S, _STEP_S_PER_GB = 60, 120, 60
_MORE_BYTES = 2 << 30
"""Address space beyond what the files take."""
_TOKENS = 4
"""Tokens that are written."""
_SAMPLES = ("Hello, world!", "aA1 " * 500, "a" * 4000, "\n\t" * 500, "Grüße 你好 🙂 \u202eabc", "<|im_end|>" * 50, "0123456789" * 100)
_MOST_GROWTH = 64
"""Tokens for one character of these."""
_CURE = "Don't use this model: it is damaged, or means harm."


def try_words(folder: Path, seconds: float = _WORDS_S) -> None:
    """Try the tokenizer and the chat template of a folder of files, of any kind that `ingle pull` takes.

    Raises CheckpointError where they can't be read, or don't stay within the limits.
    """
    if fault := _apart({"do": "words", "folder": str(folder)}, seconds):
        raise CheckpointError("tokenizer or chat template", "can't be used", fault, _CURE)


def try_step(home: Home, kept: Kept, format_: str, cache: str = "auto") -> None:
    """Let a kept model, packed already, write some tokens. Raises KernelError where it can't, CheckpointError for its files."""
    folder = home.pack_folder(kept.base)
    size = sum(path.stat().st_size for path in folder.glob("*/weights.bin")) if folder.is_dir() else 0
    job = {"do": "step", "home": str(home.root), "kept": to_table(kept), "format": format_, "cache": cache}
    if fault := _apart(job, _STEP_S + _STEP_S_PER_GB * size / 1e9):
        raise KernelError(f"model {kept.name}", "can't take a first step", fault, _CURE)


def _apart(job: dict[str, Any], seconds: float) -> str:
    """Do a job in another process. Returns how it broke off, or nothing; raises what it raises."""
    command = [sys.executable, "-P", "-m", "ingle.engine.tryout"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            command, input=json.dumps(job).encode(), capture_output=True, check=False, timeout=seconds, env=environment
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it took more than {seconds:.0f} seconds"
    if done.returncode < 0:
        return f"its process was ended by signal {-done.returncode}"
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return last[:300]
    if fault := json.loads(done.stdout):
        raise raised(fault)
    return ""


def _main() -> None:
    job, fault = json.load(sys.stdin), None
    try:
        if job["do"] == "words":
            _words(Path(job["folder"]))
        else:
            _step(Home(Path(job["home"])), from_table(Kept, job["kept"]), job["format"], job["cache"])
    except IngleError as error:
        fault = fault_of(error)
    print(json.dumps(fault))


def _words(folder: Path) -> None:
    from ingle.core.message import Message
    from ingle.engine.packs import checkpoint_tokenizer
    from ingle.model.checkpoint import open_checkpoint
    from ingle.model.template import encode_chat, has_template
    from ingle.model.tokenizer import open_tokenizer

    limit_memory(_MORE_BYTES + 2 * sum(path.stat().st_size for path in folder.iterdir()))
    weights = any(path.suffix.lower() in (".safetensors", ".gguf") for path in folder.iterdir())
    tokenizer = checkpoint_tokenizer(open_checkpoint(folder), folder) if weights else open_tokenizer(folder)
    for text in _SAMPLES:
        count = len(tokenizer.encode(text))
        if count > _MOST_GROWTH * len(text):
            rule = f"must make at most {_MOST_GROWTH} tokens of a character"
            raise CheckpointError("tokenizer", rule, f"{count:,} of {len(text):,} characters", _CURE)
    if not has_template(tokenizer):
        return
    turns = [Message.of("user", "Hello!"), Message.of("assistant", "Hi."), Message.of("user", "x" * 1000)]
    for messages in ([Message.of("system", "Be kind."), *turns], turns, turns[:1]):
        try:
            encode_chat(tokenizer, messages)
        except TemplateError as error:  # some take no system message, or none of several turns
            if error.rule.startswith("must stay within"):
                raise


def _step(home: Home, kept: Kept, format_: str, cache: str) -> None:
    from ingle.core.message import Request, Sampling
    from ingle.engine.answer import answer
    from ingle.engine.loading import Opener
    from ingle.engine.packs import kept_source, pack_folders
    from ingle.engine.threads import Cores

    packs = pack_folders(kept_source(home, kept))
    size = sum(path.stat().st_size for folder in packs for path in folder.iterdir() if path.is_file())
    limit_memory(2 * _MORE_BYTES + 3 * size)
    model = Opener(format_, Cores(1, gives_way=False), cache)(home, kept)
    request = Request(prompt="Hello", max_tokens=_TOKENS, sampling=Sampling(temperature=0))
    for _chunk in answer(model, request, drafts=False):
        pass


if __name__ == "__main__":
    _main()
