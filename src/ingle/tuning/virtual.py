"""Virtual tokens: places at the beginning of every document that stand for no word, for prompt and prefix tuning.

A virtual token has an id beyond the vocabulary: vocab_size + its number. Whoever trains them gives the embedding something that knows.
"""

from dataclasses import replace

import numpy as np

from ingle.core.digest import digest_json
from ingle.train.corpus import Corpus


def with_virtual(corpus: Corpus, count: int, vocab_size: int) -> Corpus:
    """The corpus with `count` virtual tokens at the beginning of every document; they carry no loss."""
    if not count:
        return corpus
    starts = corpus.bounds[:-1]
    ids = np.insert(corpus.ids, np.repeat(starts, count), np.tile(np.arange(count, dtype=np.int32) + vocab_size, len(starts)))
    answer = np.insert(corpus.answer, np.repeat(starts, count), False)
    bounds = corpus.bounds + count * np.arange(len(corpus.bounds))
    return replace(corpus, ids=ids, answer=answer, bounds=bounds, digest=digest_json([corpus.digest, count]))
