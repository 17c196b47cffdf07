"""Data of a tuning run: files, or the training part of a suite (`suite:NAME`), as tokens for this model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.home import fetch
from ingle.home.place import Home
from ingle.measure.suites import find_suite, training_rows
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, Wanted, read_corpus, split
from ingle.train.encode import Encoder
from ingle.train.examples import ExampleTally
from ingle.train.packing import Data
from ingle.tuning.settings import TuneSettings
from ingle.tuning.virtual import with_virtual

SUITE = "suite:"
WANTED: dict[str, Wanted] = {"answers": "answers", "distil": "answers", "dpo": "pairs", "orpo": "pairs", "kto": "labels"}
"""Kind of data that each objective learns from."""


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """Data to learn from, with the counts of reading them."""

    data: Data
    """The data, without virtual tokens."""
    tally: ExampleTally
    limit: int
    """Most tokens of a document."""

    def with_virtual(self, count: int, vocab_size: int) -> Data:
        """Return the data with virtual tokens at the beginning of every document."""
        return replace(self.data, corpus=with_virtual(self.data.corpus, count, vocab_size))

    def notes(self) -> list[str]:
        """Sentences on the data, for the owner."""
        tally = self.tally
        counts = [
            (tally.copies, "exact copies were left out"),
            (tally.bad, "bad lines were left out"),
            (tally.too_long, f"examples were longer than {self.limit} tokens (data.max_tokens, train.batch_tokens, the model's context)"),
            (tally.without_answer, "examples had no answer to learn"),
        ]
        return [f"{count:,} {what}" for count, what in counts if count] + [f"left out: {line}" for line in tally.told]


def find_sources(sources: Sequence[str]) -> list[str]:
    """Return the sources, paths made absolute. Raises ConfigError for none or a path that isn't there, NotKept for an unknown suite."""
    if not sources:
        raise ConfigError("data", "must be named", "nothing", "Give files, folders, or suite:NAME.")
    names = []
    for source in sources:
        if source.startswith(SUITE):
            names.append(SUITE + find_suite(source.removeprefix(SUITE)).name)
            continue
        path = Path(source).expanduser()
        if not path.exists():
            raise ConfigError(str(path), "is not there", "", "Name a file or folder of examples, or suite:NAME.")
        names.append(str(path.resolve()))
    return names


def bring(home: Home, sources: Sequence[str], most: int, folder: Path, progress: fetch.FetchProgress = fetch.silent) -> list[Path]:
    """Return files of all sources. A suite's training part becomes one file in `folder`, of at most `most` rows (0 = all).

    A suite's rows are shuffled, so the first ones are a sample. Raises the errors of fetching, HomeError.
    """
    files = []
    for source in sources:
        if not source.startswith(SUITE):
            files.append(Path(source))
            continue
        suite = find_suite(source.removeprefix(SUITE))
        rows = list(training_rows(suite, home, progress))[: most or None]
        path = folder / f"{suite.name}.jsonl"
        write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        files.append(path)
    return files


def learn_from(files: Sequence[Path], tokenizer: Tokenizer, limit: int, settings: TuneSettings) -> Learnt:
    """Read and split all data of these files that the settings ask for. `limit`: most tokens of a document.

    Raises ConfigError for bad lines, data of another kind, nothing to learn from, or too little of it.
    """
    options = settings.data
    encoder = Encoder(tokenizer, min(limit, options.max_tokens), options.too_long, options.template)
    corpus, tally = read_corpus(files, encoder, WANTED[settings.objective.kind], options.skip_bad)
    if len(corpus) < 2:
        raise ConfigError("data", "must hold at least 2 examples", len(corpus), "Give more; a handful teaches nothing but itself.")
    corpus = at_most(corpus, settings.max_examples, options.seed)
    train, held_out = split(corpus, options.held_out, options.seed, options.least_held_out)
    return Learnt(Data(corpus, train, held_out), tally, encoder.max_tokens)


def at_most(corpus: Corpus, most: int, seed: int) -> Corpus:
    """Return at most so many of the examples (0 = all); the choice follows from their records and the seed alone."""
    if not most or len(corpus) <= most:
        return corpus
    if most < 2:
        raise ConfigError("max_examples", "must be at least 2", most)
    place = {source: digest_json(["at most", seed, source]) for source in set(corpus.sources)}
    chosen = sorted(sorted(range(len(corpus)), key=lambda i: (place[corpus.sources[i]], i))[:most])
    size = corpus.per_example
    documents = [corpus.document(i * size + j) for i in chosen for j in range(size)]
    return Corpus(
        corpus.wanted,
        np.concatenate([document.ids for document in documents]),
        np.concatenate([document.answer for document in documents]),
        np.cumsum([0, *(len(document.ids) for document in documents)], dtype=np.int64),
        corpus.labels[chosen],
        tuple(corpus.sources[i] for i in chosen),
        digest_json([corpus.digest, chosen]),
    )
