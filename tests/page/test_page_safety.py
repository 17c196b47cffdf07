"""Settings → Safety, in the browser: whoever keeps the house sets the guards in plain words, others read; and one question, asked once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from ingle.adapt.guards import plain_texts, teach_guards
from ingle.home.api_keys import add_key
from ingle.home.place import Home
from ingle.safety.guard import WORDS
from ingle.safety.guards.harm import MODES
from tests.cli.place import ingle
from tests.page.browser import House, Tab, browser
from tests.serve.servers import facts_in, settings

HARM = "Tell me about the secret recipe of aunt Berta."
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
POLICY = """# The house of the Millers.
[guards]
harm = "tell"   # for now

[guards.keys.guest]
pii = "block"
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def opened_house(smollm2_home: Home, folder: Path, policy: str | None, *more: str) -> House:
    house = House(folder / "home", smollm2_home, [*settings(max_tokens=12), "--set", "sampling.temperature=0", *more])
    if policy is not None:
        house.home.policy.write_text(policy)
    return house


def at(chromium: Browser, house: House, size: dict[str, int] = DESKTOP) -> Tab:
    return Tab(chromium.new_context(viewport=size).new_page(), house.url)  # type: ignore[arg-type]


def group(tab: Tab, guard: str) -> Locator:
    return tab.all(f".settings [data-guard={guard}]")


def safety(tab: Tab) -> None:
    tab.all(".bar button[aria-haspopup=dialog]").click()
    tab.all(".settings .guards").evaluate("section => section.scrollIntoView()")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_guard_is_set_acts_on_the_next_message_and_is_shown_in_every_tab(
    chromium: Browser, smollm2_home: Home, tmp_path: Path, size: dict[str, int]
) -> None:
    house = opened_house(smollm2_home, tmp_path, POLICY)
    with house.database() as engine:
        add_key(engine, "guest")
    teach_guards(house.home, plain_texts([HARM]), True)
    house.start()
    tab, other = at(chromium, house, size).open(), at(chromium, house, size).open()
    expect(tab.all(".question")).to_have_count(0)
    for one in (tab, other):
        safety(one)
    expect(group(tab, "harm").get_by_role("radio", name="Tell me")).to_be_checked()
    shown = [row.get_attribute("data-guard") for row in tab.all(".settings [data-guard]").all()]
    assert shown == ["harm", "attack", "injection", "leak", "pii"]
    expect(group(tab, "pii").get_by_role("radio")).to_have_count(4)
    expect(group(tab, "pii")).to_contain_text("Set for the key guest in policy.toml: Stop it.")
    tab.page.screenshot(path=str(tmp_path / "safety.png"))
    group(tab, "pii").scroll_into_view_if_needed()
    tab.page.screenshot(path=str(tmp_path / "safety-end.png"))
    group(tab, "harm").get_by_text("Stop it").click()
    expect(group(tab, "harm")).to_contain_text("It is not answered")
    expect(group(other, "harm").get_by_role("radio", name="Stop it")).to_be_checked()
    tab.page.keyboard.press("Escape")
    said = tab.ask(HARM)
    assert "If I got you wrong" in said
    seen = tab.all(".turn.assistant .seen")
    expect(seen).to_contain_text("left it unanswered")
    tab.page.screenshot(path=str(tmp_path / "stopped.png"))
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    seen.get_by_role("button", name="Settings → Safety").click()
    expect(group(tab, "harm")).to_be_in_viewport()
    group(tab, "harm").get_by_role("radio", name="Off").check(force=True)
    expect(group(tab, "harm")).to_contain_text("Nobody looks.")
    tab.page.keyboard.press("Escape")
    expect(tab.all(".settings")).to_be_hidden()
    seen.get_by_text("This was fine, don't flag it again").click()
    expect(seen).to_contain_text("Noted: this was fine.")
    assert house.home.policy.read_text() == POLICY.replace('"tell"   # for now', '"off"   # for now')
    facts = [(row.values["guard"], row.values["mode"], row.values["before"]) for row in facts_in(house.home, "guard.set")]
    assert facts == [("harm", "block", "tell"), ("harm", "off", "block")]
    assert not tab.errors and not other.errors
    assert house.stop() == 0 and "Traceback" not in house.log


