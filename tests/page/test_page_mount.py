"""The page beside the API in one application, and several applications in one process."""

import asyncio
import hashlib
import hmac
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ingle.app.answer_key import answer_key
from ingle.app.house import open_rooms
from ingle.app.settings import SamplingSettings, ServeSettings
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.api_keys import add_key, revoke_key
from ingle.home.database import open_database
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.home.sign_outs import MIGRATIONS, sign_out, signed_out
from ingle.page.mount import add_page
from ingle.page.site import site_root
from ingle.serve.app import make_app
from ingle.serve.model_registry import ModelRegistry
from ingle.serve.service import Service
from ingle.serve.sign_in import COOKIE

Make = Callable[[ServeSettings], FastAPI]


def maker(home: Home) -> Make:
    """Applications in one home."""

    def opened(home: Home, kept: Kept):  # type: ignore[no-untyped-def]
        return open_model(kept_source(home, kept), "auto", 1)

    def made(settings: ServeSettings) -> FastAPI:
        service = Service(home, settings, SamplingSettings(), ModelRegistry(home, opened, "tiny"))
        return make_app(service, add_page if settings.page else None)

    return made


@pytest.fixture
def make(served_home: Path) -> Make:
    return maker(Home(served_home))


@pytest.fixture
def locked(make: Make) -> Iterator[TestClient]:
    with TestClient(make(ServeSettings(require_key=True)), base_url="http://127.0.0.1") as client:
        yield client


def test_two_applications_keep_to_themselves(make: Make) -> None:
    async def look() -> None:
        async with AsyncExitStack() as stack:

            async def opened(settings: ServeSettings) -> httpx.AsyncClient:
                app = make(settings)
                await stack.enter_async_context(app.router.lifespan_context(app))
                client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
                return await stack.enter_async_context(client)

            free, closed = await opened(ServeSettings()), await opened(ServeSettings(require_key=True))
            without = await opened(ServeSettings(page=False))
            for _ in range(2):
                assert f"{site_root()}/app.js" in (await free.get("/")).text
                assert (await closed.get("/")).headers["location"] == "/sign-in?next=/"
            assert (await without.get("/")).status_code == 404
            for client in (free, closed):
                assert (await client.get("/health")).status_code == 200
                assert list((await client.get("/v1/unknown")).json()) == ["error"]
                refused = (await client.get("/v1/chat/completions")).json()["error"]["message"]
                assert refused.startswith("Unknown endpoint GET /v1/chat/completions.")
            with_page, api = [(await client.get("/openapi.json")).json()["paths"] for client in (free, without)]
            assert set(with_page) == set(api)

    asyncio.run(look())


def test_a_cookie_is_good_for_one_key_as_long_as_the_key_is(locked: TestClient, served_home: Path) -> None:
    engine = open_rooms(Home(served_home))
    _, secret = add_key(engine, "anna")
    for wrong in ("", "ingle-" + "x" * 43, secret[:-1], "x" * 10_000):
        assert locked.post("/sign-in", data={"key": wrong}).status_code == 401
    answer = locked.post("/sign-in", data={"key": secret, "next": "//elsewhere.example/"}, follow_redirects=False)
    assert answer.headers["location"] == "/"
    cookie = locked.cookies[COOKIE]
    assert secret not in cookie
    assert locked.get("/", follow_redirects=False).status_code == 200
    key, number, until, mac = cookie.split(".")
    forged = ("", "...", f"{key}.{number}.{int(until) + 1}.{mac}", f"key-000000000000.{number}.{until}.{mac}", cookie[:-1] + "x", "é")
    for value in forged:
        locked.cookies.clear()
        answer = locked.get("/", headers={"Cookie": f"{COOKIE}={value}".encode()}, follow_redirects=False)
        assert answer.status_code == 303, value
    revoke_key(engine, "anna")
    engine.dispose()
    assert locked.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}, follow_redirects=False).status_code == 303


