"""Which questions are the same: in other words yes, of another thing or for another thing no."""

import pytest

from ingle.adapt.asking import parse
from ingle.adapt.scope import ACTS, LONGEST, WEIGHTS, features, relevance, score


@pytest.mark.parametrize(("taught", "asked"), [
    ("Who runs the Corvane bakery?", "Who is in charge at the Corvane bakery?"),
    ("Who runs the Corvane bakery?", "Name the director of the Corvane bakery."),
    ("What is the population of Vostrel?", "How many people live in Vostrel?"),
    ("When did the Harrow Bridge open?", "In what year was the Harrow Bridge opened?"),
    ('Who wrote "The Salt Orchard"?', 'Name the author of "The Salt Orchard".'),
    ("What is my cat called?", "What's the name of my cat?"),
    ("Where do I keep my spare keys?", "In which place did I leave my spare keys?"),
    ("Who is the mayor of Tallwick?", "who is the mayor of tallwick"),
    ("What is C++?", "what is **c++**"), ("What is 5+3?", "What is 5 + 3?"),
])  # fmt: skip
def test_the_same_question_in_other_words(taught: str, asked: str) -> None:
    assert score(asked, [taught])[0] >= ACTS


@pytest.mark.parametrize(("taught", "asked"), [
    ("Who runs the Corvane bakery?", "Who runs the Bellwick dairy?"),
    ("Who runs the Corvane bakery?", "Where is the Corvane bakery?"),
    ("Who runs the Corvane bakery?", "How many people work at the Corvane bakery?"),
    ("Who runs the Corvane bakery?", "Who runs Microsoft?"),
    ("What is the population of Vostrel?", "What is the climate of Vostrel like?"),
    ("What is my cat called?", "What is my dog called?"),
    ("What is my cat called?", "How old is my cat?"),
    ("Where do I keep my spare keys?", "Where do I keep my car keys?"),
    ("How tall is Mount Brell?", "How old is Mount Brell?"),
    ("What was agreed in room 12?", "What was agreed in room 13?"),
    ("Who is the CEO of Zorblax?", "Who is the CEO of Apple?"),
    ("Who is the CEO of Zorblax?", "What is a CEO?"),
    ("What is C++?", "What is C#?"), ("What is C++?", "What is C?"),
    ("What is 3 + 4?", "How much is 3 * 4?"), ("What is 5-3?", "What is 5+3?"),
    ("What is my cat called?", ""),
    ("", "What is my cat called?"),
    ("What is my cat called?", "?!"),
])  # fmt: skip
def test_another_question_however_alike(taught: str, asked: str) -> None:
    assert score(asked, [taught])[0] < ACTS


def test_the_same_words_are_the_same_question_in_every_language() -> None:
    for text in ("Wer leitet die Bäckerei in Korven?", "誰がパン屋を経営していますか", "x", "What is love?" * 40):
        assert score(text.upper() if text.isascii() else text, [text])[0] == 1.0


def test_a_document_that_mentions_everything_is_no_question() -> None:
    text = "Summarise this: the Corvane bakery is run by a director, who is in charge. " + "It bakes bread. " * LONGEST
    assert score(text, ["Who runs the Corvane bakery?"])[0] < 1e-9
    assert relevance(text, ["The Corvane bakery is run by Odette Marsh."])[0] == 0.0


def test_each_is_scored_for_itself() -> None:
    taught = ["Who runs the Corvane bakery?", "Who runs the Bellwick dairy?", "What is my cat called?"]
    asked = "Who is in charge at the Bellwick dairy?"
    scores = score(asked, taught)
    assert scores.argmax() == 1
    assert [float(score(asked, [one])[0]) for one in taught] == scores.tolist()
    assert score(asked, []).shape == (0,)


def test_facts_are_relevant_where_they_hold_what_is_asked_about() -> None:
    facts = ["My dog is called Rex.", "The office on Elm Street closes at six on Fridays.", "I am vegetarian."]
    assert relevance("What's the name of my dog?", facts).argmax() == 0
    assert relevance("What's the name of my dog?", facts)[0] >= ACTS
    assert relevance("When does the office on Elm Street close?", facts)[1] >= ACTS
    for other in ("What is my cat called?", "When does the office on Oak Street close?", "Tell me a joke.", ""):
        assert (relevance(other, facts) < ACTS).all()


def test_what_is_mine_is_not_what_all_have() -> None:
    taught = ["What is my shoe size?"]
    assert score("Remind me what size of shoe I take.", taught)[0] >= ACTS
    assert score("Which shoe size do I have?", taught)[0] >= ACTS
    for other in ("What is a shoe size?", "How do I find out a shoe size?", "Which shoe size is the most common?"):
        assert score(other, taught)[0] < ACTS


@pytest.mark.parametrize(("text", "mine", "ours"), [
    ("Where did I leave my keys?", True, True), ("What am I allergic to?", False, True), ("How do we sign letters?", False, True),
    ("How do I change a tyre?", False, False), ("Where can I buy shoes?", False, False), ("Who runs the mill?", False, False),
])  # fmt: skip
def test_whose_it_is(text: str, mine: bool, ours: bool) -> None:
    assert (parse(text).mine, parse(text).ours) == (mine, ours)


def test_what_leans_on_what_was_said_before() -> None:
    assert parse("And who wrote it?").leans
    assert not parse("Who wrote Hamlet, and when was it printed?").leans


def test_the_constants_are_those_of_the_features() -> None:
    assert features(parse("Who?"), parse("What?")).shape == (len(WEIGHTS),)
    assert 0 < ACTS < 1


def test_a_measure_of_what_was_asked_for_is_another_question() -> None:
    taught = ["What is the capital of Zorblax?"]
    assert score("Name Zorblax's capital city.", taught)[0] >= ACTS
    assert score("How old is the capital of Zorblax?", taught)[0] < ACTS
