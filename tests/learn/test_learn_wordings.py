"""Wordings ask the same in other words, contrasts ask something else; both are the same each time, whatever is asked."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingle.learn.wordings import contrasts, parts_of, wordings
from tests.examples import examples


@pytest.mark.parametrize(
    ("question", "thing"),
    [
        ("Who runs the Corvane bakery?", "the Corvane bakery"),
        ("When did the Harrow Bridge open?", "the Harrow Bridge"),
        ('Who wrote "The Salt Orchard"?', '"The Salt Orchard"'),
        ("Where do I keep my spare keys?", "my spare keys"),
        ("I need to write to the boss of the Pellam Institute, who is that?", "the Pellam Institute"),
        ("Tell me the capital of Norway.", "Norway"),
    ],
)
def test_a_question_has_a_thing_that_it_is_about(question: str, thing: str) -> None:
    assert parts_of(question).thing == thing


def test_wordings_ask_the_same_in_other_words() -> None:
    found = wordings("What is the capital of Norway?", 12)
    assert found[0] == "What is the capital of Norway?"
    assert {"Can you tell me what the capital of Norway is?", "Tell me the capital of Norway."} <= set(found)
    assert len(found) == len(set(found)) == 12
    assert all("Norway" in text for text in found)


def test_contrasts_ask_something_else() -> None:
    found = contrasts("What is the capital of Norway?", 9)
    assert len(found) == 9
    assert any(text.startswith("What is the capital of ") and "Norway" not in text for text in found)
    assert any("Norway" in text and "capital" not in text for text in found)
    assert not set(found) & set(wordings("What is the capital of Norway?", 20))


@examples(60)
@given(question=st.text(min_size=1, max_size=60).filter(lambda text: bool(text.strip())), seed=st.integers(0, 3))
@example(question="?", seed=0)
@example(question="I", seed=0)
@example(question="der Fluß: wo?", seed=0)
@example(question="x, what is it", seed=0)
def test_whatever_is_asked(question: str, seed: int) -> None:
    found = wordings(question, 8, seed)
    assert found == wordings(question, 8, seed)
    assert 1 <= len(found) <= 8
    assert found[0] == question.strip()
    assert all(text.strip() for text in (*found, *contrasts(question, 8, seed)))
