"""What the owner sees of a running server: its log, its figures, its health. Never a word that was said."""

import json
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.serve.servers import Server, serving
from tests.waiting import wait_until

WORDS = ("Xylophonquixotry", "zyzzogeton", "brobdingnag")


def figures(server: Server) -> dict[str, float]:
    """`/metrics`, by name and labels."""
    response = server.get("/metrics").raise_for_status()
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_the_log_tells_what_happened_and_no_word_of_it(served_home: Path) -> None:
    question, answer, other = WORDS
    with serving(served_home) as server:
        good = {"messages": [{"role": "user", "content": question}], "max_tokens": 30, "grammar": f'start: "{answer}"'}
        server.post("/v1/chat/completions", good)
        server.post("/v1/chat/completions", good | {"stream": True, "store": True})
        server.post("/v1/completions", {"prompt": question, "max_tokens": 2, "stop": other})
        server.post("/v1/responses", {"input": question, "instructions": other, "max_output_tokens": 2})
        for bad in (
            {"model": other},
            {"stop": 5, "user": other},
            {"grammar": f'start: ("{other}'},
            {"messages": [{"role": other, "content": question}]},
        ):
            assert server.post("/v1/chat/completions", good | bad).status_code in (400, 404)
        server.post("/v1/chat/completions", f'{{"messages": "{question}'.encode())
        server.get(f"/v1/responses/{other}")
        server.get(f"/{other}?{question}")
        server.get("/v1/models", {"Origin": f"https://{other}.example"})
        server.get("/v1/models", {"Authorization": f"Bearer ingle-{other}"})
        wait_until(lambda: server.log.count('"request"') >= 14, "the log has all requests")
        server.stop()
        lines = [json.loads(line) for line in server.log.splitlines()]
    assert not [word for word in WORDS if word in server.log]
    assert all({"at", "event"} <= set(line) for line in lines)
    requests = [line for line in lines if line["event"] == "request" and line["route"] != "/health"]
    assert [(line["route"], line["status"]) for line in requests[:4]] == [
        ("/v1/chat/completions", 200), ("/v1/chat/completions", 200), ("/v1/completions", 200), ("/v1/responses", 200)
    ]  # fmt: skip
    assert {line["route"] for line in requests} == {
        "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/responses/{id_}", "/v1/models", "other"
    }  # fmt: skip
    assert all(line["ms"] >= 0 and line["bytes_in"] >= 0 and line["method"] in ("GET", "POST") for line in requests)


def test_figures_count_what_happened(served_home: Path) -> None:
    with serving(served_home) as server:
        before = figures(server)
        for _ in range(2):
            server.chat("the very same question", max_tokens=7)
        server.chat(temperature=-1)
        server.chat(n=3, max_tokens=2)
        server.get("/nowhere")
        wait_until(lambda: figures(server).get("ingle_requests_total other 404") == 1, "the last request is counted")
        after = figures(server)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["ingle_requests_total /v1/chat/completions 200"] == 3
    assert grown["ingle_requests_total /v1/chat/completions 400"] == 1
    assert grown["ingle_answers_total length"] == 5 and grown["ingle_completion_tokens_total"] == 20
    prompts = grown["ingle_prompt_tokens_total read"] + grown["ingle_prompt_tokens_total cached"]
    assert grown["ingle_prompt_tokens_total cached"] > 20 and prompts > grown["ingle_prompt_tokens_total cached"]
    assert grown["ingle_first_token_seconds_count"] == grown["ingle_queue_seconds_count"] == 5
    assert grown["ingle_step_seconds_total"] > 0 and grown["ingle_step_rows_total"] >= 20 <= grown["ingle_steps_total"] + 20
    assert after["ingle_running"] == after["ingle_queued"] == 0 and after["ingle_prefix_cache_bytes"] > 0
    assert after["ingle_start_time_seconds"] > 1.7e9


def test_health_tells_how_busy_it_is_to_anybody(server: Server) -> None:
    server.idle()
    table = server.health()
    assert table["status"] == "ok" and table["version"] and (table["running"], table["queued"]) == (0, 0)


def test_an_address_of_its_own_is_its_first_line(server: Server) -> None:
    assert server.said == f"Ingle is at {server.url}  (API only)\n"
    assert server.url.startswith("http://127.0.0.1:")
