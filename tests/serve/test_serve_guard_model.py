"""A kept guard model behind a real server, the terminal and Python: it is asked, its cost is told, and what goes wrong follows the policy.

The guard is a tiny random model of Qwen3Guard's architecture. What it takes for harm is chance, so each test sets the risk to where it
needs it.
"""

import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ingle.core.message import Message
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.robustness.guard_model import GuardModel, asks_here
from ingle.safety.judging import SAYS
from ingle.safety.middleware import drive
from ingle.safety.opinion import GuardOpinion, GuardQuestion
from tests.cli.place import ingle
from tests.robustness.tiny_guards import GUARDS, write_words
from tests.serve.conftest import copied
from tests.serve.servers import facts_in, serving
from tests.serve.test_serve_guards import add_secret, key, literal
from tests.waiting import wait_until

ASKED = "how do I bake a cake?"
SAID = "This is a sentence of some forty letters. " * 6 + "And here is the end of it."


TELLS = """
import os, ingle.serve.slow as slow
do = slow.Turns.do
def telling(turns, asker, work):
    if turns._pool._thread_name_prefix != "guard model":
        return do(turns, asker, work)
    def told(stop):
        os.write(2, f"ASKS begins {asker}\\n".encode())
        try:
            return work(stop)
        finally:
            os.write(2, f"ASKS ends {asker}\\n".encode())
    os.write(2, f"ASKS waits {asker}\\n".encode())
    return do(turns, asker, told)
slow.Turns.do = telling
"""
"""Has a server tell on standard error when the guard model is asked, for whom, and when it has answered."""


