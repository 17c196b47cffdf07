"""Guards as middleware around whatever answers a request. Each may read, change or refuse the request, and watch the answer.

A guard is an asynchronous generator function, because the server has one event loop and no thread for each answer:

    async def guard(request, answer):
        check(request)                          # raises RequestError, or makes another request
        async for chunk in answer(request):     # the inner guards and the engine
            yield chunk

The terminal drives the same guards without a loop (`drive`), since none of them really waits there.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from ingle.core.errors import IngleError, RequestError
from ingle.core.message import Chunk, Request, Verdict

T = TypeVar("T")
Next = Callable[[Request], AsyncIterator[Chunk]]  # answers a request: the engine, with or without guards around it
# One guard. It passes on what `Next` yields, or ends the answer with a chunk whose `finish` is "blocked".
Guard = Callable[[Request, Next], AsyncIterator[Chunk]]


class GuardLayer(NamedTuple):
    """A guard with its name, which every error of the guard carries (`IngleError.guard`)."""

    name: str
    guard: Guard
    mode: str = ""  # filled into its verdicts


class Blocked(RequestError):
    """A request that a guard refused for its content. The verdict says which rule it met, and never a word."""

    def __init__(self, field: str, rule: str, got: object = "", cure: str = "", verdict: Verdict = Verdict("block")) -> None:  # noqa: B008 - frozen
        super().__init__(field, rule, got, cure)
        self.verdict = verdict


def wrap(layers: Sequence[GuardLayer], answer: Next) -> Next:
    """Return `answer` with the guards around it; the first one is the outermost.

    When the reader stops early, or a guard fails or ends the answer, everything inside is closed at once, from the outside in.
    """
    for layer in reversed(layers):
        answer = _layer(layer, answer)
    return answer


def with_verdicts(chunk: Chunk, *verdicts: Verdict) -> Chunk:
    """Return the chunk with more verdicts; unchanged if there are none."""
    return replace(chunk, verdicts=chunk.verdicts + verdicts) if verdicts else chunk


def drive(chunks: AsyncIterator[Chunk]) -> Generator[Chunk, None, None]:
    """Yield the chunks without an event loop. Closing it closes `chunks`.

    Raises RuntimeError at the very place where something in there waits for an event loop.
    """
    try:
        while (chunk := _at_once(_next(chunks))) is not None:
            yield chunk
    finally:
        _at_once(close(chunks))


async def from_iterator(chunks: Iterator[Chunk]) -> AsyncIterator[Chunk]:
    """Yield the engine's chunks as guards read them. Closing it closes `chunks`."""
    try:
        for chunk in chunks:
            yield chunk
    finally:
        end = getattr(chunks, "close", None)
        if end is not None:
            end()


async def close(chunks: AsyncIterator[Any]) -> None:
    """Close an iterator that is not read to its end, so that its work stops now; does nothing to one that has ended."""
    end = getattr(chunks, "aclose", None)
    if end is not None:
        await end()


class _Below:
    """The input of a guard. It remembers its own error, so that the guard isn't blamed for that."""

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


def _layer(layer: GuardLayer, below: Next) -> Next:
    async def run(request: Request) -> AsyncIterator[Chunk]:
        opened: list[_Below] = []

        def answer(request: Request) -> AsyncIterator[Chunk]:
            opened.append(_Below(below(request)))
            return opened[-1]

        guarded = layer.guard(request, answer)
        try:
            async for chunk in guarded:
                yield _signed(chunk, layer) if chunk.verdicts else chunk
        except IngleError as error:
            if all(error is not chunks.error for chunks in opened):
                error.guard = layer.name
                if isinstance(error, Blocked):
                    error.verdict = replace(error.verdict, guard=layer.name, mode=layer.mode)
            raise
        finally:
            # `async for` closes nothing when it is left early. It is done here, so that no guard can forget it.
            try:
                await close(guarded)
            finally:
                for chunks in opened:
                    await close(chunks)

    return run


def _signed(chunk: Chunk, layer: GuardLayer) -> Chunk:
    """Return the chunk with the mode in the layer's own verdicts."""
    verdicts = (replace(one, mode=layer.mode) if one.guard == layer.name and not one.mode else one for one in chunk.verdicts)
    return replace(chunk, verdicts=tuple(verdicts))


async def _next(chunks: AsyncIterator[Chunk]) -> Chunk | None:
    return await anext(chunks, None)


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits."""
    try:
        coroutine.send(None)
        # It has stopped to wait. The error is raised inside, so that the traceback names the place and everything unwinds.
        coroutine.throw(RuntimeError("a guard waits for an event loop, and there is none: use it from the server"))
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("a guard goes on waiting although nothing will come")
