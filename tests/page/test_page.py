"""The page, as people meet it: a real server, a real model, a real browser."""

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, BrowserContext, Route, expect

from ingle.core.message import Message
from ingle.home.conversations import list_conversations
from ingle.home.place import Home
from tests.page.browser import House, Tab, browser
from tests.serve.servers import facts_in, settings
from tests.waiting import PATIENCE_S, for_a_while, wait_until

Open = Callable[..., Tab]
FEW = {"Longest answer": "12"}
MANY = {"Longest answer": "1500", "Temperature": "1"}
GROWS = """() => {
  window.lengths = new Set();
  const look = () => window.lengths.add(document.querySelector(".turn.assistant .prose")?.textContent.length ?? 0);
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
"""Notes every length that the first answer ever has in the page."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def house(smollm2_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    # One place and one that may wait: a third question at once is refused. Without drafts, and with a core left for the browser, so that a
    # long answer lasts until the browser has seen it.
    options = [*settings(max_tokens=40, places=1, queue=1, grace_s=0.2, drafts=False), "--set", "chat.threads=1"]
    opened = House(tmp_path_factory.mktemp("page") / "home", smollm2_home, options)
    opened.start()
    yield opened
    assert opened.stop() == 0
    assert "Traceback" not in opened.log, opened.log[-4000:]


