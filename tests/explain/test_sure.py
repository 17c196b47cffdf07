"""How sure an answer is: kinds that can be told, figures that a plain reading gives, odds of this model only, and no claim without them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.media import NO_VECTORS
from ingle.core.message import Message, Request, TextPart
from ingle.engine.language_model import LanguageModel
from ingle.explain.cause import Cause, Odds, OtherToken, ProvedCause, Said, SureSignals, SureToken, Variation
from ingle.explain.direct import direct_reader
from ingle.explain.odds import KINDS, Calibration, fitted
from ingle.explain.sure import kind_of, looked_at, says_the_same, telling, with_sure
from ingle.explain.traces import TaughtText
from ingle.explain.why import with_traces
from ingle.explain.words import KIND_WORDS, TABLE, UNMEASURED, say_sure, times
from tests.explain.test_odds import drawn
from tests.explain.tiny import TEXT, asking, said_to, stopping_after, tiny_model, why_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def calibration_of(model: LanguageModel, longest: int = 1000) -> Calibration:
    fits = [fitted(kind, drawn(120)) for kind in ("bare", "text")]
    return Calibration(model.digest, "2026-11-30", tuple(replace(fit, longest=longest) for fit in fits if fit))


def saying(model: LanguageModel, text: str, *turns: str) -> Said:
    """An answer as if the model had said it."""
    ids = tuple(text.encode())
    return Said(model, asking(*turns), ids, tuple(text))


def test_figures_are_those_of_a_plain_reading(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    reader = direct_reader()
    _, why = why_of(said)
    found = with_sure(reader, said, why, None).sure
    assert found is not None
    prompt = model.encode(said.request)
    [[nats]] = reader.score(model, [(prompt, [said.tokens])], NO_VECTORS)
    told = telling(said)
    assert found.signals.mean == pytest.approx(nats.mean(), abs=1e-5)
    assert found.signals.least == pytest.approx(nats.min(), abs=1e-5)
    assert found.signals.telling == pytest.approx(nats[told].mean(), abs=1e-5)
    assert [one.probability for one in found.tokens] == pytest.approx(np.exp(nats).tolist(), abs=1e-4)
    [[alone]] = reader.score(model, [(model.encode(asking("What is old?")), [said.tokens])], NO_VECTORS)
    assert found.signals.explained == pytest.approx(max(0.0, 1 - nats[told].sum() / alone[told].sum()), abs=1e-4)
    for one in found.tokens:
        shares = [other.probability for other in one.others]
        assert shares == sorted(shares, reverse=True) and sum(shares) + one.probability <= 1.01


def test_it_is_said_twice_in_the_same_words(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    _, why = why_of(said)
    assert with_sure(direct_reader(), said, why, None) == with_sure(direct_reader(), said, why, None)


def test_odds_are_of_this_model_and_this_kind_only(model: LanguageModel) -> None:
    said, calibration = said_to(model, asking("What is old?")), calibration_of(model)
    _, why = why_of(said)

    def said_of(known: Calibration | None, about: Said = said) -> tuple[str, Odds | None]:
        found = with_sure(direct_reader(), about, why, known)
        assert found.sure is not None and found.says == (*why.says, *found.sure.says)
        return found.sure.says[0], found.sure.odds

    words, odds = said_of(calibration)
    assert odds is not None and odds.n == 120 and "it is right" in words and "asked 120" in words
    assert said_of(None) == (f"How often it is right was not measured: {UNMEASURED['no_model'].format(model='tiny')}.", None)
    assert said_of(replace(calibration, model="another"))[1] is None
    assert said_of(replace(calibration, kinds=calibration.kinds[1:]))[1] is None
    assert said_of(calibration_of(model, longest=5))[0].endswith("longer than any that was measured.")
    assert said_of(calibration, said_to(model, asking("Say something.")))[0].endswith("nothing was asked.")


def test_what_was_taught_is_what_explains(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    memory = Variation(Cause("memory", "ex-1", "The mill."), model, asking("What is old?"))
    _, why = why_of(said, [memory])
    found = with_sure(direct_reader(), said, why, None).sure
    assert found is not None and found.kind == "taught"
    [fall] = [np.array(one.nats_by_token) for one in why.causes if one.cause.kind == "memory"]
    _, signals = looked_at(direct_reader(), said, fall)
    assert found.signals == signals
    lesson = replace(memory, cause=Cause("lesson", "d" * 64))
    _, why = why_of(said, [lesson])
    found = with_sure(direct_reader(), said, why, None).sure
    assert found is not None and found.says[0].endswith("a lesson acted, and the model with it was not asked.")


@pytest.mark.parametrize(
    ("answer", "turns", "taught", "elsewhere", "kind"),
    [
        ("It is Mara.", ("Who runs it?",), False, False, "bare"),
        ("It is Mara.", ("Mara runs it. Who runs it?",), False, False, "text"),
        ("It is Mara.", ("Mara runs it.", "I see.", "Who runs it?"), False, False, "text"),
        ("Yes, she does.", ("Mara runs it. Does she?",), False, False, "yes_no"),
        ("“No.”", ("Mara runs it. Does she?",), False, False, "yes_no"),
        ("Yes.", ("Does she?",), False, False, "bare"),
        ("Nobody.", ("Mara runs it. Who runs it?",), False, False, "text"),
        ("It is Mara.", ("Mara runs it. Who runs it?",), False, True, "elsewhere"),
        ("It is Mara.", ("Who runs it?",), True, False, "taught"),
        ("A poem.", ("Write a poem.",), False, False, None),
        ("A poem.", ("Write a poem.",), True, False, None),
    ],
)
def test_kinds(model: LanguageModel, answer: str, turns: tuple[str, ...], taught: bool, elsewhere: bool, kind: str | None) -> None:
    assert kind_of(saying(model, answer, *turns), taught, elsewhere) == kind


def test_words_that_a_memory_brings_are_not_the_question(model: LanguageModel) -> None:
    parts = (TextPart("Question: ", "system"), TextPart("Who runs it?"), TextPart('\nNote: the answer is "Mara".', "memory"))
    said = replace(saying(model, "Mara runs it.", "x"), request=Request((Message("user", parts),)))
    assert kind_of(said, True, False) == "taught"
    assert "".join(piece for piece, told in zip(said.pieces, telling(said), strict=True) if told) == "Mara"


@pytest.mark.parametrize(
    ("answer", "told"), [("The answer is: Mara Quill", "MaraQuill"), ("Yes, Mara does", "Yes"), ("it is", "it is"), ("Who?", "Who?")]
)
def test_telling_words(model: LanguageModel, answer: str, told: str) -> None:
    said = saying(model, answer, "Who runs it?")
    assert "".join(piece for piece, is_told in zip(said.pieces, telling(said), strict=True) if is_told) == told


@pytest.mark.parametrize(
    ("answer", "other", "same"),
    [
        ("The number is 48213.", "It's 48213", True),
        ("The number is 48213.", "The number is 48214.", False),
        ("Mara Quill", "I think that Mara Quill runs it", True),
        ("Mara Quill", "Mara", False),
        ("", "", True),
        ("!", "?", False),
    ],
)
def test_answers_that_say_the_same(answer: str, other: str, same: bool) -> None:
    assert says_the_same("What is the number?", answer, other) is same


def test_drawn_answers_are_compared_with_it(model: LanguageModel) -> None:
    said = said_to(model, asking("What is old?"))
    _, why = why_of(said)
    reader = direct_reader()
    asked = []

    def write(asks: list[tuple[LanguageModel, Request]]) -> list[str]:
        asked.extend(asks)
        return [said.text, "nothing like it", said.text, said.text]

    found = with_sure(replace(reader, write=write), said, why, None, samples=4).sure  # type: ignore[arg-type]
    assert found is not None and found.signals.agreement == 0.75
    assert len({request.sampling.seed for _, request in asked}) == 4 and all(request.sampling.temperature == 1 for _, request in asked)
    assert "Asked 4 times more, with chance, it said the same 3 times." in found.says


def test_what_the_time_left_undone_is_said(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    _, why = why_of(said)
    found = with_sure(direct_reader(stopping_after(1)), said, why, calibration_of(model))
    assert found.sure is None and not found.complete and found.not_looked_at == ("how sure it is",)
    assert found.says == (*why.says, "The time was over before everything was looked at: how sure it is.")
    late = replace(why, complete=False, not_looked_at=("what was taught",), says=(TABLE["unlooked"].format(what="what was taught"),))
    again = with_sure(direct_reader(stopping_after(1)), said, late, None)
    assert again.says == ("The time was over before everything was looked at: what was taught, how sure it is.",)


def test_runs_that_stand_elsewhere_are_said_without_a_cause(model: LanguageModel) -> None:
    said = saying(model, "the old mill by the river", "Where?")
    _, why = why_of(said)
    found = with_traces(why, [TaughtText("ex-1", "It is\nThe old mill by the river.")])
    [trace] = found.traces
    assert (trace.source, trace.line, trace.words) == ("ex-1", 2, 6)
    assert found.says[-1].startswith("“the old mill by the river” stands there too")
    assert with_traces(why, []) == why


SHARES = st.floats(0, 1)
ODDS = st.tuples(SHARES, SHARES, SHARES).map(sorted).map(lambda three: Odds(three[1], three[0], three[2], 100, 50))
TOKENS = st.builds(
    SureToken, st.text("ab !“", max_size=4), SHARES, st.lists(st.builds(OtherToken, st.text("xy", max_size=3), SHARES)).map(tuple)
)
SIGNALS = st.builds(
    SureSignals, *(st.floats(-9, 0) for _ in range(6)), SHARES, st.integers(1, 99), st.none() | SHARES
)  # fmt: skip
PATTERNS = [re.compile(re.sub(r"\\\{\w+\\\}", ".*", re.escape(row)), re.DOTALL) for row in TABLE.values()]


@given(
    st.lists(TOKENS, max_size=4), SIGNALS, st.sampled_from(KINDS), st.none() | ODDS, st.sampled_from(sorted(UNMEASURED)), st.integers(0, 8)
)
def test_no_claim_without_its_figures(
    tokens: list[SureToken], signals: SureSignals, kind: str, odds: Odds | None, missing: str, count: int
) -> None:
    said = say_sure(tuple(tokens), signals, kind, odds, missing, "m", count)
    assert all(any(pattern.fullmatch(one) for pattern in PATTERNS) for one in said)
    claims = [one for one in said if one.startswith("When it answers")]
    if odds is None:
        assert not claims and "not measured" in said[0]
    else:
        [claim] = claims
        low, high = map(int, re.findall(r"\((\d+) to (\d+) in 100; it was asked 100 ", claim)[0])
        assert low <= 100 * odds.low and high >= 100 * odds.high and KIND_WORDS[kind] in claim
    assert any("Asked" in one for one in said) == bool(count and signals.agreement is not None)
    assert any("least sure" in one for one in said) <= any(one.probability < 0.5 for one in tokens)


@given(SHARES)
def test_a_share_in_words_is_near_the_share(share: float) -> None:
    said = times(share)
    number, of = (int(one) for one in re.findall(r"\d+", said))
    assert abs(number / of - share) <= (0.0505 if of == 10 else 0.011)
    assert not re.match(r"0 |100 |10 times in 10$", said)
    assert ("1 times" in said) is bool(re.search(r"\d1 times", said))


def test_every_kind_and_reason_has_words() -> None:
    assert set(KIND_WORDS) == set(KINDS)
    render: Callable[[str], str] = lambda row: row.format(model="m", kind="k")  # noqa: E731
    assert all(render(row) for row in UNMEASURED.values())


def test_proved_causes_of_a_sentence_are_not_taught(model: LanguageModel, tmp_path: Path) -> None:
    said = said_to(model, asking(TEXT))
    _, why = why_of(said)
    moved = replace(why, causes=(ProvedCause(Cause("delta", "d"), 3.0, (3.0,) * len(said.tokens), None),))
    found = with_sure(direct_reader(), said, moved, None).sure
    assert found is not None and found.kind == "text"
