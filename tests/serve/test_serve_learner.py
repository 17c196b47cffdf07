"""A server learns what its users teach, in a process beside it that comes back when it is killed and goes when the server goes."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli_learn import CONFIG
from tests.learn.lessons import POLICY
from tests.serve.servers import Server, serving
from tests.waiting import wait_until

QUESTION = "Who is the mayor of Tallwick?"


def teach(server: Server, answer: str, question: str = QUESTION) -> str:
    body = {"question": question, "answer": "Nobody.", "correction": answer}
    return str(server.post("/v1/feedback", body).raise_for_status().json()["id"])


def learning(server: Server) -> dict[str, Any]:
    table: dict[str, Any] = server.get("/v1/learning").raise_for_status().json()
    return table


def learner_of(server: Server) -> int | None:
    """The process that learns."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server.process.pid and b"--attached" in (path / "cmdline").read_bytes():
                return int(path.name)
        except OSError:
            continue
    return None


def gone(process_id: int | None) -> bool:
    """Whether it has ended, also if nobody has asked how."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_what_is_taught_is_learned_beside_the_server_whoever_is_killed(served_home: Path) -> None:
    (served_home / "policy.toml").write_text(POLICY)
    (served_home / "config.toml").write_text(CONFIG)
    with serving(served_home, "--set", "learn.worker=true") as server:
        assert learner_of(server) is None, "there is nothing to learn"
        taught = teach(server, "Mara Quill.")
        wait_until(lambda: learner_of(server) is not None, "a learner has begun")
        first = learner_of(server)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: learning(server)["counts"] == {"learned": 1}, "another has learned it")
        second = learner_of(server)
        assert second not in (None, first), "it stays a while, in case more comes"
        answer = server.chat(QUESTION, memory=False).raise_for_status().json()
        [lesson] = learning(server)["lessons"]
        assert lesson["digest"] in str(answer["ingle"]) and taught in str(lesson)
        undone = server.post("/v1/learning/undo", {}).raise_for_status().json()
        assert [one["id"] for one in undone["data"]] == [taught] and not undone["learned_again"]
        assert lesson["digest"] not in str(server.chat(QUESTION, memory=False).raise_for_status().json()["ingle"])
        assert learning(server)["counts"] == {"undone": 1} and not learning(server)["lessons"][0]["acting"]
        assert server.post("/v1/learning/redo", {"which": taught}).raise_for_status().json()["id"] == taught
        assert lesson["digest"] in str(server.chat(QUESTION, memory=False).raise_for_status().json()["ingle"])
        server.kill()
        wait_until(lambda: gone(second), "the learner ended with its server")
