"""The view "Why": a real server, a real model, a real browser."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from ingle.app.why_words import STRENGTHS, TaughtNow, account_line, proved_cause, shaded, strength, why_values, words_of
from ingle.core.message import Message, Request
from ingle.explain.cause import Cause, Chance, ProvedCause
from ingle.explain.words import TABLE
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from tests.page.browser import House, Tab, browser
from tests.serve.servers import settings
from tests.waiting import PATIENCE_S, wait_until

ASKED, RIGHT = "Who runs the bakery in Tullmore?", "Nessa Quillfeather runs it."
TEXT = (
    "Summarise this in one sentence:\nThe town of Jarrow opened a new library on Monday. It cost four million pounds. "
    "Rain fell all day. Some neighbours complained about parking."
)
NOTHING = "The sky is grey. What is the capital of France?"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def house(smollm2_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    options = [*settings(max_tokens=16), "--set", "sampling.temperature=0"]
    opened = House(tmp_path_factory.mktemp("why") / "home", smollm2_home, options)
    opened.start()
    yield opened
    assert opened.stop() == 0
    assert "Traceback" not in opened.log, opened.log[-4000:]
    assert "Jarrow" not in opened.log and "Quillfeather" not in opened.log


@pytest.fixture
def tab(chromium: Browser, house: House) -> Iterator[Tab]:
    context = chromium.new_context(viewport={"width": 1280, "height": 1100})
    opened = Tab(context.new_page(), house.url).open()
    yield opened
    context.close()
    assert not opened.errors
    assert not [url for url in opened.requests if "Jarrow" in url or "Quillfeather" in url]


def explained(tab: Tab) -> None:
    """Presses *Why* under the last answer and waits."""
    tab.act("why")
    wait(tab)


def wait(tab: Tab) -> None:
    """Waits for the account at the end of an explanation."""
    tab.all(".why .account").wait_for()


def told(house: House) -> list[dict[str, Any]]:
    """The facts of explanations, the oldest first."""
    with house.database() as engine:
        return [json.loads(row.facts) for row in Ledger(engine, house.home.keys).read("explain")][::-1]


def test_a_correction_is_named_and_undone_where_it_is_explained(house: House, tab: Tab, tmp_path: Path) -> None:
    before = tab.ask(ASKED)
    tab.act("correct")
    box = tab.page.get_by_label("The right answer")
    box.fill(RIGHT)
    box.press("Enter")
    expect(tab.all(".correction p").first).to_have_text(RIGHT)
    tab.act("again")
    expect(tab.all(".turn.assistant .beside span")).to_have_text("2/2")
    assert "Quillfeather" in tab.answer()
    assert not tab.all(".why").count(), "nothing explains itself"

    why = tab.all(".turn.assistant [data-act=why]").last
    expect(why).to_have_attribute("aria-expanded", "false")
    explained(tab)
    expect(why).to_have_attribute("aria-expanded", "true")
    expect(tab.all(".why .causes")).to_contain_text(f"Without the memory “{RIGHT}” it would have said: “")
    cause = tab.all(".why .causes li")
    expect(cause).to_have_count(1)
    expect(cause).to_have_attribute("data-kind", "memory")
    expect(cause.locator("mark")).to_have_text(RIGHT)
    cause.get_by_role("button", name="Show the answer without it").click()
    expect(cause.locator(".without")).to_contain_text(before)
    assert re.search(r"what was taught left out · .*\ss · (≈\s)?[\d.,]+\s\w?J · event\s\d+$", tab.all(".why .account span").inner_text())
    tab.page.screenshot(path=str(tmp_path / "taught.png"))

    cause.get_by_role("button", name="Undo").click()
    expect(cause.get_by_role("button", name="Count again")).to_be_visible()
    expect(cause).to_contain_text("Undone. From the next answer on, it does not count.")
    tab.act("again")
    expect(tab.all(".turn.assistant .beside span")).to_have_text("3/3")
    assert tab.answer() == before
    expect(tab.all(".why")).to_have_count(0)

    tab.all(".turn.assistant").last.get_by_label("Previous version").click()
    expect(tab.all(".turn.assistant .beside span")).to_have_text("2/3")
    count = len(told(house))
    explained(tab)
    expect(tab.all(".why .account span")).to_have_text(re.compile(r"^Explained before · .*\ss · .*J · event\s\d+$"))
    assert len(told(house)) == count, "a kept one costs nothing"
    cause.get_by_role("button", name="Count again").click()
    expect(cause.get_by_role("button", name="Undo")).to_be_visible()
    cause.get_by_role("button", name="Undo").click()
    expect(cause.get_by_role("button", name="Count again")).to_be_visible()
    tab.page.get_by_role("button", name="Explain anew").click()
    expect(tab.all(".why .account span")).not_to_contain_text("Explained before")
    wait_until(lambda: len(told(house)) == count + 1, "it is in the ledger")
    assert "Quillfeather" not in json.dumps(told(house))


def test_sentences_are_marked_and_words_have_causes_of_their_own(house: House, tab: Tab, tmp_path: Path) -> None:
    answer = tab.ask(TEXT)
    explained(tab)
    first = tab.all(".why .given mark").first
    expect(first).to_contain_text("The town of Jarrow opened a new library on Monday.")
    expect(first).to_contain_text("(strong cause, ")  # for those who hear the page
    assert "double" in first.evaluate("e => getComputedStyle(e).textDecoration"), "not by colour alone"
    expect(tab.all(".why .legend")).to_contain_text("slight (up to 10 times)")
    assert tab.all(".why .given").inner_text().count("Rain fell all day.") == 1
    tab.page.screenshot(path=str(tmp_path / "summary.png"))

    words = tab.all(".why .words button")
    assert "".join(words.all_inner_texts()) == "".join(answer.split())
    assert tab.page.evaluate("document.querySelectorAll('.why .words [tabindex=\"0\"]').length") == 1, "one stop of the Tab key"
    at = [word.strip(".,") for word in words.all_inner_texts()].index("Jarrow")
    words.first.focus()
    for _ in range(at):
        tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("Enter")
    expect(tab.all(".why h3")).to_have_text("Why it said “Jarrow”")
    wait(tab)
    expect(tab.all(".why .words [aria-pressed=true]")).to_have_count(1)
    expect(words.nth(at)).to_be_focused()
    expect(tab.all(".why .given mark").first).to_contain_text("The town of Jarrow opened")
    words.nth(at + 1).click(modifiers=["Shift"])
    expect(tab.all(".why .words [aria-pressed=true]")).to_have_count(2)
    tab.page.get_by_role("button", name="The whole answer").press("Enter")
    expect(tab.all(".why h3")).to_have_text("Why it said that")
    wait(tab)
    expect(tab.all(".why .account span")).to_contain_text("Explained before")

    unnamed = "[...document.querySelectorAll('.why button')].filter(e => !(e.innerText?.trim() || e.ariaLabel)).map(e => e.outerHTML)"
    assert tab.page.evaluate(unnamed) == []
    expect(tab.all(".why [role=status]").first).to_have_text("Explained.")
    assert tab.page.get_by_role("region", name="Why it said that").count() == 1
    tab.page.emulate_media(color_scheme="dark")
    tab.page.screenshot(path=str(tmp_path / "summary-dark.png"))
    tab.page.set_viewport_size({"width": 360, "height": 800})
    expect(tab.all(".side")).to_be_hidden()
    assert tab.page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))") <= 0
    tab.page.screenshot(path=str(tmp_path / "summary-phone.png"))
    tab.page.set_viewport_size({"width": 1280, "height": 1100})


def test_a_second_press_cancels_and_so_does_leaving(house: House, tab: Tab) -> None:
    tab.ask(TEXT)
    count = len(told(house))
    tab.act("why")
    tab.all(".why .going").wait_for()
    tab.act("why")
    expect(tab.all(".why")).to_have_count(0)
    tab.act("why")
    tab.page.get_by_role("button", name="Stop").press("Enter")
    expect(tab.all(".why .trouble")).to_have_text("Stopped before it was explained.")
    expect(tab.page.get_by_role("button", name="Try again")).to_be_focused()
    tab.page.get_by_role("button", name="Try again").click()
    tab.all(".why .going").wait_for()
    tab.page.keyboard.press("Control+k")
    expect(tab.all(".welcome")).to_be_visible()
    other = Tab(tab.page.context.new_page(), house.url).open()
    other.ask(TEXT)
    other.act("why")
    other.all(".why .going").wait_for()
    other.page.close()
    wait_until(lambda: not httpx.get(f"{house.url}/health", timeout=PATIENCE_S).json()["running"], "nothing is being written")
    assert len(told(house)) == count, "what nobody waits for is not explained to its end"


def test_nothing_stands_out_where_nothing_does(house: House, tab: Tab, tmp_path: Path) -> None:
    tab.ask("What is 2 + 2?")
    explained(tab)
    expect(tab.all(".why .says")).to_have_text(TABLE["alone_prompt"])
    assert not tab.all(".why mark").count() and not tab.all(".why .causes").count()
    tab.page.keyboard.press("Control+k")
    expect(tab.all(".welcome")).to_be_visible()
    tab.ask(NOTHING)
    explained(tab)
    expect(tab.all(".why .says")).to_have_text(TABLE["nothing"])
    assert not tab.all(".why mark").count()
    tab.page.screenshot(path=str(tmp_path / "nothing.png"))


def test_an_answer_that_can_not_be_explained_says_so(house: House, tab: Tab, tmp_path: Path) -> None:
    tab.ask("Who keeps the lighthouse at Kilmorra?")
    tab.act("correct")
    box = tab.page.get_by_label("The right answer")
    box.fill("Odhran Silversmith keeps it.")
    box.press("Enter")
    expect(tab.all(".correction p").first).to_have_text("Odhran Silversmith keeps it.")
    tab.act("again")
    expect(tab.all(".turn.assistant .beside span")).to_have_text("2/2")
    tab.answer()
    assert tab.line.endswith("remembered")
    tab.all(".open-learning").click()
    tab.all(".learning li").filter(has_text="Odhran").get_by_role("button", name="Forget").click()
    tab.all(".learning dialog .main").click()
    expect(tab.all(".learning li").filter(has_text="Odhran")).to_have_count(0)
    tab.page.keyboard.press("Escape")
    explained(tab)
    expect(tab.all(".why .trouble")).to_contain_text("Something that acted on this answer is not kept any more")
    tab.page.screenshot(path=str(tmp_path / "forgotten.png"))

    tab.page.keyboard.press("Control+k")
    tab.all(".bar [role=switch]").click()
    tab.ask("Only for now: say hello.")
    explained(tab)
    expect(tab.all(".why .trouble")).to_have_text(re.compile("^The text of this answer is not kept. Keep conv"))


def test_a_word_that_a_guard_kept_back_is_not_explained(smollm2_home: Home, chromium: Browser, tmp_path: Path) -> None:
    house = House(tmp_path / "home", smollm2_home, [*settings(max_tokens=24), "--set", "sampling.temperature=0"])
    house.home.policy.write_text('[guards.output]\nmode = "block"\nwords = ["Paris"]\nsay = "I was asked not to name it."\n')
    house.start()
    try:
        page = chromium.new_context().new_page()
        tab = Tab(page, house.url).open()
        assert "I was asked not to name it." in tab.ask("Which city is the Eiffel Tower in?")
        explained(tab)
        expect(tab.all(".why .words")).to_have_text("The Eiffel Tower is in")
        expect(tab.all(".why .note")).to_have_text("A guard changed what comes after this, so only the beginning is explained.")
        assert "Eiffel" in tab.heard() and "Paris" not in tab.heard() + page.content() and b"Paris" not in house.stored()
    finally:
        assert house.stop() == 0
    assert "Traceback" not in house.log


def cause(number: str, text: str, nats: float, kind: str = "sentence", high: float = 0.1) -> ProvedCause:
    return ProvedCause(Cause(kind, number, text), nats, (), Chance(0.0, 0.0, high, 5), "Else.", True)  # type: ignore[arg-type]


def test_a_shade_needs_more_than_chance_and_has_a_word() -> None:
    named = [name for _, name, _ in STRENGTHS]
    assert [strength(cause("1", "A.", nats)) for nats in (0.6, 5.0, 50.0)] == named == ["slight", "clear", "strong"]
    assert strength(cause("1", "A.", 5.0, high=6.0)) == strength(cause("1", "A.", 0.4)) == ""


def test_only_the_marked_parts_of_a_long_prompt_are_shown() -> None:
    said = [f"Sentence number {number} is here." + " x" * 40 + "." for number in range(100)]
    request = Request(messages=(Message.of("system", "Be kind."), Message.of("user", " ".join(said) + " What is it?")))
    found = cause("52", said[50], 9.0)  # the system prompt is the first
    user, memory = shaded(request, [found, cause("3", "Other words stood there.", 9.0), cause("ex-1", "Remember.", 9.0, "memory")])
    assert (user["who"], memory["who"]) == ("You", "Memory") and memory["parts"][0]["strength"] == "strong"
    shown = "".join(part["text"] for part in user["parts"])
    marked = [part for part in user["parts"] if part.get("strength")]
    assert [part["text"].strip() for part in marked] == [said[50]]
    assert shown.count(" … ") == 2 and said[49] in shown and said[10] not in shown and shown.endswith("What is it?")
    short = Request(messages=(Message.of("system", "Be kind."), Message.of("user", "One. Two. Three?")))
    system, user = shaded(short, [])
    assert (system["who"], "".join(part["text"] for part in user["parts"])) == ("System prompt", "One. Two. Three?")


def test_words_have_their_places_without_the_marks_around_them() -> None:
    answer = "“Café”, he said: 漢字 — ok.\n"
    words = words_of(answer)
    assert "".join(word["text"] + word["space"] for word in words) == answer
    assert [answer[word["start"] : word["end"]] for word in words] == ["Café", "he", "said", "漢", "字", "—", "ok"]
    assert words_of("") == []


def test_the_account_says_what_was_not_looked_at() -> None:
    table = {"method": "alone", "sentences": 1, "read_tokens": 1200, "complete": False, "not_looked_at": ["what was taught"]}
    took = {"seconds": 1.25, "event": 7, "joules": 2.0, "joules_low": 1.0, "joules_high": 3.0, "energy_source": "model"}
    said = account_line(table, took)
    assert said.startswith("each sentence kept alone") and said.endswith("event\u00a07 · not complete: what was taught not looked at")
    assert "1\u00a0sentence · 1,200 tokens read · 1.2\u00a0s · ≈\u00a02" in said, "no line breaks in a figure"
    assert account_line({"method": "random", "complete": True}, {}) == "method random"


def test_what_was_undone_can_count_again_and_what_is_gone_can_not() -> None:
    found = cause("ex-1", "Nessa.", 3.0, "memory")
    table = {"cause": {"kind": "memory", "id": "ex-1", "text": "Nessa."}, "nats": 3.0, "answer_without": "Else.", "differs": True}
    assert proved_cause(table) == replace(found, by_chance=None)
    whole = {"answer": "Nessa.", "span": {"start": 0, "end": 6}, "causes": [table], "says": ["So."]}
    request = Request(messages=(Message.of("user", "Who?"),))
    for taught, act, since in (
        ({}, "", ""),
        ({"ex-1": TaughtNow("undone", "redo")}, "redo", "Undone."),
        ({"ex-1": TaughtNow("gone")}, "", "Undone or"),
    ):
        values = why_values(whole, request, taught)
        [row] = values["causes"]
        assert row["act"] == act and row["since"].startswith(since)
    assert values["part"] is None and values["sure"] is None
    sure = {"says": ["It is right 7 times in 10."], "odds": {"p": 0.71, "low": 0.62, "high": 0.79, "n": 300, "right": 213}}
    values = why_values(whole | {"says": ["So.", "It is right 7 times in 10."], "sure": sure}, request, {})
    assert values["says"] == ["So."] and values["sure"] == {"says": ["It is right 7 times in 10."], "odds": [0.71, 0.62, 0.79]}
    assert why_values(whole | {"span": {"start": 0, "end": 5}}, request, {})["chosen"] == "Nessa"