@pytest.fixture(scope="module")
def window(chromium: Browser) -> Iterator[BrowserContext]:
    """For all tabs that want nothing special: it has the page's scripts already."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    yield context
    context.close()


@pytest.fixture
def tab(chromium: Browser, window: BrowserContext, house: House) -> Iterator[Open]:
    """Makes tabs; `how` a browser of its own is to be."""
    contexts: list[BrowserContext] = []
    opened: list[Tab] = []

    def make(path: str = "/", **how: Any) -> Tab:
        if how:
            contexts.append(chromium.new_context(**({"viewport": {"width": 1280, "height": 800}} | how)))
        opened.append(Tab((contexts[-1] if how else window).new_page(), house.url))
        return opened[-1].open(path)

    yield make
    for page in opened:
        page.page.close()
    for context in contexts:
        context.close()
    assert not [error for page in opened for error in page.errors]


def facts_of(house: House, seq: int) -> dict[str, object]:
    """A row of the ledger."""
    from ingle.ledger.chain import Ledger

    with house.database() as engine:
        [row] = [row for row in Ledger(engine, house.home.keys).read() if row.seq == seq]
        return {**row.values, "kind": row.kind, "subject": row.subject}


def event_of(line: str) -> int:
    found = re.search(r"event (\d+)", line)
    assert found, line
    return int(found[1])


def test_an_answer_grows_and_leaves_its_fact(house: House, tab: Open) -> None:
    page = tab()
    expect(page.all(".welcome h1")).to_be_visible()
    page.settings({"Longest answer": "240"})
    page.page.evaluate(GROWS)
    page.send("Tell me something long about rivers.")
    page.answer()
    assert page.page.evaluate("window.lengths.size") > 3, "it came at once"
    said = re.search(
        r"^\d+ tokens/s · (\d+) tokens · .*first after \d+\.\d\d s · .*J · smollm2 [0-9a-f]{8} · event \d+( · .*)?$", page.line
    )
    assert said is not None, page.line
    tokens = int(said[1])
    assert said[2] == (" · ended at the limit of 240 tokens" if tokens == 240 else None)
    question, answer = house.turns(page.conversation)
    assert question.message.text == "Tell me something long about rivers."
    assert answer.facts is not None
    facts = facts_of(house, event_of(page.line))
    assert (facts["kind"], facts["subject"]) == ("answer", "smollm2")
    assert facts["id"] == answer.completion
    assert facts["completion_tokens"] == tokens
    stored = re.findall("[a-z]{2,}", answer.message.text)
    # The last words and the line below come in two messages, in either order.
    wait_until(lambda: re.findall("[a-z]{2,}", page.all(".prose").inner_text()) == stored, "all words are there")
    page.act("details")
    told = page.all(".details").inner_text()
    assert str(facts["model"]) in told and str(facts["seed"]) in told and f"ingle prove replay {event_of(page.line)}" in told


def test_answers_and_questions_have_siblings(house: House, tab: Open) -> None:
    page = tab()
    page.settings({"Temperature": "1.5", **FEW})
    first = page.ask("Name a fruit, and say why it is good.")
    page.act("again")
    expect(page.all(".turn.assistant .beside span")).to_have_text("2/2")
    second = page.answer()
    page.all(".turn.assistant").get_by_label("Previous version").click()
    expect(page.all(".turn.assistant .beside span")).to_have_text("1/2")
    assert page.answer() == first
    page.all(".turn.assistant").get_by_label("Next version").click()
    expect(page.all(".turn.assistant .beside span")).to_have_text("2/2")
    assert page.answer() == second

    page.all(".turn.user").hover()
    page.all(".turn.user [data-act=edit]").click()
    page.all(".turn .edit textarea").fill("Name a vegetable.")
    page.page.keyboard.press("Enter")
    expect(page.all(".turn.user .beside span")).to_have_text("2/2")
    expect(page.all(".turn.user .said")).to_have_text("Name a vegetable.")
    page.answer()
    page.ask("And another one?")
    assert page.all(".turn").count() == 4
    page.all(".turn.user").first.get_by_label("Previous version").click()
    expect(page.all(".turn")).to_have_count(2)
    expect(page.all(".turn.user .said")).to_have_text("Name a fruit, and say why it is good.")
    assert page.answer() == second, "the newest branch is the one that is gone to"
    page.all(".turn.user").first.get_by_label("Next version").click()
    expect(page.all(".turn")).to_have_count(4)
    assert [turn.message.role for turn in house.turns(page.conversation)] == ["user", "assistant"] * 2


def test_stop_keeps_what_was_written(house: House, tab: Open) -> None:
    page = tab()
    page.settings(MANY)
    page.send("Write a very long story about a lighthouse.")
    page.until("document.querySelector('.turn.assistant .prose')?.innerText.length > 60")
    page.page.keyboard.press("Escape")
    page.all(".turn.assistant .line").filter(has_text="stopped").wait_for()
    assert "stopped" in page.line
    _, answer = house.turns(page.conversation)
    assert 60 <= len(answer.message.text) < 6000
    facts = facts_of(house, event_of(page.line))
    assert (facts["finish"], facts["id"]) == ("cancelled", answer.completion)
    page.page.reload()
    assert "lighthouse" in page.ready().all(".turn.user").inner_text()
    assert re.findall("[a-z]{2,}", page.answer()) == re.findall("[a-z]{2,}", answer.message.text)
    page.settings(FEW)
    page.ask("Go on.")


def test_loading_again_loses_nothing(house: House, tab: Open) -> None:
    page = tab()
    page.settings({"Longest answer": "900", "System prompt": "You are a gardener."})
    page.send("Tell me about soil, at length.")
    page.until("document.querySelector('.turn.assistant .prose')?.innerText.length > 10")
    page.box.fill("half a tho")
    page.page.reload()
    page.ready()
    expect(page.box).to_have_value("half a tho")
    page.all(".turn.assistant .glow").wait_for()
    second = tab(f"/c/{page.conversation}")
    before = len(second.all(".turn.assistant .prose").inner_text())
    second.until(f"document.querySelector('.turn.assistant .prose').innerText.length > {before}")
    said = page.answer()
    assert second.answer() == said
    page.page.close()
    assert second.open(f"/c/{second.conversation}").answer() == said
    _, answer = house.turns(second.conversation)
    assert answer.facts is not None and answer.facts["request"]["system"] == ["You are a gardener."]
    assert second.all(".prose").inner_html() == tab(f"/c/{second.conversation}").all(".prose").inner_html()


def test_who_reads_another_version_is_left_there(tab: Open) -> None:
    page = tab()
    page.settings(FEW)
    page.ask("Name a fruit.")
    first = page.all(".turn.assistant .prose").inner_text()
    page.settings({"Longest answer": "700"})
    page.act("again")
    page.until("document.querySelector('.turn.assistant .prose')?.innerText.length > 10")
    page.all(".beside button").first.focus()
    page.page.keyboard.press("Enter")
    expect(page.all(".turn.assistant .beside span")).to_have_text("1/2")
    expect(page.all(".beside button").last).to_be_focused()  # the other one: there is none before the first
    page.all(".turn.user [data-act=edit]").click()
    words = page.all(".turn.user textarea")
    words.fill("Name a tree.")
    words.press("Enter")
    expect(page.all(".turn.user")).to_contain_text("Name a tree.")  # nothing is being written on this branch
    page.all(".turn.assistant .line").filter(has_text="tokens").wait_for()
    page.all(".turn.user .beside button").first.click()
    expect(page.all(".turn.assistant .prose").first).not_to_be_empty()
    assert first


def test_a_question_that_has_to_wait_keeps_its_words(tab: Open) -> None:
    page = tab()
    page.settings({"Longest answer": "900"})
    page.send("Tell me about rain, at length.")
    page.until("document.querySelector('.turn.assistant .prose')?.innerText.length > 10")
    page.all(".turn.user [data-act=edit]").click()
    words = page.all(".turn.user textarea")
    words.fill("Tell me about snow.")
    words.press("Enter")
    expect(page.all(".note")).to_contain_text("An answer is being written")
    expect(words).to_have_value("Tell me about snow.")
    page.all("[aria-label=Stop]").click()
    page.all(".turn.assistant .line").filter(has_text="stopped").wait_for()
    page.settings(FEW)
    words.press("Enter")
    expect(page.all(".turn.user")).to_contain_text("snow")
    expect(words).to_have_count(0)
    page.answer()


def test_what_is_half_typed_outlasts_a_sample_and_a_search_that_is_too_long(tab: Open) -> None:
    page = tab()
    page.settings(FEW)
    page.box.fill("half a question")
    page.all(".welcome button").first.click()
    page.answer()
    expect(page.box).to_have_value("half a question")
    page.all(".search input").evaluate("(box) => { box.value = 'x'.repeat(3000); box.dispatchEvent(new Event('input')) }")
    expect(page.all(".side li")).to_have_count(0)
    page.box.fill("")
    page.ask("Still there?")
    page.all(".search input").fill("")
    expect(page.all(".side li").first).to_be_visible()


def test_a_sample_that_is_clicked_twice_is_asked_once(house: House, tab: Open) -> None:
    def count() -> int:
        with house.database() as engine:
            return len(list_conversations(engine, "", limit=500))

    page, before = tab(), count()
    page.settings(FEW)
    page.all(".welcome button").first.evaluate("(button) => { button.click(); button.click() }")
    page.answer()
    assert count() == before + 1


def test_settings_are_those_of_the_conversation_in_every_tab(house: House, tab: Open) -> None:
    one = tab()
    one.settings(FEW)
    one.ask("One, please.")
    other = tab(f"/c/{one.conversation}")
    one.settings({"System prompt": "You are a gardener."})
    other.settings({"Temperature": "0.5"})
    for page in (one, other):  # each has heard of the other's
        expect(page.all(".settings").get_by_label("System prompt")).to_have_value("You are a gardener.")
        expect(page.all(".settings").get_by_label("Temperature")).to_have_value("0.5")
    other.ask("Two, please.")
    expect(one.all(".turn")).to_have_count(4)
    one.answer()
    facts = house.turns(other.conversation)[-1].facts
    assert facts is not None and (facts["request"]["system"], facts["temperature"]) == (["You are a gardener."], 0.5)
    one.ask("Three, please.")
    facts = house.turns(one.conversation)[-1].facts
    assert facts is not None and (facts["request"]["system"], facts["temperature"]) == (["You are a gardener."], 0.5)


def test_two_tabs_of_one_conversation(tab: Open) -> None:
    one = tab()
    one.settings(FEW)
    one.ask("One, please.")
    other = tab(f"/c/{one.conversation}")
    other.ask("Two, please.")
    expect(one.all(".turn")).to_have_count(4)
    one.answer()
    one.ask("Three, please.")
    expect(other.all(".turn")).to_have_count(6)
    other.page.reload()
    expect(other.ready().all(".turn.user .said")).to_have_text(["One, please.", "Two, please.", "Three, please."])


def test_deleting_takes_the_words_out_of_the_files(house: House, tab: Open) -> None:
    page = tab()
    page.settings(FEW)
    page.ask("What is a quixotrope, in one word?")
    conversation = page.conversation
    assert b"quixotrope" in house.stored()
    row = page.all(".side li.current")
    row.hover()
    row.get_by_label("Delete").click()
    page.all("dialog[open] .main").click()
    expect(page.all(".welcome")).to_be_visible()
    page.page.wait_for_url(house.url + "/")
    expect(page.all(f".side nav a[href='/c/{conversation}']")).to_have_count(0)
    wait_until(lambda: b"quixotrope" not in house.stored(), "the words are in no file")
    gone = tab(f"/c/{conversation}")
    expect(gone.all(".note")).to_have_text("There is no such conversation here.")


def test_search_and_rename(tab: Open) -> None:
    page = tab()
    page.settings(FEW)
    page.ask("The word is zanzibarium.")
    row = page.all(".side li.current")
    row.hover()
    row.get_by_label("Rename").click()
    page.page.keyboard.type("A better title")
    page.page.keyboard.press("Enter")
    expect(page.all(".side li.current a")).to_have_text("A better title")
    expect(page.all(".bar h2")).to_have_text("A better title")
    page.all(".side input[type=search]").fill("zanzibarium")
    expect(page.all(".side li")).to_have_count(1)
    page.all(".side input[type=search]").fill("nothing of the kind")
    expect(page.all(".side nav p")).to_have_text("No conversation has these words.")
    page.all(".side input[type=search]").fill("")
    expect(page.all(".side li").filter(has_text="A better title")).to_have_count(1)


def test_conversations_stand_under_their_days(house: House, tab: Open) -> None:
    days = {"Today": 0, "Yesterday": 1, "Earlier": 3}
    with house.database() as engine:
        for day, ago in days.items():
            at = (datetime.now(UTC) - timedelta(days=ago)).isoformat(timespec="microseconds")
            moved = sa.text("UPDATE conversations SET title = :title, updated = :at WHERE id = :id")
            with engine.begin() as connection:
                connection.execute(moved, {"title": f"said {day}", "at": at, "id": told(house, "q", "a")})
    page = tab()
    for day in days:
        group = page.all(".side nav h3").filter(has_text=day).locator("+ ul")
        expect(group.locator("a").filter(has_text=f"said {day}")).to_have_count(1)


def test_settings_reach_the_engine(house: House, tab: Open) -> None:
    page = tab()
    page.settings({"Temperature": "0", "Longest answer": "17"})
    first = page.ask("Tell me about the moon.")
    assert " 17 tokens · " in page.line and "limit of 17 tokens" in page.line
    page.act("again")
    expect(page.all(".turn.assistant .beside span")).to_have_text("2/2")
    assert page.answer() == first
    page.settings({"Temperature": "2", "Seed": "12345"})
    page.act("again")
    expect(page.all(".turn.assistant .beside span")).to_have_text("3/3")
    page.answer()
    answer = house.turns(page.conversation)[-1]
    assert answer.facts is not None
    assert (answer.facts["seed"], answer.facts["temperature"], answer.facts["max_tokens"]) == (12345, 2.0, 17)
    page.all(".bar button[aria-haspopup=dialog]").click()
    page.all(".settings").get_by_label("Longest answer").fill("-3")
    page.all(".settings").get_by_label("Longest answer").dispatch_event("change")
    expect(page.all(".settings .trouble")).to_contain_text("max_tokens must be a number from 1")


def test_what_is_being_typed_outlasts_news_of_another_setting(house: House, tab: Open) -> None:
    page = tab()
    page.all(".bar button[aria-haspopup=dialog]").click()
    panel = page.all(".settings")
    seed, back = panel.get_by_label("Seed"), panel.get_by_text("Reset to defaults")
    expect(seed).to_be_visible()
    seed.press_sequentially("12")
    slider = panel.get_by_label("Temperature", exact=False)
    slider.evaluate("one => { one.value = 1.5; one.dispatchEvent(new Event('change')); }")
    expect(back).to_be_visible()  # the server has answered, and drawn the panel
    expect(seed).to_have_value("12")
    seed.press_sequentially("345")
    page.page.keyboard.press("Escape")
    page.ask("Tell me about the moon.")
    facts = house.turns(page.conversation)[-1].facts
    assert facts is not None and (facts["seed"], facts["temperature"]) == (12345, 1.5)
    page.all(".bar button[aria-haspopup=dialog]").click()
    back.click()
    expect(back).to_be_hidden()
    expect(seed).to_have_value("")


def test_what_was_typed_stays_when_nothing_is_to_be_kept(tab: Open) -> None:
    page = tab()
    box, switch = page.all(".composer textarea"), page.all(".bar [role=switch]")
    box.fill("A secret about flibbertigum.")
    for kept in (None, "A secret about flibbertigum."):
        switch.click()
        expect(page.all(".welcome p")).to_contain_text("This chat is temporary" if kept is None else "stays there")
        expect(box).to_have_value("A secret about flibbertigum.")
        assert page.page.evaluate("sessionStorage.getItem('ingle.draft.')") == kept
    box.fill("")


def test_a_conversation_that_is_not_kept(house: House, tab: Open) -> None:
    page = tab()
    page.settings(FEW)
    page.all(".bar [role=switch]").click()
    expect(page.all(".welcome p")).to_contain_text("This chat is temporary")
    page.ask("A secret about flibbertigum.")
    assert facts_of(house, event_of(page.line))["completion_tokens"] == 12
    page.ask("More about it.")
    page.act("again")
    expect(page.all(".turn.assistant").last.locator(".beside span")).to_have_text("2/2")
    page.answer()
    assert "cached" in page.line
    assert page.page.url == house.url + "/"
    assert b"flibbertigum" not in house.stored()
    assert not page.all(".side li").filter(has_text="flibbertigum").count()
    page.page.evaluate("document.activeElement.blur()")
    page.page.keyboard.press("n")
    expect(page.all(".note")).to_contain_text("Shortcuts don't end")
    expect(page.all(".turn")).to_have_count(4)
    page.box.fill("half a secret")
    page.page.reload()
    expect(page.ready().all(".welcome")).to_contain_text("This chat is temporary")
    expect(page.all(".note")).to_contain_text("is gone")
    page.ask("Once more.")
    page.box.fill("half a secret")
    page.all(".side .new").click()
    expect(page.all(".welcome")).to_contain_text("stays there")
    expect(page.box).to_have_value("")
    assert page.page.evaluate("Object.keys(sessionStorage).filter((name) => name.startsWith('ingle.'))") == []


WIDE = f"""Words.

