"""What is chosen on the page, and what becomes of it."""

import math
from pathlib import Path

import pytest

from ingle.app.choices import Choices, choices_of, request_of
from ingle.app.settings import SamplingSettings, ServeSettings
from ingle.core.errors import RequestError
from ingle.core.message import Message
from ingle.home.place import Home
from ingle.serve.model_registry import ModelRegistry
from ingle.serve.service import Service
from ingle.serve.visitor import home_choices


@pytest.fixture
def service(tmp_path: Path) -> Service:
    home = Home(tmp_path)

    def never(*_: object) -> None:
        raise AssertionError

    sampling, models = SamplingSettings(temperature=0.3, top_k=5, seed=4), ModelRegistry(home, never, "tiny")  # type: ignore[arg-type]
    return Service(home, ServeSettings(max_tokens=77), sampling, models)


def test_nothing_chosen_is_what_the_home_has(service: Service) -> None:
    request = request_of(service.sampling, service.settings, Choices(), [Message.of("user", "hi")])
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.seed, request.max_tokens) == (0.3, 5, 4, 77)
    assert [message.role for message in request.messages] == ["user"]
    assert home_choices(service)["model"] == "tiny"
    assert Choices().kept == {}


def test_what_is_chosen_is_asked_for(service: Service) -> None:
    sent = {"model": "other", "system": "Be brief.", "temperature": 0, "top_p": 0.5, "max_tokens": 9, "seed": 0}
    choices = choices_of(sent)
    request = request_of(service.sampling, service.settings, choices, [Message.of("user", "hi")])
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed, request.max_tokens) == (0.0, 0.5, 0, 9)
    assert [(message.role, message.text) for message in request.messages] == [("system", "Be brief."), ("user", "hi")]
    assert (request.sampling.repetition_penalty, request.sampling.repeat_limit) == (1.0, 0), "temperature 0 stays exact"
    assert choices.kept == sent
    assert choices_of(choices.kept) == choices


@pytest.mark.parametrize(
    "sent",
    [
        {"temperature": math.nan}, {"temperature": -1}, {"temperature": "hot"}, {"top_p": 7}, {"max_tokens": 0}, {"max_tokens": 1.5},
        {"max_tokens": math.inf}, {"seed": -1}, {"seed": 2**60}, {"system": 5}, {"system": "x" * 30_000}, {"model": ["a"]},
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(sent: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=f"^{next(iter(sent))} must be"):
        choices_of(sent)


def test_empty_fields_choose_nothing() -> None:
    assert choices_of({"model": "", "system": None, "temperature": "", "seed": None, "unknown": 1}) == Choices()
