"""Whose turn it is in the queue, and how often a key may ask."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import Busy
from ingle.engine.job import FairQueue
from ingle.serve.auth import Bucket


def everyone(_item: str) -> bool:
    return True


def taken(queue: FairQueue[str], count: int) -> list[str]:
    found = []
    for _ in range(count):
        turn = queue.next(everyone)
        assert turn is not None
        queue.take(*turn)
        found.append(turn[1])
    return found


def test_owners_take_turns_and_each_is_served_in_order() -> None:
    queue: FairQueue[str] = FairQueue(100, 100)
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(item[0], item, 1.0)
    assert taken(queue, 3) == ["a1", "b1", "c1"]
    queue.add("d", "d1", 1.0)
    assert taken(queue, 4) == ["a2", "b2", "d1", "a3"]
    assert len(queue) == 0 and queue.next(everyone) is None


def test_a_full_queue_refuses_and_a_full_line_of_one_owner_does_not_fill_it() -> None:
    queue: FairQueue[str] = FairQueue(4, 3)
    for i in range(3):
        queue.add("a", f"a{i}", 1.0)
    with pytest.raises(Busy, match="for one user") as refused:
        queue.add("a", "a3", 7.5)
    assert refused.value.retry_after_s == 7.5
    queue.add("b", "b0", 1.0)
    with pytest.raises(Busy, match="has 4 requests waiting"):
        queue.add("c", "c0", 1.0)
    assert queue.drop(lambda item: item == "a1") == ["a1"]
    queue.add("c", "c0", 1.0)
    assert taken(queue, 4) == ["a0", "b0", "c0", "a2"]


def test_who_is_not_ready_is_passed_over_and_keeps_his_turn() -> None:
    queue: FairQueue[str] = FairQueue(10, 10)
    for item in ("a1", "a2", "b1"):
        queue.add(item[0], item, 1.0)
    assert queue.next(lambda item: item != "a1") == ("a", "a2")
    assert queue.next(lambda item: item[0] != "a") == ("b", "b1")
    queue.take("b", "b1")
    assert taken(queue, 2) == ["a1", "a2"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_nobody_waits_longer_than_a_round(steps: list[tuple[str, bool]]) -> None:
    queue: FairQueue[str] = FairQueue(1000, 1000)
    passed: dict[str, int] = {}
    for i, (owner, give) in enumerate(steps):
        queue.add(owner, f"{owner}{i}", 1.0)
        passed.setdefault(owner, 0)
        if give:
            [item] = taken(queue, 1)
            waiting = {item[0] for item in (one for line in queue._lines.values() for one in line)}
            passed = {other: passed.get(other, 0) + 1 if other != item[0] else 0 for other in waiting}
            assert all(count <= 3 for count in passed.values())  # of four owners


def test_a_bucket_gives_a_minute_at_once_and_then_refills_steadily() -> None:
    bucket = Bucket(60, 60, at=100.0)
    assert [bucket.wait_s(100.0) for _ in range(60)] == [0.0] * 60
    assert bucket.wait_s(100.0) == pytest.approx(1.0)
    assert bucket.wait_s(100.4) == pytest.approx(0.6)
    assert bucket.wait_s(101.01) == 0.0 and bucket.wait_s(101.02) > 0.9
    assert [bucket.wait_s(1000.0) for _ in range(60)] == [0.0] * 60 and bucket.wait_s(1000.0) > 0  # never more than a minute's worth


@given(st.floats(0.5, 10_000), st.lists(st.floats(0, 5), max_size=80))
def test_never_more_than_a_minute_and_what_has_flowed_in(per_minute: float, pauses: list[float]) -> None:
    bucket, now, given_out = Bucket(per_minute, per_minute, at=0.0), 0.0, 0
    for pause in pauses:
        now += pause
        wait = bucket.wait_s(now)
        given_out += wait == 0
        assert wait >= 0 and given_out <= per_minute * (1 + now / 60) + 1e-6
