"""Slow work in turns, places and paces: whoever asks for much waits for themselves."""

import asyncio
from collections.abc import Callable
from threading import Event

import pytest

from ingle.core.apart import StopFlag
from ingle.core.errors import Busy
from ingle.serve.shares import Bodies, Pace, Places
from ingle.serve.slow import Turns
from tests.clocks import HandClock
from tests.waiting import PATIENCE_S, for_a_while


def holding(begun: Event, gate: Event) -> Callable[[StopFlag], object]:
    """A piece of work that says when it has begun, and lasts until the gate is open."""

    def hold(_stop: StopFlag) -> None:
        begun.set()
        assert gate.wait(PATIENCE_S)

    return hold


async def happens(event: Event) -> None:
    """Waits for what happens in another thread."""
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


def test_askers_take_turns() -> None:
    async def run() -> list[str]:
        turns, done, begun, gate = Turns("work", 1), list[str](), Event(), Event()

        async def piece(asker: str) -> None:
            await turns.do(asker, lambda _stop: done.append(asker))

        first = asyncio.create_task(turns.do("many", holding(begun, gate)))
        await happens(begun)
        others = [asyncio.create_task(piece(asker)) for asker in ("many", "many", "many", "one", "other")]
        await asyncio.sleep(0)  # each has taken its place in a queue
        gate.set()
        await asyncio.gather(first, *others)
        turns.close()
        return done

    assert asyncio.run(run()) == ["many", "one", "other", "many", "many"]


def test_one_asker_never_has_all_places() -> None:
    async def run() -> None:
        turns, begun, gate = Turns("work", 2, each=1), Event(), Event()
        held = [asyncio.create_task(turns.do("many", holding(begun, gate))) for _ in range(5)]
        await happens(begun)
        assert await turns.do("one", lambda _stop: 7) == 7
        assert not any(one.done() for one in held), "it didn't wait for theirs"
        gate.set()
        await asyncio.gather(*held)
        turns.close()

    asyncio.run(run())


def test_who_has_gone_gives_up_the_turn_and_the_piece_is_told() -> None:
    async def run() -> None:
        turns, told, works, begun = Turns("work", 1), Event(), Event(), list[str]()

        def until_told(stop: StopFlag) -> None:
            works.set()
            while not stop.is_set:
                for_a_while(0.01)
            told.set()

        working = asyncio.create_task(turns.do("a", until_told))
        await happens(works)
        waiting = asyncio.create_task(turns.do("b", lambda _stop: begun.append("b")))
        await asyncio.sleep(0)
        waiting.cancel()
        working.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
        await happens(told)
        assert await turns.do("c", lambda _stop: 1) == 1, "the place is free again"
        assert begun == [], "a piece that nobody waits for never begins"
        turns.close()

    asyncio.run(run())


def test_a_cancel_between_the_call_and_the_piece_loses_no_place() -> None:
    async def run() -> None:
        turns = Turns("work", 1)
        for _ in range(50):
            tasks = [asyncio.create_task(turns.do(str(i), lambda _stop: None)) for i in range(4)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await turns.do("x", lambda _stop: 1) == 1
        turns.close()

    asyncio.run(run())


def test_an_error_is_raised_and_the_place_is_free() -> None:
    async def run() -> None:
        turns = Turns("work", 1)
        fail: Callable[[StopFlag], float] = lambda _stop: 1 / 0  # noqa: E731
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await turns.do("a", fail)
        turns.close()

    asyncio.run(run())


def test_places_are_shared_out() -> None:
    places = Places("talks", 3, 2)
    with places.taken("a"), places.taken("a"):
        with pytest.raises(Busy, match="2 talks, which is the most for one user") as refused, places.taken("a"):
            pass
        assert refused.value.retry_after_s > 0 and refused.value.http_status == 429
        with places.taken("b"), pytest.raises(Busy, match="3 talks already"), places.taken("c"):
            pass
    with places.taken("c"), places.taken("c"):
        pass


def test_bodies_leave_room_for_others() -> None:
    bodies = Bodies(1000, memory=1 << 10)
    assert bodies.most == 4000 and bodies.most_each == 2000, "at least two bodies of the largest for each"
    assert bodies.take("a", 2000) and not bodies.take("a", 1)
    assert bodies.take("b", 2000) and not bodies.take("c", 1)
    bodies.give("a", 2000)
    assert bodies.take("c", 1000)
    assert Bodies(8 << 20, memory=1 << 30).most == 64 << 20
    assert Bodies(8 << 20, memory=1 << 40).most == 256 << 20


def test_a_pace_slows_what_comes_too_fast_and_nothing_else() -> None:
    async def run() -> None:
        hand = HandClock()
        pace = Pace(per_s=10_000, burst=8000, clock=hand.clock)
        for _ in range(5):
            await pace.take(100)  # 1,124 bytes each with what a message counts beside its own
        slowed = asyncio.create_task(pace.take(3000))
        await hand.settle()
        assert hand.waits == [pytest.approx((5 * 1124 + 4024 - 8000) / 10_000)]
        hand.move(0.16)
        await hand.settle()
        assert not slowed.done()
        hand.move(0.01)
        await slowed

    asyncio.run(run())
