"""Bits per byte: every token and every byte once, the same as Hugging Face's, and known models cost what they must."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import KernelError, RequestError
from ingle.engine.language_model import LanguageModel
from ingle.measure.figures import CARRY, columns, macro_columns, read_text, windows
from ingle.measure.intervals import ratio
from ingle.measure.subjects import begin_id
from tests.examples import examples
from tests.measure.models import even, oracle_nats, subject_of

TEXT = "Señor Núñez bought 12 naïve cafés — “cheap”, he said.\r\n\tThen he left.\n" * 6


@given(count=st.integers(2, 300), window=st.integers(2, 60), carry=st.sampled_from([0.0, 0.25, 0.5, 0.9]))
@examples(100)
def test_windows_ask_for_every_token_once_in_order(count: int, window: int, carry: float) -> None:
    ids = list(range(count))
    tasks = windows(ids, window, carry)
    asked = [token for _, [ending] in tasks for token in ending]
    assert asked == ids[1:]
    for given_ids, [ending] in tasks:
        assert given_ids[-1] + 1 == ending[0]  # what is given stands right before
        assert len(given_ids) + len(ending) - 1 <= window  # the last token is not read
    for given_ids, _ in tasks[1:]:
        assert len(given_ids) == max(1, int(window * carry))


@pytest.mark.parametrize("window", [24, 96, 192])
def test_it_is_hugging_faces(tiny: LanguageModel, tiny_oracle: Any, window: int) -> None:
    subject, begin = subject_of(tiny), begin_id(tiny.tokenizer)
    for text in (TEXT, "x", TEXT[:100]):
        reading = read_text(tiny.tokenizer, text, begin, window)
        found = dict(subject.score(reading.tasks))
        mine = reading.bits([found[i] for i in range(len(reading.tasks))])
        ids = [begin, *tiny.tokenizer.encode(text)]
        expected, at = 0.0, 1
        while at < len(ids):  # the same convention, written again: each window but the first reads half of itself anew
            start = 0 if at == 1 else at - int(window * CARRY)
            end = min(len(ids), start + window + 1)
            expected -= oracle_nats(tiny_oracle, ids[start:at], ids[at:end])
            at = end
        assert mine.bits == pytest.approx(expected / math.log(2), rel=2e-5)
        assert (mine.nbytes, mine.tokens, mine.exact) == (len(text.encode()), len(ids) - 1, True)


def test_a_model_that_knows_nothing_costs_a_tokens_worth(tiny: LanguageModel) -> None:
    reading = read_text(tiny.tokenizer, TEXT, 0, 50)
    found = reading.bits([even(-math.log(259))(task) for task in reading.tasks])
    # One token a byte here, so the cost per byte is log2 of the vocabulary.
    assert found.bits / found.nbytes == pytest.approx(math.log2(259))


def test_without_a_begin_the_first_token_and_its_bytes_do_not_count(tiny: LanguageModel) -> None:
    reading = read_text(tiny.tokenizer, "éa", None)
    assert reading.nbytes == 2  # é is two tokens of a byte each
    assert [len(ending) for _, [ending] in reading.tasks] == [2]
    with pytest.raises(RequestError, match="at least one token"):
        read_text(tiny.tokenizer, "a", None)
    with pytest.raises(RequestError, match="at least one token"):
        read_text(tiny.tokenizer, "", 0)


def test_a_cut_text_counts_the_bytes_that_are_left(tiny: LanguageModel) -> None:
    reading = read_text(tiny.tokenizer, TEXT, 0, most_tokens=10)
    assert (reading.nbytes, reading.exact) == (10, True)
    assert sum(len(ending) for _, [ending] in reading.tasks) == 10
    assert read_text(tiny.tokenizer, TEXT, 0, most_tokens=10**6).nbytes == len(TEXT.encode())


def test_text_that_the_vocabulary_changes_is_told(tiny: LanguageModel) -> None:
    from tokenizers.normalizers import Lowercase

    from ingle.model.tokenizer import Tokenizer, TokenizerFacts

    fast = type(tiny.tokenizer.fast).from_str(tiny.tokenizer.fast.to_str())
    fast.normalizer = Lowercase()
    changed = Tokenizer(fast, TokenizerFacts("bytes", eos_ids=(2,)))
    assert not read_text(changed, "Hello", 0).exact
    assert read_text(changed, "hello", 0).exact


def test_micro_weighs_by_bytes_and_macro_by_documents(tiny: LanguageModel) -> None:
    long, short = read_text(tiny.tokenizer, "a" * 90, 0), read_text(tiny.tokenizer, "b" * 10, 0)
    rows = [long.bits([even(-1.0)(task) for task in long.tasks]), short.bits([even(-3.0)(task) for task in short.tasks])]
    assert float(ratio(columns(rows).sum(axis=0))) == pytest.approx((90 * 1 + 10 * 3) / 100 / math.log(2))
    assert float(ratio(macro_columns(rows).sum(axis=0))) == pytest.approx((1 + 3) / 2 / math.log(2))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_no_number_is_an_error(tiny: LanguageModel, value: float) -> None:
    reading = read_text(tiny.tokenizer, "abc", 0)
    with pytest.raises(KernelError, match="finite"):
        reading.bits([[np.array([-1.0, value, -1.0])]])
