"""What goes round in circles is stopped, and what only looks like it is not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.app.settings import SamplingSettings
from ingle.core.message import Chunk, Constraint, Sampling
from ingle.engine.answer import answer
from ingle.engine.decoding import CodeBlock, Repeats
from ingle.engine.language_model import LanguageModel
from ingle.model.checkpoint import open_checkpoint
from ingle.model.tokenizer import Tokenizer, tokenizer_from_gguf
from tests.engine.test_answer import NO_END, byte_tokenizer, chat
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config
from tests.examples import examples

LIMIT = SamplingSettings().sampling(0).repeat_limit


def end(tokens: list[int], limit: int = LIMIT) -> int | None:
    """How many tokens were written when the answer was ended; None = it never was."""
    repeats = Repeats(limit)
    return next((count for count, token in enumerate(tokens, 1) if repeats.add(token)), None)


def naive(tokens: list[int], limit: int) -> int | None:
    passages = [tuple(tokens[max(0, i - 11) : i + 1]) for i in range(len(tokens))]
    stale = [len(passage) == 12 and passages[:i].count(passage) >= 3 for i, passage in enumerate(passages)]
    return next((i + 1 for i in range(limit - 1, len(tokens)) if all(stale[i - limit + 1 : i + 1])), None)


@given(
    parts=st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(1, 12)), max_size=6), limit=st.integers(1, 40)
)
@examples(200)
def test_it_is_its_naive_reference(parts: list[tuple[list[int], int]], limit: int) -> None:
    tokens = [token for block, times in parts for token in block * times]
    assert end(tokens, limit) == naive(tokens, limit)


@given(period=st.integers(1, 200), before=st.lists(st.integers(0, 10**6), max_size=50))
@examples(60)
def test_every_loop_ends(period: int, before: list[int]) -> None:
    ended = end(before + [10**7 + i for i in range(period)] * 500)
    assert ended is not None and ended <= len(before) + 3 * period + 12 + LIMIT


@given(verses=st.integers(1, 60), refrain=st.integers(0, LIMIT), new=st.integers(1, 5))
@examples(60)
def test_nothing_ends_that_new_words_enter(verses: int, refrain: int, new: int) -> None:
    assert (
        end([word for verse in range(verses) for word in [*range(refrain), *range(1000 * verse + 1000, 1000 * verse + 1000 + new)]]) is None
    )


SAILORS = ("miller", "sailor", "baker", "tailor", "drummer", "carpenter", "fiddler", "preacher", "shepherd", "captain")
VERSE = "The {} has gone to sea,\nAnd left the lamp alight;\n" + "Row, row, my bonny boys, row home to me tonight.\n" * 2 + "\n"
CHECK = "def test_{0}():\n    result = compute({0})\n    assert result is not None\n    assert result == {0}\n\n"
LEGITIMATE = {
    "a table": "".join(f"| city {i} | a country far away | the river {i * 7} |\n" for i in range(40)),
    "a table of equal rows": "| a | b | c |\n|---|---|---|\n" + "| 0 | 0 | 0 |\n" * 12,
    "a list of like lines": "".join(f"{i}. You could go and have a good long look at the {i * 37 % 101} things\n" for i in range(1, 60)),
    "a multiplication table": "".join(f"{i} × {j} = {i * j}\n" for i in range(1, 11) for j in range(1, 11)),
    "code with repeated lines": "def show():\n" + "    print('-' * 20)\n    print(row)\n" * 8 + "    return None\n",
    "a matrix": "grid = [\n" + "    [0, 0, 0, 0, 0, 0, 0, 0],\n" * 8 + "]\n",
    "tests that differ in a number": "".join(CHECK.format(i) for i in range(40)),
    "JSON of equal rows": "[" + ", ".join(['{"name": "", "age": 0, "city": ""}'] * 10) + "]",
    "a poem with a refrain": "".join(map(VERSE.format, SAILORS)),
    "a line ten times": "I will not talk in class again.\n" * 10,
    "digits": "3." + "0" * 100,
    "a ruler": "-" * 300,
}


@pytest.fixture(scope="module")
def tokenizer(smollm2_gguf: Path) -> Tokenizer:
    return tokenizer_from_gguf(open_checkpoint(smollm2_gguf).metadata)


@pytest.mark.parametrize("name", LEGITIMATE)
def test_what_repeats_itself_for_a_reason_goes_on(tokenizer: Tokenizer, name: str) -> None:
    assert end(tokenizer.encode(LEGITIMATE[name])) is None


def test_a_paragraph_again_and_again_ends(tokenizer: Tokenizer) -> None:
    paragraph = "The hearth is the heart of the house, and it is important to keep it warm, so that everybody in it is warm too.\n\n"
    ended = end(tokenizer.encode(paragraph * 100))
    assert ended is not None and ended < 12 * len(tokenizer.encode(paragraph))


@pytest.fixture
def circling(tmp_path: Path) -> LanguageModel:
    """A tiny model whose greedy answers go round in circles, as those of random weights do."""
    return LanguageModel("tiny", backend_of(tmp_path, random_checkpoint(tiny_config(vocab=260, context=900))), byte_tokenizer())


def last(model: LanguageModel, **options: object) -> tuple[list[int], Chunk]:
    chunks = list(answer(model, chat("hi", max_tokens=600, **options)))
    return [token for chunk in chunks for token in chunk.tokens], chunks[-1]


def test_an_answer_says_that_it_was_stopped(circling: LanguageModel) -> None:
    whole, ended = last(circling, sampling=NO_END)
    assert ended.finish == "length" and len(whole) == 600, "without a limit nothing is stopped"
    limited = Sampling(logit_bias=NO_END.logit_bias, repeat_limit=30)
    tokens, ended = last(circling, sampling=limited)
    assert ended.finish == "repetition" and ended.usage is not None and ended.usage.completion_tokens == len(tokens)
    assert tokens == whole[: end(whole, 30)], "and what was said before is the same"


def test_an_answer_in_a_language_ends_where_that_does(circling: LanguageModel) -> None:
    limited = Sampling(logit_bias=NO_END.logit_bias, repeat_limit=30)
    _, ended = last(circling, sampling=limited, constraint=Constraint("regex", "(ab){200}"))
    assert ended.finish == "stop"


@given(lines=st.lists(st.sampled_from(["```python", "```", "  ```", "a ``` b", "x = 1", "", "`` `"]), max_size=12), data=st.data())
@examples(100)
def test_code_blocks_are_known_however_the_text_is_cut(lines: list[str], data: st.DataObject) -> None:
    text, block, rest = "\n".join(lines), CodeBlock(), "\n".join(lines)
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        block.feed(rest[:cut])
        rest = rest[cut:]
    fences = [line for line in text.split("\n") if line.lstrip().startswith("```")]
    assert block.inside == (len(fences) % 2 == 1)
