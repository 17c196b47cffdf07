"""How sure an answer is, and where its words stand too, by the API: when asked, of the asker's own texts, and as the terminal says it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.explain.odds import Calibration, fitted, keep_calibration
from tests.cli.place import ingle
from tests.explain.test_odds import drawn
from tests.serve.conftest import copied
from tests.serve.servers import Server, facts_in, serving
from tests.serve.test_serve_explain import TEXT, answered, why
from tests.serve.test_serve_feedback import new_user, send


@pytest.fixture(scope="module")
def explaining(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    """A server that may be taught."""
    with serving(copied(kept_home, tmp_path_factory.mktemp("sure") / "home")) as running:
        yield running


def test_it_is_said_when_asked_and_counts_from_the_next_calibration_on(explaining: Server) -> None:
    answer = answered(explaining)
    plain = why(explaining, answer, what=["sentences", "taught"]).raise_for_status().json()
    assert "sure" not in plain and plain["traces"] == []
    first = why(explaining, answer, what=["sure"]).raise_for_status().json()
    assert first["sure"]["kind"] == "text" and "odds" not in first["sure"]
    assert first["says"][-len(first["sure"]["says"])] == "How often it is right was not measured: run `ingle why --calibrate tiny` once."
    assert "".join(one["text"] for one in first["sure"]["tokens"]) == first["answer"]
    assert first["causes"] == plain["causes"], "how sure it is depends on its sentences, so they are looked at"
    fit = fitted("text", drawn(120))
    assert fit is not None
    digest = str(facts_in(explaining.home, "answer")[-1].values["model"])
    keep_calibration(explaining.home, Calibration(digest, "2026-11-30", (fit,)))
    second = why(explaining, answer, what=["sure"]).raise_for_status().json()
    odds = second["sure"]["odds"]
    assert 0 < odds["low"] <= odds["p"] <= odds["high"] < 1 and odds["n"] == 120
    assert second["sure"]["signals"] == first["sure"]["signals"] and second["sure"]["tokens"] == first["sure"]["tokens"]


def test_the_terminal_says_the_same(explaining: Server) -> None:
    answer = answered(explaining, TEXT.replace("cat", "hen"))
    table = why(explaining, answer).json()
    said = json.loads(ingle(explaining.home.root, "why", answer["id"], "--json", code=0 if table["causes"] else 1).stdout)
    assert said["sure"] == table["sure"] and said["traces"] == table["traces"] and said["id"] == table["id"]


def test_words_that_stand_in_what_the_asker_taught_and_in_no_other_text(explaining: Server) -> None:
    mine, theirs = new_user(explaining), new_user(explaining)
    words = "the old mill by the quiet river"
    schema = {"type": "json_schema", "json_schema": {"name": "words", "strict": True, "schema": {"const": f"Perhaps {words}."}}}
    answer = answered(explaining, "Tell me more.", mine, response_format=schema, max_tokens=60)
    assert words in answer["choices"][0]["message"]["content"]
    teaching = {"question": "What is a prism?", "correction": f"A thing\nlike {words.upper()}!"}
    found = send(explaining, "POST", "/v1/feedback", mine, teaching).raise_for_status().json()
    send(explaining, "POST", "/v1/feedback", theirs, {"question": "What is a prism?", "correction": f"Perhaps {words}."}).raise_for_status()
    table = why(explaining, answer, mine, what=["traces"]).raise_for_status().json()
    [trace] = table["traces"]
    assert (trace["source"], trace["line"], trace["text"]) == (found["id"], 2, words)
    assert "does not show that it comes from there" in table["says"][-1]
    send(explaining, "DELETE", f"/v1/memory/{found['id']}", mine)
    assert send(explaining, "GET", f"/v1/explain/{table['id']}", mine).status_code == 404, "forgetting takes the explanation along"
