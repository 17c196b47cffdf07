"""Somebody who is served meanwhile: what came to them, counted. No clock is read."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import httpx

from tests.serve.servers import Server
from tests.waiting import PATIENCE_S, wait_until

LEAST = 5
"""Tokens and answers of /health that must come within one deed of others: so many are on their way to nobody who is held up."""


@dataclass
class Meanwhile:
    """Another asker, who reads an answer of "tiny" and asks for the health again and again, as long as the block lasts."""

    server: Server
    headers: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    healths: int = 0
    errors: list[Exception] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Meanwhile":
        self._threads = [threading.Thread(target=self._on, args=(deed,)) for deed in (self._read, self._poll)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.errors or (self.tokens > 20 and self.healths), "the other's answer has begun")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert kind or not self.errors, self.errors

    def goes_on(self) -> None:
        """Waits for more of both."""
        tokens, healths = self.tokens, self.healths
        wait_until(
            lambda: self.errors or min(self.tokens - tokens, self.healths - healths) > LEAST, "another's tokens and the health go on"
        )
        assert not self.errors, self.errors

    def _on(self, deed: Callable[[], None]) -> None:
        try:
            while not self._over.is_set():
                deed()
        except Exception as error:
            self.errors.append(error)

    def _read(self) -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 30_000, "seed": 1, "stream": True}
        url = self.server.url + "/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=self.headers, timeout=PATIENCE_S) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                self.tokens += line.startswith("data: {")
                if self._over.is_set():
                    return

    def _poll(self) -> None:
        self.server.health()
        self.healths += 1
