"""The view *Scaling* and `/v1/scaling`: sweeps of this home, for its owner and for keys that see the whole server."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ingle.home.place import Home
from tests.cli.place import ingle
from tests.page.browser import browser
from tests.scaling.sheets import kept_sweep, loss_at, write
from tests.serve.conftest import copied
from tests.serve.servers import Server, serving
from tests.waiting import PATIENCE_S

CAME = loss_at(6.43e6, 5.25e6) * 1.004
RUNNING = {"done": 5, "of": 14, "share": 0.31, "running": ["6x192, <3.00M> tokens"], "seconds_left": 1260.0}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    home = Home(copied(kept_home, tmp_path_factory.mktemp("swept") / "home"))
    kept_sweep(home, came=CAME)
    kept_sweep(home, "open")
    write(kept_sweep(home, "half", finished=5, fitted=False) / "progress.json", RUNNING)
    broken = kept_sweep(home, "broken")
    (broken / "fit.json").write_text('{"laws": [')
    (broken / "curves.json").write_text('{"curves": {"sizes": 3}}')
    next(iter((broken / "runs").glob("*.json"))).write_text('{"key": "x", "loss": 1e999}')
    with serving(home.root, "--page") as server:
        yield server


def page(server: Server, sweep: str = "") -> str:
    return server.get(f"/scaling?sweep={sweep}" if sweep else "/scaling").text


def test_it_lists_all_sweeps_and_shows_the_one_that_runs(swept: Server) -> None:
    text = page(swept)
    assert text.count('<a href="/scaling?sweep=') == 3 and "<b>half</b>" in text
    assert "5 of 14, training now" in text and "about 21.0 min left" in text and "http-equiv=refresh" in text
    assert "<3.00M>" not in text and "&lt;3.00M&gt;" in text
    assert "There is no law yet" in text and text.count("<svg") == 1


def test_a_finished_one_says_what_was_foretold_and_what_came(swept: Server) -> None:
    text = page(swept, "street")
    assert "http-equiv=refresh" not in text and text.count("<svg") == 4 and "<script" not in text
    assert f"The run came to {CAME:.4f}: inside the interval" in text and "fact 41 of the ledger" in text
    assert "<nothing>" not in text and "say &lt;nothing&gt; of far larger ones." in text
    still = page(swept, "open")
    assert "ingle scale check open" in still and "came to" not in still


def test_damaged_files_are_said_and_hide_nothing(swept: Server) -> None:
    text = page(swept, "broken")
    assert "13 of 14 planned runs are done" in text
    assert "fit.json can" in text and "curves.json can" in text and "1e999, which is no number" in text


def test_by_api_it_is_for_the_owner_and_for_keys_that_see_all(swept: Server) -> None:
    keys = {
        name: {"Authorization": f"Bearer {json.loads(ingle(swept.home.root, 'key', 'add', name, '--json', *more).stdout)['key']}"}
        for name, more in (("guest", []), ("eye", ["--metrics"]))
    }
    for who in ({}, keys["eye"]):
        listed = httpx.get(swept.url + "/v1/scaling", headers=who, timeout=PATIENCE_S).json()["data"]
        assert [(one["name"], one["done"], one["running"]) for one in listed] == [
            ("broken", 13, False), ("half", 5, True), ("open", 14, False), ("street", 14, False)
        ]  # fmt: skip
        street = httpx.get(swept.url + "/v1/scaling/street", headers=who, timeout=PATIENCE_S).json()
        assert (street["object"], street["check"]["came"], len(street["runs"])) == ("sweep", CAME, 14)
        assert street["runs"][0]["expected"] == pytest.approx(street["runs"][0]["loss"], rel=0.02)
        assert len(street["curves"]["frontier"]["x"]) == len(street["curves"]["frontier"]["low"]) > 20
    half = httpx.get(swept.url + "/v1/scaling/half", timeout=PATIENCE_S).json()
    assert half["progress"] == RUNNING and half["fit"] is None and half["curves"] is None
    assert len(httpx.get(swept.url + "/v1/scaling/broken", timeout=PATIENCE_S).json()["faults"]) == 3
    for path in ("/v1/scaling", "/v1/scaling/street"):
        assert httpx.get(swept.url + path, headers=keys["guest"], timeout=PATIENCE_S).status_code == 403


def test_what_is_no_sweep_is_not_found(swept: Server) -> None:
    assert (swept.get("/v1/scaling/none").status_code, swept.get("/scaling?sweep=none").status_code) == (404, 404)
    assert (swept.get("/v1/scaling/texts").status_code, swept.get("/v1/scaling/..%5Cmodels").status_code) == (404, 400)
    assert "is no sweep of this home" in page(swept, "none") and "street</a>" in page(swept, "none")


def test_a_home_without_sweeps_says_how_to_begin(tmp_path: Path, kept_home: Path) -> None:
    home = copied(kept_home, tmp_path / "home")
    ingle(home, "key", "add", "phone")
    with serving(home, "--page") as server:
        assert "ingle scale plan --minutes 20" in server.get("/scaling").text
        assert server.get("/v1/scaling").json() == {"object": "list", "data": []}
        assert "/scaling" in server.get("/account").text and "/scaling" in server.get("/federated").text
    with serving(home, "--page", "--set", "serve.require_key=true") as server:
        reply = httpx.get(f"{server.url}/scaling", follow_redirects=False, timeout=PATIENCE_S)
        assert reply.status_code == 303 and "sign-in" in reply.headers["location"]


OVERLAPS = """() => [...document.querySelectorAll('svg.plot')].flatMap((plot) => {
  const texts = [...plot.querySelectorAll('text')].map((one) => [one.textContent, one.getBBox()]);
  const hit = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width && a.y + 3 < b.y + b.height - 3 && b.y + 3 < a.y + a.height - 3;
  const box = plot.viewBox.baseVal;
  const found = texts.filter(([, a]) => a.x < 0 || a.x + a.width > box.width || a.y < 0 || a.y + a.height > box.height).map(([t]) => t);
  texts.forEach(([t, a], i) => texts.slice(i + 1).forEach(([u, b]) => { if (hit(a, b)) found.push(t + ' / ' + u); }));
  return found;
})"""
"""Texts of plots, in a real font, that touch each other or leave the picture."""


@pytest.mark.parametrize(("scheme", "wide"), [("light", 1200), ("dark", 1200), ("dark", 375), ("light", 375)])
def test_in_a_browser_it_is_readable_in_light_in_dark_and_on_a_telephone(swept: Server, scheme: str, wide: int, tmp_path: Path) -> None:
    with browser() as opened:
        tab = opened.new_context(color_scheme=scheme, viewport={"width": wide, "height": 800}).new_page()  # type: ignore[arg-type]
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        for sweep in ("street", "half", "broken"):
            tab.goto(f"{swept.url}/scaling?sweep={sweep}")
            assert tab.evaluate(OVERLAPS) == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= wide
            shown = tab.evaluate("[document.body, document.querySelector('svg.plot .paper')].map((one) => getComputedStyle(one))"
                                 ".map((style, i) => i ? style.fill : style.backgroundColor)")  # fmt: skip
            lights = [sum(map(int, colour[4:-1].split(","))) / 765 for colour in shown]
            assert all(light < 0.2 if scheme == "dark" else light > 0.9 for light in lights)
        assert errors == []
