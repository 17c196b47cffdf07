"""What was read before is not read again, for its owner alone; and what lies on the disk is what the user keeps."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.place import ingle
from tests.serve.conftest import copied
from tests.serve.servers import Server, serving, settings
from tests.waiting import wait_until

START = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. "
QUICK = "import ingle.engine.scheduler as scheduler; scheduler.IDLE_S = 0.1"
Turns = list[dict[str, str]]


def asked(server: Server, turns: Turns, **changes: Any) -> dict[str, Any]:
    headers = changes.pop("headers", None)
    response = server.chat(messages=turns, headers=headers, **changes)
    assert response.status_code == 200, response.text
    table: dict[str, Any] = response.json()
    return table


def cached(table: dict[str, Any]) -> int:
    return int(table["usage"]["prompt_tokens_details"]["cached_tokens"])


def going_on(turns: Turns, table: dict[str, Any], text: str) -> Turns:
    return [*turns, {"role": "assistant", "content": table["choices"][0]["message"]["content"]}, {"role": "user", "content": text}]


def opening(name: str) -> Turns:
    return [{"role": "user", "content": f"{name}: {START}"}]


@pytest.mark.parametrize("stream", [False, True])
def test_a_second_turn_reads_only_what_is_new(smollm2_server: Server, stream: bool) -> None:
    server, turns = smollm2_server, opening(f"Second turns, {stream}")
    first = asked(server, turns, max_tokens=12, temperature=0)
    assert cached(first) < 40  # the template's own beginning may be known
    turns = going_on(turns, first, "And then?")
    if stream:
        body: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 12, "temperature": 0}
        lines = [
            line.removeprefix("data: ") for line in server.chat(messages=turns, **body).text.splitlines() if line.startswith("data: {")
        ]
        usage = json.loads(lines[-1])["usage"]
    else:
        usage = asked(server, turns, max_tokens=12, temperature=0)["usage"]
    # Known: the prompt, and what was written before the last token. To be read: that one, the end of the turn, and the new one.
    known = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert known - 3 <= usage["prompt_tokens_details"]["cached_tokens"] <= known
    assert usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] < 25


def test_what_is_reused_changes_no_answer(server: Server) -> None:
    turns = opening("Reuse")
    first = asked(server, turns, max_tokens=40, seed=3, temperature=1.2)
    after = going_on(turns, first, "And then?")
    warm = [asked(server, after, max_tokens=40, seed=seed, temperature=1.2) for seed in range(3)]
    assert all(cached(table) > 90 for table in warm)
    with_other_words = asked(server, opening("Nothing in common"), max_tokens=4)
    assert cached(with_other_words) < 30
    before = [table["choices"][0]["message"]["content"] for table in warm]
    again = [asked(server, after, max_tokens=40, seed=seed, temperature=1.2)["choices"][0]["message"]["content"] for seed in range(3)]
    assert again == before


def test_an_answer_is_the_same_whether_its_prompt_was_known_or_not(served_home: Path) -> None:
    answers = []
    for warmed in (False, True):
        with serving(served_home) as server:
            turns = opening("Warm or cold")
            reply = {"role": "assistant", "content": "a reply"}
            if warmed:
                asked(server, turns, max_tokens=9)
            table = asked(server, [*turns, reply, {"role": "user", "content": "on"}], max_tokens=60, seed=5, temperature=1.0)
            answers.append(table["choices"][0]["message"]["content"])
            assert (cached(table) > 50) == warmed
    assert answers[0] == answers[1]


def test_an_answer_can_be_written_anew_and_an_earlier_message_changed(server: Server) -> None:
    turns = opening("Regenerate")
    first = asked(server, turns, max_tokens=30, seed=1)
    long = going_on(turns, first, "Tell me more, please.")
    second = asked(server, long, max_tokens=30, seed=1)
    again = asked(server, long, max_tokens=30, seed=2)
    assert cached(again) == again["usage"]["prompt_tokens"] - 1  # all but the token whose logits are wanted
    edited = [*long[:2], {"role": "user", "content": "Tell me less, please."}]
    table = asked(server, edited, max_tokens=30, seed=1)
    common = len(long[2]["content"].split("more")[0])
    tail = len("less, please.") + 40
    assert cached(table) >= table["usage"]["prompt_tokens"] - tail and cached(table) < table["usage"]["prompt_tokens"] - common
    early = asked(server, [{"role": "user", "content": turns[0]["content"][:40] + " But not for long."}, *long[1:]], max_tokens=4)
    assert 40 <= cached(early) < 80
    assert second["usage"]["completion_tokens"] == 30


def test_nothing_is_shared_between_keys(served_home: Path) -> None:
    keys = [json.loads(ingle(served_home, "key", "add", name, "--json").stdout)["key"] for name in ("ann", "bob", "eve")]
    ann, bob, eve = ({"Authorization": f"Bearer {key}"} for key in keys)
    with serving(served_home) as server:
        turns = opening("A secret that only Ann knows")
        table = asked(server, turns, headers=ann, max_tokens=9, store=True)
        assert cached(asked(server, turns, headers=ann, max_tokens=9)) > 90
        assert cached(asked(server, turns, headers=bob, max_tokens=9)) == 0
        assert cached(asked(server, turns, max_tokens=9)) == 0  # nor with who has none
        assert cached(asked(server, going_on(turns, table, "on"), headers=eve, max_tokens=9)) == 0
        server.stop()
    with serving(served_home) as server:
        assert cached(asked(server, turns, headers=bob, max_tokens=9)) == 0
        assert cached(asked(server, turns, headers=ann, max_tokens=9)) > 90


def states(home: Path) -> list[Path]:
    return sorted((home / "states").iterdir()) if (home / "states").exists() else []


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> tuple[Path, Turns, dict[str, Any]]:
    """The home of a server that was stopped after a turn that is kept: home, turns, answer."""
    home, turns = copied(kept_home, tmp_path_factory.mktemp("stopped") / "home"), opening("Before the restart")
    with serving(home) as server:
        table = asked(server, turns, max_tokens=20, store=True, seed=4)
        assert server.stop() == 0
    return home, turns, table


def test_what_is_kept_goes_on_at_once_after_a_restart(stopped: tuple[Path, Turns, dict[str, Any]], tmp_path: Path) -> None:
    home, (_, turns, table) = copied(stopped[0], tmp_path / "home"), stopped
    assert {path.suffix for path in states(home)} == {".state", ".json"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (*states(home), home / "states"))
    after = going_on(turns, table, "And now?")
    with serving(home) as server:
        warm = asked(server, after, max_tokens=20, seed=4)
        assert cached(warm) >= table["usage"]["prompt_tokens"]
    for path in states(home):
        path.unlink()
    with serving(home) as server:
        cold = asked(server, after, max_tokens=20, seed=4)
        assert cached(cold) == 0 and cold["choices"] == warm["choices"]


def test_what_is_not_kept_leaves_no_state(served_home: Path) -> None:
    with serving(served_home, before=QUICK) as server:
        table = asked(server, opening("Unkept"), max_tokens=20)
        asked(server, going_on(opening("Unkept"), table, "And now?"), max_tokens=20, store=False)
        server.post("/v1/responses", {"input": START, "max_output_tokens": 9, "store": False})
        server.post("/v1/completions", {"prompt": START, "max_tokens": 9})
        server.idle()
        assert server.stop() == 0
    assert states(served_home) == []


def test_states_are_not_saved_where_the_owner_does_not_want_it(served_home: Path) -> None:
    with serving(served_home, *settings(save_states=False)) as server:
        asked(server, opening("No states"), max_tokens=20, store=True)
        server.stop()
    assert states(served_home) == []


def test_a_state_goes_with_the_words_that_it_has_read(served_home: Path) -> None:
    with serving(served_home, before=QUICK) as server:
        kept = [asked(server, opening(f"Number {i}"), max_tokens=20, store=True)["id"] for i in range(2)]
        wait_until(lambda: len(states(served_home)) == 4, "both states are saved")
        for i, name in enumerate(kept):
            server.openai().responses.delete(name)
            wait_until(lambda: len(states(served_home)) == 2 - 2 * i, "its state is gone")  # noqa: B023
        server.stop()
    assert states(served_home) == []


@pytest.mark.parametrize("fate", ["damaged", "vanished"])
def test_states_that_cant_be_read_are_no_loss(stopped: tuple[Path, Turns, dict[str, Any]], tmp_path: Path, fate: str) -> None:
    home, (_, turns, table) = copied(stopped[0], tmp_path / "home"), stopped
    [state] = [path for path in states(home) if path.suffix == ".state"]
    if fate == "damaged":
        state.write_bytes(state.read_bytes()[:-100])
    with serving(home) as server:
        if fate == "vanished":  # while it serves
            for path in states(home):
                path.unlink()
        again = asked(server, turns, max_tokens=20, seed=4, store=True)
        assert cached(again) == 0 and again["choices"] == table["choices"]
        if fate == "vanished":
            (home / "states").rmdir()
        assert asked(server, opening("Once more"), max_tokens=20, store=True)["choices"]
        assert server.stop() == 0
    assert fate == "vanished" or len(states(home)) == 4
