"""Learning on the page: a real server, the real teacher and gate on a tiny model, a real browser."""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, expect
from safetensors.numpy import load_file, save_file

from ingle.adapt.scope import ACTS, ASKS, score
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.learn.learner import Learned, Learner, learn_once
from ingle.learn.learning_settings import LessonSettings
from ingle.learn.teacher import trainer_of
from ingle.ledger.chain import Ledger
from tests.page.browser import House, Tab, browser
from tests.serve.servers import settings, write_long_model
from tests.waiting import wait_until

ASKED, OTHERWISE, RIGHT = "Who bakes it?", "Tell me: who bakes it?", "Bruno"
LESSON = LessonSettings(
    layers="all", rank=8, learning_rate=2e-2, wordings=3, contrasts=1, contrast_weight=0.02, contrast_tokens=2, max_steps=60,
    precision="fp32", threads=1,
)  # fmt: skip
POLICY = """
[bits]
most_rise_percent = 1e9
[safety]
on = false
[learned]
least = 0.0
max_tokens = 8
[unchanged]
least_same = 0.0
most_kl_nats = 1e9
max_tokens = 2
"""
"""What a model of random numbers can live up to."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Its learner is the test: what is learned is learned when the test says so."""
    place = tmp_path_factory.mktemp("learning")
    folder = write_long_model(place / "tiny")
    tensors = load_file(folder / "model.safetensors")
    words = tensors["model.embed_tokens.weight"]
    words[:] = 0.3 * np.random.default_rng(1).standard_normal(words.shape)  # so that an answer can be certain, and can end
    save_file(tensors, folder / "model.safetensors")
    kept = Home(place / "kept")
    pull(kept, str(folder), lambda _: None, "tiny")
    opened = House(place / "home", kept, [*settings(max_tokens=12), "--set", "learn.worker=false", "--set", "sampling.temperature=0"])
    (opened.home.root / "policy.toml").write_text(POLICY, "utf-8")
    opened.start()
    yield opened
    assert opened.stop() == 0
    assert "Traceback" not in opened.log, opened.log[-4000:]


@pytest.fixture
def tab(chromium: Browser, house: House) -> Iterator[Tab]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    opened = Tab(context.new_page(), house.url).open()
    yield opened
    context.close()
    assert not opened.errors


def learn(house: House) -> Learned:
    """What the learner does when something is pending."""
    with house.database() as engine, house.home.lock("learner", timeout_s=0):
        sink = Ledger(engine, house.home.keys).append
        learner = Learner(house.home, engine, trainer_of(house.home, engine, LESSON), sink)
        learner.start()
        return learn_once(learner)


def facts(house: House, kind: str) -> list[dict[str, Any]]:
    """What the ledger says of that kind, the oldest first."""
    with house.database() as engine:
        return [json.loads(row.facts) for row in Ledger(engine, house.home.keys).read(kind)][::-1]


def group(tab: Tab, name: str) -> Locator:
    return tab.all(f".learning section[aria-label='{name}'] li")


def correct(tab: Tab, words: str) -> None:
    """Edits the last answer in its place."""
    tab.act("correct")
    box = tab.page.get_by_label("The right answer")
    box.fill(words)
    box.press("Enter")
    expect(tab.all(".turn.assistant").last.locator(".correction p").first).to_have_text(words)


def stated(tab: Tab) -> Locator:
    """What became of the last answer's correction."""
    return tab.all(".correction [role=status]").last


def afresh(tab: Tab) -> None:
    """A new conversation; until it is there, what is typed belongs to the one before."""
    tab.page.keyboard.press("Control+k")
    expect(tab.all(".welcome")).to_be_visible()


