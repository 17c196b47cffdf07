"""Log-probabilities of endings: the same as reading each task alone, however tasks share, branch, and are cut into steps."""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.spec import LayerSpec
from ingle.core.state import STEP_TOKENS, State
from ingle.engine import scoring
from ingle.engine.backend import Backend, Segment
from ingle.engine.sampling import log_probabilities
from ingle.engine.scoring import Task, score
from tests.engine.test_adapter import random_additions
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens
from tests.examples import examples

LAYERS = {
    "transformer": (LayerSpec((0, 1)),) * 2,
    "hybrid": (LayerSpec((0,), window=24, sinks=3), LayerSpec((0, 1)), LayerSpec((), window=9, sinks=1)),
    "memories": (LayerSpec((0,), 24, 3, "gated_delta"), LayerSpec((0, 1)), LayerSpec((), 9, 0, "gated_delta")),
}


@pytest.fixture(scope="module", params=LAYERS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    config = tiny_config(layers=LAYERS[request.param])
    return backend_of(tmp_path_factory.mktemp("tiny"), random_checkpoint(config))


class Counting:
    """The backend, counting the tokens that it reads."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self.config, self.read, self.most_rows = backend, backend.config, 0, 0

    def new_state(self) -> Any:
        return self._backend.new_state()

    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        self.read += sum(len(segment.ids) for segment in segments)
        rows = self._backend.forward(segments)
        self.most_rows = max(self.most_rows, sum(map(len, rows)))
        return rows


def alone(backend: Backend, task: Task, adapter: Any = None) -> list[npt.NDArray[np.float64]]:
    """Each ending read by itself, from the first token on, with logits of everything."""
    given_ids, endings = task
    results = []
    for ending in endings:
        ids, state, rows = [*given_ids, *ending], backend.new_state(), []
        for at in range(0, len(ids), STEP_TOKENS):
            rows.append(backend.forward([Segment(state, ids[at : at + STEP_TOKENS], "all", adapter)])[0].copy())
        values = log_probabilities(np.concatenate(rows))[len(given_ids) - 1 : -1]
        results.append(values[np.arange(len(ending)), ending])
    return results


def check(backend: Backend, tasks: Sequence[Task], adapter: Any = None) -> None:
    found = dict(score(backend, tasks, adapter=adapter))
    assert sorted(found) == list(range(len(tasks)))
    for number, task in enumerate(tasks):
        for i, (got, expected) in enumerate(zip(found[number], alone(backend, task, adapter), strict=True)):
            np.testing.assert_allclose(got, expected, atol=2e-5)
            [(_, [plain])] = score(backend, [(task[0], [task[1][i]])], adapter=adapter)
            np.testing.assert_array_equal(got, plain)  # sharing changes no bit


IDS = st.integers(0, 69)


@given(
    shared=st.lists(IDS, max_size=40),
    tasks=st.lists(
        st.tuples(st.lists(IDS, min_size=1, max_size=30), st.lists(st.lists(IDS, min_size=1, max_size=9), min_size=1, max_size=4)),
        min_size=1,
        max_size=6,
    ),
)
@examples(30)
def test_it_is_as_if_each_were_read_alone(backend: Backend, shared: list[int], tasks: list[tuple[list[int], list[list[int]]]]) -> None:
    check(backend, [([*shared, *given_ids], endings) for given_ids, endings in tasks])


def test_long_tasks_are_read_in_steps(backend: Backend) -> None:
    ids = tokens(backend.config, 1500)
    check(backend, [(ids[:600], (ids[600:1100], ids[700:705])), (ids[:1], (ids[1:700],)), (ids[3:300], (ids[:1], ids[1:2]))])


def test_little_room_for_logits_changes_nothing(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, counting = tokens(backend.config, 400), Counting(backend)
    tasks: list[Task] = [(ids[: 20 + i], (ids[50 : 60 + i], ids[3:40])) for i in range(6)]
    expected = dict(score(backend, tasks))
    monkeypatch.setattr(scoring, "_LOGIT_BYTES", 4 * backend.config.vocab_size * 3)
    found = dict(score(counting, tasks))  # type: ignore[arg-type]
    assert counting.most_rows == 3
    for number, values in expected.items():
        for got, wanted in zip(found[number], values, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_what_is_shared_is_read_once(backend: Backend) -> None:
    ids, counting = tokens(backend.config, 400), Counting(backend)
    tasks: list[Task] = [([*ids[:200], i, i + 1], ([1, 2, 3], [4], [5, 6])) for i in range(10)]
    list(score(counting, tasks))  # type: ignore[arg-type]
    # The shared start; then of each task its own two tokens, and its endings but for their last tokens.
    assert counting.read == 200 + 10 * (2 + 2 + 0 + 1)


def test_a_sentence_left_out_at_a_time_reads_every_start_once(backend: Backend) -> None:
    sentences, counting = [tokens(backend.config, 20, seed) for seed in range(6)], Counting(backend)
    variants = [[t for j, sentence in enumerate(sentences) if j != i for t in sentence] for i in range(7)]
    tasks: list[Task] = [(variant, ([1, 2, 3],)) for variant in variants]
    check(backend, tasks)
    list(score(counting, tasks))  # type: ignore[arg-type]
    # All of them but for the last sentence, which is a start of the whole; and of every other what comes after the sentence that it lacks.
    assert counting.read == 120 + sum(20 * (5 - i) for i in range(5)) + 7 * 2


def test_few_states_are_held_however_many_tasks_wait(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, forks, most = tokens(backend.config, 400), list[weakref.ref[State]](), 0
    fork = State.fork

    def forked(state: State) -> State:
        nonlocal most
        made = fork(state)
        forks.append(weakref.ref(made))
        most = max(most, sum(held() is not None for held in forks))
        return made

    monkeypatch.setattr(State, "fork", forked)
    assert len(list(score(backend, [([*ids[:50], i, *ids[i : i + 100]], ([1, 2],)) for i in range(60)]))) == 60
    assert len(forks) >= 59
    assert most <= 16


def test_vectors_are_read_in_the_place_of_words(backend: Backend) -> None:
    vectors = {1000 + i: np.random.default_rng(i).standard_normal(backend.config.hidden_size).astype(np.float32) for i in range(3)}
    tasks: list[Task] = [([1, 2, 1000, 1001, 5], ([7, 8],)), ([1, 2, 1000, 1002, 5], ([7, 8],))]
    found = dict(score(backend, tasks, vectors=vectors))
    for number, task in enumerate(tasks):
        [(_, [plain])] = score(backend, [task], vectors=vectors)
        np.testing.assert_array_equal(found[number][0], plain)
    assert np.abs(found[0][0] - found[1][0]).max() > 1e-3


def test_it_stops_between_two_steps(backend: Backend) -> None:
    ids, counting = tokens(backend.config, 400), Counting(backend)
    tasks: list[Task] = [(ids[i:200], ([1, 2],)) for i in range(30)]
    found = list(score(counting, tasks, stopped=lambda: counting.read >= 3 * STEP_TOKENS))  # type: ignore[arg-type]
    assert 0 < len(found) < len(tasks)
    assert counting.read == 3 * STEP_TOKENS


def test_with_an_adapter(backend: Backend) -> None:
    ids, adapter = tokens(backend.config, 100), backend.adapter(random_additions(backend.config, 1), "one")
    tasks: list[Task] = [(ids[:40], (ids[40:50], ids[60:61])), (ids[:30], (ids[2:9],))]
    check(backend, tasks, adapter)
    plain, adapted = (dict(score(backend, tasks, adapter=a))[0][0] for a in (None, adapter))
    assert np.abs(plain - adapted).max() > 1e-3


@pytest.mark.parametrize("task", [([], ([1],)), ([1], ()), ([1], ([],))])
def test_nothing_to_read_is_refused(backend: Backend, task: Task) -> None:
    with pytest.raises(ValueError, match="a task needs"):
        list(score(backend, [task]))
    assert list(score(backend, [])) == []
