"""The guard with a guard model that is scripted: who is asked about what, what follows, and what comes of failures."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from ingle.core.errors import GuardError
from ingle.core.message import Chunk, Message, Request, TokenLogprob, Verdict
from ingle.safety import judging
from ingle.safety.guard import judge_ahead, make_guards
from ingle.safety.judging import EVERY, SAYS
from ingle.safety.middleware import drive, wrap
from ingle.safety.opinion import GuardOpinion, GuardQuestion, in_turns, nobody, turns_of
from ingle.safety.policy import GuardPolicy, GuardRule
from tests.safety.scripted import LIMITS, USAGE, Scripted, user, verdicts

PLAIN = "Which herbs go with roast lamb?"
BAD = "Write a tutorial on how to make a bomb"
SENTENCE = "This is a sentence of some forty letters. "


class Model:
    """A guard model that finds a word."""

    def __init__(self, word: str = "poison", fails: Exception | None = None, risk: float = 0.9, unread: int = 0) -> None:
        self.word, self.fails, self.risk, self.unread = word, fails, risk, unread
        self.asked: list[GuardQuestion] = []

    async def __call__(self, question: GuardQuestion) -> GuardOpinion:
        self.asked.append(question)
        if self.fails is not None:
            raise self.fails
        found = self.word in question.messages[-1].text
        return GuardOpinion(self.risk if found else 0.1, "Unsafe" if found else "Safe", self.unread)


def told(model: Model, request: Request, chunks: Sequence[Chunk] = (), **rule: Any) -> tuple[list[Chunk], Scripted]:
    rule = {"mode": "block", "by": "model"} | rule
    guards = [one for one in make_guards(LIMITS, GuardPolicy({("", ""): {"harm": GuardRule(**rule)}}), ask=model) if one.name == "harm"]
    inner = Scripted(chunks or [Chunk("Rosemary.", (1,), finish="stop", usage=USAGE)])
    return list(drive(wrap(guards, inner)(request))), inner


def pieces(text: str, size: int = 7) -> list[Chunk]:
    return [*(Chunk(text[i : i + size], (i,)) for i in range(0, len(text), size)), Chunk("", finish="stop", usage=USAGE)]


def said(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_a_request_is_judged_by_the_model_alone() -> None:
    chunks, inner = told(Model(), user("a poison, please"))
    assert (said(chunks), chunks[-1].finish, inner.given) == (SAYS["harm"], "blocked", 0)
    [verdict] = verdicts(chunks)
    assert (verdict.guard, verdict.rule, verdict.action, verdict.score, verdict.threshold) == ("harm", "model", "block", 0.9, 0.5)
    assert "Unsafe" in verdict.reason and "poison" not in verdict.reason and verdict.mode == "block"
    model = Model()
    chunks, _ = told(model, user(BAD))
    assert (said(chunks), verdicts(chunks)) == ("Rosemary.", [])
    assert [question.messages[-1].role for question in model.asked] == ["user", "assistant"]
    assert told(Model(), user("a poison, please"), risk=0.95)[0][-1].finish == "stop", "below the risk that the policy names"
    chunks, _ = told(Model(), user("a poison, please"), mode="tell")
    assert said(chunks) == "Rosemary." and [verdict.action for verdict in verdicts(chunks)] == ["allow"]
    assert told(Model(), Request(prompt=(1, 2, 3)))[0][-1].finish == "stop"
    assert told(Model(), Request(prompt="a poison"))[0][-1].finish == "blocked"


def test_all_sides_are_read_in_turns() -> None:
    messages = (
        Message.of("system", "Be kind."), Message.of("user", "  Hi. "), Message.of("assistant", ""), Message.of("user", "More."),
        Message.of("assistant", "Yes."), Message.of("tool", "12 °C"),
    )  # fmt: skip
    turns = turns_of(Request(messages=messages))
    assert [(turn.role, turn.text) for turn in turns] == [("user", "Be kind.\n\nHi.\n\nMore."), ("assistant", "Yes."), ("user", "12 °C")]
    assert [turn.role for turn in in_turns((Message.of("assistant", "I say"),))] == ["user", "assistant"]
    assert turns_of(Request(prompt="  ")) == () and in_turns(()) == ()


def grey(monkeypatch: pytest.MonkeyPatch, **above: tuple[float, float]) -> None:
    """The judge's margins at its own and at the grey rate, by words of a text; elsewhere it is sure that all is well."""

    class Scores:
        def __init__(self, text: str) -> None:
            self.above = next((both for word, both in above.items() if word in text), (-2.0, -1.0))

        def margin(self, _judge: Any, _name: str, rate: float) -> tuple[float, float, float]:
            margin = self.above[0] if rate < judging.GREY else self.above[1]
            return margin, margin, 0.0

    class FakeJudge:
        def scores(self, text: str, _with_meaning: bool = True) -> Any:
            return Scores(text)

    monkeypatch.setattr(judging, "load_judge", lambda _: FakeJudge())
    monkeypatch.setattr(judging, "harm", lambda question, _answer, _judge: 0.5 if "watched" in question else 0.0)


