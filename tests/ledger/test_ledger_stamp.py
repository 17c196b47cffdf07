"""Time-stamps of exported heads: what an honest authority signs is proven, whatever another one or another hand makes of it is not."""

import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ledger_place import Place, fill

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError, IngleError, LedgerError, PullError
from ingle.home.fetch import make_opener
from ingle.ledger import stamp as stamping
from ingle.ledger.head import Head, load_head
from ingle.ledger.stamp import STAMP, ask_for_stamp, check_stamp, stamp_file, stamp_head
from tests.authority import OPENSSL, Authority, make_certificates, running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with running(tmp_path_factory.mktemp("authority")) as one:
        yield one


@pytest.fixture(autouse=True)
def honest(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    request.getfixturevalue("authority").answer = None


@pytest.fixture
def head(file_place: Place) -> Head:
    fill(file_place, 3)
    with file_place.open() as ledger:
        found = ledger.head()
    assert found is not None
    return found


def test_a_stamped_head_is_proven_and_stands_in_the_ledger(authority: Authority, file_place: Place, head: Head, tmp_path: Path) -> None:
    path = tmp_path / "out" / "ingle.head"
    with file_place.open() as ledger:
        event = stamp_head(head, path, f"{authority.url}?key=secret", make_opener())
        row = ledger.append(event)
    assert load_head(path) == head
    answer = stamp_file(path).read_bytes()
    said = check_stamp(answer, path.read_bytes(), authority.roots.read_bytes())
    assert said.authority == "CN=Clock of Tests" and abs(datetime.fromisoformat(said.at) - datetime.now(UTC)) < timedelta(minutes=5)
    assert row.kind == STAMP and row.values == {
        "seq": 3, "hash": head.hash, "host": "127.0.0.1", "at": said.at, "serial": said.serial,
        "head_digest": digest_bytes(path.read_bytes()), "token_digest": digest_bytes(answer),
    }  # fmt: skip
    assert b"secret" not in file_place.database.read_bytes()


def test_the_authority_learns_a_digest_and_no_more(authority: Authority, head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head"
    stamp_head(head, path, authority.url, make_opener())
    asked = authority.asked[-1]
    assert bytes.fromhex(digest_bytes(path.read_bytes())) in asked and len(asked) < 100


def test_openssl_says_the_same(authority: Authority, head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head"
    stamp_head(head, path, authority.url, make_opener())
    command = [OPENSSL or "", "ts", "-verify", "-data", str(path), "-in", str(stamp_file(path)), "-CAfile", str(authority.roots)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Verification: OK" in done.stdout + done.stderr


def test_other_heads_roots_and_bytes_are_not_proven(authority: Authority, head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head"
    stamp_head(head, path, authority.url, make_opener())
    data, answer, roots = path.read_bytes(), stamp_file(path).read_bytes(), authority.roots.read_bytes()
    with pytest.raises(LedgerError, match=r"does not prove this head \(Mismatch between messages\)$"):
        check_stamp(answer, data.replace(b'"seq":3', b'"seq":2'), roots)
    make_certificates(tmp_path / "strangers")
    with pytest.raises(LedgerError, match=r"does not prove this head \(its signature leads to none of these roots\)$"):
        check_stamp(answer, data, (tmp_path / "strangers" / "root.pem").read_bytes())
    with pytest.raises(LedgerError, match="does not prove this head"):  # who signs is no root of ours
        check_stamp(answer, data, (tmp_path / "strangers" / "signer.pem").read_bytes())
    check_stamp(answer, data, (tmp_path / "strangers" / "root.pem").read_bytes() + 2 * roots)
    for none in (b"", b"words", authority.roots.read_bytes()[:200]):
        with pytest.raises(ConfigError, match="must hold root certificates"):
            check_stamp(answer, data, none)


def test_no_flipped_byte_is_proven(authority: Authority, head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head"
    stamp_head(head, path, authority.url, make_opener())
    data, answer, roots = path.read_bytes(), stamp_file(path).read_bytes(), authority.roots.read_bytes()
    before, draw = check_stamp(answer, data, roots), random.Random(0)
    for at in range(len(answer)):
        flipped = answer[:at] + bytes([answer[at] ^ 1 << draw.randrange(8)]) + answer[at + 1 :]
        try:
            said = check_stamp(flipped, data, roots)
        except LedgerError:
            continue
        assert said == before, f"byte {at}: it says something else"  # what isn't signed, as the words of the status
    for length in range(0, len(answer), 97):
        with pytest.raises(LedgerError):
            check_stamp(answer[:length], data, roots)


def test_whatever_is_no_answer_writes_nothing(authority: Authority, head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head"
    kept = ask_for_stamp(authority.url, b"another question", make_opener())
    answers = {
        "answers another question": (200, kept),
        "sends something else": (200, b"<html>Welcome</html>"),
        "grants none": (200, bytes.fromhex("30053003020102")),
        "sends more than 1 MB": (200, bytes(2 << 20)),
        "refuses.*HTTP 503": (503, b""),
    }
    for words, answer in answers.items():
        authority.answer = lambda _query, answer=answer: answer  # type: ignore[misc]
        with pytest.raises(PullError, match=words):
            stamp_head(head, path, authority.url, make_opener())
    for url in (
        "file:///etc/passwd",
        "tsa.example.org",
        "ftp://127.0.0.1/",
        "http://",
        "http://[",
        "http://a:b@127.0.0.1/",
        "http://127.0.0.1:x/",
        "data:,x",
    ):
        with pytest.raises(ConfigError, match="must be the http or https address"):
            stamp_head(head, path, url, make_opener())
    for broken in (b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx"):
        with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(PullError):
            threading.Thread(target=lambda server=server, broken=broken: _say(server, broken)).start()
            stamp_head(head, path, f"http://127.0.0.1:{server.getsockname()[1]}/", make_opener())
    with pytest.raises(PullError, match="can't be reached"):
        stamp_head(head, path, "http://127.0.0.1:9/", make_opener())
    assert list(path.parent.glob("head*")) == []


def _say(server: socket.socket, words: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(words)


def test_bytes_that_are_no_stamp_are_said(authority: Authority, head: Head) -> None:
    draw = random.Random(1)
    for _ in range(200):
        with pytest.raises(IngleError):
            check_stamp(b"0" + draw.randbytes(draw.randrange(60)), b"data", authority.roots.read_bytes())


def test_without_the_library_it_says_how_to_install_it(
    authority: Authority, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    for call in (
        lambda: stamp_head(head, tmp_path / "head", authority.url, make_opener()),
        lambda: check_stamp(b"", b"", b""),
    ):
        with pytest.raises(ConfigError, match=r"rfc3161-client, which is not installed.*pip install"):
            call()
    program = "import sys, ingle.ledger.stamp, ingle.ledger.chain; assert 'rfc3161_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert stamping.TIMEOUT_S <= 60
