"""A tiny random model that answers at once, and explanations of what it says."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ingle.core.message import Message, Request, Sampling
from ingle.engine.answer import answer
from ingle.engine.language_model import LanguageModel
from ingle.explain.cause import ProvedCause, Reader, Said, Variation, Why, said_by
from ingle.explain.direct import direct_reader
from ingle.explain.why import WhyOptions, explain
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config

TEXT = "The mill is old. Rain falls on it. A cat sleeps inside, and nobody minds. Bread is sold there.\n\nWhat is old?"


def tiny_model(folder: Path, seed: int = 0) -> LanguageModel:
    """A model of two layers over bytes."""
    return LanguageModel("tiny", backend_of(folder, random_checkpoint(tiny_config(vocab=260, context=2000), seed)), byte_tokenizer())


def asking(*texts: str, tokens: int = 10) -> Request:
    """A conversation that ends with a question; it is answered with this many tokens."""
    messages = tuple(Message.of("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))
    return Request(messages, max_tokens=tokens, sampling=Sampling(seed=1, logit_bias=((256, -100.0),)))


def said_to(model: LanguageModel, request: Request) -> Said:
    """Its answer."""
    return said_by(model, request, answer(model, request))


def why_of(
    said: Said, variations: Sequence[Variation] = (), asked: WhyOptions | None = None, reader: Reader | None = None
) -> tuple[list[ProvedCause], Why]:
    """The causes as they come, and the whole."""
    *causes, why = explain(reader or direct_reader(), said, variations, asked or WhyOptions())
    assert isinstance(why, Why)
    return [one for one in causes if isinstance(one, ProvedCause)], why


def stopping_after(calls: int) -> Callable[[], bool]:
    """A clock that runs out after so many looks."""
    looked = [0]

    def stopped() -> bool:
        looked[0] += 1
        return looked[0] > calls

    return stopped


def shorter(said: Said, tokens: int) -> Said:
    """The beginning of an answer."""
    return replace(said, tokens=said.tokens[:tokens], pieces=said.pieces[:tokens])
