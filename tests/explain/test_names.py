"""Names of a text, and sentences about another thing than the question."""

import pytest

from ingle.explain.prompt_sentences import names_of, twin

MILL = "The keeper of the mill in Carrow is called Rosa Foster."


@pytest.mark.parametrize(
    ("text", "around", "names"),
    [
        ("Who runs the bakery in Tullmore?", "", ("Tullmore",)),
        ("Answer yes or no: is Ozark a true story?", "", ("Ozark",)),
        ("Rosa Foster's mill in New York cost 2,500 pounds.", "", ("Rosa Foster", "New York", "2,500")),
        ("Most people fish.", "", ()),
        ("Carrow lies there.", "", ()),
        ("Carrow lies there.", "They came to Carrow.", ("Carrow",)),
        ("Carrow lies there. Nobody likes Carrow.", "", ("Carrow",)),
        ("In 1820, it burned.", "", ("1820",)),
        ("1820 was dry. The end.", "", ("1820",)),
        ("", "", ()),
    ],
)
def test_names(text: str, around: str, names: tuple[str, ...]) -> None:
    assert names_of(text, around) == names


@pytest.mark.parametrize(
    ("question", "sentence", "answer", "names"),
    [
        ("Who is the keeper of the mill in Jarrow?", MILL, "Rosa Foster", ("Carrow", "Jarrow")),
        ("Who is the keeper of the mill in Jarrow?", MILL, "The keeper of the mill in Carrow is Rosa Foster.", ("Carrow", "Jarrow")),
        ("who is the keeper of the mill in jarrow", MILL, "Rosa Foster", ("Carrow", "jarrow")),
        ("Who is the keeper of the lamp in Carrow?", MILL, "Rosa Foster", ("mill", "lamp")),
        ("When did Queen Anne die?", "Queen Mary died in 1694.", "In 1694.", ("Queen Mary", "Queen Anne")),
        ("Who owns it in 1990?", "In 1980 it was owned by Lord Grey.", "Lord Grey", ("1980", "1990")),
    ],
)
def test_a_sentence_about_another_thing_is_found(question: str, sentence: str, answer: str, names: tuple[str, str]) -> None:
    assert twin(question, sentence, answer, f"{sentence} {question}") == names


@pytest.mark.parametrize(
    ("question", "sentence", "answer", "text"),
    [
        ("Who is the keeper of the mill in Carrow?", MILL, "Rosa Foster", ""),
        ("who is the keeper of the mill in carrow", MILL, "Rosa Foster", ""),
        ("What is the capital of France?", "The capital of France is Paris.", "Paris", ""),
        ("Who keeps the mill?", MILL, "Rosa Foster", ""),
        ("Who keeps the old mill in Carrow?", MILL, "Rosa Foster", ""),
        ("What did Mr. Foster keep?", "Rosa Foster kept the mill.", "The mill", ""),
        ("Summarise this text.", MILL, "Rosa keeps a mill.", ""),
        ("What is the number of Jarrow?", "Its number is twice Carrow's: 8.", "8", "Jarrow is a town. Its number is twice Carrow's: 8."),
        ("", "", "", ""),
    ],
)  # fmt: skip
def test_a_sentence_about_what_was_asked_is_left_alone(question: str, sentence: str, answer: str, text: str) -> None:
    assert twin(question, sentence, answer, text) is None
