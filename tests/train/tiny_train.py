"""Something small to train: modules, tokenizers with templates, corpora of random tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer
from torch import nn

from ingle.core.spec import LayerSpec, ModelConfig
from ingle.model.module import CausalLM, load_module
from ingle.model.template import CHATML
from ingle.model.tokenizer import Tokenizer, TokenizerFacts, make_facts
from ingle.train import corpus
from ingle.train.corpus import Corpus, Wanted
from ingle.train.example_files import Document
from ingle.train.packing import Data
from tests.engine.tiny import random_checkpoint, tiny_config
from tests.model.tiny_tokenizers import byte_level

HYBRID = (LayerSpec((0,), window=5, sinks=2), LayerSpec((0, 1)), LayerSpec((), window=4, sinks=1))


def chat_tokenizer(template: str | None = CHATML, names: Sequence[str] = ()) -> Tokenizer:
    """Byte-level, with ChatML's control tokens and these."""
    fast = FastTokenizer.from_str(byte_level().to_str())
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return make_facts(fast, TokenizerFacts("bytes", (2,), chat_template=template), "tiny")


def tiny_module(config: ModelConfig | None = None, seed: int = 0) -> CausalLM:
    return load_module(random_checkpoint(config or tiny_config(), seed))


def trained_parts(module: nn.Module, *parts: str) -> dict[str, nn.Parameter]:
    """Parameters whose names hold one of these."""
    return {name: p for name, p in module.named_parameters() if any(part in name for part in parts)}


def documents(lengths: Sequence[int], vocab: int = 70, seed: int = 0, prompt: float = 0.5) -> list[Document]:
    """Random tokens, the last half of each with a loss."""
    draw, done = np.random.default_rng(seed), []
    for length in lengths:
        ids = draw.integers(0, vocab, length).astype(np.int32)
        done.append(Document(ids, np.arange(length) >= max(1, int(length * prompt))))
    return done


def corpus_of(parts: Sequence[Document], wanted: Wanted = "answers", labels: Sequence[int] = ()) -> Corpus:
    """One example a document, or two documents an example where that is wanted."""
    size = 1 if wanted == "answers" else 2
    groups = [tuple(parts[i : i + size]) for i in range(0, len(parts), size)]
    kinds = labels or [-1] * len(groups)
    return corpus.corpus_of(wanted, [(str(i), kind, group) for i, (kind, group) in enumerate(zip(kinds, groups, strict=True))])


def some_data(count: int = 24, held_out: int = 4, seed: int = 0) -> Data:
    """Short documents in which every other token follows from the one before, so that there is something to learn."""
    draw, parts = np.random.default_rng(seed), []
    for _ in range(count):
        half = draw.integers(0, 35, draw.integers(3, 12))
        ids = np.stack([half, half + 35], 1).reshape(-1).astype(np.int32)
        parts.append(Document(ids, np.arange(len(ids)) % 2 == 1))
    return Data(corpus_of(parts), range(held_out, count), range(held_out))


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
