"""A real server in a process of its own, and a real browser that looks at it."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, Request, expect, sync_playwright
from sqlalchemy import Engine

from ingle.home.place import Home
from ingle.home.turns import Turn
from tests.homes import lent
from tests.serve.servers import Server, start
from tests.waiting import PATIENCE_S, wait_until

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
WAIT_MS = PATIENCE_S * 1000
DONE = ".turn.assistant:last-child .line:not(:has(.glow))"
"""The facts of the last answer."""


class House:
    """A home with the model of another one, but with words, facts and keys of its own; and its server, which comes and goes."""

    def __init__(self, root: Path, kept: Home, options: Sequence[str] = ()) -> None:
        self.home = lent(kept, root)
        self.elsewhere = root / "elsewhere"
        """The server's working directory."""
        self.elsewhere.mkdir()
        self._options, self._port, self._logs = tuple(options), 0, [""]
        self._server: Server | None = None

    def start(self) -> None:
        """Lets the server come; at the same port as before."""
        before = f"import os; os.chdir({str(self.elsewhere)!r})"
        self._server = start(self.home.root, "--page", "--port", str(self._port), *self._options, before=before)
        self._port = self._server.address[1]

    def stop(self) -> int:
        """Ends it as systemd does; returns its exit code."""
        assert self._server is not None
        code = self._server.stop()
        self._logs.append(self._server.log)
        self._server = None
        return code

    def kill(self) -> None:
        """Ends it as a power cut does."""
        assert self._server is not None
        self._server.kill()
        self._server = None

    @property
    def log(self) -> str:
        """What its servers have said."""
        return "".join(self._logs) + (self._server.log if self._server else "")

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @contextmanager
    def database(self) -> Iterator[Engine]:
        """Its database, while the server writes to it."""
        from ingle.app.house import open_rooms

        engine = open_rooms(self.home)
        try:
            yield engine
        finally:
            engine.dispose()

    def turns(self, conversation: str, owner: str = "") -> tuple[Turn, ...]:
        """The branch at which a conversation stands."""
        from ingle.home.conversations import get_conversation
        from ingle.home.turns import path

        with self.database() as engine:
            return path(engine, owner, get_conversation(engine, owner, conversation).leaf)

    def stored(self) -> bytes:
        """Every byte of the database, its log included."""
        return b"".join(path.read_bytes() for path in sorted(self.home.root.glob("ingle.db*")))


@contextmanager
def browser(*more: str) -> Iterator[Browser]:
    """Chromium, with `more` arguments; skips where there is none, unless INGLE_TEST_NEEDS_BROWSER says that there must be one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "there is no chromium here: apt-get install chromium"
        if os.environ.get("INGLE_TEST_NEEDS_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=[*ARGUMENTS, *more], timeout=WAIT_MS)
        try:
            yield opened
        finally:
            opened.close()


SEND = """async ([method, path, body]) => {
  const reply = await fetch(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  return [reply.status, await reply.text()];
}"""


class Tab:
    """A tab that looks at the page, and remembers what it should not have seen."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        page.set_default_timeout(WAIT_MS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.finished: list[Request] = []
        page.on("requestfinished", lambda request: self.finished.append(request))  # noqa: PLW0108 - Playwright calls no built-in
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)

    def _said(self, message: ConsoleMessage) -> None:
        # Of every refusal of the API, which the page tells people in its own words, a browser's console says so too.
        if message.type == "error" and "the server responded with a status of 4" not in message.text:
            self.errors.append(message.text)

    def open(self, path: str = "/") -> "Tab":
        self.page.goto(self.url + path)
        return self.ready()

    def ready(self) -> "Tab":
        """Waits until what is typed is heard."""
        self.until("window.ingle?.connected && document.querySelector('.composer textarea')")
        return self

    def until(self, expression: str) -> None:
        """Waits until it is true in the page. Playwright's own waiting needs `eval`, which the page's policy forbids."""

        def true() -> bool:
            try:
                return bool(self.page.evaluate(expression))
            except Error as error:
                if "navigation" not in str(error):
                    raise
                return False  # the page was just being left

        try:
            wait_until(true, expression)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page says: {self.all('body').inner_text()[-800:]}") from error

    def sends(self, method: str, path: str, body: Any) -> tuple[int, str]:
        """What the server says to what this page could send by itself, without a button."""
        status, text = self.page.evaluate(SEND, [method, path, body])
        return status, text

    def all(self, what: str) -> Locator:
        return self.page.locator(what)

    @property
    def box(self) -> Locator:
        return self.page.locator(".composer textarea")

    def send(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")
        self.all(
            ".turn.user",
        ).filter(has_text=text[:200]).last.wait_for()

    def ask(self, text: str) -> str:
        """Sends, waits for the answer, and returns its words."""
        self.send(text)
        return self.answer()

    def answer(self) -> str:
        """The last answer, when it is there."""
        self.all(DONE).wait_for()
        return self.all(".turn.assistant").last.locator(".prose").inner_text()

    @property
    def line(self) -> str:
        """The facts of the last answer."""
        return self.all(DONE).inner_text()

    @property
    def conversation(self) -> str:
        self.page.wait_for_url("**/c/*")
        return self.page.url.rpartition("/")[2]

    def act(self, name: str) -> None:
        """A button under the last answer."""
        self.all(f".turn.assistant >> [data-act={name}]").last.click()

    def heard(self) -> str:
        """All that the server has sent so far of finished answers to scripts, streams included."""
        return "".join(request.response().text() for request in self.finished if request.resource_type in ("fetch", "xhr"))  # type: ignore[union-attr]

    def settings(self, values: dict[str, str]) -> None:
        """Fills in the panel."""
        self.all(".bar button[aria-haspopup=dialog]").click()
        for label, value in values.items():
            field = self.all(".settings").get_by_label(label, exact=False).first
            field.fill(value)
            field.dispatch_event("change")
        self.page.keyboard.press("Escape")
        self.all(".settings").wait_for(state="hidden")
