"""Multiple choice: ties are wrong, lengths are divided out where it is said, and the scores are Hugging Face's."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import KernelError, RequestError
from ingle.engine.language_model import LanguageModel
from ingle.measure.data_sets import Question
from ingle.measure.subjects import Scores, begin_id, majority, make_prompt, make_task, read_scores, strictly_best
from tests.measure.models import even, oracle_nats, subject_of

QUESTION = Question("q", "g", "Where do cats sleep?", ("on a warm sofa in the sun", "in bed", "nowhere"), 1)
SHOT = Question("s", "h", "What do cats drink?", ("milk", "sand"), 0)


def test_prompts_with_words_and_with_letters() -> None:
    words = make_prompt(QUESTION, "Question: {ask}\nAnswer:", shots=[SHOT])
    assert words.given == "Question: What do cats drink?\nAnswer: milk\n\nQuestion: Where do cats sleep?\nAnswer:"
    assert words.endings == (" on a warm sofa in the sun", " in bed", " nowhere")
    assert words.nbytes == (25, 6, 7)
    letters = make_prompt(QUESTION, "unused {ask}", "letters", [SHOT])
    asked = "Where do cats sleep?\nA. on a warm sofa in the sun\nB. in bed\nC. nowhere\nAnswer:"
    assert letters.given == "What do cats drink?\nA. milk\nB. sand\nAnswer: A\n\n" + asked
    assert (letters.endings, letters.nbytes) == ((" A", " B", " C"), (1, 1, 1))
    with pytest.raises(RequestError, match="none of them empty"):
        make_prompt(Question("q", "g", "?", ("a", " "), 0), "{ask}")


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0]), min_size=2, max_size=6), st.integers(0, 5))
def test_ties_are_wrong(values: list[float], gold: int) -> None:
    gold %= len(values)
    assert strictly_best(values, gold) == (sorted(values)[-1] == values[gold] and values.count(values[gold]) == 1)


def test_a_model_that_finds_all_alike_knows_nothing(tiny: LanguageModel) -> None:
    prompt = make_prompt(QUESTION, "{ask}", "letters")
    task, _ = make_task(tiny.tokenizer, prompt, 192)
    scores = read_scores(QUESTION, prompt, even(-1.0)(task))
    assert len(set(scores.nats)) == 1
    assert not scores.right
    assert not scores.right_per_byte


def test_a_model_that_prefers_the_first_is_right_when_that_is_right() -> None:
    values = [np.array([-1.0]), np.array([-2.0]), np.array([-2.0])]
    for gold in range(3):
        question = Question("q", "g", "?", ("a", "b", "c"), gold)
        assert read_scores(question, make_prompt(question, "{ask}", "letters"), values).right == (gold == 0)


def test_sums_favour_short_answers_and_bytes_do_not() -> None:
    # The right answer is long: less likely in sum, likelier per byte.
    scores = Scores((-10.0, -6.0), (20, 4), 0)
    assert (scores.right, scores.right_per_byte) == (False, True)


@pytest.mark.parametrize(("style", "shots"), [("texts", []), ("texts", [SHOT]), ("letters", [SHOT])])
def test_it_is_hugging_faces(tiny: LanguageModel, tiny_oracle: Any, style: Any, shots: list[Question]) -> None:
    prompt = make_prompt(QUESTION, "Question: {ask}\nAnswer:", style, shots)
    task, cut = make_task(tiny.tokenizer, prompt, 192)
    [(_, values)] = subject_of(tiny).score([task])
    mine = read_scores(QUESTION, prompt, values)
    context = tiny.tokenizer.encode(prompt.given)
    expected = [oracle_nats(tiny_oracle, context, tiny.tokenizer.encode(prompt.given + e)[len(context) :]) for e in prompt.endings]
    assert not cut
    assert mine.nats == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_without_a_context_answers_follow_the_token_that_begins_a_text(tiny: LanguageModel) -> None:
    task, _ = make_task(tiny.tokenizer, make_prompt(Question("q", "g", "", ("a", "b"), 0), "{ask}"), 192)
    assert task[0] == [begin_id(tiny.tokenizer)]


def test_a_token_over_the_border_belongs_to_the_answers(tiny: LanguageModel) -> None:
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.models import BPE

    from ingle.measure.subjects import Prompt
    from ingle.model.tokenizer import Tokenizer, TokenizerFacts

    # "ab" is one token: given "xa", the ending "b" makes x|ab of it.
    fast = FastTokenizer(BPE({"x": 0, "a": 1, "b": 2, "c": 3, "ab": 4}, [("a", "b")]))
    tokenizer = Tokenizer(fast, TokenizerFacts("bytes", eos_ids=(3,)))
    task, _ = make_task(tokenizer, Prompt("xa", ("b", "c"), (1, 1)), 50)
    assert (list(task[0]), [list(ending) for ending in task[1]]) == ([0], [[4], [1, 3]])


def test_a_prompt_that_is_too_long_loses_its_beginning(tiny: LanguageModel) -> None:
    question = Question("q", "g", "abcdefghij" * 30, ("yes", "no"), 0)
    prompt = make_prompt(question, "{ask}")
    (given_ids, endings), cut = make_task(tiny.tokenizer, prompt, 100)
    whole = tiny.tokenizer.encode(prompt.given)
    assert cut
    assert list(given_ids) == whole[-len(given_ids) :]
    assert len(given_ids) + max(map(len, endings)) - 1 == 100
    with pytest.raises(RequestError, match="fit the context"):
        make_task(tiny.tokenizer, make_prompt(Question("q", "g", "?", ("y" * 200, "n"), 0), "{ask}"), 100)


def test_nan_is_an_error_and_not_a_wrong_answer() -> None:
    prompt = make_prompt(QUESTION, "{ask}")
    with pytest.raises(KernelError, match="question q"):
        read_scores(QUESTION, prompt, [np.array([-1.0]), np.array([np.nan]), np.array([-1.0])])


def test_the_majority_is_that_of_training() -> None:
    def question(gold: int) -> Question:
        return Question("q", "g", "?", ("no", "yes"), gold)

    training = [question(1), question(1), question(0)]
    assert majority(training, [question(0), question(0), question(1)]) == [False, False, True]
    assert majority([question(1), question(0)], [question(0)]) == [True]
