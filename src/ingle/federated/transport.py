"""Transports carry bytes between a coordinator and its homes, and know nothing of what is in them.

A transport is one function (`Ask`). `local` is the one between homes of one process, for tests and trials; others are held to
the same contract (tests/contracts/test_transports.py).
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping

# Requests by seat, seconds → replies with their seats, as they come, at most one of each home. Who doesn't answer in time, or can't, is
# left out; what comes later is dropped.
Ask = Callable[[Mapping[int, bytes], float], Iterator[tuple[int, bytes]]]

LOOK_S = 0.2  # how often it is looked whether somebody asked to stop


def local(homes: Mapping[int, Callable[[bytes], bytes | None]]) -> Ask:
    """Return the transport between homes of this process: by seat, what answers a request (or None). Each has its own thread."""

    def ask(requests: Mapping[int, bytes], deadline_s: float) -> Iterator[tuple[int, bytes]]:
        replies: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()

        def one(seat: int, data: bytes) -> None:
            reply = None
            try:
                reply = homes[seat](data)
            finally:  # a home that breaks is one that doesn't answer
                replies.put(None if reply is None else (seat, reply))

        for seat, data in requests.items():
            threading.Thread(target=one, args=(seat, data), daemon=True, name=f"home {seat}").start()
        end = time.monotonic() + deadline_s
        for _ in requests:
            try:
                reply = replies.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return
            if reply is not None:
                yield reply

    return ask


def never() -> bool:
    """Say that nobody asked to stop."""
    return False


def beside(ask: Ask, seat: int, respond: Callable[[bytes], bytes | None], stopped: Callable[[], bool] = never) -> Ask:
    """Return a transport that answers for one seat in this process, and asks all others by `ask`, at the same time.

    Once `stopped` is true nobody is waited for any more.
    """
    own = local({seat: respond})

    def ask_all(requests: Mapping[int, bytes], deadline_s: float) -> Iterator[tuple[int, bytes]]:
        replies: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()

        def drain(part: Ask, some: Mapping[int, bytes]) -> None:
            try:
                for reply in part(some, deadline_s):
                    replies.put(reply)
            finally:
                replies.put(None)

        parts = ((own, {seat: requests[seat]} if seat in requests else {}), (ask, {at: one for at, one in requests.items() if at != seat}))
        for part, some in parts:
            threading.Thread(target=drain, args=(part, some), daemon=True, name="asking").start()
        asking = len(parts)
        while asking:
            try:
                reply = replies.get(timeout=LOOK_S)
            except queue.Empty:
                if stopped():
                    return
                continue
            if reply is None:
                asking -= 1
            else:
                yield reply

    return ask_all
