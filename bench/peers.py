"""One engine in one process: `python bench/peers.py NAME GGUF THREADS`, driven by bench/harness.py over standard input and output.

Questions: {"task": "prefill", "tokens": n, "seed": s} → seconds and the next token; {"task": "decode", "tokens": n, "prompt": p, "seed": s}
→ seconds for n greedy tokens after a prompt of p. Answers say the joules of all that, too, by Ingle's meter in the engine's own process.
Prompts are random token ids, new for each seed, so that no engine can remember one.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Peer(Protocol):
    """What every engine can do."""

    def about(self) -> dict[str, Any]:
        """Name and version."""
        ...

    def run(self, ids: list[int], count: int) -> tuple[float, float, list[int]]:
        """Seconds to the first token, seconds for the other count − 1, and the greedy tokens."""
        ...


class Ingle:
    def __init__(self, gguf: Path, threads: int, format_: str = "auto") -> None:
        from ingle.core.digest import digest_file
        from ingle.engine.loading import open_model
        from ingle.engine.packs import Source
        from ingle.home.place import find_home

        home = find_home().create()
        os.environ.setdefault("INGLE_KERNEL_CACHE", str(home.jit))
        digest = digest_file(gguf)
        self.model = open_model(Source("bench", gguf, digest, home.pack_folder(digest)), format_, threads)

    def about(self) -> dict[str, Any]:
        import ingle

        return {"engine": "Ingle", "version": ingle.__version__}

    def run(self, ids: list[int], count: int) -> tuple[float, float, list[int]]:
        from ingle.engine.backend import prefill, step

        backend = self.model.backend
        state, start = backend.new_state(), time.perf_counter()
        tokens = [int(prefill(backend, ids, state).argmax())]
        first = time.perf_counter()
        while len(tokens) < count:
            tokens.append(int(step(backend, [(state, tokens[-1])])[0].argmax()))
        return first - start, time.perf_counter() - first, tokens


class KeptModel(Ingle):
    """A kept model of any home: `peers.py kept HOME THREADS NAME`. Its questions must bring `ids`: vocabularies differ."""

    def __init__(self, home: Path, threads: int, name: str, format_: str = "auto") -> None:
        from ingle.engine.loading import open_model
        from ingle.engine.packs import kept_source
        from ingle.home.kept import get_kept
        from ingle.home.place import Home, find_home

        os.environ.setdefault("INGLE_KERNEL_CACHE", str(find_home().jit))
        place = Home(home)
        self.model = open_model(kept_source(place, get_kept(place, name)), format_, threads)


class LlamaCpp:
    def __init__(self, gguf: Path, threads: int, context: str = "4096", flash: bool = False) -> None:
        from llama_cpp import Llama

        both: dict[str, Any] = {"n_threads": threads, "n_threads_batch": threads, "flash_attn": flash}
        self.llama, self.flash = Llama(str(gguf), n_ctx=int(context), n_batch=512, verbose=False, **both), flash

    def about(self) -> dict[str, Any]:
        import llama_cpp

        return {"engine": "llama.cpp", "version": f"llama-cpp-python {llama_cpp.__version__}", "flash_attention": self.flash}

    def run(self, ids: list[int], count: int) -> tuple[float, float, list[int]]:
        import llama_cpp

        # The library's own C calls, as its fastest user would: greedy choice in C, no Python over the vocabulary.
        context, vocab_size = self.llama.ctx, self.llama.n_vocab()
        self.llama.reset()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        start = time.perf_counter()
        self.llama.eval(ids)
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (vocab_size,))
        tokens = [int(logits.argmax())]
        first = time.perf_counter()
        while len(tokens) < count:
            batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(tokens[-1]), 1)
            assert llama_cpp.llama_decode(context, batch) == 0
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (vocab_size,))
            tokens.append(int(logits.argmax()))
        return first - start, time.perf_counter() - first, tokens


class IkLlamaCpp:
    """The fork that is the fastest on CPUs, as its wheel comes: built for any CPU with AVX2."""

    PIECE = 31
    """Tokens of a prompt that are read together. From 32 on version 0.1.5 takes a kernel whose logits are wrong for Q4_1 (after 220 tokens
    2.5 nats from what it computes token by token, which agrees with ours to 0.001)."""

    def __init__(self, gguf: Path, threads: int, context: str = "4096") -> None:
        from ik_llama_cpp import IkLlama

        self.llama = IkLlama(str(gguf), n_ctx=int(context), n_threads=threads, verbose=False)

    def about(self) -> dict[str, Any]:
        import ik_llama_cpp

        return {"engine": "ik_llama.cpp", "version": f"ik-llama-cpp-python {ik_llama_cpp.__version__}", "piece": self.PIECE}

    def run(self, ids: list[int], count: int) -> tuple[float, float, list[int]]:
        from ik_llama_cpp import _ctypes_api as c
        from ik_llama_cpp._internals import make_batch_range, make_batch_single

        context, model = self.llama.ctx, self.llama._model.model
        vocab_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
        c.llama_kv_cache_clear(context)

        def read(batch: Any) -> int:
            assert c.llama_decode(context, batch) == 0
            c.llama_batch_free(batch)
            return int(np.ctypeslib.as_array(c.llama_get_logits_ith(context, -1), (vocab_size,)).argmax())

        start = time.perf_counter()
        for at in range(0, len(ids), self.PIECE):
            tokens = [read(make_batch_range(ids[at : at + self.PIECE], pos_start=at, logits_last=True))]
        first = time.perf_counter()
        while len(tokens) < count:
            tokens.append(read(make_batch_single(tokens[-1], len(ids) + len(tokens) - 1)))
        return first - start, time.perf_counter() - first, tokens


class OpenVino:
    def __init__(self, gguf: Path, threads: int) -> None:
        import openvino_genai

        self.pipe = openvino_genai.LLMPipeline(str(gguf), "CPU", INFERENCE_NUM_THREADS=threads)

    def about(self) -> dict[str, Any]:
        import openvino_genai

        return {"engine": "OpenVINO GenAI", "version": openvino_genai.__version__}

    def run(self, ids: list[int], count: int) -> tuple[float, float, list[int]]:
        import openvino as ov
        import openvino_genai

        inputs = ov.Tensor(np.array([ids], np.int64))
        config = openvino_genai.GenerationConfig(max_new_tokens=count, min_new_tokens=count, do_sample=False, ignore_eos=True)
        result = self.pipe.generate(openvino_genai.TokenizedInputs(inputs, ov.Tensor(np.ones((1, len(ids)), np.int64))), config)
        metrics = result.perf_metrics
        first = metrics.get_ttft().mean / 1000
        return first, metrics.get_generate_duration().mean / 1000 - first, list(result.tokens[0])


PEERS: dict[str, Callable[..., Peer]] = {
    "ingle": Ingle, "kept": KeptModel, "llama.cpp": LlamaCpp, "llama.cpp flash": partial(LlamaCpp, flash=True),
    "ik_llama.cpp": IkLlamaCpp, "openvino": OpenVino,
}  # fmt: skip


def main() -> None:
    name, gguf, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    from ingle.energy.meter import Span, open_meter

    meter = open_meter()
    peer = PEERS[name](gguf, threads, *sys.argv[4:])
    print(json.dumps(peer.about()), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        ids = question.get("ids") or np.random.default_rng(question["seed"]).integers(1000, 40000, question["prompt"]).tolist()
        try:
            span = Span(meter)
            first, rest, tokens = peer.run(ids, question["tokens"])
            taken = span.end()
            told = {"joules": taken.joules, "source": taken.source}
            print(json.dumps({"first_s": first, "rest_s": rest, "tokens": tokens, "energy": told}), flush=True)
        except Exception as error:
            print(json.dumps({"error": repr(error)}), flush=True)


if __name__ == "__main__":
    main()