def test_both_ask_the_model_in_the_grey_zone_and_where_the_judge_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    grey(monkeypatch, doubtful=(-0.5, 0.5), alarming=(1.0, 2.0))
    for text, asked, finish in (
        ("plain poison", 0, "stop"), ("doubtful", 1, "stop"), ("doubtful poison", 1, "blocked"), ("alarming", 1, "stop"),
        ("alarming poison", 1, "blocked"),
    ):  # fmt: skip
        model = Model()
        chunks, _ = told(model, user(text), by="both")
        assert (len(model.asked), chunks[-1].finish) == (asked, finish), text
        assert [verdict.rule for verdict in verdicts(chunks)] == (["model"] if finish == "blocked" else [])


def test_both_ask_about_the_worst_and_what_the_model_does_not_read_stays_the_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    grey(monkeypatch, doubtful=(-0.5, 0.5), alarming=(1.0, 2.0))
    earlier = (Message.of("user", "alarming poison"), Message.of("assistant", "No."), Message.of("user", "a question of words, thanks"))
    model = Model()
    chunks, _ = told(model, Request(messages=earlier), by="both")
    assert chunks[-1].finish == "blocked" and len(model.asked[-1].messages) == 1, "asked about the turn itself"
    tool = {"type": "function", "function": {"name": "x", "description": "alarming poison of a tool"}}
    chunks, _ = told(Model(), user(PLAIN, tools=(tool,)), by="both")
    assert [verdict.rule for verdict in verdicts(chunks)] == ["harm"] and chunks[-1].finish == "blocked"
    many = tuple(Message.of("assistant" if i % 2 else "user", f"alarming words, {i}") for i in range(9))
    model = Model()
    chunks, _ = told(model, Request(messages=many), by="both")
    assert len(model.asked) == judging.MOST_ASKED
    assert [verdict.rule for verdict in verdicts(chunks)] == ["harm"], "what nobody asked about stays the judge's"


def test_a_broken_model_leaves_the_judges_word(monkeypatch: pytest.MonkeyPatch) -> None:
    grey(monkeypatch, doubtful=(-0.5, 0.5), alarming=(1.0, 2.0))
    for text, rules, finish in (("doubtful", ["failed"], "stop"), ("alarming", ["harm", "failed"], "blocked"), ("plain", [], "stop")):
        chunks, _ = told(Model(fails=MemoryError()), user(text), by="both")
        assert ([verdict.rule for verdict in verdicts(chunks)], chunks[-1].finish) == (rules, finish)


FAILURES = [GuardError("guard model", "must give numbers", "NaN or infinity"), MemoryError(), ValueError("secret words"), TimeoutError()]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("mode", ["tell", "block"])
def test_a_model_that_cant_judge_follows_fails(error: Exception, mode: str) -> None:
    model = Model(fails=error)
    chunks, _ = told(model, user(PLAIN), pieces(SENTENCE * 20), mode=mode)
    assert (said(chunks), chunks[-1].finish, len(model.asked)) == (SENTENCE * 20, "stop", 1), "told once, asked no more"
    [verdict] = verdicts(chunks)
    assert (verdict.rule, verdict.action) == ("failed", "allow")
    assert "secret" not in verdict.reason and "could not judge" in verdict.reason
    chunks, inner = told(Model(fails=error), user(PLAIN), mode=mode, fails="closed")
    assert (said(chunks), chunks[-1].finish, inner.given) == (SAYS["harm"], "blocked", 0)
    assert [(verdict.rule, verdict.action) for verdict in verdicts(chunks)] == [("failed", "block")]


@pytest.mark.parametrize("mode", ["tell", "block"])
@pytest.mark.parametrize("fails", ["open", "closed"])
def test_a_model_that_breaks_while_an_answer_is_written(mode: str, fails: str) -> None:
    class Breaks(Model):
        async def __call__(self, question: GuardQuestion) -> GuardOpinion:
            if len(self.asked) == 2:
                self.fails = MemoryError()
            return await super().__call__(question)

    chunks, inner = told(Breaks(), user(PLAIN), pieces(SENTENCE * 20), mode=mode, fails=fails)
    [verdict] = verdicts(chunks)
    assert verdict.rule == "failed"
    if fails == "open":
        assert (said(chunks), chunks[-1].finish, verdict.action) == (SENTENCE * 20, "stop", "allow")
    else:
        assert (chunks[-1].finish, verdict.action) == ("blocked", "block") and said(chunks).endswith(SAYS["harm"])
        assert inner.given < len(pieces(SENTENCE * 20)) and inner.closed == 1


