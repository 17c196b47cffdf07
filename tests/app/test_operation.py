"""An operation is declared once, and stands in the terminal, HTTP, Python and the reference; bad input is told in the same words."""

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from starlette.testclient import TestClient

import ingle
import ingle.app.operations
from ingle.adapt.admit import TeachingLimits
from ingle.app import operation
from ingle.app.house import House
from ingle.app.reference import reference
from ingle.app.settings import SamplingSettings, ServeSettings
from ingle.cli.main import main
from ingle.core.errors import Busy, RequestError
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.place import Home
from ingle.serve.app import make_app
from ingle.serve.model_registry import ModelRegistry
from ingle.serve.operation_routes import house_of
from ingle.serve.service import Service

NEW = '''
"""Counting letters."""

from dataclasses import dataclass
from typing import Annotated

from ingle.app.house import House
from ingle.app.operation import About, operation
from ingle.core.config import Bounds


@dataclass(frozen=True)
class Letters:
    """A text."""

    text: Annotated[str, About("The text.", "TEXT", placed=True)]
    times: Annotated[int, Bounds(ge=1, le=9), About("How often it is counted.")] = 1


@dataclass(frozen=True)
class Counted:
    """How many letters it has."""

    letters: int
    whose: str


@operation("count letters", "POST /v1/count/{text}", says=lambda told: (f"{told.letters} letters.",))
def letters(house: House, asked: Letters) -> Counted:
    """Count the letters of a text.

    All of them.

    Examples:
        ingle count letters heron
    """
    return Counted(len(asked.text) * asked.times, house.owner)
'''


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home of an Ingle that can do one thing more."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "counting.py").write_text(NEW)
    monkeypatch.setattr(ingle.app.operations, "__path__", [*ingle.app.operations.__path__, str(folder)])
    monkeypatch.setenv("INGLE_HOME", str(tmp_path / "home"))
    yield Home(tmp_path / "home")
    sys.modules.pop("ingle.app.operations.counting", None)


def test_a_new_one_is_a_command(counting: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "letters", "heron"]) == 0
    assert capsys.readouterr().out == "5 letters.\n"
    assert main(["count", "letters", "heron", "--times", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"letters": 10, "whose": ""}
    assert main(["count", "letters", "--help"]) == 0
    said = capsys.readouterr().out
    assert "Count the letters of a text." in said and "All of them." in said and "ingle count letters heron" in said
    assert main(["count", "letters", "heron", "--times", "10"]) == 2
    assert "times must be between 1 and 9" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "count" in capsys.readouterr().out


def test_a_new_one_is_a_route_and_in_its_document(counting: Home, tiny_home: Path) -> None:
    home = Home(tiny_home)
    models = ModelRegistry(home, lambda home, kept: open_model(kept_source(home, kept), "fp32", 1), "tiny")
    with TestClient(make_app(Service(home, ServeSettings(), SamplingSettings(), models)), base_url="http://127.0.0.1") as client:
        assert client.post("/v1/count/heron", json={"times": 2}).json() == {"letters": 10, "whose": ""}
        wrong = client.post("/v1/count/heron", json={"times": 10})
        assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "times"
        described = client.get("/openapi.json").json()["paths"]["/v1/count/{text}"]["post"]
    assert described["summary"] == "Count the letters of a text."
    assert described["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Counted")


def test_a_new_one_is_a_function_of_the_home_in_python(counting: Home) -> None:
    with ingle.open_home() as home:
        assert "count_letters" in dir(home)
        assert home.count_letters("heron", times=3).letters == 15
        assert "Count the letters" in (home.count_letters.__doc__ or "")
        assert list(inspect.signature(home.count_letters).parameters) == ["text", "times"]
        with pytest.raises(RequestError, match="times must be between 1 and 9"):
            home.count_letters("heron", times=10)
        with pytest.raises(TypeError, match="nothing"):
            home.count_letters("heron", nothing=1)
        with pytest.raises(AttributeError, match="lists what it can"):
            _ = home.fly


def test_a_new_one_is_in_the_reference(counting: Home) -> None:
    assert "## count letters" in reference() and "`POST /v1/count/{text}`" in reference()


def test_the_reference_is_current() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "operations.md"
    assert page.read_text("utf-8") == reference(), "python -m ingle.app.reference > docs/operations.md"


@pytest.mark.parametrize("name", operation.titles())
def test_each_says_all_that_people_need(name: str) -> None:
    found = operation.operations()[name]
    assert found.words == operation.titles()[name] and found.words.endswith(".") and found.words.count(". ") == 0
    assert any(line.startswith(f"ingle {name}") for line in found.examples), "an example shows it"
    assert all(about.words.endswith(".") for _, about, _ in operation.abouts(found.asked).values())
    for told in (found.asked, *(get_args(found.told) or (found.told,))):
        assert told.__dataclass_params__.frozen, told


def test_nobody_teaches_more_than_their_share_of_an_hour(tiny_home: Path) -> None:
    teach, teaching = operation.operations()["teach"], operation.operations()["memory add"]
    guest = House(Home(tiny_home), "key-guest", per_hour=1)
    try:
        teach.run(guest, operation.asked_of(teach, {"question": "Who?", "answer": "Me."}))
        for one, given in ((teach, {"question": "Where?", "answer": "Here."}), (teaching, {"text": "The owner keeps bees."})):
            with pytest.raises(Busy, match="hour"):
                one.run(guest, operation.asked_of(one, given))
        other = House(guest.home, "key-other", per_hour=1, lent=guest.engine)
        assert teach.run(other, operation.asked_of(teach, {"question": "Who?", "answer": "Me."})).id
    finally:
        guest.close()


def test_a_key_has_the_limit_of_an_hour_at_a_server(tiny_home: Path) -> None:
    home = Home(tiny_home)
    models = ModelRegistry(home, lambda home, kept: open_model(kept_source(home, kept), "fp32", 1), "tiny")
    service = Service(home, ServeSettings(), SamplingSettings(), models)
    with TestClient(make_app(service)):
        house = house_of(service, "key-guest")
        assert (house.owner, house.per_hour, house.at_machine, house.learn_now) == ("key-guest", TeachingLimits().per_hour, False, None)
