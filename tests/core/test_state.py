"""State: forks share nothing that is written, rewinding is exact or refused, files are whole or refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import CannotRewind, CheckpointError
from ingle.core.spec import LayerSpec
from ingle.core.state import BLOCK_TOKENS, PAGE_TOKENS, STEP_TOKENS, State, StateLayout, parts

FULL = LayerSpec(retrieval=(0, 1))
MIXED = LayerSpec(retrieval=(1,), window=40, sinks=4)
LAYOUT = StateLayout((FULL, MIXED), kv_groups=2, head_dim=24, dtype="float32")
REMEMBERING = StateLayout(
    (MIXED, LayerSpec((0,), 8, 3, "gated_delta"), LayerSpec((), 0, 0, "gated_delta"), FULL), kv_groups=2, head_dim=24, dtype="float16"
)
INT8 = replace(REMEMBERING, dtype="int8")
TRANSFORMER = StateLayout((FULL, FULL), kv_groups=2, head_dim=24, dtype="float32")


def filled(layout: StateLayout, length: int) -> State:
    state = State(layout)
    state.reserve(length)
    rng = np.random.default_rng(length)
    for page in state.pages:
        page[:] = 9 * rng.normal(size=page.shape)
    state.length = length
    state.written[:] = 9 * rng.normal(size=state.written.shape)
    state.memories[:] = rng.normal(size=state.memories.shape)
    return state


def test_layout_places_every_group_once() -> None:
    assert LAYOUT.width == 32
    assert LAYOUT.page_slots.tolist() == [[0, 1], [-1, 2]]
    assert LAYOUT.ring_slots.tolist() == [[-1, -1], [0, -1]]
    assert REMEMBERING.ring_slots.tolist() == [[0, -1], [-1, 1], [2, 3], [-1, -1]]
    sinks, ring = LAYOUT.ring_blocks[1]
    assert sinks == 1
    assert ring * BLOCK_TOKENS >= 40 + STEP_TOKENS
    assert LAYOUT.rings_shape == (sinks + ring, 1, 2 * BLOCK_TOKENS * 32)
    assert TRANSFORMER.rings_shape[:2] == (0, 0)


def test_fork_shares_full_pages_and_copies_the_rest() -> None:
    state = filled(LAYOUT, PAGE_TOKENS + 5)
    fork = state.fork()
    assert fork.pages[0] is state.pages[0]
    before = state.pages[1].copy(), state.rings.copy()
    fork.pages[1][:] = 0
    fork.rings[:] = 0
    np.testing.assert_array_equal(state.pages[1], before[0])
    np.testing.assert_array_equal(state.rings, before[1])
    np.testing.assert_array_equal(state.fork().written, state.written)


def test_rings_grow_with_what_is_written_up_to_the_layout() -> None:
    state, whole = State(LAYOUT), LAYOUT.rings_shape[0]
    kept = []
    for length in range(1, 600):
        state.reserve(1)
        if state.rings.size and len(kept) != len(state.rings):
            kept = [*range(len(state.rings))]
            state.rings[-1] = len(kept)
        state.length = length
        assert LAYOUT.written_blocks(length) <= len(state.rings) <= min(whole, 1.5 * LAYOUT.written_blocks(length))
    assert len(state.rings) == whole and state.rings[0].all(), "what was there before is copied"


def test_rings_are_held_copied_and_saved_as_far_as_they_were_written(tmp_path: Path) -> None:
    block = 4 * math.prod(LAYOUT.rings_shape[1:])
    for length, written in ((0, 0), (1, 1), (16, 1), (17, 2), (320, 20), (336, 21), (9000, 21)):
        state = filled(LAYOUT, length)
        assert dict(state.pieces())[id(state.rings)] == written * block
        fork = state.fork()
        assert len(fork.rings) == written and (fork.rings == state.rings[:written]).all()
        state.save(tmp_path / str(length), "m")
        with np.load(tmp_path / str(length)) as archive:
            assert len(archive["rings"]) == written
    state = filled(LAYOUT, 40)
    state.rewind(20)  # what was gone back from is overwritten in turn, and held until then
    assert len(state.written) == len(state.fork().written) == 3


def test_rewound_state_does_not_write_into_a_fork() -> None:
    state = filled(TRANSFORMER, 2 * PAGE_TOKENS)
    fork = state.fork()
    state.rewind(PAGE_TOKENS // 2)
    state.pages[0][:] = 7
    assert not (fork.pages[0] == 7).any()
    assert state.length == PAGE_TOKENS // 2
    assert len(state.pages) == 1


def test_a_window_can_go_back_only_as_far_as_its_ring_reaches() -> None:
    state = filled(LAYOUT, 2000)
    earliest = state.earliest_rewind
    assert 0 < 2000 - earliest <= STEP_TOKENS + BLOCK_TOKENS
    with pytest.raises(CannotRewind, match=str(earliest)):
        state.rewind(earliest - 1)
    state.rewind(earliest)
    assert state.earliest_rewind == earliest  # what was written ahead is still in the ring
    with pytest.raises(CannotRewind):
        state.rewind(earliest - 1)
    state.rewind(0)
    with pytest.raises(CannotRewind):
        state.rewind(1)


def test_only_pages_that_a_fork_reads_are_copied_when_a_state_goes_back() -> None:
    state = filled(TRANSFORMER, 2 * PAGE_TOKENS - 1)
    fork = state.fork()
    state.length += 1
    first, second = state.pages
    state.rewind(2 * PAGE_TOKENS - 3)
    assert (state.pages[0] is first, state.pages[1] is second) == (True, True)
    state.rewind(PAGE_TOKENS - 3)
    assert state.pages[0] is not first and fork.pages[0] is first


def test_what_is_taken_back_leaves_memories_as_they_were_marked() -> None:
    state = filled(REMEMBERING, 100)
    before = state.memories.copy()
    mark = state.rollback_point()
    state.length, state.memories[:] = 109, 5
    state.rollback(109, mark)
    assert state.length == 109 and (state.memories == 5).all()
    state.rollback(104, mark)
    assert state.length == 100
    np.testing.assert_array_equal(state.memories, before)
    state.memories[:] = 3
    again = state.rollback_point(mark)
    assert again.length == 100 and again.memories is mark.memories and (again.memories == 3).all()


def test_an_int8_state_is_half_of_float16_but_for_its_scales_and_memories() -> None:
    for layout in (replace(TRANSFORMER, head_dim=64), replace(LAYOUT, head_dim=64)):
        half, small = (replace(layout, dtype=dtype) for dtype in ("float16", "int8"))
        for tokens in (1, 64, 1000):
            assert small.nbytes(tokens) / half.nbytes(tokens) == 0.515625  # 2 · 64 bytes and two float16 scales
            state = State(small)
            state.reserve(tokens)
            state.length = tokens
            assert state.nbytes == small.nbytes(tokens)


def test_addresses_are_those_of_the_pages_whatever_came_between() -> None:
    state = State(TRANSFORMER)

    def right() -> bool:
        return state.page_addresses == [page.ctypes.data for page in state.pages]

    for length in (60, 200, 300):
        state.reserve(length - state.length)
        state.length = length
        assert right()
    fork = state.fork()
    shared = state.pages[1]
    state.rewind(100)
    assert state.pages[1] is not shared and right(), "a page that a fork may read was copied"
    state.reserve(200)
    assert right() and fork.page_addresses == [page.ctypes.data for page in fork.pages]
    state.rewind(0)
    assert right() and not state.pages


def test_layout_places_every_memory_once() -> None:
    assert REMEMBERING.memory_places.tolist() == [[-1, -1], [-1, 0], [1, 2], [-1, -1]]
    assert REMEMBERING.memory_floats == 3 * 32 * 32
    assert REMEMBERING.ring_blocks.tolist() == [[1, 12], [1, 10], [0, 9], [0, 0]]  # without a window a ring holds what a step reads
    state = State(REMEMBERING)
    assert state.memories.shape == (3 * 32 * 32,) and not state.memories.any()
    assert state.nbytes == REMEMBERING.nbytes(0) == sum(size for _, size in state.pieces())
    assert state.nbytes == 3 * 32 * 32 * 4
    assert State(LAYOUT).memories.size == 0


def test_a_memory_is_forked() -> None:
    state = filled(REMEMBERING, 20)
    before, fork = state.memories.copy(), state.fork()
    fork.memories[:] = 0
    np.testing.assert_array_equal(state.memories, before)


def test_a_memory_cannot_go_back() -> None:
    layout = StateLayout((LayerSpec(retrieval=(), window=8, sinks=2, memory="gated_delta"),), 1, 16, "float32")
    state = filled(layout, 11)  # token 2 has entered
    assert state.earliest_rewind == 11
    for length in (1, 10):
        with pytest.raises(CannotRewind, match="reads the prompt again from the nearest state"):
            state.rewind(length)
    state.rewind(11)
    assert state.memories.any() and state.rings.any()
    state.rewind(0)
    assert state.length == 0 and not state.memories.any() and not state.rings.any()
    state = filled(layout, 10)  # none has
    assert state.earliest_rewind == 0
    state.rewind(9)
    assert state.length == 9 and state.memories.any()


@pytest.mark.parametrize("layout", [LAYOUT, REMEMBERING, INT8], ids=["windows", "memories", "int8"])
@pytest.mark.parametrize("length", [0, 1, PAGE_TOKENS, 3 * PAGE_TOKENS + 1])
def test_save_and_load(tmp_path: Path, layout: StateLayout, length: int) -> None:
    state = filled(layout, length)
    state.save(tmp_path / "s", "digest")
    loaded = State.load(tmp_path / "s", layout, "digest")
    assert loaded.length == length
    if length % PAGE_TOKENS:
        state._clear_behind(state.pages[-1])  # which `filled` has filled, too
    for mine, theirs in zip(state.pages, loaded.pages, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(state.written, loaded.written)
    np.testing.assert_array_equal(state.memories, loaded.memories)


def test_a_saved_window_goes_back_no_further_than_before(tmp_path: Path) -> None:
    state = filled(LAYOUT, 2000)
    state.rewind(1900)
    state.save(tmp_path / "a", "m")
    assert State.load(tmp_path / "a", LAYOUT, "m").earliest_rewind == state.earliest_rewind > 0


def test_memories_that_are_none_are_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "s", filled(REMEMBERING, 20)
    good = state.memories
    for bad in (good[:2], good.astype(np.float64), np.full_like(good, np.inf)):
        state.save(path, "digest")
        with np.load(path) as archive:
            parts = {**archive, "memories": bad}
        with path.open("wb") as file:
            np.savez(file, **parts)
        with pytest.raises(CheckpointError, match="memories"):
            State.load(path, REMEMBERING, "digest")
    state.memories[0] = np.nan
    with pytest.raises(CheckpointError, match="finite"):
        state.save(path, "digest")


@pytest.mark.parametrize("layout", [TRANSFORMER, replace(TRANSFORMER, dtype="float16"), replace(TRANSFORMER, dtype="int8")])
def test_what_was_gone_back_from_is_not_saved(tmp_path: Path, layout: StateLayout) -> None:
    keys, values = np.random.default_rng(0).standard_normal((2, 2, 2, PAGE_TOKENS, 24)).astype(np.float32)
    short, long = State(layout), State(layout)
    long.append(keys, values)
    long.rewind(21)
    short.append(keys[:, :, :21], values[:, :, :21])
    for name, state in (("short", short), ("long", long)):
        state.save(tmp_path / name, "m")
    mine, other = (State.load(tmp_path / name, layout, "m") for name in ("short", "long"))
    assert mine.pages[0].any()
    np.testing.assert_array_equal(mine.pages[0], other.pages[0])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize(("read", "left"), [(64, 21), (400, 390), (700, 672), (64, 0)])
def test_nor_do_windows_save_what_was_gone_back_from(tmp_path: Path, read: int, left: int, dtype: str) -> None:
    layout = replace(LAYOUT, dtype=dtype)
    keys, values = np.random.default_rng(0).standard_normal((2, 2, 2, read, 24)).astype(np.float32)
    state, other, again = (State(layout) for _ in range(3))
    for one, end in ((state, read), (other, read), (again, left)):
        for start in range(0, end, 200):
            one.append(keys[:, :, start : min(start + 200, end)], values[:, :, start : min(start + 200, end)])
    state.rewind(left)
    if left == 0:
        state.append(keys[:, :, :3], values[:, :, :3])
        again.append(keys[:, :, :3], values[:, :, :3])
    state.save(tmp_path / "state", "m")
    found, [streaming] = State.load(tmp_path / "state", layout, "m"), np.argwhere(layout.ring_slots >= 0)
    found.reserve(read)  # blocks that were never written, and so are not held, are looked at too
    held = {i: parts(found._block(*streaming, i // BLOCK_TOKENS), layout.width) for i in range(read)}
    for i in range(max(left, 3), read):
        where, column = held[i], i % BLOCK_TOKENS
        assert not where[0][:, column].any() and not where[1][column].any() and (where[2] is None or not where[2][:, column].any())
    for i in (*range(3), *range(max(0, left - 40), left)):  # sinks and window
        theirs, column = parts(again._block(*streaming, i // BLOCK_TOKENS), layout.width), i % BLOCK_TOKENS
        assert (held[i][0][:, column] == theirs[0][:, column]).all() and held[i][0][:, column].any()
        assert (held[i][1][column] == theirs[1][column]).all()


def test_a_state_in_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    filled(TRANSFORMER, 100).save(path, "digest")
    with pytest.raises(CheckpointError, match=r"cache must hold keys and values in int8, not float32\. Set chat\.cache to float32"):
        State.load(path, replace(TRANSFORMER, dtype="int8"), "another digest, as the cache is part of it")
    with np.load(path) as archive:  # as files of before int8 are
        parts = dict(archive)
    header = {k: v for k, v in json.loads(parts["header"].tobytes()).items() if k != "cache"}
    with path.open("wb") as file:
        np.savez(file, **{**parts, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    assert State.load(path, TRANSFORMER, "digest").length == 100
    with pytest.raises(CheckpointError, match="layout"):
        State.load(path, replace(TRANSFORMER, dtype="int8"), "digest")


def test_damaged_and_foreign_state_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    filled(LAYOUT, 100).save(path, "digest")
    with pytest.raises(CheckpointError, match="model"):
        State.load(path, LAYOUT, "another")
    with pytest.raises(CheckpointError, match="layout"):
        State.load(path, TRANSFORMER, "digest")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="whole"):
        State.load(path, LAYOUT, "digest")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(CheckpointError, match="whole"):
        State.load(path, LAYOUT, "digest")


@pytest.mark.parametrize("layout", [TRANSFORMER, LAYOUT])
def test_no_damage_to_a_header_is_anything_but_an_error_or_nothing(tmp_path: Path, layout: StateLayout) -> None:
    path = tmp_path / "s"
    filled(layout, 20).save(path, "digest")
    whole, state = path.read_bytes(), State.load(path, layout, "digest")
    found = [whole.find(mark, start) for mark in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06") for start in range(0, len(whole), 4096)]
    for begin in sorted({at for at in found if at >= 0}):
        for at in range(begin, min(begin + 250, len(whole))):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << at % 8
            path.write_bytes(flipped)
            try:
                again = State.load(path, layout, "digest")
            except CheckpointError:
                continue
            assert all(np.array_equal(a, b) for a, b in zip(again.pages, state.pages, strict=True)), at
