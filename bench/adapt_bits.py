"""Bits per byte of held-out text with what a user taught: as it is served, and as if every scope were everything."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapt_home import OWNER, Pupil, request_of
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import beside
from ingle.engine.scoring import score
from ingle.home.deltas import get_delta
from ingle.home.lessons import list_lessons
from ingle.home.place import Home
from ingle.measure.data_sets import part
from ingle.measure.figures import columns, forgetting, read_text
from ingle.measure.subjects import begin_id
from ingle.measure.suites import find_suite
from servers import say

SUITE, TOKENS = "wiki-bits", 256


def held_out(home: Home, documents: int) -> list[str]:
    """The first documents of the suite's held-out part; fetched the first time."""
    suite = find_suite(SUITE)
    return [item.text for item in part(suite.read(home, lambda *_: None), "held_out", suite.held_out)][:documents]


def text_bits(model: LanguageModel, texts: Sequence[str]) -> list[Any]:
    """What the first tokens of each text cost."""
    begin = begin_id(model.tokenizer)
    readings = [read_text(model.tokenizer, text, begin, most_tokens=TOKENS) for text in texts]
    tasks = [task for reading in readings for task in reading.tasks]
    assert len(tasks) == len(readings), "a text is cut to less than one window"
    found = dict(score(model.backend, tasks, adapter=model.adapter))
    return [reading.bits([found[number]]) for number, reading in enumerate(readings)]


def compared(before: Sequence[Any], after: Sequence[Any]) -> dict[str, Any]:
    """How many percent more bits."""
    found = forgetting(*({str(number): row for number, row in enumerate(rows)} for rows in (before, after)))
    between = found.relative.interval
    return {
        "before": found.before, "after": found.after, "percent": found.relative.value, "low": between.low, "high": between.high,
        "n": found.n, "interval": between.method,
    }  # fmt: skip


def bits_change(pupil: Pupil, texts: Sequence[str]) -> dict[str, Any]:
    """`served`: the model that the user gets with each text as a message. `forced`: one of the lessons in turn beside each text."""
    plain = text_bits(pupil.model, texts)
    models = [pupil.chooser.choose(OWNER, pupil.model, pupil.kept, request_of(text), memory=False) for text in texts]
    served = [text_bits(choice.model, [text])[0] if choice.lessons else old for choice, text, old in zip(models, texts, plain, strict=True)]
    result = {"documents": len(texts), "tokens": TOKENS, "suite": SUITE, "acted_on": sum(bool(choice.lessons) for choice in models)}
    result["served"] = compared(plain, served)
    lessons = list_lessons(pupil.engine, OWNER, pupil.kept.digest, acting=True)
    if lessons:
        forced = []
        for number, text in enumerate(texts):
            delta = get_delta(pupil.home, lessons[number % len(lessons)].digest)
            forced += text_bits(beside(pupil.home, pupil.kept, pupil.model, delta), [text])
        result["forced"] = compared(plain, forced)
    say(f"bits per byte: {result['served']['percent']:+.3f} % as served")
    assert np.isfinite(columns(plain)).all()
    return result
