"""What a home lacks is offered on the page where it is first wanted, comes with progress, and is used; in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ingle.home.place import Home
from ingle.serve.troubles import said
from tests.cli.place import ingle
from tests.page.browser import House, Tab, browser
from tests.page.test_page_pictures import DROP
from tests.serve.servers import serving
from tests.serve.test_serve_mix import disc

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def house(tmp_path: Path, smollm2_home: Home) -> Iterator[House]:
    """A home with smollm2 and nothing else."""
    house = House(tmp_path, smollm2_home)
    shutil.rmtree(house.home.root / "parts", ignore_errors=True)
    house.start()
    yield house
    house.stop()


def test_the_painter_comes_when_somebody_wants_a_picture(house: House, chromium: Browser) -> None:
    tab = Tab(chromium.new_page(), house.url).open()
    line = tab.all(".composer .get")
    assert tab.ask("Draw a strawberry.")
    expect(line).to_contain_text("Ingle can't draw pictures yet. What it takes comes with Ingle.")
    line.get_by_role("button", name="Get it").click()
    expect(line).to_contain_text("Ingle can draw pictures now.")
    line.get_by_role("button", name="Close").click()
    expect(line).to_have_count(0)
    tab.ask("Draw a strawberry.")
    expect(tab.all(".turn.assistant:last-child img.drawn")).to_have_count(1)
    assert not tab.errors


def test_a_picture_waits_until_something_can_see_it(house: House, chromium: Browser) -> None:
    tab = Tab(chromium.new_page(), house.url).open()
    tab.page.evaluate(DROP, [disc((220, 30, 30)).partition(",")[2], "disc.png"])
    expect(tab.all(".composer .pictures li")).to_have_count(1)
    tab.all(".composer textarea").fill("What is this?")
    tab.page.keyboard.press("Enter")
    line = tab.all(".composer .get")
    expect(line).to_contain_text("Ingle can't see pictures yet. What it takes gets 17.4 MB from your package index, once.")
    expect(tab.all(".turn")).to_have_count(0)
    expect(tab.all(".composer textarea")).to_have_value("What is this?")
    line.get_by_role("button", name="Not now").click()
    expect(line).to_have_count(0)
    tab.all(".composer .add").click()
    expect(line).to_contain_text("Ingle can't see pictures yet.")
    tab.all(".composer .mic").click()
    expect(line).to_contain_text("Ingle can't hear you yet.")
    assert not tab.errors


def test_a_guest_hears_what_is_missing_and_gets_nothing(served_home: Path, chromium: Browser) -> None:
    key = ingle(served_home, "key", "add", "visitor").stdout.strip()
    with serving(served_home, "--page", "--set", "serve.require_key=true") as server:
        tab = Tab(chromium.new_page(), server.url)
        tab.page.goto(server.url)
        tab.page.get_by_label("key", exact=False).fill(key)
        tab.page.keyboard.press("Enter")
        tab.ready()
        microphone, picture = tab.all(".composer .mic"), tab.all(".composer .add")
        expect(microphone).to_have_attribute("title", "Ingle can't hear you here yet. Whoever keeps this house can bring that.")
        expect(picture).to_have_attribute("title", "tiny can't see pictures. smollm2 can learn to.")
        microphone.click()
        line = tab.all(".composer .get")
        expect(line).to_contain_text("Whoever keeps this house can bring that.")
        expect(line.get_by_role("button", name="Get it")).to_have_count(0)
        for method, path, body in (
            ("POST", "/v1/catalogue/pull", {"name": "smollm2-360m"}),
            ("POST", "/v1/catalogue/measure", {"soon": True}),
        ):
            assert tab.sends(method, path, body)[0] == 403
        assert tab.sends("DELETE", "/v1/catalogue/pull", None)[0] in (403, 404)
        assert server.get("/v1/catalogue/pull", {"Authorization": f"Bearer {key}"}).status_code in (200, 403)
        assert not tab.errors


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("/home/ann/.ingle/models/a.json must describe a kept model (line 1)", "a.json must describe a kept model (line 1)"),
        ("The home /srv/my-ingle is gone", "The home my-ingle is gone"),
        ("C:\\Users\\ann\\ingle\\policy.toml can't be read", "policy.toml can't be read"),
        ("GET /v1/models lists them", "GET /v1/models lists them"),
        ("See https://example.org/a/b.html", "See https://example.org/a/b.html"),
        ("10/12/2026 and 3/4", "10/12/2026 and 3/4"),
    ],
)
def test_no_page_says_where_a_file_lies(error: str, shown: str) -> None:
    assert said(error) == shown