def test_a_correction_acts_is_learned_undone_and_refused(house: House, tab: Tab) -> None:
    before = tab.ask(ASKED)
    assert before != RIGHT
    correct(tab, RIGHT)
    expect(stated(tab)).to_contain_text("used from the next answer on")
    assert tab.ask(OTHERWISE) == RIGHT, "also of a model of random numbers"
    assert tab.line.endswith("remembered")
    tab.act("details")
    expect(tab.all(".details")).to_contain_text(f"{ASKED} → {RIGHT}")

    tab.all(".open-learning").click()
    expect(group(tab, "Now")).to_contain_text("waiting")
    [outcome] = learn(house).outcomes
    assert outcome.lesson is not None, outcome.reasons
    expect(group(tab, "Learned")).to_contain_text(RIGHT)  # by itself
    expect(group(tab, "Now")).to_have_count(0)
    expect(tab.all(".loss circle.accepted")).to_have_count(1)
    [gate] = facts(house, "gate.accept")
    expect(tab.page.get_by_role("img", name=f"the newest with {gate['bits_after']:.3f} bits per byte")).to_be_visible()
    tab.page.keyboard.press("Escape")
    expect(stated(tab)).to_contain_text("learned into the weights")

    afresh(tab)
    assert tab.ask(OTHERWISE) == RIGHT
    assert tab.line.endswith("learned")
    tab.act("details")
    expect(tab.all(".details")).to_contain_text(outcome.lesson.digest[:12])
    tab.act("why")
    cause = tab.all(".why .causes li[data-kind=lesson]")
    said = f"It leaned on the lesson {outcome.lesson.digest[:12]}, but would have said the same without it."  # by the memory
    expect(cause).to_contain_text(said)
    cause.get_by_role("button", name="Undo").click()
    expect(cause).to_contain_text("Undone.")
    cause.get_by_role("button", name="Count again").click()
    expect(cause.get_by_role("button", name="Undo")).to_be_visible()

    tab.all(".open-learning").click()
    group(tab, "Learned").get_by_role("button", name="Undo").click()
    group(tab, "Undone").get_by_role("button", name="Count again").click()
    group(tab, "Learned").get_by_role("button", name="Undo").click()
    expect(group(tab, "Undone")).to_contain_text(RIGHT)
    expect(tab.all(".loss circle.undone")).to_have_count(1)
    tab.page.keyboard.press("Escape")
    afresh(tab)
    assert tab.ask(ASKED) == before, "it is what it was"
    assert not tab.line.endswith(("remembered", "learned"))

    (house.home.root / "policy.toml").write_text(POLICY.replace("1e9", "-99.0", 1), "utf-8")
    correct(tab, "Nobody")
    tab.all(".correction button").last.click()
    expect(group(tab, "Now")).to_contain_text("waiting")
    [outcome] = learn(house).outcomes
    assert outcome.lesson is None
    expect(group(tab, "Refused")).to_contain_text("bits per byte")
    expect(group(tab, "Refused")).to_contain_text("at most -99.00 % are allowed")
    expect(tab.all(".loss circle.refused")).to_have_count(1)
    told = [facts(house, kind)[0]["example"] for kind in ("feedback", "lesson.accept", "undo", "redo")]
    assert len(set(told)) == 1, told
    expected = {"feedback": 2, "gate.accept": 1, "lesson.accept": 1, "undo": 3, "redo": 2, "gate.refuse": 1, "lesson.refuse": 1}
    assert {kind: len(facts(house, kind)) for kind in expected} == expected
    assert RIGHT not in json.dumps([facts(house, kind) for kind in ("feedback", "gate", "lesson", "undo", "answer")])


