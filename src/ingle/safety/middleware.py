"""The onion: guards around whatever answers a request. Each may look at the request, change it, refuse it, and watch the answer.

A guard is an asynchronous generator function, because the server has one event loop and no thread for each answer:

    async def guard(request, answer):
        check(request)                          # raises RequestError, or makes another request
        async for chunk in answer(request):     # the layers below
            yield chunk

The terminal drives the same onion without a loop (`drive`), since nothing in it really waits there.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from ingle.core.errors import IngleError
from ingle.core.message import Chunk, Request, Verdict

T = TypeVar("T")
Next = Callable[[Request], AsyncIterator[Chunk]]
"""What answers a request: the engine, or the engine with some layers around it."""
Guard = Callable[[Request, Next], AsyncIterator[Chunk]]
"""One layer. It passes on what `Next` yields, or ends the answer with a chunk whose `finish` is "blocked"."""


class Layer(NamedTuple):
    """A guard with its name, which stands on every error that the guard raises (`IngleError.guard`)."""

    name: str
    guard: Guard


def wrap(layers: Sequence[Layer], answer: Next) -> Next:
    """`answer` with the guards around it; the first one is the outermost.

    When the reader stops early, or a guard fails or ends the answer, everything below is closed at once, from the outside in.
    """
    for layer in reversed(layers):
        answer = _layer(layer, answer)
    return answer


def with_verdicts(chunk: Chunk, *verdicts: Verdict) -> Chunk:
    """The chunk with more verdicts on it; itself if there are none."""
    return replace(chunk, verdicts=chunk.verdicts + verdicts) if verdicts else chunk


def drive(chunks: AsyncIterator[Chunk]) -> Generator[Chunk, None, None]:
    """The same chunks without an event loop. Closing it closes `chunks`.

    Raises RuntimeError, at the very place, if something in there waits for an event loop.
    """
    try:
        while (chunk := _at_once(_next(chunks))) is not None:
            yield chunk
    finally:
        _at_once(close(chunks))


async def from_iterator(chunks: Iterator[Chunk]) -> AsyncIterator[Chunk]:
    """What the engine yields without an event loop, as a layer of the onion reads it. Closing it closes `chunks`."""
    try:
        for chunk in chunks:
            yield chunk
    finally:
        end = getattr(chunks, "close", None)
        if end is not None:
            end()


async def close(chunks: AsyncIterator[Any]) -> None:
    """Ends what is not read to its end, so that whatever makes it stops now; does nothing to what has ended."""
    end = getattr(chunks, "aclose", None)
    if end is not None:
        await end()


class _Below:
    """What a guard reads from; it remembers the error that came out of it, so that the guard isn't named for that."""

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks
        self.error: BaseException | None = None

    def __aiter__(self) -> "_Below":
        return self

    async def __anext__(self) -> Chunk:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self.error = error
            raise

    async def aclose(self) -> None:
        await close(self._chunks)


def _layer(layer: Layer, below: Next) -> Next:
    async def run(request: Request) -> AsyncIterator[Chunk]:
        opened: list[_Below] = []

        def answer(request: Request) -> AsyncIterator[Chunk]:
            opened.append(_Below(below(request)))
            return opened[-1]

        guarded = layer.guard(request, answer)
        try:
            async for chunk in guarded:
                yield chunk
        except IngleError as error:
            if all(error is not chunks.error for chunks in opened):
                error.guard = layer.name
            raise
        finally:
            # `async for` closes nothing when it is left early. It is done here, so that no guard can forget it.
            try:
                await close(guarded)
            finally:
                for chunks in opened:
                    await close(chunks)

    return run


async def _next(chunks: AsyncIterator[Chunk]) -> Chunk | None:
    return await anext(chunks, None)


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
        # It has stopped to wait. The error is raised inside, so that the traceback names the place and everything unwinds.
        coroutine.throw(RuntimeError("a layer of the onion waits for an event loop, and there is none: use it from the server"))
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("a layer of the onion goes on waiting after it was told that nobody comes")
