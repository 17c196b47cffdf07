"""Every transport carries bytes as they are, both ways, waits no longer than it is told to, and survives homes that don't answer."""

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from ingle.federated.flower.ends import flower_link, flower_node
from ingle.federated.transport import Ask, local
from ingle.ledger.keys import new_signer
from tests.clocks import HandClock
from tests.federated.homes import invited
from tests.waiting import PATIENCE_S, for_a_while

Respond = Callable[[bytes], bytes | None]
Homes = Mapping[int, Respond]
Connect = Callable[[Homes], Ask]
SEATS = 6
HAND, LONG_S = HandClock(), 600.0
"""By this clock homes are late: only where a test moves it."""


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """Six nodes at a link, processes of their own; each test puts other homes behind them."""
    if importlib.util.find_spec("flwr") is None:
        pytest.skip("Flower is not here: it has an environment of its own, see `make test`")
    folder, signers, behind = tmp_path_factory.mktemp("flower"), [new_signer() for _ in range(SEATS)], dict[int, Respond]()

    def passed_on(seat: int) -> Respond:
        def respond(data: bytes) -> bytes | None:
            return behind[seat](data)

        return respond

    def connect(homes: Homes) -> Ask:
        behind.clear()
        behind.update(homes)
        return link.ask

    invitation = invited(signers)
    with ExitStack() as stack:
        link = stack.enter_context(flower_link(folder / "link", signers[0], invitation, clock=HAND.clock))
        nodes = [
            stack.enter_context(flower_node(Path(folder / str(seat)), signer, invitation, link.address, passed_on(seat)))
            for seat, signer in enumerate(signers)
        ]
        assert not any(hindrance(60) for hindrance in nodes)
        yield connect


@pytest.fixture(params=["local", "flower"])
def connect(request: pytest.FixtureRequest) -> Connect:
    if request.param == "local":
        return lambda homes: local(homes, HAND.clock)
    connect: Connect = request.getfixturevalue("flower")
    return connect


def test_bytes_go_there_and_back_unchanged(connect: Connect) -> None:
    rng = np.random.default_rng(0)
    asked = {seat: rng.bytes(size) for seat, size in ((0, 0), (1, 1), (2, 5_000_000), (5, 300))}
    replies = list(connect({seat: lambda data, seat=seat: bytes([seat]) + data[::-1] for seat in range(6)})(asked, LONG_S))
    assert sorted(seat for seat, _ in replies) == [0, 1, 2, 5], "who wasn't asked says nothing, and each answers once"
    assert all(reply == bytes([seat]) + asked[seat][::-1] for seat, reply in replies)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_does_not_answer_in_time_is_left_out(connect: Connect) -> None:
    go = threading.Event()

    def never(data: bytes) -> bytes:
        go.wait(PATIENCE_S)
        return data

    def breaks(_: bytes) -> bytes:
        raise ValueError("a fault of this home")

    ask = connect({0: lambda data: data, 1: never, 2: breaks, 3: lambda data: data, 4: lambda _: None})
    heard = ask(dict.fromkeys(range(5), b"first"), LONG_S)
    assert sorted([next(heard), next(heard)]) == [(0, b"first"), (3, b"first")]
    HAND.move(LONG_S)
    assert list(heard) == []
    assert not go.is_set(), "the silent one was not waited for"
    go.set()
    for_a_while(0.05)  # its answer comes now
    replies = list(ask(dict.fromkeys((0, 1, 3), b"second"), LONG_S))
    assert sorted(replies) == [(seat, b"second") for seat in (0, 1, 3)], "a late answer is none to the next question"


def test_nobody_asked_is_nobody_waited_for(connect: Connect) -> None:
    assert list(connect({0: lambda data: data})({}, LONG_S)) == []  # its time never comes to an end


def test_all_are_asked_at_once(connect: Connect) -> None:
    together = threading.Barrier(4, timeout=PATIENCE_S)

    def waits(data: bytes) -> bytes:
        together.wait()
        return data

    assert len(list(connect(dict.fromkeys(range(4), waits))(dict.fromkeys(range(4), b"x"), LONG_S))) == 4
