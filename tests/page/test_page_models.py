"""Models on the page: a larger one is offered, looked at, pulled with progress, stopped, pulled on, and used; in a real browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ingle.app.settings import read_settings
from ingle.core.config import to_table
from ingle.core.process import usable_cores
from ingle.engine.bandwidth import KINDS, Bandwidth, find_machine
from ingle.home.kept import list_kept
from ingle.home.lean import is_lean
from ingle.home.place import Home
from tests.cli.place import ingle
from tests.home.site_servers import Site
from tests.hubs import MODEL, NAME, catalogue_hub, hub_environment
from tests.page.browser import Tab, browser
from tests.serve.servers import Server, serving
from tests.serve.test_serve_catalogue import own_home
from tests.waiting import wait_until

pytestmark = pytest.mark.journey

BANDWIDTH = Bandwidth(2, find_machine().name, usable_cores(), 2, "2026-01-01T00:00:00+00:00", dict.fromkeys(KINDS, 20e9), 1e-5)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def hub(smollm2_gguf: Path) -> Iterator[Site]:
    with catalogue_hub(smollm2_gguf) as site:
        yield site


@pytest.fixture
def house(tmp_path: Path, smollm2_home: Home, hub: Site) -> Iterator[Server]:
    """A server with smollm2 and a hub, on a machine that was measured."""
    with house_of(tmp_path, smollm2_home, hub, BANDWIDTH) as server:
        yield server


@pytest.fixture
def slow_house(tmp_path: Path, smollm2_home: Home, hub: Site) -> Iterator[Server]:
    """The same on a machine that is fast enough for the next size alone."""
    with house_of(tmp_path, smollm2_home, hub, replace(BANDWIDTH, bytes_per_s=dict.fromkeys(KINDS, 3.5e9))) as server:
        yield server


@contextmanager
def house_of(root: Path, kept: Home, hub: Site, measured: Bandwidth) -> Iterator[Server]:
    home = own_home(kept, root / "home")
    (home.root / "cache" / "speed.json").write_text(json.dumps(to_table(measured)))
    with serving(home.root, "--page", changes=hub_environment(hub, root)) as server:
        yield server


def test_a_larger_model_is_offered_pulled_and_used(chromium: Browser, house: Server, hub: Site) -> None:
    hub.slow_s = 0.004
    tab = Tab(chromium.new_page(), house.url).open()
    offer = tab.all(".welcome .better")
    expect(offer).to_contain_text("tokens a second here. The quick one")
    offer.get_by_role("button", name="All models").click()
    panel = tab.all("dialog.models")
    expect(panel.locator("li")).to_have_count(13)
    expect(panel.locator('[data-model="smollm2"]')).to_contain_text("In use")
    row = panel.locator(f'[data-model="{NAME}"]')
    expect(row).to_contain_text("362 million parameters · 386 MB · Apache-2.0")
    expect(row).to_contain_text("tokens a second")
    row.get_by_role("button", name="Pull").click()
    expect(row.locator("progress")).to_be_visible()
    expect(row.get_by_role("status")).to_contain_text(f"{MODEL.file}: ")
    expect(panel.locator('[data-model="qwen3-0.6b"]').get_by_role("button", name="Pull")).to_be_disabled()
    wait_until(lambda: house.get("/v1/catalogue/pull").json()["done"] > 4 << 20, "four megabytes have come")
    row.get_by_role("button", name="Stop").click()
    expect(row).to_contain_text("Stopped. What has arrived is kept")
    hub.slow_s = 0
    hub.requests.clear()
    panel.get_by_role("switch", name="Save disk space").check()
    row.get_by_role("button", name="Pull").click()
    row.get_by_role("button", name="Use").click()
    expect(row).to_contain_text("In use")
    assert hub.fetched(MODEL.file)[-1]["range"] != "bytes=0-"
    tab.page.keyboard.press("Escape")
    expect(tab.all(".bar .model")).to_have_text(NAME)
    assert tab.ask("What is the capital of France?")
    assert house.answers()[-1].subject == NAME
    [base] = [kept.base for kept in list_kept(house.home) if kept.name == NAME]
    assert is_lean(house.home.base_folder(base)), "the switch was on"
    tab.page.goto(house.url)
    expect(tab.all(".welcome")).to_be_visible()
    expect(offer).to_have_count(0)
    assert not tab.errors and all(url.startswith((house.url, "data:")) for url in tab.requests)


def test_the_better_model_comes_while_the_quick_one_answers(chromium: Browser, slow_house: Server, hub: Site) -> None:
    house, hub.slow_s = slow_house, 0.01
    tab = Tab(chromium.new_page(), house.url).open()
    offer = tab.all(".welcome .better")
    expect(offer.get_by_role("button", name="Get it")).to_have_count(0)
    offer.get_by_label("Better").check()
    expect(offer).to_contain_text("386 MB to get (about a minute at 50 Mbit/s)")
    expect(offer).not_to_contain_text("a guess")
    offer.get_by_role("button", name="Get it").click()
    expect(offer).to_have_count(0)
    line = tab.all(".composer .get")
    expect(line.locator("progress")).to_be_visible()
    assert tab.ask("What is the capital of France?")
    assert house.answers()[-1].subject == "smollm2"
    expect(line).to_contain_text(f"{MODEL.file}: ")
    hub.slow_s = 0
    line.get_by_role("button", name="Use it here").click()
    expect(line).to_have_count(0)
    expect(tab.all(".bar .model")).to_have_text(NAME)
    assert tab.ask("What is the capital of Italy?")
    assert house.answers()[-1].subject == NAME
    assert read_settings(house.home).chat.model == NAME, "it answers when the server begins anew, too"
    tab.page.goto(house.url)
    expect(tab.all(".bar .model")).to_have_text(NAME)
    assert not tab.errors


def test_the_choice_is_there_before_the_machine_is_measured(chromium: Browser, tmp_path: Path, smollm2_home: Home) -> None:
    home = own_home(smollm2_home, tmp_path / "home")
    (home.root / "cache" / "speed.json").unlink(missing_ok=True)
    with serving(home.root, "--page") as server:
        tab = Tab(chromium.new_page(), server.url).open()
        offer = tab.all(".welcome .better")
        expect(offer).to_contain_text("being measured")
        expect(offer.get_by_label("Better")).to_be_disabled()
        assert tab.page.evaluate("document.querySelector('.scroll').scrollTop") == 0, "the start is read from its beginning"
        assert not tab.errors


def test_what_goes_wrong_is_said_in_the_panel(chromium: Browser, house: Server, hub: Site) -> None:
    hub.status = 403
    tab = Tab(chromium.new_page(), house.url).open()
    tab.all(".bar button[aria-haspopup=dialog]").click()
    tab.all(".settings .more-models").click()
    row = tab.all(f'dialog.models [data-model="{NAME}"]')
    row.get_by_role("button", name="Pull").click()
    expect(row).to_contain_text("The server refuses")
    hub.status = None
    expect(row.get_by_role("button", name="Pull")).to_be_enabled()
    assert not tab.errors


def test_guests_are_offered_nothing(chromium: Browser, served_home: Path) -> None:
    key = ingle(served_home, "key", "add", "guest", "--metrics", "--guards").stdout.strip()
    with serving(served_home, "--page", "--set", "serve.require_key=true") as server:
        tab = Tab(chromium.new_page(), server.url)
        tab.page.goto(server.url)
        tab.page.get_by_label("key", exact=False).fill(key)
        tab.page.keyboard.press("Enter")
        tab.ready()
        expect(tab.all(".welcome")).to_be_visible()
        tab.all(".bar button[aria-haspopup=dialog]").click()
        expect(tab.all(".settings select").first).to_be_visible()
        expect(tab.all(".more-models")).to_have_count(0)
        # Whoever writes the page's messages by hand gets no further.
        status, text = tab.sends("POST", "/v1/catalogue/pull", {"name": "smollm2-360m"})
        assert status == 403 and "The owner does" in text
        assert server.get("/v1/catalogue/pull", {"Authorization": f"Bearer {key}"}).json()["state"] == "none"
