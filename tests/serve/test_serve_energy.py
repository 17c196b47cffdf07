"""What answers took: told by every door, counted, and written into the ledger."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingle.app.answer_words import details, line
from ingle.core.energy import Energy, energy_in
from tests.serve.servers import Server, facts_in, serving
from tests.serve.test_serve_operation import figures

FIELDS = {"joules", "low", "high", "source"}


def checked(energy: dict[str, Any]) -> dict[str, Any]:
    assert set(energy) == FIELDS and 0 <= energy["low"] <= energy["joules"] <= energy["high"] > 0 and energy["source"]
    return energy


def last_of(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The last table of a stream."""
    lines = server.post(path, body | {"stream": True}).raise_for_status().text.splitlines()
    tables = [json.loads(text) for one in lines if (text := one.removeprefix("data: ")).startswith("{")]
    found: dict[str, Any] = tables[-1]
    return found


def test_every_door_tells_it_and_the_sums_agree(served_home: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 40}
    with serving(served_home) as server:
        told = [
            server.post("/v1/chat/completions", chat).json()["usage"]["energy"],
            server.post("/v1/chat/completions", chat | {"n": 3, "seed": 1}).json()["usage"]["energy"],
            last_of(server, "/v1/chat/completions", chat | {"stream_options": {"include_usage": True}})["usage"]["energy"],
            server.post("/v1/completions", {"prompt": ["one", "two"], "max_tokens": 20}).json()["usage"]["energy"],
            last_of(server, "/v1/responses", {"input": "hi", "max_output_tokens": 20})["response"]["usage"]["energy"],
        ]
        kept = server.post("/v1/responses", {"input": "hi", "max_output_tokens": 20, "store": True}).json()
        again = server.get(f"/v1/responses/{kept['id']}").json()
        told.append(kept["usage"]["energy"])
        after = figures(server)
        server.stop()
        facts = [row.values for row in facts_in(server.home, "answer")]
    assert again["usage"]["energy"] == kept["usage"]["energy"]
    joules = sum(checked(energy)["joules"] for energy in told)
    counted = sum(value for name, value in after.items() if name.startswith("ingle_energy_joules_total"))
    assert joules == pytest.approx(counted, rel=0.02)
    recorded = [energy for one in facts if (energy := energy_in(one))]
    assert len(recorded) == len(facts) == 9
    assert sum(energy.joules for energy in recorded) == pytest.approx(joules, rel=0.001)
    assert {energy.source for energy in recorded} <= {
        name.partition(" ")[2] for name in after if name.startswith("ingle_energy_joules_total")
    }


def test_the_page_marks_what_is_an_estimate() -> None:
    facts = {"completion_tokens": 5, **Energy(3.14159, 1.2, 9.9, "model").facts()}
    assert "≈ 3.14 J" in line(facts)
    assert dict(details(facts, ""))["Energy"] == "3.14 J (1.20 J – 9.90 J, estimated: model)"
    counted = {"completion_tokens": 5, **Energy(3.14159, 3.1, 9.9, "rapl").facts()}
    assert "≈" not in line(counted) and "3.14 J" in line(counted)
    assert " J" not in line({"completion_tokens": 5}) and "Energy" not in dict(details({"completion_tokens": 5}, ""))
