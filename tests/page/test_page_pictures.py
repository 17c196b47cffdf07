"""Pictures on the page, with the sight and the painter that come with Ingle: shown, asked about, corrected, asked again; and drawn."""

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from ingle.core.media import Picture
from ingle.core.message import ImagePart
from ingle.home.place import Home
from ingle.media.picture import png_of, read_picture
from tests.cli.place import ingle
from tests.page.browser import House, Tab, browser
from tests.parts import with_parts

pytestmark = pytest.mark.journey

EYE = "efficientnet-lite0"
DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  const dropped = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.querySelector(".composer form").dispatchEvent(dropped);
}"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, smollm2_home: Home) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("pictures"), smollm2_home, ("smollm2+sight", "smollm2+painter"))
    with_parts(house.home, EYE)
    for name in ("sight", "painter"):
        ingle(house.home.root, "pull", name)
    house.start()
    yield house
    house.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def tab(house: House, chromium: Browser) -> Iterator[Tab]:
    page = chromium.new_page()
    tab = Tab(page, house.url).open()
    yield tab
    assert tab.errors == []
    assert all(url.startswith((house.url, house.url.replace("http", "ws"), "data:", "blob:")) for url in tab.requests)
    page.close()


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red disc on white."""
    y, x = np.mgrid[:300, :300]
    pixels = np.full((300, 300, 3), 255, np.uint8)
    pixels[(y - 150) ** 2 + (x - 150) ** 2 < 110**2] = (220, 30, 30)
    path = tmp_path_factory.mktemp("ball") / "ball.png"
    path.write_bytes(png_of(Picture(pixels)))
    return path


def drop(tab: Tab, path: Path) -> None:
    tab.page.evaluate(DROP, [base64.b64encode(path.read_bytes()).decode(), path.name])
    expect(tab.all(".composer .pictures img")).to_have_count(1)


def test_a_picture_is_dropped_asked_about_corrected_and_asked_about_again(house: House, tab: Tab, ball: Path) -> None:
    drop(tab, ball)
    first = tab.ask("What is this?")
    assert first and "Vintershof" not in first
    expect(tab.all(".turn.user .said img")).to_have_count(1)
    [turn, _] = house.turns(tab.conversation)
    [picture] = [part for part in turn.message.parts if isinstance(part, ImagePart)]
    assert read_picture(picture.data).pixels.shape == (300, 300, 3)
    tab.act("correct")
    edit = tab.all(".turn.assistant .edit textarea")
    edit.fill("The seal of Vintershof.")
    tab.all(".turn.assistant .edit button.main").click()
    expect(tab.all(".turn .correction")).to_contain_text("remembered")
    tab.page.keyboard.press("Control+k")
    expect(tab.all(".welcome")).to_be_visible()
    drop(tab, ball)
    assert "Vintershof" in tab.ask("What is this?"), "it acts on the next answer about this picture"
    tab.page.reload()
    expect(tab.ready().all(".turn.user .said img")).to_have_count(1)
    tab.page.keyboard.press("Control+k")
    expect(tab.all(".welcome")).to_be_visible()
    assert "Vintershof" not in tab.ask("What is this?"), "and on no answer without it"


def test_pictures_are_taken_out_again_and_no_file_of_words_gets_in(tab: Tab, ball: Path, tmp_path: Path) -> None:
    drop(tab, ball)
    tab.all(".composer .pictures button").click()
    expect(tab.all(".composer .pictures img")).to_have_count(0)
    words = tmp_path / "words.txt"
    words.write_text("no picture")
    tab.page.set_input_files(".composer input[type=file]", words)
    expect(tab.all(".composer .note")).to_contain_text("is no picture")
    expect(tab.all(".composer button[aria-label=Send]")).to_be_disabled()


def test_a_drawing_is_asked_for_and_stays_in_the_conversation(house: House, tab: Tab) -> None:
    tab.settings({"Temperature": "0"})
    tab.all(".bar button[aria-haspopup=dialog]").click()
    tab.all(".settings select").first.select_option("smollm2+painter")
    tab.page.keyboard.press("Escape")
    tab.send("Draw a red apple.")
    picture = tab.all(".turn.assistant img.drawn")
    expect(picture).to_have_count(1)
    assert tab.page.evaluate("document.querySelector('.turn.assistant img.drawn').naturalWidth") == 256
    expect(tab.all(".turn.assistant .prose")).to_have_text("")
    assert tab.ask("Thank you. Say one word.")
    tab.page.reload()
    expect(tab.ready().all(".turn.assistant img.drawn")).to_have_count(1)
    answers = [turn for turn in house.turns(tab.conversation) if turn.message.role == "assistant"]
    assert [isinstance(turn.message.parts[0], ImagePart) for turn in answers] == [True, False]
