"""Guards wrap from the outside in, close from the outside in, and need no event loop where nothing waits."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.guard import make_guards
from ingle.safety.middleware import Guard, GuardLayer, Next, close, drive, from_iterator, with_verdicts, wrap
from tests.safety.scripted import LIMITS, ORDINARY, WORDS, Scripted, layers
from tests.waiting import PATIENCE_S


def layer(name: str, log: list[str]) -> Guard:
    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        log.append(f"into {name}")
        try:
            async for chunk in answer(request):
                yield Chunk(f"{name}({chunk.text})")
        finally:
            log.append(f"out of {name}")

    return guard


def test_the_first_guard_is_the_outermost() -> None:
    log: list[str] = []
    chunks = list(drive(wrap(layers([layer("a", log), layer("b", log)]), Scripted([Chunk("x"), Chunk("y")]))(ORDINARY)))
    assert [chunk.text for chunk in chunks] == ["a(b(x))", "a(b(y))"]
    assert log == ["into a", "into b", "out of b", "out of a"]
    assert list(drive(wrap(layers([]), Scripted(WORDS))(ORDINARY))) == WORDS


def test_a_reader_that_stops_early_closes_every_layer_and_the_engine() -> None:
    log: list[str] = []

    def engine() -> Iterator[Chunk]:
        try:
            yield from WORDS
        finally:
            log.append("engine stopped")

    chunks = drive(wrap(layers([layer("a", log), layer("b", log)]), lambda _: from_iterator(engine()))(ORDINARY))
    assert next(chunks).text == "a(b(Hel))"
    assert log == ["into a", "into b"]
    chunks.close()  # type: ignore[attr-defined]
    assert log[2:] == ["out of a", "out of b", "engine stopped"]
    never_begun = drive(wrap(layers([layer("c", log)]), Scripted(WORDS))(ORDINARY))
    never_begun.close()  # type: ignore[attr-defined]
    assert len(log) == 5


def test_a_guard_that_fails_or_asks_twice_leaves_nothing_open() -> None:
    async def fails(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        async for chunk in answer(request):
            yield chunk
            raise ValueError("in the guard")

    inner = Scripted(WORDS)
    with pytest.raises(ValueError, match="in the guard"):
        list(drive(wrap(layers([fails]), inner)(ORDINARY)))
    assert (inner.given, inner.closed) == (1, 1)

    async def asks_twice(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        async for chunk in answer(request):
            async for again in answer(request):
                yield Chunk(chunk.text + again.text)

    twice = Scripted(WORDS)
    chunks = drive(wrap(layers([asks_twice]), twice)(ORDINARY))
    assert next(chunks).text == "HelHel"
    chunks.close()  # type: ignore[attr-defined]
    assert (len(twice.asked), twice.closed) == (2, 2)


def test_a_guard_that_fails_while_it_is_closed_leaves_nothing_open() -> None:
    async def fails(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        try:
            async for chunk in answer(request):
                yield chunk
        finally:
            raise ValueError("on the way out")

    inner = Scripted(WORDS)
    held = wrap(layers([fails]), inner)(ORDINARY)
    chunks = drive(held)
    next(chunks)
    with pytest.raises(ValueError, match="on the way out"):
        chunks.close()  # type: ignore[attr-defined]
    assert inner.closed == 1


def test_verdicts_come_behind_those_that_are_there() -> None:
    first, second = Verdict("allow", "", "a"), Verdict("edit", "", "b")
    chunk = Chunk("x", verdicts=(first,))
    assert with_verdicts(chunk, second).verdicts == (first, second)
    assert with_verdicts(chunk) is chunk


def test_whatever_really_waits_is_named_and_unwound() -> None:
    log: list[str] = []

    async def waits(_request: Request) -> AsyncIterator[Chunk]:
        try:
            yield Chunk("before")
            await asyncio.sleep(0)
            yield Chunk("after")
        finally:
            log.append("unwound")

    chunks = drive(wrap(layers([layer("a", log)]), waits)(ORDINARY))
    assert next(chunks).text == "a(before)"
    with pytest.raises(RuntimeError, match="waits for an event loop") as caught:
        next(chunks)
    assert "waits" in [entry.name for entry in caught.traceback]
    assert log == ["into a", "unwound", "out of a"]


class Queue:
    """An engine's end of a queue, as the server has it: it waits for the next chunk, and is told when nobody listens."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[Chunk] = asyncio.Queue()
        self.left = False

    async def __call__(self, _request: Request) -> AsyncIterator[Chunk]:
        try:
            while True:
                chunk = await self.waiting.get()
                yield chunk
                if chunk.finish:
                    return
        finally:
            await asyncio.sleep(0)  # cleaning up may wait, too
            self.left = True


def test_under_an_event_loop_chunks_come_as_they_are_made() -> None:
    async def main() -> None:
        queue = Queue()
        chunks = wrap(make_guards(LIMITS), queue)(ORDINARY)
        for chunk in WORDS:
            queue.waiting.put_nowait(chunk)
            assert await asyncio.wait_for(anext(chunks), PATIENCE_S) == chunk
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
        assert queue.left

    asyncio.run(main())


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_under_an_event_loop_whoever_leaves_frees_the_place(how: str) -> None:
    async def main() -> None:
        queue = Queue()
        chunks = wrap(make_guards(LIMITS), queue)(ORDINARY)
        queue.waiting.put_nowait(WORDS[0])
        await anext(chunks)
        if how == "close":
            await close(chunks)
            await close(chunks)
        else:
            reading = asyncio.ensure_future(anext(chunks))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not reading.done()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert queue.left

    asyncio.run(main())


def test_a_plain_iterator_needs_no_closing() -> None:
    assert list(drive(from_iterator(iter(WORDS)))) == WORDS


def test_an_error_names_the_guard_that_raised_it_and_no_other() -> None:
    async def refuses(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        raise RequestError("messages", "must be nicer")
        yield  # pragma: no cover

    async def passes(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        async for chunk in answer(request):
            yield chunk

    for order, named in ((["passes", "refuses"], "refuses"), (["refuses", "passes"], "refuses"), (["passes", "passes"], "")):
        made = {"passes": passes, "refuses": refuses}
        inner = Scripted(WORDS, fails=RequestError("engine", "can't"))
        with pytest.raises(RequestError) as caught:
            list(drive(wrap([GuardLayer(name, made[name]) for name in order], inner)(ORDINARY)))
        assert caught.value.guard == named
