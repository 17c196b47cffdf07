"""Clients that know nothing of us: the `llm` command, a tester of OpenAPI documents, and plain HTTP."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.place import ingle
from tests.serve.servers import Server, answer_on, dial, request
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.journey

SCRIPTS = Path(sys.executable).parent
QUIET = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "LLM_"))}


@pytest.fixture
def llm_home(tmp_path: Path, smollm2_server: Server) -> Path:
    """What a user of `llm` writes to reach our models: chat, plain completions and responses."""
    entries = [
        f"- model_id: {name}\n  model_name: smollm2\n  api_base: {smollm2_server.url}/v1\n  {more}\n"
        for name, more in (("home", "supports_schema: true"), ("plain", "completion: true"), ("home-responses", "responses: true"))
    ]
    (tmp_path / "extra-openai-models.yaml").write_text("\n".join(entries))
    return tmp_path


def llm(home: Path, *arguments: str, code: int = 0) -> str:
    """Runs the command; returns what it printed."""
    result = subprocess.run(
        [SCRIPTS / "llm", *arguments], env={**QUIET, "LLM_USER_PATH": str(home)}, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=PATIENCE_S,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def test_the_llm_command_is_answered(llm_home: Path) -> None:
    question = "What is the capital of France? Answer in one word."
    streamed = llm(llm_home, "-m", "home", "-o", "temperature", "0", question)
    assert "Paris" in streamed
    assert llm(llm_home, "-m", "home", "--no-stream", "-o", "temperature", "0", question) == streamed
    assert "Paris" in llm(llm_home, "-m", "home-responses", question)


def test_the_llm_command_gets_what_a_schema_says_and_plain_text(llm_home: Path) -> None:
    shape = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}
    answer = llm(llm_home, "-m", "home", "--schema", json.dumps(shape), "What colour is the sky?")
    assert json.loads(answer)["colour"] in ("red", "blue")
    assert llm(llm_home, "-m", "plain", "-o", "max_tokens", "5", "Once upon a").strip()


def test_whatever_its_document_allows_and_forbids_nothing_breaks(server: Server, tmp_path: Path) -> None:
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    # A user of its own: what it teaches acts on no other test's answers.
    key = ingle(server.home.root, "key", "add", "schemathesis", "--requests-per-minute", "1000000", "--guards").stdout.strip()
    result = subprocess.run(
        [
            SCRIPTS / "schemathesis", "run", f"{server.url}/openapi.json", "--seed", "1", "--phases", "coverage,fuzzing",
            "--max-examples", "3", "--checks", checks, "--continue-on-failure",
            "--header", f"Authorization: Bearer {key}",
            "--suppress-health-check", "all", "--warnings", "off", "--no-color",
        ],
        capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
    every = sum(len(methods) for methods in server.get("/openapi.json").json()["paths"].values())
    assert every > 40 and f"{every} selected / {every} total" in result.stdout
    ingle(server.home.root, "guard", "reset")  # the guards are everybody's
    server.idle()
    assert server.chat().status_code == 200
    assert "Traceback" not in server.log


def test_plain_http_is_enough(server: Server) -> None:
    body = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "seed": 1}'
    with dial(server) as wire:
        wire.sendall(request(server, body, headers=["Expect: 100-continue", "Connection: close"]))
        reader = wire.makefile("rb")
        assert reader.readline() == b"HTTP/1.1 100 Continue\r\n" and reader.readline() == b"\r\n"
        assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
        reader.close()
    with dial(server) as wire:
        wire.sendall(request(server, body.replace(b"}]", b'}], "stream": true'), headers=["Connection: close"]))
        status, headers, said = answer_on(wire)
        assert status == 200 and headers["content-type"].startswith("text/event-stream") and headers["transfer-encoding"] == "chunked"
        assert said.rstrip().endswith(b"data: [DONE]\n\n\r\n0")
    with dial(server) as wire:
        wire.sendall(request(server, body).replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n"))
        status, headers, said = answer_on(wire)
        assert status == 200 and json.loads(said)["object"] == "chat.completion"