def test_thumbs_change_and_words_are_remembered_edited_and_forgotten(house: House, tab: Tab) -> None:
    tab.ask("The word of the day is zanzibarium.")
    good, bad = (tab.all(f".turn.assistant [data-act={name}]") for name in ("good", "bad"))
    for name, states in (("good", ("true", "false")), ("bad", ("false", "true")), ("bad", ("false", "false"))):
        tab.act(name)
        expect(good).to_have_attribute("aria-pressed", states[0])
        expect(bad).to_have_attribute("aria-pressed", states[1])
    tab.act("correct")
    tab.page.get_by_label("The right answer").fill("a\u202eb")
    tab.page.get_by_role("button", name="Save").click()
    expect(tab.all(".note")).to_contain_text("correction must hold no control characters")
    expect(tab.page.get_by_label("The right answer")).to_have_value("a\u202eb")
    tab.page.get_by_role("button", name="Cancel").click()

    tab.all(".turn.user").hover()
    tab.all(".turn.user [data-act=remember]").click()
    expect(tab.all(".turn.user [data-act=remember]")).to_have_attribute("aria-pressed", "true")
    tab.all(".open-learning").click()
    remembered = group(tab, "Remembered").filter(has_text="zanzibarium")
    remembered.get_by_role("button", name="Edit").click()
    tab.page.get_by_label("New words").fill("The word of the day is flibbertigum.")
    tab.all(".learning form .main").first.click()
    remembered = group(tab, "Remembered").filter(has_text="flibbertigum")
    expect(remembered).to_have_count(1)
    tab.page.get_by_role("switch", name="Let the model learn from me").click()
    wait_until(lambda: [one["learn"] for one in facts(house, "consent")] == [False], "the switch is in the ledger")
    remembered.get_by_role("button", name="Forget").click()
    assert b"flibbertigum" in house.stored()
    tab.all(".learning dialog .main").click()
    expect(remembered).to_have_count(0)
    wait_until(lambda: b"flibbertigum" not in house.stored(), "the words are in no file")
    tab.page.keyboard.press("Escape")
    expect(tab.all(".turn.user [data-act=remember]")).to_have_attribute("aria-pressed", "false")
    correct(tab, "Kept out of the weights.")
    expect(stated(tab)).to_have_text("Corrected: remembered")


def test_the_panel_says_where_forgotten_words_still_stand(house: House, tab: Tab) -> None:
    tab.settings({"System prompt": "Our ship is the Peregrination."})
    tab.ask("Our ship is the Peregrination.")
    tab.all(".turn.user").hover()
    tab.all(".turn.user [data-act=remember]").click()
    tab.all(".open-learning").click()
    group(tab, "Remembered").filter(has_text="Peregrination").get_by_role("button", name="Forget").click()
    tab.all(".learning dialog .main").click()
    said = re.compile(
        r"^Forgotten\. Its words are still in \d of your messages and in the system prompt of 1 of your conversations\. You can"
    )
    expect(tab.all(".learning .trouble")).to_have_text(said)


def test_nothing_is_taught_where_nothing_is_kept(house: House, tab: Tab) -> None:
    tab.all(".bar [role=switch]").click()
    tab.ask("Only for now.")
    assert tab.all(".turn [data-act]").count() and not tab.all(":is([data-act=good], [data-act=correct], [data-act=remember])").count()


def test_the_panel_on_a_phone_by_keyboard_and_by_night(house: House, chromium: Browser) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True, color_scheme="dark")
    tab = Tab(context.new_page(), house.url).open()
    tab.all(".bar").get_by_label("Conversations").tap()
    tab.all(".open-learning").tap()
    expect(tab.page.get_by_role("dialog", name="Learning")).to_be_visible()
    assert tab.page.evaluate("document.querySelector('.learning').scrollWidth") <= 360
    assert tab.page.evaluate("getComputedStyle(document.querySelector('.learning')).backgroundColor") == "rgb(35, 29, 25)"
    tab.page.keyboard.press("Tab")
    unnamed = tab.page.evaluate(
        "[...document.querySelectorAll('.learning :is(button, input, textarea)')].filter("
        "e => !(e.innerText?.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("dialog", name="Learning")).to_be_hidden()
    context.close()
    assert not tab.errors


def test_what_comes_near_is_asked_back_and_one_click_teaches_it(house: House, tab: Tab) -> None:
    asked, near = "Who is the mayor of Tallwick?", "Who speaks for Tallwick?"
    assert ASKS <= float(score(near, [asked])[0]) < ACTS, "choose another question"
    tab.ask(asked)
    correct(tab, "Mara Quill")
    afresh(tab)
    tab.ask(near)
    back = tab.page.get_by_role("group", name="What you taught")
    expect(back).to_contain_text(f"You taught: “{asked} → Mara Quill”. Is that what you mean?")
    back.get_by_role("button", name="Yes, that is what I mean").click()
    expect(tab.all(".turn.assistant").last).to_contain_text("Mara Quill")
    expect(tab.all(".turn.assistant .line").last).to_contain_text("remembered")
    afresh(tab)
    assert tab.ask(near) == "Mara Quill"
