"""One talk: what was said by whom, the sound that comes in, and at most one answer at a time."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from ingle.app.answering import Ask, limits_of
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import Busy, IngleError, NotKept, RequestError
from ingle.core.message import Message, Request, Role
from ingle.media.sound import TurnSettings
from ingle.serve.ahead import read_ahead
from ingle.serve.hearing import HearingWish, heard_fact, listen
from ingle.serve.http_errors import body_of
from ingle.serve.listening import HeardTurn, Listener, SaidSoFar, SpeechBegan, SpeechEnded, TurnFailed, TurnNews
from ingle.serve.realtime_answer import SpokenTurn
from ingle.serve.realtime_items import PATH, Emitter, TalkItem, new_id
from ingle.serve.realtime_settings import TalkSettings, changed, session_table
from ingle.serve.service import Service
from ingle.serve.speaking import sound_of, voice_of, warm

Event = Mapping[str, Any]
_MOST_ITEMS = 512
_SHORTEN = "Delete some, or begin another talk."
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_HEARD = "conversation.item.input_audio_transcription"


class TalkSession:
    """A talk with one client."""

    def __init__(self, service: Service, asker: str, model: str, emit: Emitter, count: Callable[[], None]) -> None:
        """`count` counts an answer against the key's share, and raises Busy."""
        self._service, self._asker, self._model, self._emit, self._count = service, asker, model, emit, count
        self._id, self._items = new_id("sess"), list[TalkItem]()
        self._listener = Listener(service, self._news, TurnSettings(), asker)
        self._answer: SpokenTurn | None = None
        self._unheard: set[str] = set()  # turns that have ended, and whose words are not there yet
        self._all_heard = asyncio.Event()
        self._all_heard.set()
        self._most_bytes = 0  # of the words of all items together
        self._certain, self._ahead = "", list[asyncio.Task[Energy]]()
        self._handlers: dict[str, Callable[[Event], Awaitable[None]]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create,
            "conversation.item.truncate": self._truncate,
            "conversation.item.delete": self._delete,
            "conversation.item.retrieve": self._retrieve,
            "response.create": self._respond,
            "response.cancel": self._cancel,
        }

    async def begin(self) -> None:
        """Find model and voice, and say how the talk is set. Raises NotKept or ConfigError, which say what is missing."""
        kept, model = await self._service.models.find(self._model)
        limits = await asyncio.to_thread(limits_of, model)
        self._most_bytes = min(limits.max_request_bytes, limits.max_context_tokens * limits.longest_token_bytes)
        self._settings = TalkSettings(await voice_of(self._service, "auto"), kept.name)
        self._ahead.append(asyncio.create_task(self._warm()))
        await self._emit("session.created", {"session": self._session()})

    async def _warm(self) -> Energy:
        """Let ears and voice wake up while the speaker takes a breath. It costs the first turn's energy."""
        return await warm(self._service, self._settings.voice.name, self._asker)

    async def end(self) -> None:
        """End what goes on."""
        self._listener.close()
        if self._answer is not None:
            await self._answer.stop("client_closed")
        for task in self._ahead:
            task.cancel()
        await asyncio.gather(*self._ahead, return_exceptions=True)

    @property
    def answering(self) -> bool:
        """Whether an answer is being given, or heard."""
        return self._answer is not None and (self._answer.running or self._answer.playing)

    async def take(self, event: Event) -> None:
        """Do what an event of the client asks for."""
        try:
            handler = self._handlers.get(event["type"])
            if handler is None:
                raise RequestError("type", f"must be one of {', '.join(self._handlers)}", str(event["type"])[:80])
            await handler(event)
        except IngleError as error:
            await self.fault(error, event.get("event_id"))

    async def fault(self, error: IngleError, event_id: Any = None) -> None:
        """Tell the client of an error, and the ledger; the talk goes on."""
        self._service.refusals.refused(PATH, error, self._asker)
        await self._emit("error", {"error": body_of(error)["error"] | {"event_id": event_id}})

    def _session(self) -> dict[str, Any]:
        return session_table(self._settings, self._id, self._settings.model, self._emit.beta)

    async def _update(self, event: Event) -> None:
        before = self._settings
        self._settings = await changed(before, _table(event, "session"), self._service)
        self._listener.wish = HearingWish(language=self._settings.language, prompt=self._settings.hint)
        if self._settings.turns != before.turns:
            self._listener.detect(self._settings.turns)
        await self._emit("session.updated", {"session": self._session()})

    async def _append(self, event: Event) -> None:
        await self._listener.feed(_decoded(event.get("audio"), "audio"))

    async def _commit(self, _event: Event) -> None:
        await self._committed(self._listener.commit())

    async def _clear(self, _event: Event) -> None:
        self._listener.clear()
        await self._emit("input_audio_buffer.cleared", {})

    async def _committed(self, turn: str) -> None:
        self._unheard.add(turn)
        self._all_heard.clear()
        await self._emit("input_audio_buffer.committed", {"previous_item_id": self._last_id, "item_id": turn})

    @property
    def _last_id(self) -> str | None:
        return self._items[-1].id if self._items else None

    async def _news(self, news: TurnNews) -> None:
        """Tell the client what was heard, and answer a whole turn."""
        if isinstance(news, SpeechBegan):
            self._certain = ""
            await self._emit("input_audio_buffer.speech_started", {"audio_start_ms": round(news.at_s * 1000), "item_id": news.turn})
            if self._settings.interrupts:
                await self._interrupt()
        elif isinstance(news, SpeechEnded):
            await self._emit("input_audio_buffer.speech_stopped", {"audio_end_ms": round(news.at_s * 1000), "item_id": news.turn})
            await self._committed(news.turn)
        elif isinstance(news, SaidSoFar):
            new, self._certain = news.text[len(self._certain) :], news.text
            await self._emit(f"{_HEARD}.delta", {"item_id": news.turn, "content_index": 0, "delta": new})
            self._read_ahead(news.text)
        elif isinstance(news, TurnFailed):
            await self._emit(f"{_HEARD}.failed", {"item_id": news.turn, "content_index": 0, "error": body_of(news.error)["error"]})
            self._known(news.turn)
        else:
            await self._said(news)

    async def _said(self, news: HeardTurn) -> None:
        energy, text = news.energy + await self._ahead_energy(), news.heard.text.strip()
        await heard_fact(self._service, news.sound.digest, news.heard, energy, self._asker, news.turn)
        if text:
            await self._add(TalkItem("user", text, True, news.turn))
        usage = {"type": "duration", "seconds": round(news.sound.seconds, 3)}
        await self._emit(f"{_HEARD}.completed", {"item_id": news.turn, "content_index": 0, "transcript": text, "usage": usage})
        self._known(news.turn)
        # Who goes on to speak gets the answer to all of it.
        if text and self._settings.turns is not None and self._settings.answers and not self._listener.speaking:
            await self.take({"type": "response.create"})

    def _known(self, turn: str) -> None:
        self._unheard.discard(turn)
        if not self._unheard:
            self._all_heard.set()

    def _read_ahead(self, text: str) -> None:
        """Let the model read what is certain, unless it is still reading what was certain before."""
        if self._settings.answers and all(task.done() for task in self._ahead):
            ask = Ask(
                self._request(self._settings, [*self._messages(self._settings), Message.of("user", text)]),
                self._settings.model,
                self._asker,
            )
            self._ahead.append(asyncio.create_task(read_ahead(self._service, ask)))

    async def _ahead_energy(self) -> Energy:
        tasks, self._ahead = self._ahead, []
        done = [energy for energy in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(energy, Energy)]
        return sum(done, NOTHING)

    async def _interrupt(self) -> None:
        """End the answer, and cut its words to those that were heard."""
        answer = self._answer
        if answer is None or not (answer.running or answer.playing):
            return
        played_s, playing = answer.played_s, answer.item.aloud
        await answer.stop("turn_detected")
        if playing:
            answer.cut(played_s)
            fields = {"item_id": answer.item.id, "content_index": 0, "audio_end_ms": round(played_s * 1000)}
            await self._emit("conversation.item.truncated", fields)
        self._answer = None

    async def _add(self, item: TalkItem) -> None:
        if len(self._items) >= _MOST_ITEMS:
            raise RequestError("item", f"A talk holds at most {_MOST_ITEMS} items", "", _SHORTEN)
        if (size := sum(len(one.text.encode()) for one in (*self._items, item))) > self._most_bytes:
            rule = f"must leave at most {self._most_bytes:,} bytes of words in the talk, as many as this model can read"
            raise RequestError("item", rule, f"{size:,}", _SHORTEN)
        before, table = self._last_id, item.table(self._emit.beta)
        self._items.append(item)
        await self._emit("conversation.item.added", {"previous_item_id": before, "item": table})
        await self._emit("conversation.item.done", {"previous_item_id": before, "item": table})

    async def _create(self, event: Event) -> None:
        item = _table(event, "item")
        role = _ROLES.get(str(item.get("role")))
        if item.get("type", "message") != "message" or role is None:
            raise RequestError("item", "must be a message of the user, the assistant or the system", str(item.get("type"))[:40])
        self._count()
        content, texts, aloud = item.get("content"), list[str](), False
        if not isinstance(content, list) or not 0 < len(content) <= 64:
            raise RequestError("item.content", "must be a list of 1 to 64 parts", type(content).__name__)
        for part in content:
            if isinstance(part, Mapping) and part.get("type") == "input_audio" and "audio" in part:
                sound = sound_of(_decoded(part["audio"], "item.content.audio"))
                with self._service.slow.seats.taken(self._asker):
                    heard, energy = await listen(self._service, sound, self._listener.wish, self._asker)
                await heard_fact(self._service, sound.digest, heard, energy, self._asker, "")
                texts.append(heard.text)
                aloud = True
            elif isinstance(part, Mapping) and isinstance(part.get("text", part.get("transcript")), str):
                texts.append(part.get("text", part.get("transcript")))
            else:
                raise RequestError("item.content", "must hold texts or recordings", "something else")
        id_ = item.get("id")
        await self._add(TalkItem(role, " ".join(texts), aloud, id_ if isinstance(id_, str) and 0 < len(id_) <= 64 else new_id("item")))

    def _item(self, event: Event) -> TalkItem:
        for item in self._items:
            if item.id == event.get("item_id"):
                return item
        raise NotKept("item_id", "names nothing that was said here", str(event.get("item_id"))[:80])

    async def _truncate(self, event: Event) -> None:
        item, at_ms = self._item(event), event.get("audio_end_ms")
        if isinstance(at_ms, bool) or not isinstance(at_ms, int) or at_ms < 0:
            raise RequestError("audio_end_ms", "must be a whole number from 0 on", str(at_ms)[:40])
        if self._answer is not None and self._answer.item is item:
            self._answer.cut(at_ms / 1000)
        await self._emit("conversation.item.truncated", {"item_id": item.id, "content_index": 0, "audio_end_ms": at_ms})

    async def _delete(self, event: Event) -> None:
        self._items.remove(item := self._item(event))
        await self._emit("conversation.item.deleted", {"item_id": item.id})

    async def _retrieve(self, event: Event) -> None:
        await self._emit("conversation.item.retrieved", {"item": self._item(event).table(self._emit.beta)})

    def _messages(self, settings: TalkSettings) -> list[Message]:
        system = [Message.of("system", settings.instructions)] if settings.instructions else []
        return [*system, *(item.message for item in self._items if item.text.strip())]

    def _request(self, settings: TalkSettings, messages: list[Message]) -> Request:
        sampling = self._service.sampling.sampling(0, settings.temperature)
        seed = self._service.sampling.seed
        most = settings.max_tokens or self._service.settings.max_tokens
        return Request(tuple(messages), max_tokens=most, sampling=replace(sampling, seed=seed))

    async def _respond(self, event: Event) -> None:
        settings = await changed(self._settings, _table(event, "response") if event.get("response") else {}, self._service)
        await self._all_heard.wait()
        if self._answer is not None and self._answer.running:
            raise Busy("response", "An answer is being given already", "", "Wait for response.done, or send response.cancel.")
        self._count()
        messages = self._messages(settings)
        if not messages:
            raise RequestError("response", "needs something to answer", "nothing", "Say something first.")
        ask = Ask(self._request(settings, messages), settings.model, self._asker, new_id("resp"))
        before = self._last_id
        self._answer = SpokenTurn(self._service, ask, settings.voice if settings.aloud else None, self._emit)
        self._items.append(self._answer.item)
        self._answer.start(before)

    async def _cancel(self, _event: Event) -> None:
        if self._answer is None or not self._answer.running:
            raise RequestError("response.cancel", "There is no answer to cancel")
        await self._answer.stop("client_cancelled")


def _table(event: Event, name: str) -> Mapping[str, Any]:
    found = event.get(name)
    if not isinstance(found, Mapping):
        raise RequestError(name, "must be a table", type(found).__name__)
    return found


def _decoded(data: Any, place: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise RequestError(place, "must be base64", error) from error
