"""Batches hold every example once, no more tokens than allowed, in an order that seed and epoch decide alone."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError
from ingle.train.corpus import DataSettings, read_corpus, split
from ingle.train.example_files import Encoder
from ingle.train.packing import ROUND, Data, Order, make_batch, plan
from tests.train.tiny_train import chat_tokenizer, corpus_of, documents, some_data, write_jsonl

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(sizes=SIZES, most=st.integers(50, 120), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_a_plan_holds_every_example_once(sizes: list[int], most: int, seed: int, epoch: int) -> None:
    array = np.array(sizes)
    batches = plan(array, range(len(sizes)), most, seed, epoch)
    assert sorted(example for batch in batches for example in batch) == list(range(len(sizes)))
    assert all(array[batch].sum() <= most for batch in batches)
    assert batches == plan(array, range(len(sizes)), most, seed, epoch)
    used = sorted(array[batch].sum() for batch in batches)
    assert all(a + b > most for a, b in pairwise(used)) or len(batches) > 16, "two batches could have been one"


def test_epochs_differ_and_rows_are_nearly_full() -> None:
    sizes = np.random.default_rng(0).integers(20, 900, 2000)
    plans = [plan(sizes, range(2000), 2048, 0, epoch) for epoch in (0, 1)]
    assert plans[0] != plans[1]
    for batches in plans:
        assert np.mean([sizes[batch].sum() for batch in batches]) > 0.93 * 2048


def test_an_example_that_fits_nowhere_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"batch_tokens must have room for the longest example: 9, with one of 10"):
        plan(np.array([3, 10]), [0, 1], 9, 0)


@given(sizes=SIZES, accumulate=st.integers(1, 3), world=st.integers(1, 3))
def test_processes_share_the_batches_of_a_step(sizes: list[int], accumulate: int, world: int) -> None:
    data = Data(corpus_of(documents([max(2, size) for size in sizes])), range(len(sizes)))
    alone = Order(data, 60, accumulate * world, 0, 1, 3)
    several = [Order(data, 60, accumulate, rank, world, 3) for rank in range(world)]
    step = 0
    for epoch in range(2):
        assert {order.steps(epoch) for order in several} == {alone.steps(epoch)}
        for at in range(alone.steps(epoch)):
            assert alone.place(step) == (epoch, at)
            together = [batch for order in several for batch in order.batches(epoch, at)]
            assert sorted(map(sorted, together)) == sorted(map(sorted, alone.batches(epoch, at)))
            step += 1


def test_a_batch_by_hand() -> None:
    first, second = documents([4, 6], seed=1)
    batch = make_batch(corpus_of([first, second]), [1, 0])
    assert batch.documents == (1, 0)
    assert batch.bounds == (0, 6, 10)
    assert (batch.tokens, batch.edges) == (10, (0, 6, 10, ROUND))
    assert batch.ids.tolist() == [*second.ids, *first.ids, *[0] * (ROUND - 10)]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, *range(ROUND - 10)]
    assert batch.rows.tolist() == [2, 3, 4, 7, 8]  # before 3, 4, 5 of the one and 2, 3 of the other
    assert batch.targets.tolist() == [*second.ids[3:], *first.ids[2:]]
    assert batch.owners.tolist() == [0, 0, 0, 1, 1]
    assert batch.ids.dtype == torch.int64


def test_splits_are_by_record_and_more_data_moves_none() -> None:
    few, many = (corpus_of(documents([5] * count)) for count in (200, 400))
    train, out = split(few, 0.1, seed=4)
    assert sorted([*train, *out]) == list(range(200))
    assert 8 <= len(out) <= 35
    assert set(out) == set(split(many, 0.1, seed=4)[1]) & set(range(200))
    assert split(few, 0.1, seed=5)[1] != out
    assert split(few, 0.0) == (list(range(200)), [])
    assert len(split(few, 0.001, least=8)[1]) == 8, "fewer say nothing"
    assert len(split(corpus_of(documents([5] * 20)), 0.05, least=8)[1]) == 5, "but no more than a quarter"
    assert split(few, 0.1, seed=4, least=8)[1] == out, "where the share gives more it stays as it is"
    assert split(few, 0.0, least=8)[1] == []
    two = corpus_of(documents([5, 5]))
    assert [len(side) for side in split(two, 0.001)] == [1, 1]
    assert [len(side) for side in split(two, 0.999)] == [1, 1]
    with pytest.raises(ConfigError, match="held_out needs at least 2 records"):
        split(corpus_of(documents([5])), 0.1)


def test_files_become_a_corpus_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Who?", "completion": "Ingle."}, {"prompt": "Who?", "completion": "Ingle."}, {"prompt": "a", "completion": ""},
        {"prompt": "a " * 90, "completion": "b"}, {"text": "the License shall mean"}, {"text": " "}, {"no": 1},
    ]  # fmt: skip
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    corpus, tally = read_corpus([path], Encoder(chat_tokenizer(), 60), skip_bad=True)
    assert len(corpus) == 2
    assert (tally.examples, tally.copies, tally.bad, tally.too_long, tally.without_answer) == (2, 1, 1, 1, 2)
    assert (tally.tokens, tally.answer_tokens) == (len(corpus.ids), corpus.answer.sum())
    again, _ = read_corpus([path], Encoder(chat_tokenizer(), 60), skip_bad=True)
    assert again.digest == corpus.digest
    other, tally = read_corpus([path], Encoder(chat_tokenizer(), 60, "cut"), skip_bad=True)
    assert (len(other), tally.too_long) == (2, 1), "a cut that takes the whole answer leaves nothing to learn"
    assert DataSettings().max_tokens > 0


@pytest.mark.parametrize(
    ("rows", "wanted", "why"),
    [
        ([], "answers", r"must hold at least one example to learn from"),
        ([{"prompt": "a", "completion": ""}], "answers", r": 1 without an answer"),
        ([{"prompt": "a " * 90, "completion": "b"}], "answers", r": 1 longer than 60 tokens"),
        ([{"text": "a"}], "pairs", "line 1 must be of kind pair to learn pairs from"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "answers", "must be of kind chat or completion or text"),
        ([{"prompt": "a", "completion": "b", "label": True}], "labels", "must hold at least 2 examples to learn labels from"),
    ],
)
def test_data_that_nothing_can_be_learnt_from(tmp_path: Path, rows: list[object], wanted: str, why: str) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    with pytest.raises(ConfigError, match=why):
        read_corpus([path], Encoder(chat_tokenizer(), 60), wanted)  # type: ignore[arg-type]


def test_labelled_examples_come_with_a_strangers_answer(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "label": i % 2 == 0} for i in range(3)]
    tokenizer = chat_tokenizer()
    corpus, _ = read_corpus([write_jsonl(tmp_path / "data.jsonl", rows)], Encoder(tokenizer, 60), "labels")
    assert corpus.labels.tolist() == [1, 0, 1]
    for i in range(3):
        own, stranger = corpus.document(2 * i), corpus.document(2 * i + 1)
        texts = [tokenizer.decode(part.ids[part.answer].tolist()) for part in (own, stranger)]
        assert texts[0].startswith(f"a{i}")
        assert texts[1].startswith(f"a{(i - 1) % 3}")
        first = int(own.answer.argmax())
        assert own.ids[:first].tolist() == stranger.ids[:first].tolist()


def test_data_for_the_loop_is_what_it_says() -> None:
    data = some_data(10, 3)
    assert not set(data.train) & set(data.held_out)
    assert data.corpus.sizes.sum() == len(data.corpus.ids)
