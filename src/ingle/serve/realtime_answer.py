"""One answer in a talk: its words and its sound as events, and where it was when somebody interrupted it."""

import asyncio
import base64
import time
from contextlib import aclosing
from typing import Any

from ingle.app.answering import Ask
from ingle.core.errors import IngleError
from ingle.core.message import AudioPart, Chunk
from ingle.serve.aloud import aloud
from ingle.serve.http_errors import body_of
from ingle.serve.realtime_items import PATH, Emitter, TalkItem
from ingle.serve.reply import FINISH, account_of, usage_of
from ingle.serve.service import Service
from ingle.serve.speaking import Speaker, Voice
from ingle.serve.stream import answers


class SpokenTurn:
    """An answer on its way to the client."""

    def __init__(self, service: Service, ask: Ask, voice: Voice | None, emit: Emitter) -> None:
        """voice: None = it is written only."""
        self.service, self.ask, self._emit = service, ask, emit
        self.item = TalkItem("assistant", "", voice is not None)
        self._talk = Speaker(service, voice, ask.asker, ask.id) if voice else None
        self._why = ""  # why it was stopped
        self._last: list[Chunk] = []
        self._sounds_since = 0.0
        self.task: asyncio.Task[None] | None = None

    def start(self, before: str | None) -> None:
        """Begin it. `before`: the item that it follows."""
        self.task = asyncio.create_task(self._run(before), name="answer of a talk")

    async def stop(self, why: str) -> None:
        """End it and wait until the client was told; does nothing to one that has ended."""
        if self.task is not None and not self.task.done() and not self._why:
            self._why = why
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    @property
    def running(self) -> bool:
        """Whether more of it will come."""
        return self.task is not None and not self.task.done()

    @property
    def played_s(self) -> float:
        """Seconds of it that a client has played, if it began at the first sound and never paused."""
        return min(self._talk.seconds, time.monotonic() - self._sounds_since) if self._talk and self._sounds_since else 0.0

    @property
    def playing(self) -> bool:
        """Whether there is sound that nobody can have heard yet."""
        return self._talk is not None and self.played_s < self._talk.seconds

    def cut(self, at_s: float) -> None:
        """Cut its words to those that were heard by then. A voice takes about the same time for every letter."""
        if self._talk is None or 0 < self._talk.seconds <= at_s:
            return
        spoken = sum(map(len, self._talk.said)) + len(self._talk.said)
        letters = round(spoken * max(0.0, at_s) / max(self._talk.seconds, 1e-3))
        self.item.text = self.item.text[:letters].rpartition(" ")[0] if letters < len(self.item.text) else self.item.text

    async def _run(self, before: str | None) -> None:
        status, fault = "completed", dict[str, Any]()
        await self._begin(before)
        try:
            await self._write()
        except asyncio.CancelledError:
            if not self._why:
                raise
            status, fault = "cancelled", {"type": "cancelled", "reason": self._why}
        except IngleError as error:
            self.service.refusals.refused(PATH, error, self.ask.asker)
            status, fault = "failed", {"type": "failed", "error": body_of(error)["error"]}
        finish = FINISH[self._last[0].finish or "stop"] if self._last else "stop"
        if status == "completed" and finish != "stop":
            status, fault = "incomplete", {"type": "incomplete", "reason": {"length": "max_output_tokens"}.get(finish, finish)}
        await self._end(status, fault)

    async def _write(self) -> None:
        chunks = answers(self.service, [self.ask])
        if self._talk is not None:
            chunks = aloud(self._talk, chunks, lambda chunk: chunk.text)
        async with aclosing(chunks) as opened:
            async for _, chunk in opened:
                if chunk.text:
                    self.item.text += chunk.text
                    await self._emit(self._named("transcript.delta" if self._talk else "delta"), self._place | {"delta": chunk.text})
                for part in chunk.media:
                    if isinstance(part, AudioPart):
                        self._sounds_since = self._sounds_since or time.monotonic()
                        await self._emit("response.output_audio.delta", self._place | {"delta": base64.b64encode(part.data).decode()})
                if chunk.finish:
                    self._last.append(chunk)

    async def _begin(self, before: str | None) -> None:
        item = self.item.table(self._emit.beta, "in_progress")
        await self._emit("response.created", {"response": self._table("in_progress", {})})
        await self._emit("response.output_item.added", self._output | {"item": item})
        await self._emit("conversation.item.added", {"previous_item_id": before, "item": item})
        await self._emit("response.content_part.added", self._place | {"part": self.item.part(self._emit.beta)})

    async def _end(self, status: str, fault: dict[str, Any]) -> None:
        if self._talk is not None:
            await self._emit("response.output_audio.done", self._place)
        words = {"transcript" if self._talk else "text": self.item.text}
        await self._emit(self._named("transcript.done" if self._talk else "done"), self._place | words)
        await self._emit("response.content_part.done", self._place | {"part": self.item.part(self._emit.beta)})
        item = self.item.table(self._emit.beta, "completed" if status == "completed" else "incomplete")
        await self._emit("response.output_item.done", self._output | {"item": item})
        await self._emit("conversation.item.done", {"previous_item_id": None, "item": item})
        await self._emit("response.done", {"response": self._table(status, fault)})

    def _named(self, what: str) -> str:
        return f"response.output_audio_{what}" if self._talk else f"response.output_text.{what}"

    @property
    def _output(self) -> dict[str, Any]:
        return {"response_id": self.ask.id, "output_index": 0}

    @property
    def _place(self) -> dict[str, Any]:
        return self._output | {"item_id": self.item.id, "content_index": 0}

    def _table(self, status: str, fault: dict[str, Any]) -> dict[str, Any]:
        kinds = "modalities" if self._emit.beta else "output_modalities"
        table: dict[str, Any] = {
            "id": self.ask.id, "object": "realtime.response", "status": status, "status_details": fault or None,
            kinds: ["audio"] if self._talk else ["text"], "output": [], "usage": None, "metadata": None,
        }  # fmt: skip
        if status == "in_progress":
            return table
        usage = usage_of(self._last)
        names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens", "total_tokens": "total_tokens"}
        tokens = {name: usage[ours] for name, ours in names.items()}
        tokens["input_token_details"] = {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]}
        about = account_of(self._last) | ({"spoken": self._talk.about} if self._talk else {})
        return table | {"output": [self.item.table(self._emit.beta)], "usage": tokens | {"energy": usage["energy"]}, "ingle": about}