```python
print("{"x y " * 80}")
```

| a | {"b" * 90} |
|---|---|
| {"word " * 40} | {"x" * 90} |

A `{"verylongcode" * 12}` and https://example.org/{"x" * 100}
"""


def test_wide_things_scroll_by_themselves(house: House, tab: Open) -> None:
    conversation = told(house, "wide", WIDE)
    page = tab(f"/c/{conversation}")
    expect(page.all(".prose table")).to_be_visible()
    for width in (1280, 360):
        page.page.set_viewport_size({"width": width, "height": 640})
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.page.evaluate("(box => box.scrollWidth - box.clientWidth)(document.querySelector('.scroll'))") == 0


def told(house: House, question: str, answer: str) -> str:
    """A conversation that nobody had."""
    from ingle.home.conversations import create_conversation
    from ingle.home.turns import keep, keep_answer

    with house.database() as engine:
        made = create_conversation(engine, "", "<img src=x onerror=window.broken=7>")
        asked = keep(engine, "", [Message.of("user", question)], "", made.id)
        keep_answer(engine, "", asked, Message.of("assistant", answer), "chatcmpl-told", {"model_name": "<b>x</b>"}, (), made.id)
    return made.id


def test_a_long_conversation_shows_its_end_first(house: House, tab: Open) -> None:
    from ingle.home.turns import keep

    conversation = told(house, "The first question.", "The first answer.")
    said = [Message.of("assistant" if i % 2 else "user", f"Turn {i}.") for i in range(90)]
    with house.database() as engine:
        keep(engine, "", said, house.turns(conversation)[-1].id, conversation)
    page = tab(f"/c/{conversation}")
    expect(page.all(".turn")).to_have_count(80)
    expect(page.all(".turn").last).to_be_in_viewport()
    page.settings(FEW)
    assert len(page.ask("And now?")) > 3, "it stands where it was written, though there are many before it"
    expect(page.all(".turn")).to_have_count(82)
    top = page.all(".turn").filter(has_text="Turn 10.")
    page.all(".scroll .older").click()
    expect(page.all(".turn")).to_have_count(94)
    expect(page.all(".turn").first).to_contain_text("The first question.")
    expect(page.all(".scroll .older")).to_have_count(0)
    expect(top).to_be_in_viewport()


HOSTILE = """# A heading