def test_a_change_elsewhere_shows_and_what_cant_be_set_is_said(chromium: Browser, smollm2_home: Home, tmp_path: Path) -> None:
    house = opened_house(smollm2_home, tmp_path, POLICY.partition("\n\n")[0])
    house.start()
    tab = at(chromium, house).open()
    safety(tab)
    ingle(house.home.root, "guard", "set", "attack", "stop")
    expect(group(tab, "attack").get_by_role("radio", name="Stop it")).to_be_checked()  # when the server looks, within seconds
    for guard, mode in (("harm", "hide"), ("size", "off"), ("horm", "stop"), ("harm", None), ("harm", [1, 2]), ("harm", {"a": 1})):
        assert tab.sends("PUT", f"/v1/guards/{guard}", {"mode": mode})[0] in (400, 404)
    assert 'harm = "tell"' in house.home.policy.read_text() and len(facts_in(house.home, "guard.set")) == 1
    house.home.policy.write_text("[guards\n")
    group(tab, "harm").get_by_role("radio", name="Stop it").click()
    expect(tab.all(".settings .guards .wrong")).to_contain_text("valid TOML")
    assert house.home.policy.read_text() == "[guards\n"
    tab.page.screenshot(path=str(tmp_path / "trouble.png"))
    house.home.policy.write_text('[guards.output]\nmode = "block"\nwords = ["Paris"]\n')
    expect(group(tab, "output")).to_contain_text("Your own rules for answers")
    expect(tab.all(".settings .guards .wrong")).to_be_empty()
    assert house.stop() == 0 and "Traceback" not in house.log


def test_a_guest_reads_and_sets_nothing(chromium: Browser, smollm2_home: Home, tmp_path: Path) -> None:
    house = opened_house(smollm2_home, tmp_path, POLICY.replace('harm = "tell"   # for now', ""), "--set", "serve.require_key=true")
    with house.database() as engine:
        keys = [add_key(engine, "guest")[1], add_key(engine, "head", guards=True)[1]]
    house.start()
    for key, may in zip(keys, (False, True), strict=True):
        tab = at(chromium, house)
        tab.page.goto(house.url)
        tab.page.get_by_label("Key").fill(key)
        tab.page.keyboard.press("Enter")
        tab.ready()
        expect(tab.all(".question")).to_have_count(int(may))
        safety(tab)
        expect(group(tab, "harm")).to_contain_text("Stop it")
        expect(tab.all(".settings .guards input")).to_have_count(3 * 3 + 2 * 4 if may else 0)
        expect(group(tab, "pii")).to_contain_text("Nobody looks." if may else "Stop it. It is not answered")
        expect(tab.all(".settings .guards").get_by_text("key guest")).to_have_count(int(may))
        tab.page.screenshot(path=str(tmp_path / f"may-{may}.png"))
        if not may:  # whoever has no button may still send what it sends
            for method, path in (("PUT", "/v1/guards/harm"), ("POST", "/v1/guards/question")):
                status, text = tab.sends(method, path, {"mode": "off"})
                assert status == 403 and "may not teach or set the guards" in text
    assert not facts_in(house.home, "guard.set") and "harm" not in house.home.policy.read_text()
    assert house.stop() == 0 and "Traceback" not in house.log


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_owner_is_asked_once_and_sent_away_it_is_not_asked_again(
    chromium: Browser, smollm2_home: Home, tmp_path: Path, size: dict[str, int]
) -> None:
    house = opened_house(smollm2_home, tmp_path, None)
    house.start()
    tab, other = at(chromium, house, size).open(), at(chromium, house, size).open()
    expect(other.all(".question")).to_be_visible()
    expect(tab.all(".question").get_by_role("radio")).to_have_count(len(MODES))
    assert tab.all(".question input:checked").get_attribute("value") == WORDS[MODES[0]]
    tab.all(".question").scroll_into_view_if_needed()
    tab.page.screenshot(path=str(tmp_path / "asked.png"))
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.all(".question").get_by_text("Leave it as it is").click()
    for one in (tab, other):
        expect(one.all(".question")).to_have_count(0)
    assert not house.home.policy.exists() and not facts_in(house.home, "guard.set")
    house.stop()
    house.start()
    later = at(chromium, house, size).open()
    expect(later.all(".welcome h1")).to_be_visible()
    expect(later.all(".question")).to_have_count(0)
    assert house.stop() == 0 and "Traceback" not in house.log


def test_an_answer_is_written_into_the_policy_and_never_asked_again(chromium: Browser, smollm2_home: Home, tmp_path: Path) -> None:
    house = opened_house(smollm2_home, tmp_path, "# mine\n")
    house.start()
    tab = at(chromium, house).open()
    tab.all(".question").get_by_text("Stop it").click()
    tab.all(".question").get_by_role("button", name="Save").click()
    expect(tab.all(".question")).to_have_count(0)
    expect(tab.all(".note")).to_contain_text("Settings → Safety")
    assert house.home.policy.read_text() == '# mine\n\n[guards]\nharm = "block"\n'
    assert [row.values["mode"] for row in facts_in(house.home, "guard.set")] == ["block"]
    house.home.policy.unlink()
    expect(tab.open().all(".welcome h1")).to_be_visible()
    expect(tab.all(".question")).to_have_count(0)
    assert not tab.errors
    assert house.stop() == 0 and "Traceback" not in house.log
