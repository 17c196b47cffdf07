"""Talking with the page: a browser whose microphone plays a file, real ears, a real voice."""

import io
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ingle.home.place import Home
from tests.cli.place import ingle
from tests.page.browser import House, Tab, browser
from tests.parts import with_parts
from tests.serve.servers import facts_in
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.journey

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, smollm2_home: Home) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("voice"), smollm2_home)
    with_parts(house.home)
    house.start()
    yield house
    house.stop()


@pytest.fixture(scope="module")
def microphone(house: House, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone hears: a breath, the question, and a long silence."""
    import openai

    client = openai.OpenAI(base_url=f"{house.url}/v1", api_key="none")
    said = client.audio.speech.create(model="tts-1", voice="alloy", input=QUESTION, response_format="pcm").content
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(bytes(48_000) + said + bytes(48_000 * 30))
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    path.write_bytes(out.getvalue())
    return path


@pytest.fixture(scope="module")
def chromium(microphone: Path) -> Iterator[Browser]:
    fake = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    )
    with browser(*fake, "--autoplay-policy=no-user-gesture-required") as opened:
        yield opened


@pytest.fixture
def tab(house: House, chromium: Browser) -> Iterator[Tab]:
    page = chromium.new_page()
    tab = Tab(page, house.url).open()
    yield tab
    errors = tab.errors
    page.close()
    assert not errors


def played(tab: Tab) -> float:
    return float(tab.page.evaluate("window.ingleVoice.played"))


def test_a_question_is_spoken_and_its_answer_is_heard(house: House, tab: Tab) -> None:
    tab.settings({"System prompt": "Answer in one short English sentence."})
    tab.all(".composer .mic").click()
    tab.all(".turn.user").filter(has_text=QUESTION).wait_for()
    answer = tab.answer()
    assert "Paris" in answer
    wait_until(lambda: played(tab) > 0.5, "half a second is heard")
    tab.until("!window.ingleVoice.reading")
    expect(tab.all(".composer .mic")).to_have_attribute("aria-pressed", "true")  # it goes on listening
    tab.all(".composer .mic").click()
    expect(tab.all(".composer .mic")).to_have_attribute("aria-pressed", "false")
    assert [turn.message.text for turn in house.turns(tab.conversation)] == [QUESTION, answer]
    assert facts_in(house.home, "hear") and facts_in(house.home, "speak")[-1].values["ended"] == "stop"


def test_who_holds_the_button_says_one_thing(tab: Tab, microphone: Path) -> None:
    with wave.open(str(microphone)) as file:
        wanted = 2 * (file.getnframes() - 24_000 * 29)  # bytes of the breath, the question, and a second
    sent: list[int] = []
    tab.page.on("websocket", lambda wire: wire.on("framesent", lambda data: sent.append(len(data) if isinstance(data, bytes) else 0)))
    button = tab.all(".composer .mic")
    button.hover()
    tab.page.mouse.down()
    wait_until(lambda: tab.page.evaluate("true") and sum(sent) >= wanted, "all is sent")
    expect(button).to_have_attribute("aria-pressed", "true")
    tab.page.mouse.up()
    tab.all(".turn.user").filter(has_text=QUESTION).wait_for()
    expect(button).to_have_attribute("aria-pressed", "false")
    tab.answer()


def test_an_answer_is_read_aloud_and_hushed(house: House, tab: Tab) -> None:
    tab.settings({"Longest answer": "120"})
    tab.ask("Tell me a long story about a fox and a hen.")
    before = played(tab)
    tab.act("aloud")
    wait_until(lambda: played(tab) > before + 0.5, "half a second more is heard")
    assert tab.page.evaluate("window.ingleVoice.reading")
    tab.act("aloud")
    tab.until("!window.ingleVoice.reading")
    wait_until(lambda: facts_in(house.home, "speak")[-1].values["ended"] == "cancelled", "it is in the ledger")


def test_a_voice_is_chosen_in_the_settings(tab: Tab) -> None:
    tab.all(".bar button[aria-haspopup=dialog]").click()
    chosen = tab.all(".settings").get_by_label("Voice", exact=False)
    chosen.wait_for()
    assert chosen.locator("option").all_inner_texts() == ["The fastest", "joe"]
    chosen.select_option("joe")
    assert tab.page.evaluate("localStorage.getItem('ingle.voice')") == "joe"


def test_without_parts_the_page_offers_them(chromium: Browser, tmp_path: Path, smollm2_home: Home) -> None:
    deaf = House(tmp_path / "deaf", smollm2_home)
    shutil.rmtree(deaf.home.root / "parts", ignore_errors=True)
    deaf.start()
    page = chromium.new_page()
    try:
        tab = Tab(page, deaf.url).open()
        tab.settings({"Longest answer": "8"})
        tab.ask("Say hello.")
        for button, offer in (
            (".composer .mic", "Ingle can't hear you yet. What it takes gets 204.0 MB"),
            (".turn.assistant [data-act=aloud]", "Ingle can't read aloud yet. What it takes gets 62.9 MB"),
        ):
            tab.all(button).last.click()
            tab.all(".composer .get").filter(has_text=offer).get_by_role("button", name="Get it").wait_for()
        expect(tab.all(".composer .mic")).to_have_attribute("aria-pressed", "false")
        assert not tab.all(".settings").get_by_label("Voice", exact=False).count()
    finally:
        page.close()
        deaf.stop()


def test_a_stranger_hears_nothing_of_a_tab(house: House, tmp_path: Path, smollm2_home: Home) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with (
        pytest.raises(InvalidStatus),
        connect(f"ws://127.0.0.1:{house.port}/v1/voice?tab=x", origin="https://elsewhere.example", open_timeout=PATIENCE_S),
    ):
        pass
    locked = House(tmp_path / "locked", smollm2_home, ("--set", "serve.require_key=true"))
    ingle(locked.home.root, "key", "add", "somebody")
    locked.start()
    try:
        with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{locked.port}/v1/voice?tab=x", open_timeout=PATIENCE_S):
            pass
    finally:
        locked.stop()
