"""A growing text becomes clauses: early, whole, the same however it comes in pieces; code, tables and marks are read as a person would."""

import random
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.media.speech import clauses
from tests.examples import examples

TEXT = """Paris is the capital of France. It has about 2.1 million people, and it lies on the Seine, which is a river. Dr. Smith, e.g., went
to the U.S. in 1905. He liked it!

# Steps
1. Open the file `a.txt`.
2. Run this:

```python
x = 1
print("```")
```
Then, **it works**, doesn't it? See https://docs.python.org/3/library/os.html. Well: that is all.

| Name | Age |
|------|----:|
| Alice | 30 |

- first thing
- second thing which goes on and on without a comma because whoever wrote it did not care and went on
The end
"""


def in_pieces(text: str, seed: int, longest: int) -> Iterator[str]:
    chance, place = random.Random(seed), 0
    while place < len(text):
        size = chance.randint(1, longest)
        yield text[place : place + size]
        place += size


def test_an_answer_with_everything_in_it() -> None:
    assert list(clauses(iter([TEXT]))) == [
        "Paris is the capital of France.",
        "It has about two point one million people,",
        "and it lies on the Seine, which is a river.",
        "Doctor Smith, for example, went to the U.S. in nineteen oh five.",
        "He liked it!",
        "Steps",
        "one. Open the file a dot txt.",
        "two. Run this:",
        "Here is some code.",
        "Then, it works, doesn't it?",
        "See docs dot python dot org.",
        "Well:",
        "that is all.",
        "Name, Age.",
        "Alice, thirty.",
        "first thing",
        "second thing which goes on and on without a comma because whoever wrote it did not care and went on",
        "The end",
    ]


@pytest.mark.parametrize("longest", [1, 3, 40])
@pytest.mark.parametrize("seed", range(8))
def test_the_pieces_make_no_difference(seed: int, longest: int) -> None:
    assert list(clauses(in_pieces(TEXT, seed, longest))) == list(clauses(iter([TEXT])))


SOME = "one two three river stone and but, because house. green! why? then; so: (well) the"
WORDS = st.lists(st.sampled_from(SOME.split()), max_size=120)


@given(WORDS, st.integers(0, 1000))
@examples(150)
def test_no_word_is_lost_or_said_twice(words: list[str], seed: int) -> None:
    text = " ".join(words)
    said = " ".join(clauses(in_pieces(text, seed, 7)))
    assert re.findall(r"\w+", said) == re.findall(r"\w+", text)


@given(st.text(max_size=200), st.integers(0, 100))
@examples(200)
def test_any_text_ends(text: str, seed: int) -> None:
    for clause in clauses(in_pieces(text, seed, 9)):
        assert clause.strip()


def test_the_first_clause_comes_before_its_sentence_ends() -> None:
    came: list[str] = []
    answer = "Well now, the answer to this question is long and takes a while to say. Yes."

    def words() -> Iterator[str]:
        for word in answer.split():
            came.append(word)
            yield word + " "

    stream = clauses(words())
    assert next(stream) == "Well now,"
    assert len(came) < 6
    assert list(stream)[-1] == "Yes."


def test_a_long_sentence_without_marks_is_cut_where_it_can_be() -> None:
    text = "the fox ran over the hill and the dog ran after it until both of them were so tired that they lay down in the grass " * 3
    said = list(clauses(iter([text])))
    assert 4 <= len(said) <= 12
    assert " ".join(said) == text.strip()
    assert all(len(clause.split()) <= 40 for clause in said)


def test_what_has_no_end_is_cut_all_the_same() -> None:
    said = list(clauses(in_pieces("ab" * 2000 + ". End.", 1, 50)))
    assert said == list(clauses(iter(["ab" * 2000 + ". End."])))
    assert said[-1] == "End." and max(map(len, said)) <= 600


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", []),
        ("\n\n---\n***\n", []),
        ("```\nx = 1", ["Here is some code."]),
        ("~~~py\nx\n~~~\nDone.", ["Here is some code.", "Done."]),
        ("At 3.5 m. Then stop.", ["At three point five metres. Then stop."]),
        ("J. R. Smith came. He left.", ["J. R. Smith came.", "He left."]),
        ("Wait... what?", ["Wait...", "what?"]),
        ("It is **very, very** good.", ["It is very,", "very good."]),
        ("| a | b |\n|---|---|\n| 1 | 2 |", ["a, b.", "one, two."]),
        ("5 > 3 and 2 < 4", ["five greater than three and two less than four"]),
    ],
)
def test_what_is_read_and_what_is_left_out(text: str, want: list[str]) -> None:
    assert list(clauses(iter([text]))) == want
