"""A vocabulary of its own for a model: byte-level BPE, found in the training text alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from ingle.core.errors import ConfigError
from ingle.model.tokenizer import FACTS_FILE, TOKENIZER_FILE, Tokenizer, TokenizerFacts, open_tokenizer

END = "<|endoftext|>"
"""The only control token: it stands before every text, and ends the one before."""
ENOUGH_BYTES = 12_000_000
"""Bytes of text in which words are found; more text changes little."""


def find_vocabulary(texts: Sequence[str], size: int) -> Tokenizer:
    """Make a tokenizer of exactly `size` tokens; equal texts give equal ones. Raises ConfigError if the texts have no use for so many."""
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(_first(texts, ENOUGH_BYTES), trainer)
    if fast.get_vocab_size() != size:
        cure = "Lower it, or give more text."
        raise ConfigError(
            "tokenizer.size", "must be a number of tokens that the text has use for", f"{size}, with use for {fast.get_vocab_size()}", cure
        )
    [end] = fast.get_added_tokens_decoder()
    return Tokenizer(fast, TokenizerFacts("bytes", (end,), end, add_bos=True))


def kept_vocabulary(folder: Path, texts: Sequence[str], size: int) -> Tokenizer:
    """Open the vocabulary in this folder, or find a new one and keep it there. Raises ConfigError, HomeError."""
    if not (folder / FACTS_FILE).exists():  # the facts are written last
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        find_vocabulary(texts, size).save(folder)
    assert (folder / TOKENIZER_FILE).exists(), "facts are never there alone"
    return open_tokenizer(folder)


def _first(texts: Sequence[str], nbytes: int) -> Iterator[str]:
    for text in texts:
        if nbytes <= 0:
            return
        nbytes -= len(text.encode("utf-8", "surrogatepass"))
        yield text
