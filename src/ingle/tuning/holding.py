"""Documents that a tune holds: the model's answers to everyday questions, to harmless ones that look risky and to wrong ones, free texts.

They are the model's own words, so holding them moves nothing by itself, and no text has to be fetched. They are written once for each
model and kept in the home's cache.
"""

from collections.abc import Callable

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.message import Message, Request, Sampling
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.subjects import Finished, ItemPlan, gather
from ingle.model.module import CausalLM
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, corpus_of
from ingle.train.encode import Document, Encoder
from ingle.train.examples import Record
from ingle.train.holding import Hold, HoldSettings, held
from ingle.train.making import RunWatch
from ingle.tuning.everyday import BEGINNINGS, EVERYDAY, RISKY, WRONG
from ingle.tuning.kept_model import subject_of
from ingle.tuning.settings import TuneSettings
from ingle.tuning.virtual import with_virtual

_SUITE = "hold"
_LONGER = 2
"""A free text is so many times as long as an answer: all of it counts, and none of it was asked for."""


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
