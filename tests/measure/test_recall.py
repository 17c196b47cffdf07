"""Planted facts: where they stand, that they can't be guessed, and what counts as recalled."""

import random
from dataclasses import replace

import pytest

from ingle.core.errors import ConfigError
from ingle.measure.data_sets import Text
from ingle.measure.suites import KINDS, SUITES, assemble, is_recalled, make_fact, plant, words_of
from tests.train.tiny_train import chat_tokenizer

TEXTS = [Text(str(i), str(i), " ".join(f"Sentence {i} {j} is here." for j in range(80))) for i in range(5)]


@pytest.mark.parametrize("depth", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fact_stands_once_where_it_should_and_is_asked_for_at_the_end(kind: str, depth: float) -> None:
    tokenizer = chat_tokenizer()
    [item] = plant(TEXTS, 900, 1)
    item = replace(item, fact=make_fact(kind, random.Random(3)), depth=depth)
    ids, answer = assemble(tokenizer, item)
    assert len(ids) + len(answer) == 900
    text = tokenizer.decode(ids)
    assert text.endswith(f"\n\n{item.fact.asked}")
    assert text.count(item.fact.said) == 1
    assert abs(text.index(item.fact.said) / len(text) - depth * (1 - len(item.fact.said + item.fact.asked) / 900)) < 0.1
    assert text[: text.index(item.fact.said)].endswith(". ")
    assert tokenizer.decode(ids + answer).endswith(f"{item.fact.asked} {item.fact.answer}")


def test_every_kind_at_every_depth_and_always_the_same() -> None:
    items = plant(TEXTS, 900, 12)
    assert [item.fact.kind for item in items] == list(KINDS) * 4
    assert sorted({item.depth for item in items}) == [0.125, 0.375, 0.625, 0.875]
    assert len({item.fact.said for item in items}) == 12
    assert items == plant(TEXTS, 900, 12) != plant(TEXTS, 900, 12, seed=1)


def test_only_the_planted_words_count() -> None:
    fact = replace(make_fact("name", random.Random(0)), answer="Clara Lomax")
    assert is_recalled(" Clara Lomax. And", fact)
    assert not any(is_recalled(written, fact) for written in ("", "Clara", "clara lomax", "He is Clara Lomax", "Clara Loma"))


def test_what_has_no_room_is_refused() -> None:
    [item] = plant(TEXTS, 900, 1)
    for length, message in ((20, "must be at least"), (100_000, "must come to")):
        with pytest.raises(ConfigError, match=message):
            assemble(chat_tokenizer(), replace(item, length=length))
    with pytest.raises(ConfigError, match="plant facts in"):
        plant([], 900, 1)


def test_suites_of_four_lengths() -> None:
    assert [name for name in SUITES if name.startswith("recall")] == ["recall-1k", "recall-2k", "recall-4k", "recall-8k"]
    [item] = plant(TEXTS, 900, 1)
    assert words_of(item) == item.fact.said
