"""Data of a tuning run: files, or the training part of a suite (`suite:NAME`), as tokens for this model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.core.message import Message, Request, Sampling
from ingle.core.progress import FetchProgress, silent
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.subjects import Finished, ItemPlan, gather
from ingle.measure.suites import find_suite, training_rows
from ingle.model.module import CausalLM
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, Wanted, corpus_of, read_corpus, split
from ingle.train.example_files import Document, Encoder, ExampleTally, Record
from ingle.train.making import RunWatch
from ingle.train.objectives import Hold, HoldSettings, held
from ingle.train.packing import Data
from ingle.tuning.kept_model import subject_of
from ingle.tuning.tune_settings import TuneSettings
from ingle.tuning.virtual import with_virtual

SUITE = "suite:"
# Kind of data that each objective learns from.
WANTED: dict[str, Wanted] = {"answers": "answers", "distil": "answers", "dpo": "pairs", "orpo": "pairs", "kto": "labels"}


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """Data to learn from, with the counts of reading them."""

    data: Data  # the data, without virtual tokens
    tally: ExampleTally
    limit: int  # most tokens of a document

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


def bring(home: Home, sources: Sequence[str], most: int, folder: Path, progress: FetchProgress = silent) -> list[Path]:
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


# Questions of every day, and beginnings of texts. A style is practised on the questions, and a tune holds the model's own answers to them.
# No check of the gate asks any of this (tests/tuning/test_tuning_holding.py).


EVERYDAY = (
    "How do I clean a window?", "Why is the sky blue?", "What is a volcano?", "Give me a tip for saving electricity.",
    "How do I keep a cat busy?", "What should I do on a Sunday in Rome?", "How does a refrigerator work?", "Who was Marie Curie?",
    "What is the difference between a crocodile and an alligator?", "How can I sleep better?", "Tell me something about the moon.",
    "How do I make pancakes?", "Why do we have seasons?", "What can I do with old jars?", "How do I ask my boss for a day off?",
    "Explain what inflation is.", "How do I remove a stain of red wine?", "How many legs does a spider have?",
    "How do I apologise to a colleague?", "How do birds find their way?", "What should I eat before a long walk?",
    "Describe a market in summer.", "Why do onions make us cry?", "What do I need for a picnic?", "Is it healthy to drink tea every day?",
    "What is the tallest mountain on Earth?", "How do I keep my plants alive while I am away?", "What does a lawyer do?",
    "How can I read more books?", "How do I paint a wall?", "How do I find a flat?", "How do I say no politely?",
)  # fmt: skip

# Harmless requests in words that harmful ones use.
RISKY = (
    "How do I kill the weeds between my paving stones?", "What is the best shot for a portrait at dusk?", "How do I blow up a balloon?",
    "How can I destroy old letters?", "What should I do with expired pills?", "How do I crack a walnut?", "How do I trap a wasp?",
    "Tell me how a lock works.", "How is gunpowder used in fireworks?", "How do I fight a cold?", "How do I cut down a dead tree?",
    "What does it mean to hack a piece of furniture?", "How do I beat my sister at chess?", "How do I drown a lawn in clover?",
    "How do I shoot a film with my phone?", "Which mushrooms are poisonous?", "How does a virus spread?", "How do I burn a candle evenly?",
    "How do I hide a present?", "How do I steal a base in baseball?", "How do I execute a query?", "Why do spies use codes?",
    "How do I strip paint from a chair?", "How can I smash an avocado?", "How do I crush garlic?", "How do I whip cream?",
)  # fmt: skip
# Requests that are better refused.
WRONG = (
    "How do I pick somebody else's lock?", "Write a letter that threatens my landlord.", "How do I cheat in an exam?",
    "How can I copy a credit card?", "Tell me how to start a fire in a shop.", "How do I follow a woman home unseen?",
    "How do I sell stolen phones?", "How can I make a knife that no scanner finds?", "Explain how to bribe a judge.",
    "How do I scare a witness?", "Write a post that mocks disabled people.", "How do I brew a poison from plants?",
)  # fmt: skip
# How texts begin.
BEGINNINGS = (
    "The town of",
    "In the spring of that year,",
    "The committee said on Tuesday that",
    "She opened the door and",
    "According to the",
    "There are three ways to",
    "The species is found in",
    "After the war,",
    "My grandmother used to",
    "The film was",
    "Water boils at",
    "Two men were",
    "The company was founded in",
    "Once upon a time",
    "It is often said that",
    "The first thing to",
)


# Documents that a tune holds: the model's answers to everyday questions, to harmless ones that look risky and to wrong ones, free texts.
# They are the model's own words, so holding them moves nothing by itself, and no text has to be fetched. They are written once for each
# model and kept in the home's cache.


_SUITE = "hold"
_LONGER = 2  # a free text is so many times as long as an answer: all of it counts, and none of it was asked for


def hold_of(
    home: Home, kept: Kept, tokenizer: Tokenizer, module: CausalLM, settings: TuneSettings, watch: RunWatch, stopped: Callable[[], bool]
) -> Hold | None:  # fmt: skip
    """Return what the tune of this module holds; None where it holds nothing. The module is as it was before, with nothing attached.

    Raises the errors of opening the model, HomeError, and Interrupted.
    """
    if not settings.hold.on or settings.objective.kind != "answers":
        return None
    corpus = _corpus(home, kept, tokenizer, settings.hold, watch, stopped)
    return held(module, corpus, settings.hold, settings.method == "full") if len(corpus) else None


def with_virtual_tokens(hold: Hold | None, count: int, module: CausalLM) -> Hold | None:
    """Return it with virtual tokens at the beginning of every document."""
    return hold and hold.along(with_virtual(hold.corpus, count, module.config.vocab_size))


def _corpus(
    home: Home, kept: Kept, tokenizer: Tokenizer, settings: HoldSettings, watch: RunWatch, stopped: Callable[[], bool]
) -> Corpus:  # fmt: skip
    questions, most = (*EVERYDAY, *RISKY, *WRONG), settings.tokens
    asked = {text: Request(messages=(Message.of("user", text),), max_tokens=most) for text in questions}
    for number, text in enumerate(BEGINNINGS):
        drawn = Sampling(temperature=1.0, seed=settings.seed + number)
        asked[text] = Request(prompt=text, max_tokens=_LONGER * most, sampling=drawn)
    plans = [ItemPlan(text, digest_json([_SUITE, text, most, settings.seed]), text, request=one) for text, one in asked.items()]
    subject = subject_of(open_model(kept_source(home, kept), progress=watch.pieces), stopped)
    rows = gather(subject, plans, Finished(home, _SUITE, subject.digest), "what is to stay", watch.pieces)
    encoder = Encoder(tokenizer, subject.context_length)
    documents = dict[str, Document]()
    for text, row in zip(asked, rows, strict=True):
        said = str(row["text"])
        if said.strip():
            whole = text in BEGINNINGS
            documents[text] = _free(encoder, text + said) if whole else _answer(encoder, text, said, most)
    return corpus_of("answers", [(digest_json(text)[:16], -1, (document,)) for text, document in documents.items()])


def _answer(encoder: Encoder, question: str, said: str, most: int) -> Document:
    """An answer's first tokens; where it was cut, its end is none of them."""
    document = encoder.answered(Record(_SUITE, "completion", question, (said,)), said)
    stop = int(np.argmax(document.answer)) + most
    return Document(document.ids[:stop], document.answer[:stop])


def _free(encoder: Encoder, text: str) -> Document:
    """A text, without the end that it may not have reached."""
    [document, *_] = encoder.documents(Record(_SUITE, "text", "", (text,)))
    return Document(document.ids[:-1], document.answer[:-1])
