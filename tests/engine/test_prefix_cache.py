"""The cache of prompt states: always the longest known start, never somebody else's, within its budget; also from disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.spec import LayerSpec
from ingle.engine.backend import Backend, prefill
from ingle.engine.prefix_cache import PrefixCache, SavedStates
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config, tokens
from tests.examples import examples

WINDOWED = (LayerSpec((0,), window=24, sinks=3), LayerSpec((0, 1)))


@pytest.fixture(scope="module", params=["float32", "int8"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return backend_of(tmp_path_factory.mktemp("m"), random_checkpoint(tiny_config()), cache=request.param)


def read(backend: Backend, ids: list[int]) -> Any:
    state = backend.new_state()
    prefill(backend, ids, state)
    return state


@examples(30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["ann", "bob"]), st.lists(st.integers(0, 2), min_size=1, max_size=150)), min_size=1, max_size=8
    )
)  # fmt: skip
def test_the_longest_start_is_found_and_goes_on_as_if_it_had_been_read(backend: Backend, asked: list[tuple[str, list[int]]]) -> None:
    cache = PrefixCache(1 << 30)
    known: list[tuple[str, list[int]]] = []
    for owner, ids in asked:
        best = max((common(ids[:-1], before) for who, before in known if who == owner), default=0)
        found = cache.find(owner, "m", ids)
        assert (found.length if found else 0) == best == cache.known(owner, "m", ids)
        assert cache.find(owner, "another model", ids) is None
        state = found.state if found else backend.new_state()
        logits = prefill(backend, ids[state.length :], state)
        np.testing.assert_array_equal(logits, prefill(backend, ids, backend.new_state()))
        cache.put(owner, "m", ids, state)
        known.append((owner, ids))
    kept = {(entry.owner, tuple(entry.ids.tolist())) for entry in cache}
    assert len(kept) == len(cache)
    assert not any(a != b and a[0] == b[0] and b[1][: len(a[1])] == a[1] for a in kept for b in kept), "a start of another is superfluous"


def common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_the_budget_is_kept_and_the_oldest_goes(backend: Backend) -> None:
    one = backend.state_bytes(100)
    cache = PrefixCache(3 * one)
    prompts = [[i] * 100 for i in range(5)]
    for ids in prompts[:3]:
        cache.put("", "m", ids, read(backend, ids))
    assert cache.find("", "m", prompts[0]) is not None  # used: so it is not the oldest any more
    cache.put("", "m", prompts[3], read(backend, prompts[3]))
    assert [cache.known("", "m", ids) for ids in prompts] == [99, 0, 99, 99, 0]
    assert cache.nbytes <= 3 * one and cache.evicted == 1
    branches = [prompts[0] + [7] * i for i in (10, 11, 12)]
    for ids in branches:  # branches share their pages, so they are nearly free
        found = cache.find("", "m", ids)
        assert found is not None
        prefill(backend, ids[found.length :], found.state)
        cache.put("", "m", ids, found.state)
    assert cache.known("", "m", prompts[3]) == 99


def test_a_window_that_has_moved_on_is_not_gone_back_to(tmp_path: Path) -> None:
    backend = backend_of(tmp_path, random_checkpoint(tiny_config(layers=WINDOWED)))
    cache, ids = PrefixCache(1 << 30), tokens(backend.config, 700)
    cache.put("", "m", ids[:300], read(backend, ids[:300]))
    cache.put("", "m", ids, read(backend, ids))  # can't go back to 300: both stay
    assert len(cache) == 2
    other = ids[:300] + [1] * 50
    found = cache.find("", "m", other)
    assert found is not None and found.length >= 300
    np.testing.assert_array_equal(prefill(backend, other[found.length :], found.state), prefill(backend, other, backend.new_state()))


def test_what_is_kept_survives_and_what_is_damaged_is_read_again(backend: Backend, tmp_path: Path) -> None:
    folder, ids = tmp_path / "states", tokens(backend.config, 200)
    cache, saved = PrefixCache(1 << 30), SavedStates(folder, 1 << 30)
    saved.open()
    cache.put("ann", backend.digest, ids, read(backend, ids), keep="conversation")
    [entry] = cache
    assert saved.save(entry, backend) and saved.save(entry, backend)
    assert len([*folder.iterdir()]) == 2

    again = SavedStates(folder, 1 << 30)
    again.open()
    assert again.find("bob", backend.digest, ids) is None
    assert again.find("ann", "another", ids) is None
    found = again.find("ann", backend.digest, [*ids, 5])
    assert found is not None and found[0] == 200
    state = again.load(found[1], backend)
    np.testing.assert_array_equal(prefill(backend, [5], state), prefill(backend, [*ids, 5], backend.new_state()))

    found[1].path.write_bytes(b"damaged")
    assert again.load(found[1], backend) is None
    assert [*folder.iterdir()] == []

    saved = SavedStates(folder, 1 << 30)
    assert saved.save(entry, backend)
    saved.forget("ann", "conversation")
    assert [*folder.iterdir()] == []


def test_disk_has_a_budget_and_half_written_states_go(backend: Backend, tmp_path: Path) -> None:
    cache = PrefixCache(1 << 30)
    saved = SavedStates(tmp_path / "states", 3 * backend.state_bytes(64))
    saved.open()
    for i in range(5):
        cache.put("", backend.digest, [i] * 60, read(backend, [i] * 60), keep=f"c{i}")
    for entry in cache:
        saved.save(entry, backend)
    kept = sorted(json.loads(path.read_bytes())["keep"] for path in saved.folder.glob("*.json"))
    assert 1 <= len(kept) < 5 and kept[-1] == "c4"
    (saved.folder / "half.state").write_bytes(b"no description: killed while it was written")
    (saved.folder / "odd.json").write_bytes(b"{}")
    again = SavedStates(saved.folder, 1 << 30)
    again.open()
    assert sorted(path.stem for path in saved.folder.glob("*.json")) == sorted(path.stem for path in saved.folder.glob("*.state"))
    assert len([*saved.folder.glob("*.json")]) == len(kept)


def test_what_is_not_kept_never_passes_for_what_is(backend: Backend) -> None:
    ids = tokens(backend.config, 120)
    for first, second in ((("kept", 80), ("", 120)), (("", 120), ("kept", 80))):
        cache = PrefixCache(1 << 30)
        for keep, length in (first, second):
            cache.put("", "m", ids[:length], read(backend, ids[:length]), keep)
        assert {(entry.keep, len(entry.ids)) for entry in cache} == {("kept", 80), ("", 120)}


@pytest.mark.parametrize("length", [1, 15, 16, 17, 64, 100, 111, 128])
def test_a_saved_state_holds_nothing_of_what_was_gone_back_from(backend: Backend, tmp_path: Path, length: int) -> None:
    ids = tokens(backend.config, 130)
    state, short = read(backend, ids), read(backend, ids[:length])
    state.rewind(length)
    for number, one in enumerate((state, short)):
        backend.save_state(one, tmp_path / str(number))
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    np.testing.assert_array_equal(prefill(backend, [3], backend.load_state(tmp_path / "0")), prefill(backend, [3], short))
