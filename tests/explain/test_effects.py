"""Falls of an answer: equal to the bit to reading each prompt by itself, and no token is read twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.core.media import Picture
from ingle.core.message import ImagePart, Message, Request, TextPart
from ingle.engine.language_model import LanguageModel, Seer
from ingle.engine.scoring import score
from ingle.explain.cause import AnswerSpan, Cause, OutOfTime, Variation, within
from ingle.explain.direct import direct_reader
from ingle.explain.falls import Falls, Left, method, methods, tokens_to_read
from ingle.explain.methods.context_cite import fitted, lasso
from ingle.explain.prompt_sentences import QUARTERS, without
from ingle.media.picture import png_of
from tests.engine.colours import Colours
from tests.explain.tiny import TEXT, asking, said_to, stopping_after, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def falls(model: LanguageModel) -> Falls:
    said = said_to(model, asking(TEXT))
    return Falls(direct_reader(), said, AnswerSpan(0, len(said.text)))


def alone(falls: Falls, request: Request) -> np.ndarray:
    """One prompt with its answer, read by itself."""
    model = falls.said.model
    [(_, [nats])] = score(model.backend, [(model.encode(request), [falls.said.tokens])])
    return nats


def test_a_fall_is_the_difference_of_two_readings_to_the_bit(falls: Falls) -> None:
    sets = [Left({0}), Left({1, 2}), Left({0, 1, 2, 3}), Left()]
    base = alone(falls, falls.said.request)
    for found, left_out in zip(falls.by_token(sets), sets, strict=True):
        prompt = without(falls.said.request, [falls.sentences[i] for i in left_out])
        assert np.array_equal(found, base - alone(falls, prompt))
    assert falls.of([Left()]) == [0.0]
    assert falls.base_nats == base.sum()


def test_the_question_is_never_left_out_and_a_span_counts_its_own_tokens(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    whole = Falls(direct_reader(), said, AnswerSpan(0, len(said.text)))
    assert whole.causes == (0, 1, 2, 3) and whole.sentences[4].asks
    assert whole.every == Left({0, 1, 2, 3})
    parts = [Falls(direct_reader(), said, span) for span in (AnswerSpan(0, 3), AnswerSpan(3, len(said.text)))]
    for left_out in (Left({0}), Left({2, 3})):
        assert sum(part.of([left_out])[0] for part in parts) == pytest.approx(whole.of([left_out])[0])
    assert [int(within(said, AnswerSpan(0, 3)).sum()), len(said.tokens)] == [parts[0].inside.sum(), parts[0].inside.size]


def test_each_prompt_is_read_once_and_what_is_shared_is_read_once(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    falls = Falls(direct_reader(), said, AnswerSpan(0, len(said.text)))
    singles = [Left({i}) for i in falls.causes]
    expected = falls.tokens_of(singles)
    falls.of(singles)
    assert falls.read_tokens == expected
    falls.of([*singles, Left()])
    assert falls.read_tokens == expected
    prompts = [model.encode(without(said.request, [falls.sentences[i] for i in one])) for one in (Left(), *singles)]
    assert expected < sum(len(prompt) + len(said.tokens) - 1 for prompt in prompts)
    assert tokens_to_read([[1, 2, 3], [1, 2, 4], [1, 2, 3]], 2) == 4 + 2 + 1


def test_a_variation_of_another_model_is_read_by_that_model(falls: Falls, tmp_path: Path) -> None:
    other = tiny_model(tmp_path, seed=1)
    same, another = falls.varied([
        Variation(Cause("memory", "a"), falls.said.model, falls.said.request), Variation(Cause("delta", "b"), other, falls.said.request),
    ])  # fmt: skip
    assert not same.any()
    [(_, [nats])] = score(other.backend, [(other.encode(falls.said.request), [falls.said.tokens])])
    assert np.array_equal(another, alone(falls, falls.said.request) - nats)


def test_time_that_is_over_says_so(model: LanguageModel) -> None:
    said = said_to(model, asking(TEXT))
    falls = Falls(direct_reader(stopping_after(2)), said, AnswerSpan(0, len(said.text)))
    with pytest.raises(OutOfTime):
        falls.of([Left({i}) for i in falls.causes])


@pytest.mark.parametrize("name", methods())
def test_every_method_scores_every_sentence_and_twice_the_same(falls: Falls, name: str) -> None:
    first, second = (method(name)(falls, falls.said.text, 3) for _ in range(2))
    assert first.shape == (len(falls.causes),) and np.isfinite(first).all()
    assert np.array_equal(first, second)


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="leave_one_out"):
        method("attention")


def test_the_sparse_fit_is_where_the_slopes_say_that_it_is() -> None:
    """The subgradient conditions of the LASSO on standardised columns: |correlation| = α where a weight is, below where none is."""
    draw = np.random.default_rng(0)
    x = (draw.random((40, 6)) < 0.5).astype(float)
    y = x @ [3.0, 0, -2.0, 0, 0, 0.004] + 0.01 * draw.standard_normal(40)
    weights = lasso(x, y, 0.01)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    slopes = scaled.T @ ((y - y.mean()) - (x - x.mean(axis=0)) @ weights) / len(y)
    assert np.all(np.abs(slopes) <= 0.01 + 1e-5)
    assert np.allclose(slopes[weights != 0], 0.01 * np.sign(weights[weights != 0]), atol=1e-5)
    assert abs(weights[0] - 3) < 0.1 and abs(weights[2] + 2) < 0.1 and abs(weights[5]) < 0.02
    constant = np.column_stack([x, np.ones(40)])
    assert lasso(constant, y, 0.01)[-1] == 0


def test_more_ablations_come_nearer_to_what_leaving_out_says(falls: Falls) -> None:
    exact = np.array(falls.of([Left({i}) for i in falls.causes]))
    close = fitted(falls, 256, 0)
    assert np.argmax(close) == np.argmax(exact)


def test_the_quarter_of_a_picture_that_holds_something_weighs_most(model: LanguageModel) -> None:
    pixels = np.full((8, 8, 3), 120, np.uint8)
    pixels[4:, :4] = (255, 0, 255)
    request = replace(asking("-"), messages=(Message("user", (ImagePart(png_of(Picture(pixels)), "image/png"), TextPart("What is it?"))),))
    said = said_to(replace(model, seer=Seer(Colours())), request)
    falls = Falls(direct_reader(), said, AnswerSpan(0, len(said.text)))
    assert [falls.sentences[i].text for i in falls.causes] == [f"[the picture: {place}] " for place in QUARTERS]
    weights = np.abs(falls.by_token([Left({i}) for i in falls.causes])).sum(1)
    assert QUARTERS[int(weights.argmax())] == "lower left"
    assert weights.min() > 0, "the mean colour is another colour in every quarter"
