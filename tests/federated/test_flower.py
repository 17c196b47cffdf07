"""Letters by Flower: homes and a coordinator in processes of their own, and what happens to whoever has no business there."""

import importlib.util
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from ingle.core.errors import ConfigError, FederatedError
from ingle.federated.flower import ends
from ingle.federated.flower.ends import FlowerLink, flower_link, flower_node, split_address
from ingle.federated.flower.frames import CERTIFICATE, check_certificate, make_certificate
from ingle.federated.invitation import Invitation
from ingle.federated.statement import state
from ingle.ledger.keys import Signer, new_signer
from tests.clocks import HandClock
from tests.federated.flower_homes import children, founded, over_killed_flower, over_local
from tests.federated.homes import invited
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("flwr") is None, reason="Flower is not here: it has an environment of its own, see `make test`"
)
ALONE = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""Runs a command on a machine without any network but its own loop."""
OTHERWISE = "import runpy, sys\n{change}\nrunpy.run_module(sys.argv[1], run_name='__main__')"
SIGNERS = [new_signer() for _ in range(3)]


@pytest.fixture(scope="module")
def invitation() -> Invitation:
    return invited(SIGNERS)


@contextmanager
def started_otherwise(monkeypatch: pytest.MonkeyPatch, change: str) -> Iterator[None]:
    """Children that start in this block are other programs than ours: `change` is done in them first."""
    with monkeypatch.context() as patch:
        patch.setattr(ends, "STARTS_WITH", [sys.executable, "-c", OTHERWISE.format(change=change)])
        yield


@contextmanager
def at(link: FlowerLink, folder: Path, invitation: Invitation, seats: tuple[int, ...], respond: Callable[[bytes], bytes]) -> Iterator[None]:
    """Homes of this process at a link."""
    if not seats:
        yield
        return
    with flower_node(folder / f"node{seats[0]}", SIGNERS[seats[0]], invitation, link.address, respond) as hindrance:
        assert not hindrance(60)
        with at(link, folder, invitation, seats[1:], respond):
            yield


def test_processes_on_a_machine_without_a_network_come_to_what_one_process_comes_to(tmp_path: Path) -> None:
    if subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("This machine makes no network namespaces for its users")
    command = [*ALONE, sys.executable, "-m", "tests.federated.flower_homes", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=300)
    said = json.loads(done.stdout)
    assert not said["complaints"]
    for name in ("verdicts", "totals", "learned"):
        here, there = said[name]
        assert here == there and here, name
    assert len(said["learned"][0]) == 1, "all homes have the same"


def test_kills_at_any_moment_leave_no_half_round(tmp_path: Path) -> None:
    founding = founded(tmp_path)
    course, killed = over_killed_flower(tmp_path, founding, 6, 0, (0.5, 5.0))
    calm = over_local(tmp_path, founding, len(course.ended))
    assert killed.total() == 6
    assert course.verdicts == calm.verdicts and course.totals == calm.totals and not course.complaints
    assert course.learned == calm.learned and len(calm.learned) == 1


def test_a_deadline_is_ours_and_a_late_home_is_not_waited_for(tmp_path: Path, invitation: Invitation) -> None:
    hand = HandClock()
    with (
        flower_link(tmp_path / "link", SIGNERS[0], invitation, clock=hand.clock) as link,
        at(link, tmp_path, invitation, (0, 1), lambda data: data),
    ):
        [node, _] = children(os.getpid(), "supernode")
        os.kill(node, signal.SIGSTOP)
        try:
            replies = link.ask({0: b"a", 1: b"b", 2: b"c"}, 60.0)
            assert next(replies) in ((0, b"a"), (1, b"b"))
            hand.move(60)
            assert list(replies) == []
        finally:
            os.kill(node, signal.SIGCONT)
        assert sorted(link.ask({0: b"a", 1: b"b"}, 60.0)) == [(0, b"a"), (1, b"b")], "it is there again"


class Cut:
    """A wire between homes and a link, which breaks once after so many bytes."""

    def __init__(self, address: str, after: int) -> None:
        self.target, self.left, self.cuts = split_address(address), after, 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self.listening.accept()[0], socket.create_connection(self.target)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError), here, there:
            while data := here.recv(65536):
                self.left -= len(data)
                if self.left < 0 and not self.cuts:
                    self.cuts += 1
                    here.shutdown(socket.SHUT_RDWR)
                    there.shutdown(socket.SHUT_RDWR)
                    return
                there.sendall(data)


@pytest.mark.parametrize("after", [2_000_000, 7_000_000], ids=["on the way there", "on the way back"])
def test_a_wire_that_breaks_in_the_middle_of_a_letter_loses_nothing(tmp_path: Path, invitation: Invitation, after: int) -> None:
    data, heard = random.Random(1).randbytes(5_000_000), []

    def respond(letter: bytes) -> bytes:
        heard.append(letter)
        return letter[::-1]

    with flower_link(tmp_path / "link", SIGNERS[0], invitation) as link:
        wire = Cut(link.address, after)
        with wire.listening, flower_node(tmp_path / "node", SIGNERS[0], invitation, wire.address, respond) as hindrance:
            assert not hindrance(60)
            assert list(link.ask({0: data}, 60.0)) == [(0, data[::-1])]
            assert wire.cuts == 1
            assert heard == [data], "it was answered once"


def test_letters_of_fifty_megabytes_pass(tmp_path: Path, invitation: Invitation) -> None:
    data = random.Random(0).randbytes(50_000_000)
    with flower_link(tmp_path / "link", SIGNERS[0], invitation) as link, at(link, tmp_path, invitation, (0,), lambda data: data[::-1]):
        [(seat, reply)] = link.ask({0: data}, 120.0)
        assert seat == 0 and reply == data[::-1]


def test_a_link_shows_strangers_nothing_but_the_door(tmp_path: Path, invitation: Invitation) -> None:
    with flower_link(tmp_path / "link", SIGNERS[0], invitation) as link, at(link, tmp_path, invitation, (0,), lambda data: data):
        url = f"https://{link.address}"
        with httpx.Client(verify=False, trust_env=False, timeout=PATIENCE_S) as client:
            for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/openapi.json", "/v1/fleet/register-node", "/"):
                assert client.post(url + path, content=b"").status_code == 404, path
            assert client.post(url + "/v1/fleet/pull-messages", content=b"").status_code == 401
            assert client.post(url + "/v1/ingle/seat", content=b"x" * 100_000).status_code == 413
            assert client.post(url + "/v1/ingle/seat", content=b"no statement").status_code == 400
            digest = _certificate_digest(link)
            for who, seat, facts in (
                (new_signer(), 1, {}),
                (SIGNERS[1], 2, {}),
                (SIGNERS[1], 1, {"federation": "f" * 64}),
                (SIGNERS[1], 1, {"link": "f" * 64}),
            ):
                told = {"federation": invitation.digest, "link": digest, "key": "a key"} | facts
                reply = client.post(url + "/v1/ingle/seat", content=json.dumps(state(who, seat, "node", told).plain()))
                assert reply.status_code == 403 and reply.json()["kind"] == "FederatedError", facts
        assert link.here() == (0,)
    with pytest.raises(FederatedError, match="not in the invitation"), flower_node(tmp_path / "x", new_signer(), invitation, "h:1", bytes):
        pass


def test_whoever_sends_a_statement_byte_by_byte_is_cut_off(tmp_path: Path, invitation: Invitation) -> None:
    with flower_link(tmp_path / "link", SIGNERS[0], invitation) as link:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(split_address(link.address)) as plain, context.wrap_socket(plain) as slow:
            slow.sendall(b"POST /v1/ingle/seat HTTP/1.1\r\nHost: link\r\nContent-Length: 1000\r\n\r\n")
            slow.settimeout(1.0)
            said = bytearray()

            def cut_off() -> bool:
                try:
                    slow.sendall(b" ")
                    piece = slow.recv(4096)
                except TimeoutError:
                    return False
                except OSError:
                    return True
                said.extend(piece)
                return not piece

            wait_until(cut_off, "it is cut off")
            assert said.startswith(b"HTTP/1.1 408 ")


def _certificate_digest(link: FlowerLink) -> str:
    from ingle.core.digest import digest_bytes

    host, port = split_address(link.address)
    return digest_bytes(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, port))))


def test_a_home_refuses_a_link_of_another_federation_or_a_stranger(tmp_path: Path, invitation: Invitation) -> None:
    other = invited([SIGNERS[1], SIGNERS[0], SIGNERS[2]])
    with (
        flower_link(tmp_path / "link", SIGNERS[1], other) as link,
        flower_node(tmp_path / "node", SIGNERS[0], invitation, link.address, bytes) as hindrance,
        pytest.raises(FederatedError, match="The link is for another federation"),
    ):
        hindrance(60)
    make_certificate(tmp_path, new_signer(), invitation.digest)
    certificate = x509.load_pem_x509_certificate((tmp_path / CERTIFICATE).read_bytes())
    with pytest.raises(FederatedError, match="certificate is not of a home of this invitation"):
        check_certificate(certificate, invitation.members, invitation.digest)
    make_certificate(tmp_path, SIGNERS[2], invitation.digest)  # another home goes on in the coordinator's place
    check_certificate(x509.load_pem_x509_certificate((tmp_path / CERTIFICATE).read_bytes()), invitation.members, invitation.digest)


def test_a_home_refuses_a_run_that_brings_a_program(tmp_path: Path, invitation: Invitation, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    with started_otherwise(monkeypatch, "from ingle.federated.flower import letters; letters.BUNDLE = 'f' * 64"):
        opened = flower_link(tmp_path / "link", SIGNERS[0], invitation)
        link = opened.__enter__()
    try:
        with flower_node(tmp_path / "node", SIGNERS[0], invitation, link.address, asked.append) as hindrance:  # type: ignore[arg-type]
            assert not hindrance(60)
            assert list(link.ask({0: b"a letter"}, 3.0)) == []
            with pytest.raises(FederatedError, match="a program that is not Ingle's"):
                hindrance(60)
    finally:
        opened.__exit__(None, None, None)
    assert not asked, "no letter of it was read"


def test_clocks_that_differ_are_said(tmp_path: Path, invitation: Invitation, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        flower_link(tmp_path / "link", SIGNERS[0], invitation) as link,
        started_otherwise(monkeypatch, "import time; now = time.time; time.time = lambda: now() + 40"),
        flower_node(tmp_path / "node", SIGNERS[0], invitation, link.address, bytes) as hindrance,
        pytest.raises(FederatedError, match=r"clock is (39|40) s ahead"),
    ):
        hindrance(60)


def test_a_home_waits_for_a_link_that_is_not_there_yet(tmp_path: Path, invitation: Invitation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with flower_node(tmp_path / "node", SIGNERS[0], invitation, f"127.0.0.1:{port}", lambda data: data) as hindrance:
        assert "No link answers" in hindrance(5.0)
        with flower_link(tmp_path / "link", SIGNERS[0], invitation, f"127.0.0.1:{port}") as link:
            assert not hindrance(60)
            assert list(link.ask({0: b"at last"}, PATIENCE_S)) == [(0, b"at last")]


def test_a_port_that_is_taken_and_an_address_that_is_none_are_said(tmp_path: Path, invitation: Invitation) -> None:
    def up(listen: str) -> None:
        with flower_link(tmp_path / "link", SIGNERS[0], invitation, listen):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(FederatedError, match="port is in use"):
        up(f"127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(FederatedError, match="can't listen there"):
        up("192.0.2.1:5791")
    for text in ("here", "127.0.0.1", ":5", "h:70000"):
        with pytest.raises(ConfigError, match="must be a host and a port"):
            up(text)


def test_only_a_member_opens_a_link_and_without_flower_nobody(
    tmp_path: Path, invitation: Invitation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def up(signer: Signer) -> None:
        with flower_link(tmp_path / "link", signer, invitation):
            pass

    with pytest.raises(FederatedError, match="This home is not in the invitation"):
        up(new_signer())
    for version in ("", "1.43.0"):
        monkeypatch.setattr(ends, "installed", lambda _, version=version: version)
        with pytest.raises(ConfigError, match=r"Flower 1\.42\.x, which is not installed.*Run: .* install .*flwr"):
            up(SIGNERS[0])


def test_nothing_of_a_link_is_left_when_it_ends(tmp_path: Path, invitation: Invitation) -> None:
    with flower_link(tmp_path / "link", SIGNERS[0], invitation) as link, at(link, tmp_path, invitation, (0, 1), lambda data: data):
        pids = children(os.getpid(), "federated.flower")
        assert len(pids) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
