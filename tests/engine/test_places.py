"""Places of a given answer: what scoring says of its tokens, and what a sort of all logits says of the likeliest, however it is cut."""

import numpy as np
import pytest

from ingle.core.spec import LayerSpec
from ingle.engine.backend import Backend, Segment
from ingle.engine.language_model import places, places_in_steps
from ingle.engine.sampling import log_probabilities
from ingle.engine.scoring import score
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens

LAYERS = {"transformer": (LayerSpec((0, 1)),) * 2, "memories": (LayerSpec((0,), 24, 3, "gated_delta"), LayerSpec((0, 1)))}


@pytest.fixture(scope="module", params=LAYERS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return backend_of(tmp_path_factory.mktemp("tiny"), random_checkpoint(tiny_config(layers=LAYERS[request.param])))


@pytest.mark.parametrize(("given", "said"), [(1, 1), (1, 50), (90, 1), (600, 70)])
def test_places_are_what_a_plain_reading_gives(backend: Backend, given: int, said: int) -> None:
    ids = tokens(backend.config, given + said)
    found = places(backend, ids[:given], ids[given:], 5, lambda: False)
    state, read = backend.new_state(), ids[:-1]
    rows = np.concatenate([backend.forward([Segment(state, read[at : at + 50], "all")])[0].copy() for at in range(0, len(read), 50)])
    values = log_probabilities(rows[given - 1 :])
    assert [one.token for one in found] == ids[given:]
    assert [one.nats for one in found] == [float(row[token]) for row, token in zip(values, ids[given:], strict=True)]
    for one, row in zip(found, values, strict=True):
        order = sorted(range(len(row)), key=lambda token, row=row: (-row[token], token))[:5]  # type: ignore[misc]
        assert [token for token, _ in one.likeliest] == order
        assert [nats for _, nats in one.likeliest] == [float(row[token]) for token in order]


def test_steps_of_any_size_give_the_same_bits(backend: Backend) -> None:
    ids = tokens(backend.config, 90)
    whole = places(backend, ids[:60], ids[60:], 3, lambda: False)
    cut = [one for step in places_in_steps(backend, ids[:60], ids[60:], 3, lambda: 7) for one in step]
    assert cut == whole


def test_tokens_cost_what_scoring_says(backend: Backend) -> None:
    ids = tokens(backend.config, 80)
    [(_, [nats])] = score(backend, [(ids[:50], [ids[50:]])])
    assert np.allclose([one.nats for one in places(backend, ids[:50], ids[50:], 1, lambda: False)], nats, atol=1e-5)


def test_it_stops_between_two_steps(backend: Backend) -> None:
    asked = iter([False, False, True])
    ids = tokens(backend.config, 120)
    assert 0 < len(places(backend, ids[:20], ids[20:], 2, lambda: next(asked))) < 100


@pytest.mark.parametrize(("given", "said", "count"), [([], [1], 2), ([1], [], 2), ([1], [2], 0), ([1], [2], 71)])
def test_nothing_to_read_is_an_error(backend: Backend, given: list[int], said: list[int], count: int) -> None:
    with pytest.raises(ValueError, match="needs given tokens"):
        places(backend, given, said, count, lambda: False)