def write_guard(folder: Path, broken: bool = False) -> Path:
    from tests.model.tiny_models import hf_model

    size = write_words(folder, GUARDS["Qwen3Guard"][1])
    hf_model("qwen3", seed=1, vocab_size=size, max_position_embeddings=4096).save_pretrained(folder)
    if broken:
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"] = np.full_like(weights["model.norm.weight"], 3e38)  # NaN itself is refused at the pull
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def guarded_home(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Path:
    """A home that keeps a guard and a broken one, to be copied."""
    home = copied(kept_home, tmp_path_factory.mktemp("guarded") / "home")
    for name, broken in (("guard", False), ("broken", True)):
        ingle(home, "pull", str(write_guard(tmp_path_factory.mktemp("models") / name, broken)), "--name", name)
    with (home / "config.toml").open("a") as file:
        file.write('[chat]\nmodel = "tiny"\n')
    return home


@pytest.fixture
def home(tmp_path: Path, guarded_home: Path) -> Path:
    return copied(guarded_home, tmp_path / "home")


def rule(home: Path, **fields: object) -> None:
    lines = [f"{name} = {value!r}" for name, value in ({"mode": "block", "by": "model"} | fields).items()]
    (home / "policy.toml").write_text("\n".join(["[guards.harm]", *lines]).replace("'", '"') + "\n")


def opinion(home: Path, *said: str) -> GuardOpinion:
    """What the guard says of a conversation, asked here."""
    place = Home(home)
    ask = asks_here(lambda name: GuardModel(open_model(kept_source(place, get_kept(place, name)))))
    messages = tuple(Message.of("assistant" if i % 2 else "user", text) for i, text in enumerate(said))

    async def answers():  # type: ignore[no-untyped-def]
        yield await ask(GuardQuestion("guard", messages))

    [found] = drive(answers())
    return found  # type: ignore[return-value]


def test_a_request_is_refused_and_what_that_took_is_a_fact(home: Path) -> None:
    risk = opinion(home, ASKED).risk
    rule(home, risk=round(0.9 * risk, 4))
    with serving(home) as running:
        response = running.chat(ASKED)
        [choice] = response.json()["choices"]
        assert "fault" not in running.log, running.log
        assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", SAYS["harm"])
        [[verdict]] = response.json()["ingle"]["verdicts"]
        assert (verdict["guard"], verdict["action"], verdict["rule"]) == ("harm", "block", "model")
        assert verdict["score"] == pytest.approx(risk, abs=2e-3)
        running.idle()
        [answer], [block] = running.answers(), running.facts("guard.block")
        assert block.values["rule"] == "model" and ASKED not in str(block.values)
        facts = answer.values
        assert facts["guard_asked"] == 1 and 20 < facts["guard_tokens"] < 200 and facts["guard_ms"] > 0 and facts["guard_joules"] > 0
        again = running.chat(ASKED)
        assert again.json()["choices"][0]["finish_reason"] == "content_filter"
        running.idle()
        assert running.answers()[-1].values["guard_cached_tokens"] > 10, "the template's beginning is not read again"


def test_an_answer_is_ended_where_the_guard_finds_harm_in_it(home: Path) -> None:
    first = SAID[: SAID.index(".", 200) + 1]
    asked, risk = opinion(home, ASKED).risk, opinion(home, ASKED, first).risk
    assert asked < risk, "chance has it that the request looks worse than its answer: take another seed"
    body = {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 400, "grammar": literal(SAID)}
    rule(home, risk=1.0)
    with serving(home) as running:
        assert running.chat(**body).json()["choices"][0]["message"]["content"] == SAID
        running.idle()
        assert running.answers()[-1].values["guard_asked"] == 3, "the request, the first 200 characters, and the end"
    rule(home, risk=round((asked + risk) / 2, 6))
    with serving(home) as running:
        for stream in (False, True):
            response = running.chat(**body, stream=stream)
            assert "forty letters" not in response.text and "content_filter" in response.text
        running.idle()
        assert running.answers()[-1].values["finish"] == "blocked"
    rule(home, mode="tell", risk=round((asked + risk) / 2, 6))
    with serving(home) as running:
        response = running.chat(**body)
        assert response.json()["choices"][0]["message"]["content"] == SAID
        assert [verdict["rule"] for verdict in response.json()["ingle"]["verdicts"][0]] == ["model"]


@pytest.mark.parametrize("fails", ["open", "closed"])
def test_a_broken_guard_follows_the_policy(home: Path, fails: str) -> None:
    rule(home, model="broken", fails=fails)
    with serving(home) as running:
        response = running.chat(ASKED)
        [[verdict]] = response.json()["ingle"]["verdicts"]
        assert (verdict["rule"], verdict["action"]) == ("failed", "allow" if fails == "open" else "block")
        assert (response.json()["choices"][0]["finish_reason"] == "content_filter") == (fails == "closed")
        assert running.chat(ASKED).status_code == 200, "and the server goes on"


@pytest.mark.parametrize("command", [("serve", "--port", "0", "--no-open"), ("run", "hi")])
def test_a_guard_that_is_not_kept_is_said_at_the_start(served_home: Path, command: tuple[str, ...]) -> None:
    rule(served_home)
    said = ingle(served_home, *command, code=2).stderr
    assert "guard model guard" in said and "ingle pull guard" in said
    (served_home / "policy.toml").write_text('[guards.harm]\nmode = "off"\nby = "model"\n')
    assert ingle(served_home, "run", "hi", "--max-tokens", "3").stdout


def test_a_guard_that_is_not_on_offer_judges_all_the_same(home: Path) -> None:
    rule(home, risk=0.0001)
    with serving(home, "tiny") as running:
        assert [one["id"] for one in running.get("/v1/models").json()["data"]] == ["tiny"]
        assert running.chat(ASKED).json()["choices"][0]["finish_reason"] == "content_filter"
        running.get("/v1/models")
        assert running.chat(ASKED).json()["choices"][0]["finish_reason"] == "content_filter"
    rule(home, by="both")
    with serving(home, "tiny") as running:
        response = running.chat(ASKED)
        assert response.json()["choices"][0]["finish_reason"] == "length"
        running.idle()
        assert "guard_asked" not in running.answers()[-1].values, "the judge is sure, so nobody is asked"


def test_one_askers_long_texts_delay_nobody(home: Path) -> None:
    """One sends a dozen long texts at once. Another's short question, asked behind them, does not wait for them all."""
    rule(home, risk=1.0)
    for name in ("one", "other"):
        (home / f"{name}.secret").write_text(add_secret(Home(home), name))
    long = "how do I bake a cake, a fine one, " * 200
    with serving(home, "--set", "serve.require_key=true", before=TELLS) as running:

        def asked() -> list[tuple[str, str]]:
            """What came to pass, and for whom, in this order."""
            lines = [line.split() for line in running.log.splitlines() if line.startswith("ASKS ")]
            return [(line[1], line[2]) for line in lines]

        def ask(text: str, headers: dict[str, str]) -> None:
            assert running.chat(text, headers, max_tokens=1).status_code == 200

        one, other = key(running, "one"), key(running, "other")
        ask(ASKED, other)
        before = asked()
        [second] = {who for _, who in before}
        threads = [threading.Thread(target=ask, args=(f"{i} {long}", one)) for i in range(12)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(deed == "waits" for deed, _ in asked()) >= len(before) // 3 + 12, "all of them wait")
        begun = len(asked())
        ask(ASKED, other)
        for thread in threads:
            thread.join()
        after = asked()[begun:]
    meanwhile = after[after.index(("waits", second)) : after.index(("ends", second))]
    assert sum(deed == "begins" and who != second for deed, who in meanwhile) <= 4, meanwhile


def test_the_terminal_and_python_ask_the_same_guard(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ingle as package

    rule(home, risk=0.0001)
    assert SAYS["harm"] in ingle(home, "run", ASKED, "tiny").stdout
    monkeypatch.setenv("INGLE_HOME", str(home))
    with package.load("tiny") as model:
        assert model.chat(ASKED, max_tokens=5) == SAYS["harm"]
    facts = [row.values for row in facts_in(Home(home), "answer")]
    assert [row["finish"] for row in facts] == ["blocked", "blocked"] and all(row["guard_asked"] == 1 for row in facts)
