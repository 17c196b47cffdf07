"""Sampling against its definition, and the kernels under it against NumPy."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ingle.core.errors import KernelError, RequestError
from ingle.core.message import Sampling
from ingle.engine.sampling import Sampler, kept, log_probabilities
from ingle.kernels.jit import kernel
from tests.examples import examples


def definition(logits: np.ndarray, s: Sampling) -> dict[int, float]:
    """The distribution that the filters leave, by sorting everything."""
    order = np.argsort(-logits, kind="stable")[: s.top_k or None]
    p = np.exp((logits[order].astype(np.float64) - logits.max()) / s.temperature)
    if s.top_p < 1:
        count = int((np.cumsum(p) >= s.top_p * p.sum()).argmax()) + 1
        order, p = order[:count], p[:count]
    likely = p >= s.min_p
    return dict(zip(order[likely].tolist(), p[likely] / p[likely].sum(), strict=True))


@given(
    seed=st.integers(0, 10**6), size=st.integers(1, 3000), spread=st.sampled_from([0.01, 1.0, 4.0, 30.0]),
    top_k=st.sampled_from([0, 1, 5, 200, 5000]),
    top_p=st.sampled_from([1.0, 0.999999, 0.9, 0.3, 0.0]), min_p=st.sampled_from([0.0, 1e-9, 0.05, 1.0]),
    temperature=st.sampled_from([0.05, 0.7, 3.0]),
)  # fmt: skip
@examples(300)
def test_filters_are_their_definition(
    seed: int, size: int, spread: float, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    logits = (np.random.default_rng(seed).normal(size=size) * spread).astype(np.float32)
    sampling = Sampling(top_k=top_k, top_p=top_p, min_p=min_p, temperature=temperature)
    ids, weights = kept(logits, sampling)
    expected = definition(logits, sampling)
    got = dict(zip(ids.tolist(), weights / weights.sum(), strict=True))
    # Whether the last token of top-p is in can hang on the order of a sum; it then holds next to nothing.
    for token in expected.keys() ^ got.keys():
        assert max(expected.get(token, 0), got.get(token, 0)) < 1e-5
    for token in expected.keys() & got.keys():
        assert got[token] == pytest.approx(expected[token], rel=1e-5)


@given(seed=st.integers(0, 10**6), blocks=st.integers(1, 40), temperature=st.sampled_from([0.3, 1.0, 5.0]), point=st.floats(0, 0.999))
@examples(100)
def test_softmax_kernels_are_their_naive_reference(seed: int, blocks: int, temperature: float, point: float) -> None:
    logits = (np.random.default_rng(seed).normal(size=16 * blocks) * 5).astype(np.float32)
    numbers, token = np.array([1 / temperature, point, 0, 0], np.float32), np.zeros(1, np.int64)
    kernel("softmax_pick")(logits.ctypes.data, len(logits), numbers.ctypes.data, token.ctypes.data)
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    assert numbers[2] == logits.max()
    assert numbers[3] == pytest.approx(weights.sum(), rel=1e-5)
    cumulative = np.cumsum(weights) / weights.sum()
    below = cumulative[token[0] - 1] if token[0] else 0
    assert below - 1e-5 <= point <= cumulative[token[0]] + 1e-5


@pytest.mark.parametrize("sampling", [Sampling(temperature=1.0, seed=5), Sampling(temperature=0.8, top_p=0.95, min_p=0.01, seed=5)])
def test_draws_follow_the_distribution(sampling: Sampling) -> None:
    logits = np.random.default_rng(0).normal(size=50).astype(np.float32)
    sampler, count = Sampler(sampling, 50), 20_000
    drawn = np.bincount([sampler.pick(logits) for _ in range(count)], minlength=50)
    expected = np.zeros(50)
    for token, p in definition(logits, sampling).items():
        expected[token] = p
    assert not drawn[expected == 0].any()
    likely = expected > 0
    assert stats.chisquare(drawn[likely], expected[likely] * count).pvalue > 1e-4


def test_same_seed_same_tokens() -> None:
    logits = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    runs = [[Sampler(Sampling(temperature=1.0, seed=seed), 1000).pick(logits) for _ in range(1)] for seed in (1, 1, 2, 3, 4)]
    assert runs[0] == runs[1]
    assert len({tuple(run) for run in runs}) > 1
    a, b = Sampler(Sampling(temperature=1.0), 1000), Sampler(Sampling(temperature=1.0), 1000)
    assert a.seed != b.seed


def test_penalties_and_bias() -> None:
    logits = np.array([2.0, 1.9, -1.0, 0.0], np.float32)
    assert Sampler(Sampling(repetition_penalty=1.5), 4, prompt=[0]).pick(logits) == 1
    assert Sampler(Sampling(repetition_penalty=1.5), 4, prompt=[1]).pick(logits) == 0
    frequency = Sampler(Sampling(frequency_penalty=0.08), 4, prompt=[0, 0, 0])
    assert [frequency.pick(logits) for _ in range(4)] == [0, 0, 1, 0]  # 2, 1.92, then 1.84 against 1.9, then 1.84 against 1.82
    presence = Sampler(Sampling(presence_penalty=0.2), 4)
    assert [presence.pick(logits) for _ in range(3)] == [0, 1, 0]
    assert Sampler(Sampling(logit_bias=((2, 50.0),)), 4).pick(logits) == 2
    assert logits[0] == 2.0, "the caller's logits stay as they are"
    with pytest.raises(RequestError, match="logit_bias"):
        Sampler(Sampling(logit_bias=((4, 1.0),)), 4)


@given(
    seed=st.integers(0, 10**6), window=st.integers(0, 12), penalty=st.sampled_from([0.5, 1.0, 1.1, 3.0]),
    prompt=st.lists(st.integers(0, 11), max_size=20),
)  # fmt: skip
@examples(200)
def test_a_penalty_over_a_window_is_its_naive_reference(seed: int, window: int, penalty: float, prompt: list[int]) -> None:
    vocabulary, rng = 8, np.random.default_rng(seed)  # ids from 8 on stand for pictures: they are no words
    sampler = Sampler(Sampling(repetition_penalty=penalty, repetition_window=window), vocabulary, prompt)
    last = prompt[-1] if prompt else -1
    said = [] if window else [token for token in prompt if token < vocabulary]  # a window is one of the answer
    for _ in range(30):
        logits = (rng.normal(size=vocabulary) * 2).astype(np.float32)
        expected = logits.astype(np.float64)
        copied = {after for before, after in pairwise(prompt) if before == last} if window else set()
        for token in set(said[-window:] if window else said) - copied:
            expected[token] = expected[token] / penalty if expected[token] > 0 else expected[token] * penalty
        token = sampler.pick(logits)
        assert expected[token] == pytest.approx(expected.max(), rel=1e-5, abs=1e-6)
        said.append(token)
        last = token


@pytest.mark.parametrize("window", [0, 5])
def test_what_a_language_demands_again_is_spared_within_a_window(window: int) -> None:
    sampler = Sampler(Sampling(repetition_penalty=1.5, repetition_window=window), 3)
    logits = np.array([2.0, 1.9, 1.0], np.float32)

    def restrict(values: np.ndarray) -> None:
        values[2] = -np.inf

    drawn = [sampler.pick(logits, restrict) for _ in range(4)]
    assert (set(drawn) == {0}) == bool(window)
    if window:
        assert sampler.pick(logits, spared=True) == 0
        assert sampler.pick(logits) == 1, "outside of a language nothing is spared"


def test_log_probabilities_sum_to_one() -> None:
    values = log_probabilities(np.random.default_rng(0).normal(size=(3, 500)).astype(np.float32) * 20)
    np.testing.assert_allclose(np.exp(values).sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.0, "top_k": 5}])
def test_logits_that_are_no_numbers_are_an_error(options: dict[str, float]) -> None:
    logits = np.zeros(100, np.float32)
    logits[7] = np.nan
    with pytest.raises(KernelError, match="NaN"):
        Sampler(Sampling(**options), 100).pick(logits)  # type: ignore[arg-type]
