"""An explanation: what was taught first, sentences with their proofs, the same bytes twice, and what the time left undone."""

from dataclasses import replace
from pathlib import Path

import pytest

from ingle.core.config import to_table
from ingle.core.errors import ConfigError, RequestError
from ingle.core.message import Message, Request
from ingle.engine.answer import answer
from ingle.engine.language_model import LanguageModel
from ingle.explain.cause import AnswerSpan, Cause, Variation, Why
from ingle.explain.direct import direct_reader
from ingle.explain.prompt_sentences import sentences_of, without
from ingle.explain.why import EXACT_SENTENCES, WhyOptions
from ingle.explain.words import TABLE, why_page
from tests.explain.tiny import TEXT, asking, said_to, shorter, stopping_after, tiny_model, why_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def test_causes_come_one_by_one_and_are_all_in_the_whole(model: LanguageModel, tmp_path: Path) -> None:
    said = said_to(model, asking(TEXT))
    other = tiny_model(tmp_path, seed=1)
    taught = [
        Variation(Cause("memory", "ex-1", "Mara"), model, asking("What is old?")), Variation(Cause("delta", "d"), other, said.request),
        Variation(Cause("lesson", "l"), model, said.request),
    ]  # fmt: skip
    causes, why = why_of(said, taught)
    assert {(one.cause.kind, one.nats) for one in causes} == {(one.cause.kind, one.nats) for one in why.causes}
    assert [one.nats for one in why.causes] == sorted((one.nats for one in why.causes), reverse=True)
    by_kind = {one.cause.kind: one for one in why.causes}
    assert by_kind["lesson"].nats == 0 and not by_kind["lesson"].stands_out and not by_kind["lesson"].differs
    without_memory = "".join(chunk.text for chunk in answer(model, taught[0].request))
    assert by_kind["memory"].answer_without == without_memory
    assert by_kind["delta"].answer_without == "".join(chunk.text for chunk in answer(other, said.request))
    assert why.complete and why.method == "leave_one_out" and why.sentences == 4 and why.read_tokens > 0
    assert all(len(one.nats_by_token) == len(said.tokens) for one in why.causes)
    assert sum(one.nats for one in why.causes if one.cause.kind == "memory") == pytest.approx(sum(by_kind["memory"].nats_by_token))


def test_the_answer_without_a_sentence_is_what_the_model_says_without_it(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    _, why = why_of(said)
    proved = [one for one in why.causes if one.cause.kind == "sentence"]
    for one in proved:
        sentence = sentences_of(said.request)[int(one.cause.id) - 1]
        assert sentence.text.strip() == one.cause.text
        assert one.answer_without == "".join(chunk.text for chunk in answer(model, without(said.request, [sentence])))
        assert one.stands_out and one.by_chance is not None
    assert why.together is not None and len(why.together.causes) == 3


def test_twice_the_same_bytes_and_many_sentences_are_looked_at_alone(model: LanguageModel) -> None:
    text = " ".join(f"Number {i} is red." for i in range(EXACT_SENTENCES + 3)) + " What is red?"
    said = said_to(model, asking(text, tokens=4))
    first, second = (to_table(why_of(said)[1]) for _ in range(2))
    assert first == second and first["method"] == "alone"


def test_a_prompt_of_one_sentence_has_nothing_to_leave_out(model: LanguageModel) -> None:
    causes, why = why_of(said_to(model, asking("What is old?")))
    assert (causes, why.says, why.sentences, why.complete) == ([], (TABLE["alone_prompt"],), 0, True)
    ids = tuple(model.tokenizer.encode("What is old?"))
    _, plain = why_of(said_to(model, replace(asking("x"), messages=(), prompt=ids)))
    assert plain.says == (TABLE["alone_prompt"],)


def test_two_sentences_are_compared_with_each_other(model: LanguageModel) -> None:
    _, why = why_of(said_to(model, asking("The mill is old. What is old?")))
    assert why.together is None and why.sentences == 1
    assert all(one.by_chance is None for one in why.causes)


def test_time_that_is_over_leaves_what_was_proved(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    taught = [Variation(Cause("memory", "ex-1", "Mara"), model, asking("What is old?"))]
    _, none = why_of(said, taught, reader=direct_reader(stopping_after(0)))
    assert (none.causes, none.complete, none.not_looked_at) == ((), False, ("what was taught", "the sentences of the prompt"))
    for calls in range(1, 200, 7):
        _, some = why_of(said, taught, reader=direct_reader(stopping_after(calls), lambda _model, _request: "x"))
        if some.causes:
            break
    assert [one.cause.kind for one in some.causes] == ["memory"] and some.not_looked_at == ("the sentences of the prompt",)
    assert some.says[-1] == TABLE["unlooked"].format(what="the sentences of the prompt")


def test_only_the_named_part_is_explained(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    whole = why_of(said)[1]
    part = why_of(said, asked=WhyOptions(AnswerSpan(0, 2)))[1]
    assert (part.span, whole.span) == (AnswerSpan(0, 2), AnswerSpan(0, len(said.text)))
    for start, end in ((0, 0), (3, 2), (-1, 2), (0, len(said.text) + 1)):
        with pytest.raises(RequestError, match="span"):
            why_of(said, asked=WhyOptions(AnswerSpan(start, end)))


def test_wrong_questions_are_refused_before_anything_is_read(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    with pytest.raises(RequestError, match="answer"):
        why_of(shorter(said, 0))
    with pytest.raises(ConfigError, match="method"):
        why_of(said, asked=WhyOptions(method="tea leaves"))


def test_the_page_quotes_and_never_runs_words(model: LanguageModel) -> None:
    request = Request((Message.of("user", "<script>alert(1)</script> is old. Rain falls. <b>Why</b>?"),), max_tokens=4)
    why = why_of(said_to(model, request))[1]
    page = why_page(why, request)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and "<b>Why" not in page
    hostile = Why("<i>a</i>", AnswerSpan(0, 8), (), None, ("<u>b</u>",), ("<i>a</i>",), 0, "<m>", 0, False, ("x",))
    assert not {"<i>", "<u>", "<m>"} & set(why_page(hostile, request).replace(">", "> ").split())
