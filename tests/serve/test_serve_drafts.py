"""A server with drafts answers as one without, and tells how often they came true."""

import json
from pathlib import Path

from tests.serve.servers import Server, serving, settings
from tests.serve.test_serve_operation import figures

ASKED = {
    "greedy": {"temperature": 0, "max_tokens": 300},
    "warm": {"temperature": 0.4, "max_tokens": 200, "logprobs": True, "top_logprobs": 2, "stop": ["qzx"]},
    "two": {"temperature": 0.2, "max_tokens": 60, "n": 2},
}


def test_answers_are_the_same_and_drafts_are_counted(server: Server, served_home: Path) -> None:
    accepted = rejected = 0
    with serving(served_home, *settings(drafts=True)) as drafting:
        for name, changes in ASKED.items():
            got, expected = (one.chat("again and again and again", **changes).json() for one in (drafting, server))
            assert got["choices"] == expected["choices"], name
            details = got["usage"].pop("completion_tokens_details")
            none = expected["usage"].pop("completion_tokens_details")
            assert none == {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
            assert got["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"]
            accepted, rejected = accepted + details["accepted_prediction_tokens"], rejected + details["rejected_prediction_tokens"]
        pieces = drafting.chat("again and again", stream=True, **ASKED["greedy"]).text.split("data: ")[1:-1]
        streamed = "".join(json.loads(piece)["choices"][0]["delta"].get("content") or "" for piece in pieces)
        assert streamed == server.chat("again and again", **ASKED["greedy"]).json()["choices"][0]["message"]["content"]
        counted = figures(drafting)
        assert counted["ingle_drafted_tokens_total accepted"] >= accepted
        assert counted["ingle_drafted_tokens_total rejected"] >= rejected
    assert figures(server)["ingle_drafted_tokens_total accepted"] == figures(server)["ingle_drafted_tokens_total rejected"] == 0