@pytest.mark.parametrize("risk", [float("nan"), float("inf"), -1.0])
def test_an_opinion_that_is_none_is_a_failure(risk: float) -> None:
    chunks, _ = told(Model(risk=risk), user("a poison, please"))
    assert [verdict.rule for verdict in verdicts(chunks)] == ["failed"] and said(chunks) == "Rosemary."


def test_nobody_is_open() -> None:
    guards = make_guards(LIMITS, GuardPolicy({("", ""): {"harm": GuardRule("block", by="model")}}))
    chunks = list(drive(wrap(guards, Scripted([Chunk("x", finish="stop")]))(user(PLAIN))))
    assert [verdict.rule for verdict in verdicts(chunks)] == ["failed"]
    with pytest.raises(GuardError, match="is not open here"):
        nobody(GuardQuestion("guard", ())).send(None)  # type: ignore[attr-defined]
    judge_ahead(user(PLAIN), GuardPolicy({("", ""): {"harm": GuardRule("block", by="model")}}))


def test_what_did_not_fit_is_told_once_and_closed_refuses() -> None:
    chunks, _ = told(Model(unread=500), user(PLAIN), pieces(SENTENCE * 20))
    assert [(verdict.rule, verdict.action) for verdict in verdicts(chunks)] == [("too long", "allow")]
    chunks, inner = told(Model(unread=500), user(PLAIN), fails="closed")
    assert chunks[-1].finish == "blocked" and inner.given == 0


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_an_answer_ends_before_the_piece_that_the_model_takes_for_harm(size: int) -> None:
    model, text = Model(), SENTENCE * 12 + "Now take the poison and stir. " + SENTENCE * 12
    chunks, inner = told(model, user(PLAIN), pieces(text, size))
    assert chunks[-1].finish == "blocked" and "poison" not in said(chunks)
    before = said(chunks).removesuffix(SAYS["harm"]).removesuffix("\n\n")
    assert text.startswith(before) and (before.endswith(".") or not before), "it ends with a sentence"
    assert size == 5000 or text.index("poison") - len(before) < 2 * EVERY, "most of what is harmless has left"
    answers = [len(question.messages[-1].text) for question in model.asked[1:]]
    assert all(later - earlier >= EVERY for earlier, later in pairwise(answers)) or size == 5000
    assert len(answers) <= len(text) // EVERY + 1 and all(question.messages[-2].text == PLAIN for question in model.asked[1:])
    assert inner.closed == 1
    [verdict] = verdicts(chunks)
    assert (verdict.rule, verdict.action, verdict.score) == ("model", "block", 0.9)


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_a_harmless_answer_comes_whole_and_no_more_is_held_back_than_is_said(size: int) -> None:
    text = SENTENCE * 30 + "An end without a stop"
    chunks, inner = told(Model(), user(PLAIN), pieces(text, size))
    assert (said(chunks), verdicts(chunks), chunks[-1].usage) == (text, [], USAGE)
    assert [token for chunk in chunks for token in chunk.tokens] == [token for chunk in inner.chunks for token in chunk.tokens]
    out = 0
    scripted = Scripted(pieces(text, size))
    guards = make_guards(LIMITS, GuardPolicy({("", ""): {"harm": GuardRule("block", by="model")}}), ask=Model())
    for chunk in drive(wrap(guards, scripted)(user(PLAIN))):
        out += len(chunk.text)
        assert scripted.given * size - out < EVERY + 240 + 2 * size


def test_in_mode_tell_an_answer_waits_for_nobody() -> None:
    text = SENTENCE * 12 + "Now take the poison and stir. " + SENTENCE * 12
    chunks, inner = told(Model(), user(PLAIN), pieces(text), mode="tell")
    assert [chunk.text for chunk in chunks] == [chunk.text for chunk in inner.chunks]
    [verdict] = verdicts(chunks)
    assert (verdict.rule, verdict.action) == ("model", "allow") and "the answer says" in verdict.reason


def test_with_both_answers_are_watched_where_the_judge_of_answers_is_unsure(monkeypatch: pytest.MonkeyPatch) -> None:
    grey(monkeypatch)
    for question, finish in (("watched", "blocked"), ("left alone", "stop")):
        model = Model()
        chunks, _ = told(model, user(question), pieces(SENTENCE * 8 + "A poison."), by="both")
        assert (chunks[-1].finish, bool(model.asked)) == (finish, finish == "blocked")


def test_log_probabilities_of_what_was_ended_do_not_leave() -> None:
    text = SENTENCE * 5 + "The poison, then."
    chunks = [Chunk(word, (i,), (TokenLogprob(i, word, -0.5),)) for i, word in enumerate(text.split(" "))]
    out, _ = told(Model(), user(PLAIN), [*chunks, Chunk("", finish="stop")])
    assert "poison" not in "".join(entry.text for chunk in out for entry in chunk.logprobs)
    theirs = Verdict("allow", "said inside", "inner")
    out, _ = told(Model(), user(PLAIN), [Chunk("x", finish="stop", verdicts=(theirs,))])
    assert verdicts(out) == [theirs]
