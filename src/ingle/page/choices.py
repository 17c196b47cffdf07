"""The settings of one conversation: model, system prompt, sampling. Only those that differ from the home's are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingle.core.errors import RequestError
from ingle.core.message import Message, Request
from ingle.serve.service import Service

MOST_SYSTEM = 20_000  # characters of a system prompt
_MOST_TOKENS = 10**7


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
    """Return the choices in a table that a browser sent or a conversation stores. Raises RequestError for a wrong value."""
    return Choices(
        model=_text(table, "model", 200) or None,
        system=_text(table, "system", MOST_SYSTEM),
        temperature=_number(table, "temperature", 0, 2),
        top_p=_number(table, "top_p", 0, 1),
        max_tokens=_whole(table, "max_tokens", 1, _MOST_TOKENS),
        seed=_whole(table, "seed", 0, 2**53),
    )


def home_choices(service: Service) -> dict[str, Any]:
    """Return the home's defaults."""
    sampling = service.sampling
    return {
        "model": service.models.default, "system": "", "temperature": sampling.temperature, "top_p": sampling.top_p,
        "max_tokens": service.settings.max_tokens, "seed": sampling.seed,
    }  # fmt: skip


def request_of(service: Service, choices: Choices, said: Sequence[Message]) -> Request:
    """Return the engine's request for these messages, system prompt first. Raises RequestError."""
    home, chosen = service.sampling, choices.kept
    sampling = replace(
        home.sampling(0, chosen.get("temperature")),
        top_p=chosen.get("top_p", home.top_p),
        seed=chosen.get("seed", home.seed),
    )
    system = (Message.of("system", choices.system),) if choices.system else ()
    return Request(messages=(*system, *said), max_tokens=choices.max_tokens or service.settings.max_tokens, sampling=sampling)


def _text(table: Mapping[str, Any], name: str, most: int) -> str:
    value = table.get(name) or ""
    if not isinstance(value, str) or len(value) > most:
        raise RequestError(name, f"must be text of at most {most:,} characters", type(value).__name__ if value else "")
    return value


def _number(table: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = table.get(name)
    if value in (None, ""):
        return None
    if not isinstance(value, int | float) or not low <= value <= high:  # NaN fails the comparison too
        raise RequestError(name, f"must be a number from {low} to {high}", str(value)[:40])
    return float(value)


def _whole(table: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = _number(table, name, low, high)
    if value is not None and value != int(value):
        raise RequestError(name, "must be a whole number", value)
    return None if value is None else int(value)