def test_who_signed_out_is_out_after_a_restart_too(make: Make, served_home: Path) -> None:
    engine = open_rooms(Home(served_home))
    _, secret = add_key(engine, "clara")
    engine.dispose()
    settings = ServeSettings(require_key=True)
    with TestClient(make(settings), base_url="http://127.0.0.1") as client:
        client.post("/sign-in", data={"key": secret})
        other = TestClient(client.app, base_url="http://127.0.0.1")
        other.post("/sign-in", data={"key": secret})
        stays, goes = other.cookies[COOKIE], client.cookies[COOKIE]
        client.post("/sign-out")
    with TestClient(make(settings), base_url="http://127.0.0.1") as client:
        for cookie, status in ((goes, 303), (stays, 200)):
            assert client.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}, follow_redirects=False).status_code == status
    assert not (Home(served_home).keys / "signed-out").exists()


def test_who_signed_out_at_one_server_is_out_at_all_of_its_database(served_home: Path, postgres_url: str) -> None:
    shutil.rmtree(served_home / "keys")  # its chain is in another database
    home = Home(served_home, postgres_url)
    secret, settings = key_of(home), ServeSettings(require_key=True)
    with (
        TestClient(maker(home)(settings), base_url="http://127.0.0.1") as client,
        TestClient(maker(home)(settings), base_url="http://127.0.0.1") as other,
    ):
        goes, stays = signed_in(client, secret), signed_in(client, secret)
        assert let_in(other, goes)
        client.post("/sign-out", headers={"Cookie": f"{COOKIE}={goes}"})
        assert not let_in(client, goes) and not let_in(other, goes)
        assert let_in(client, stays) and let_in(other, stays)


def test_ended_sign_ins_are_forgotten_when_they_would_have_ended(database_url: str) -> None:
    engine = open_database(database_url, {"sign_outs": MIGRATIONS})
    sign_out(engine, "key-1.old.1", 1)
    sign_out(engine, "key-1.new.1", 4_000_000_000)
    sign_out(engine, "key-1.new.1", 4_000_000_000)
    assert signed_out(engine, "key-1.new.1") and not signed_out(engine, "key-1.old.1")
    engine.dispose()


def test_sign_ins_of_before_sign_outs_were_in_the_database_have_ended(make: Make, served_home: Path) -> None:
    """Those that were signed out stood in a file alone, which nobody reads any more."""
    secret = key_of(Home(served_home))
    with TestClient(make(ServeSettings(require_key=True)), base_url="http://127.0.0.1") as client:
        payload = signed_in(client, secret).rpartition(".")[0]
        before = hmac.digest(answer_key(Home(served_home)), b"ingle.page sign-in", hashlib.sha256)
        assert not let_in(client, f"{payload}.{hmac.digest(before, payload.encode(), hashlib.sha256).hex()}")


def key_of(home: Home) -> str:
    engine = open_rooms(home)
    try:
        return add_key(engine, "clara")[1]
    finally:
        engine.dispose()


def signed_in(client: TestClient, secret: str) -> str:
    """The cookie of a new sign-in."""
    client.post("/sign-in", data={"key": secret})
    cookie: str = client.cookies[COOKIE]
    client.cookies.clear()
    return cookie


def let_in(client: TestClient, cookie: str) -> bool:
    return client.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}, follow_redirects=False).status_code == 200


def test_signing_in_leads_nowhere_else(locked: TestClient, served_home: Path) -> None:
    engine = open_rooms(Home(served_home))
    _, secret = add_key(engine, "bert")
    engine.dispose()
    goals = {"/c/conv-1": "/c/conv-1", "https://elsewhere.example/": "/", "/c/\\elsewhere": "/", "/c/\r\nX: y": "/", "": "/"}
    for goal, place in goals.items():
        answer = locked.post("/sign-in", data={"key": secret, "next": goal}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, place)
    assert "<script>alert" not in locked.get("/sign-in?next=<script>alert(1)</script>").text


def test_a_server_with_its_page_needs_no_pytorch() -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(["torch", "transformers", "peft"]))  # to import one of them is an error now
import ingle.cli.serve, ingle.page.mount, ingle.serve.learner, ingle.serve.server
"""
    subprocess.run([sys.executable, "-c", program], check=True)