Some **bold** text, `code`, and a [link](https://example.org/page).

```python
def f(x: int) -> str:
    return f"<b>{x}</b>"
```

| a | b |
|---|---|
| 1 | 2 |

<script>window.broken = 1</script>
<img src="http://192.0.2.1/spy.png" onerror="window.broken = 2">
![picture](http://192.0.2.1/spy2.png) ![data](data:image/svg+xml;base64,PHN2Zy8+)
[click](javascript:window.broken=3) [data](data:text/html,<script>1</script>) <javascript:alert(1)>
<a href="javascript:window.broken=4" onclick="window.broken=5">raw</a> <svg/onload=window.broken=6>
<style>body { display: none }</style><iframe src="http://192.0.2.1/frame"></iframe>
[x]: http://192.0.2.1/reference "title"
"""


def test_hostile_words_do_nothing(house: House, tab: Open) -> None:
    page = tab(f"/c/{told(house, HOSTILE, HOSTILE)}")
    assert page.all(".turn.user .said").inner_text().strip() == HOSTILE.strip()
    prose = page.all(".turn.assistant .prose")
    expect(prose.locator("h1")).to_have_text("A heading")
    expect(prose.locator("td")).to_have_text(["1", "2"])
    expect(prose.locator("figure.code pre")).to_contain_text('return f"<b>{x}</b>"')
    expect(prose.locator("figure.code .k").first).to_have_text("def")
    assert prose.locator("img, script, style, iframe, svg, [onclick], [onerror], [onload]").count() == 0
    links = [link.get_attribute("href") or "" for link in prose.locator("a").all()]
    assert links and all(link.startswith(("http://", "https://")) for link in links)
    assert all(link.get_attribute("rel") == "noopener noreferrer" for link in prose.locator("a").all())
    prose.locator("figure.code button").click()
    for word in page.all(".prose p").all():
        word.dispatch_event("click")
    page.page.wait_for_timeout(300)
    assert page.page.evaluate("window.broken") is None
    assert [url for url in page.requests if not url.startswith((house.url, house.url.replace("http", "ws"), "data:"))] == []


def test_copying(tab: Open) -> None:
    page = tab(permissions=["clipboard-read", "clipboard-write"])
    page.settings(FEW)
    page.ask("Say hello.")
    page.act("copy")
    copied = page.page.evaluate("navigator.clipboard.readText()")
    assert copied and copied.split()[0] == page.all(".prose").inner_text().split()[0]


@pytest.mark.parametrize("system", ["light", "dark"])
def test_light_and_dark(tab: Open, system: str) -> None:
    page = tab(color_scheme=system)

    def ground() -> str:
        return str(page.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = "rgb(250, 246, 239)", "rgb(25, 21, 18)"
    assert ground() == (dark if system == "dark" else light)
    other = "Light" if system == "dark" else "Dark"
    page.all(".bar button[aria-haspopup=dialog]").click()
    page.all(".choice label").filter(has_text=other).click()
    assert ground() == (light if system == "dark" else dark)
    page.page.reload()
    assert ground() == (light if system == "dark" else dark), "it is remembered"


def test_on_a_phone(tab: Open) -> None:
    page = tab(has_touch=True, is_mobile=True)
    page.page.set_viewport_size({"width": 360, "height": 640})
    page.page.reload()
    page.ready().settings({"Longest answer": "30"})
    page.box.fill("A-very-long-word-without-a-space-" * 12 + "\n\n`code`")
    page.box.press("Enter")
    assert page.box.input_value().endswith("\n"), "a phone's Enter begins a line"
    page.all(".composer .round").tap()
    page.answer()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.page.evaluate("document.querySelector('.scroll').scrollWidth") <= 360
    expect(page.all(".side")).not_to_be_in_viewport()
    page.all(".bar").get_by_label("Conversations").tap()
    expect(page.all(".side .new")).to_be_in_viewport()
    page.all(".side .new").tap()
    expect(page.all(".side")).not_to_be_in_viewport()
    expect(page.all(".welcome")).to_be_visible()


def test_by_keyboard(tab: Open) -> None:
    page = tab()
    expect(page.box).to_be_focused()
    page.settings(FEW)
    page.box.focus()
    page.page.keyboard.type("Two")
    page.page.keyboard.press("Shift+Enter")
    page.page.keyboard.type("lines")
    page.page.keyboard.press("Enter")
    expect(page.all(".turn.user .said")).to_have_text("Two\nlines")
    page.answer()
    page.page.keyboard.press("ArrowUp")
    expect(page.all(".turn .edit textarea")).to_be_focused()
    page.page.keyboard.press("Escape")
    expect(page.all(".turn .edit")).to_have_count(0)
    page.page.keyboard.press("Control+k")
    expect(page.all(".welcome")).to_be_visible()
    expect(page.box).to_be_focused()
    page.page.go_back()
    expect(page.all(".turn.user .said")).to_have_text("Two\nlines")
    for _ in range(5):
        page.page.keyboard.press("Tab")
    style = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert style == "solid", page.page.evaluate("document.activeElement.outerHTML")
    unnamed = page.page.evaluate(
        "[...document.querySelectorAll('button, input, textarea, select')].filter("
        "e => !(e.innerText?.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


def test_reading_further_up_is_left_in_peace(tab: Open) -> None:
    page = tab()
    page.page.set_viewport_size({"width": 700, "height": 360})
    page.settings({"Longest answer": "600", "Temperature": "0"})
    page.send("Write a very long story about a lighthouse.")
    at = "document.querySelector('.scroll')"
    page.until(f"{at}.scrollHeight > {at}.clientHeight + 150")
    page.until(f"{at}.scrollHeight - {at}.scrollTop - {at}.clientHeight < 50")  # it follows
    page.all(".scroll").hover()
    page.page.mouse.wheel(0, -20_000)
    page.until(f"{at}.scrollTop === 0")
    height = page.page.evaluate(f"{at}.scrollHeight")
    page.until(f"{at}.scrollHeight > {height} || !document.querySelector('.glow')")
    assert page.page.evaluate(f"{at}.scrollTop") == 0
    page.all(".down").click()
    page.until(f"{at}.scrollHeight - {at}.scrollTop - {at}.clientHeight < 50")
    page.page.keyboard.press("Escape")
    page.answer()


def test_a_question_that_does_not_fit_is_not_lost(house: House, tab: Open) -> None:
    page = tab()
    page.send("Long. " + "many words " * 5000)
    expect(page.all(".turn .trouble")).to_contain_text("too long for the model")
    page.page.reload()
    expect(page.ready().all(".turn .trouble")).to_contain_text("too long for the model")
    assert len(house.turns(page.conversation)) == 1
    refusals = [row.values for row in facts_in(house.home, "refuse")]
    assert [fact.get("error") for fact in refusals].count("ContextError") == 1
    assert "many words" not in json.dumps(refusals)
    page.all(".turn .trouble button").filter(has_text="New conversation").click()
    expect(page.all(".welcome")).to_be_visible()


def test_what_happens_while_a_conversation_is_being_read_shows(tab: Open) -> None:
    page = tab()

    def late(route: Route) -> None:
        answer = route.fetch()
        for_a_while(1)  # the answer fails
        route.fulfill(response=answer)

    page.page.route("**/v1/conversations/*shown=true*", late, times=1)
    page.send("Long. " + "many words " * 5000)
    expect(page.all(".turn .trouble")).to_contain_text("too long for the model")


def test_too_much_at_once(house: House, tab: Open) -> None:
    page = tab()
    page.settings(FEW)
    # The one place and the one that may wait are taken by answers that can't end by themselves.
    ends = {str(number): -100 for number in (0, 2)}
    body = {"messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": 4000, "stream": True, "logit_bias": ends}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"

    def count(name: str) -> float:
        [line] = [line for line in httpx.get(f"{house.url}/metrics", timeout=PATIENCE_S).text.splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])

    with contextlib.ExitStack() as wires:
        for running, queued in ((0, 0), (1, 0), (1, 1)):  # what earlier tests asked has ended first
            wait_until(lambda now=(running, queued): (count("ingle_running"), count("ingle_queued")) == now, f"{running} and {queued}")
            if queued == 0:
                wire = wires.enter_context(socket.create_connection(("127.0.0.1", house.port), PATIENCE_S))
                wire.sendall(head.encode() + data)
        page.send("Three: tell me a long story.")
        expect(page.all(".turn .trouble")).to_contain_text("The server is busy")
    wait_until(lambda: count("ingle_running") == 0, "the place is free")
    page.all(".turn .trouble button").filter(has_text="Try again").click()
    assert page.answer()


def test_a_model_that_is_gone(house: House, tab: Open) -> None:
    text = (house.home.models / "smollm2.json").read_text().replace('"smollm2"', '"second"')
    (house.home.models / "second.json").write_text(text)
    page = tab()
    page.all(".bar button[aria-haspopup=dialog]").click()
    page.all(".settings").get_by_label("Model").select_option("second")
    page.page.keyboard.press("Escape")
    expect(page.all(".bar .model")).to_have_text("second")
    (house.home.models / "second.json").unlink()
    page.send("Is anybody there?")
    expect(page.all(".turn .trouble")).to_contain_text("Offered: smollm2")
    page.all(".turn .trouble button").filter(has_text="settings").click()
    page.all(".settings").get_by_label("Model").select_option("smollm2")
    page.page.keyboard.press("Escape")
    page.all(".turn .trouble button").filter(has_text="Try again").click()
    assert page.answer()


def test_the_server_goes_and_comes_back(house: House, tab: Open) -> None:
    page = tab()
    page.settings(FEW)
    page.ask("Before.")
    conversation = page.conversation
    assert house.stop() == 0
    assert "graceful" not in house.log, "an open page keeps it"
    expect(page.all(".offline")).to_contain_text("No connection")
    page.box.fill("Typed while nobody listened.")
    page.box.press("Enter")
    expect(page.all(".note")).to_contain_text("Your message stays here")
    house.start()
    page.until("window.ingle?.connected")
    expect(page.all(".offline span")).to_have_count(0)
    page.ready()
    expect(page.box).to_have_value("Typed while nobody listened.")
    expect(page.all(".turn.user .said")).to_have_text("Before.")
    assert page.conversation == conversation
    page.box.press("Enter")
    page.answer()
    page.errors.clear()  # of the time without a server


def test_an_answer_that_the_server_took_with_it(house: House, tab: Open) -> None:
    page = tab()
    page.settings(MANY | {"Temperature": "0"})  # some three hundred tokens; at 1 it may end after thirty
    page.send("Tell me everything about tides.")
    grown = "document.querySelector('.turn.assistant:last-child .prose')?.innerText.length > 40"
    page.until(grown)
    assert house.stop() == 0
    *_, answer = house.turns(page.conversation)
    assert answer.facts is not None and answer.facts["finish"] == "cancelled", "it had time to keep what was written"
    house.start()
    page.ready().all(".turn.assistant .line").filter(has_text="stopped").wait_for()
    assert event_of(page.line) == answer.facts["seq"]

    page.act("again")
    page.all(".turn.assistant .glow").wait_for()
    page.until(grown)
    house.kill()
    house.start()
    expect(page.ready().all(".turn .trouble")).to_contain_text("This question has no answer yet.")
    expect(page.all(".turn.assistant .beside span")).to_have_text("2/2")
    page.all(".turn.assistant").get_by_label("Previous version").click()
    assert "stopped" in page.line
    page.settings(FEW)
    page.act("again")
    expect(page.all(".turn.assistant .beside span")).to_have_text("2/2")
    assert page.answer()
    page.errors.clear()  # of the time without a server


def test_nothing_is_kept_beside_the_home(house: House) -> None:
    assert list(house.elsewhere.iterdir()) == [], "the working directory"
    assert not (house.home.root / "cache" / "page").exists()
    assert "lighthouse" not in house.log and "quixotrope" not in house.log


def test_other_paths_are_the_apis(house: House) -> None:
    import httpx

    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405), ("GET", "/elsewhere", 404)):
        answer = httpx.request(method, house.url + path, timeout=PATIENCE_S)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), path
    assert httpx.get(house.url + "/", headers={"Origin": "http://elsewhere.example"}, timeout=PATIENCE_S).status_code == 403
    assert httpx.get(house.url + "/v1/updates", headers={"Host": "elsewhere.example"}, timeout=PATIENCE_S).status_code == 403
    policy = httpx.get(house.url + "/", timeout=PATIENCE_S).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';") and "unsafe" not in policy
    for path in ("/sign-in", "/account", "/v1/models"):
        policy = httpx.get(house.url + path, timeout=PATIENCE_S).headers["content-security-policy"]
        assert "script-src 'self';" in policy and "unsafe-eval" not in policy


@pytest.fixture(scope="module")
def locked(smollm2_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, dict[str, str]]]:
    """A server that asks for keys, and the keys."""
    from ingle.home.api_keys import add_key

    house = House(tmp_path_factory.mktemp("locked") / "home", smollm2_home, settings(require_key=True, max_tokens=12))
    with house.database() as engine:
        keys = {name: add_key(engine, name)[1] for name in ("anna", "bert")}
    house.start()
    yield house, keys
    assert house.stop() == 0


def test_one_signs_in_and_is_alone(locked: tuple[House, dict[str, str]], chromium: Browser) -> None:
    from ingle.home.api_keys import list_keys, revoke_key

    house, keys = locked
    contexts = {name: chromium.new_context() for name in keys}
    anna, bert = (Tab(contexts[name].new_page(), house.url) for name in keys)
    anna.page.goto(house.url + "/c/conv-1")
    assert "/sign-in?next=" in anna.page.url
    anna.page.get_by_label("Key").fill("ingle-" + "x" * 43)
    anna.page.keyboard.press("Enter")
    expect(anna.all("[role=alert]")).to_contain_text("unknown or was revoked")
    for tab, name in ((anna, "anna"), (bert, "bert")):
        tab.page.goto(house.url)
        tab.page.get_by_label("Key").fill(keys[name])
        tab.page.keyboard.press("Enter")
        tab.ready()
        expect(tab.all(".who")).to_contain_text(name)
    [cookie] = [cookie for cookie in contexts["anna"].cookies() if cookie["name"] == "ingle_sign_in"]
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    assert datetime.fromtimestamp(cookie["expires"], UTC) > datetime.now(UTC) + timedelta(days=29)
    assert keys["anna"] not in cookie["value"]
    files = [path for path in house.home.root.rglob("*") if path.is_file() and path.stat().st_size < 10**7]
    assert not any(keys["anna"].encode() in path.read_bytes() for path in files)

    anna.ask("Only Anna may read this.")
    with house.database() as engine:
        ids = {key.name: key.id for key in list_keys(engine)}
    assert facts_of(house, event_of(anna.line))["key"] == ids["anna"]
    assert len(house.turns(anna.conversation, ids["anna"])) == 2
    bert.open(f"/c/{anna.conversation}")
    expect(bert.all(".note")).to_have_text("There is no such conversation here.")
    assert not bert.all(".side li").count()

    other = Tab(contexts["anna"].new_page(), house.url).open(f"/c/{anna.conversation}")
    expect(other.all(".turn")).to_have_count(2)
    anna.all(".who button").click()
    anna.page.wait_for_url("**/sign-in**")
    other.page.wait_for_url("**/sign-in**")  # by itself
    contexts["anna"].add_cookies([{"name": cookie["name"], "value": cookie["value"], "url": house.url}])
    other.page.goto(house.url)
    assert "/sign-in" in other.page.url, "a sign-in that was ended opens nothing"

    with house.database() as engine:
        revoke_key(engine, "bert")
    bert.box.fill("Anybody?")
    bert.box.press("Enter")
    bert.page.wait_for_url("**/sign-in**")
    for context in contexts.values():
        context.close()
