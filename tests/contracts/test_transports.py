"""Every transport carries bytes as they are, both ways, waits no longer than it is told to, and survives homes that don't answer."""

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from ingle.federated.transport import Ask, local

Homes = Mapping[int, Callable[[bytes], bytes | None]]
TRANSPORTS: Mapping[str, Callable[[Homes], Ask]] = {"local": local}


@pytest.fixture(params=TRANSPORTS)
def connect(request: pytest.FixtureRequest) -> Callable[[Homes], Ask]:
    return TRANSPORTS[request.param]


def test_bytes_go_there_and_back_unchanged(connect: Callable[[Homes], Ask]) -> None:
    rng = np.random.default_rng(0)
    asked = {seat: rng.bytes(size) for seat, size in ((0, 0), (1, 1), (2, 5_000_000), (5, 300))}
    replies = list(connect({seat: lambda data, seat=seat: bytes([seat]) + data[::-1] for seat in range(6)})(asked, 30.0))
    assert sorted(seat for seat, _ in replies) == [0, 1, 2, 5], "who wasn't asked says nothing, and each answers once"
    assert all(reply == bytes([seat]) + asked[seat][::-1] for seat, reply in replies)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_does_not_answer_in_time_is_left_out(connect: Callable[[Homes], Ask]) -> None:
    go = threading.Event()

    def never(data: bytes) -> bytes:
        go.wait(30)
        return data

    def breaks(_: bytes) -> bytes:
        raise ValueError("a fault of this home")

    ask = connect({0: lambda data: data, 1: never, 2: breaks, 3: lambda data: data, 4: lambda _: None})
    begun = time.monotonic()
    assert sorted(ask(dict.fromkeys(range(5), b"first"), 0.5)) == [(0, b"first"), (3, b"first")]
    assert time.monotonic() - begun < 5
    go.set()
    time.sleep(0.05)
    replies = list(ask(dict.fromkeys((0, 1, 3), b"second"), 30.0))
    assert sorted(replies) == [(seat, b"second") for seat in (0, 1, 3)], "a late answer is none to the next question"


def test_nobody_asked_is_nobody_waited_for(connect: Callable[[Homes], Ask]) -> None:
    begun = time.monotonic()
    assert list(connect({0: lambda data: data})({}, 30.0)) == []
    assert time.monotonic() - begun < 5


def test_all_are_asked_at_once(connect: Callable[[Homes], Ask]) -> None:
    together = threading.Barrier(4, timeout=20)

    def waits(data: bytes) -> bytes:
        together.wait()
        return data

    assert len(list(connect(dict.fromkeys(range(4), waits))(dict.fromkeys(range(4), b"x"), 30.0))) == 4
