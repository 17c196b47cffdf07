"""The settings of one conversation: model, system prompt, sampling. Only those that differ from the home's are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingle.app.settings import SamplingSettings, ServeSettings
from ingle.core.errors import RequestError
from ingle.core.message import Message, Request

MOST_SYSTEM = 20_000  # characters of a system prompt
BOUNDS = {"temperature": (0, 2), "top_p": (0, 1), "max_tokens": (1, 10**7), "seed": (0, 2**53)}


@dataclass(frozen=True, slots=True)
class Choices:
    """Settings of a conversation. None = the home's value."""

    model: str | None = None
    system: str = ""  # system prompt; empty = the default of the model's template
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None  # none = a new one for every answer

    @property
    def kept(self) -> dict[str, Any]:
        """The settings that were chosen. The home's apply to all others, now and when they change."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) not in (None, "")}


def choices_of(table: Mapping[str, Any]) -> Choices:
    """Return the choices in a table that somebody sent or a conversation stores. Raises RequestError for a wrong value."""
    return Choices(
        model=_text(table, "model", 200) or None,
        system=_text(table, "system", MOST_SYSTEM),
        temperature=_number(table, "temperature"),
        top_p=_number(table, "top_p"),
        max_tokens=_whole(table, "max_tokens"),
        seed=_whole(table, "seed"),
    )


def request_of(home: SamplingSettings, settings: ServeSettings, choices: Choices, said: Sequence[Message]) -> Request:
    """Return the engine's request for these messages, system prompt first. Raises RequestError."""
    chosen = choices.kept
    sampling = replace(
        home.sampling(0, chosen.get("temperature")),
        top_p=chosen.get("top_p", home.top_p),
        seed=chosen.get("seed", home.seed),
    )
    system = (Message.of("system", choices.system),) if choices.system else ()
    return Request(messages=(*system, *said), max_tokens=choices.max_tokens or settings.max_tokens, sampling=sampling)


def _text(table: Mapping[str, Any], name: str, most: int) -> str:
    value = table.get(name) or ""
    if not isinstance(value, str) or len(value) > most:
        raise RequestError(name, f"must be text of at most {most:,} characters", type(value).__name__ if value else "")
    return value


def _number(table: Mapping[str, Any], name: str) -> float | None:
    value = table.get(name)
    if value in (None, ""):
        return None
    low, high = BOUNDS[name]
    if not isinstance(value, int | float) or not low <= value <= high:  # NaN fails the comparison too
        raise RequestError(name, f"must be a number from {low} to {high}", str(value)[:40])
    return float(value)


def _whole(table: Mapping[str, Any], name: str) -> int | None:
    value = _number(table, name)
    if value is not None and value != int(value):
        raise RequestError(name, "must be a whole number", value)
    return None if value is None else int(value)
