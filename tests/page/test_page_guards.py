"""Guards, on the page: an answer that was ended says so kindly, its details tell what the guards saw, and nothing blocked is sent."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from ingle.home.place import Home
from tests.page.browser import House, Tab, browser
from tests.serve.servers import settings

POLICY = """
[guards]
pii = "block"

[guards.output]
mode = "block"
words = ["Paris"]
say = "I was asked not to name it."
"""


@pytest.fixture(scope="module")
def house(smollm2_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    opened = House(tmp_path_factory.mktemp("page") / "home", smollm2_home, [*settings(max_tokens=60), "--set", "sampling.temperature=0"])
    opened.home.policy.write_text(POLICY)
    opened.start()
    yield opened
    assert opened.stop() == 0
    assert "Traceback" not in opened.log, opened.log[-4000:]


def test_a_blocked_answer_and_a_blocked_question_look_like_what_they_are(house: House, tmp_path: Path) -> None:
    with browser() as chromium:
        page = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
        seen: list[str] = []
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: seen.append(str(frame))))
        tab = Tab(page, house.url).open()
        answer = tab.ask("Which city is the Eiffel Tower in?")
        assert "The Eiffel Tower is" in answer and "I was asked not to name it." in answer
        assert "ended here by a rule of this house" in tab.line
        tab.act("details")
        told = tab.all(".details").inner_text()
        assert "What the guards saw" in told and "output ended the answer: words 1" in told
        page.screenshot(path=str(tmp_path / "blocked.png"))
        assert answer.endswith("name it.") and "Paris" not in "".join(seen) + page.content()
        _, stored = house.turns(tab.conversation)
        assert "Paris" not in stored.message.text
        tab.send("My card is 4111 1111 1111 1111, is that right?")
        expect(tab.all(".turn .trouble")).to_contain_text("A rule of this house kept this from the model.")
        expect(tab.all(".turn .trouble")).to_contain_text("1 of the kind card")
        expect(tab.all(".turn .trouble")).not_to_contain_text("messages[")
        page.screenshot(path=str(tmp_path / "refused.png"))
        assert not [error for error in tab.errors if "Failed to load" not in error]
