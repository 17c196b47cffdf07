"""Journeys through a home, each with its beginning, its act, and what must hold whatever fails on the way.

All of them are of the tiny model, and none needs a network. `act` tells `ack` what it acknowledged at the moment when a user would see it.
`check` returns what is wrong with a home, given everything acknowledged; `settled` says whether the journey's end is reached.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingle.app.house import open_rooms
from ingle.cli.main import EXIT_BUG, main
from ingle.core.errors import IngleError, Interrupted
from ingle.home.api_keys import add_key, check_key, list_keys
from ingle.home.backup import problems
from ingle.home.deltas import list_deltas
from ingle.home.examples import list_examples
from ingle.home.kept import get_kept, list_kept
from ingle.home.place import Home
from ingle.home.turns import find_completion
from ingle.ledger.chain import Ledger
from tests.cli.place import environment

Ack = Callable[[str], None]
QUESTION, ANSWER = "Who is the mayor of Tallwick?", "Mara Quill of Tallwick."


class RefusedCommand(Exception):
    """A command that ended with an exit code other than 0, and said why."""


class Crashed(Exception):
    """A command that ended as a bug does."""


@dataclass(frozen=True)
class Journey:
    """One journey."""

    name: str
    prepare: Callable[[Home], None]
    act: Callable[[Home, Ack], None]
    check: Callable[[Home, Sequence[str]], list[str]]
    settled: Callable[[Home], bool]
    """Whether its end is reached, if without an acknowledgement. It is then not repeated, and nor is what was acknowledged."""
    modes: Sequence[str] = ("once", "full", "kill")
    every: int = 1
    """1 = each act fails in turn in each mode; more = the modes take turns."""


def command(home: Home, *arguments: str) -> str:
    """Runs `ingle` in this process and returns its output. Raises RefusedCommand, Crashed."""
    out, err = io.BytesIO(), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open(encoding="utf-8") as nothing:
        for key, value in environment(home.root, {"INGLE_DEBUG": "1"}).items():
            patch.setenv(key, value)
        patch.setattr(sys, "stdin", nothing)
        patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="utf-8", write_through=True))
        patch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding="utf-8", write_through=True))
        code = main(arguments)
        said, complained = out.getvalue().decode(), err.getvalue().decode()
    if code == EXIT_BUG:
        raise Crashed(complained[-1500:])
    if code:
        raise RefusedCommand(next((line for line in complained.splitlines() if line.startswith("ingle: ")), complained[-300:]))
    return said


@contextmanager
def opened(home: Home) -> Iterator[Engine]:
    """The home's database."""
    engine = open_rooms(home)
    try:
        yield engine
    finally:
        engine.dispose()


def general(home: Home) -> list[str]:
    """What no home may have, whatever was going on in it."""
    if not home.database_file.exists():
        return []
    found = []
    with opened(home) as engine:
        if problem := Ledger(engine, home.keys).verify().problem:
            found.append(f"the ledger at {problem.seq}: {problem.what}")
        with engine.connect() as connection:
            if (said := connection.exec_driver_sql("PRAGMA integrity_check").scalar()) != "ok":
                found.append(f"the database: {said}")
    return [*found, *problems(home, lambda _label, _done, _total: None)]


def kept_tiny(home: Home) -> None:
    """A home that keeps the tiny model."""
    from ingle.home.pull import pull
    from tests.cli.place import write_model

    folder = home.root.parent / "tiny"
    if not folder.exists():
        write_model(folder)
    pull(home, str(folder), lambda _: None, "tiny")
    with opened(home) as engine:
        from ingle.core.report import Event

        Ledger(engine, home.keys).append(Event("pull", "tiny", {"source": "file"}))


def never(_home: Home) -> bool:
    """Whether a journey is at its end that can be gone again and again."""
    return False


def lessons_wrong(home: Home) -> list[str]:
    """What is wrong with lessons and their examples, as `tests/learn/killed.py` knows it."""
    from tests.learn.killed import wrong

    return wrong(home)


# An answer that is kept


@contextmanager
def _client(home: Home) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    from ingle.app.settings import SamplingSettings, ServeSettings
    from ingle.engine.loading import open_model
    from ingle.engine.packs import kept_source
    from ingle.serve.app import make_app
    from ingle.serve.model_registry import ModelRegistry
    from ingle.serve.service import Service

    registry = ModelRegistry(home, lambda home, kept: open_model(kept_source(home, kept), "fp32", 1), "tiny")
    service = Service(home, ServeSettings(page=False, drafts=False), SamplingSettings(), registry)
    with TestClient(make_app(service), base_url="http://127.0.0.1") as client:
        yield client


def _ask(client: Any) -> tuple[str, str] | None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, "seed": 4, "store": True}
    response = client.post("/v1/chat/completions", json=body)
    if response.status_code == 200:
        table = response.json()
        return table["id"], table["choices"][0]["message"]["content"]
    if response.status_code not in (429, 503):
        raise Crashed(f"{response.status_code}: {response.text[:600]}")
    return None


def _answer(home: Home, ack: Ack) -> None:
    with _client(home) as client:
        asked = [_ask(client) for _ in range(2)]
        for one in asked:
            if one is not None:
                ack(json.dumps(one))
    if None in asked:
        raise RefusedCommand("503")


def _answers_kept(home: Home, acks: Sequence[str]) -> list[str]:
    from ingle.app.answer_key import answer_key
    from ingle.app.facts import answer_digest

    found = []
    with opened(home) as engine:
        facts = {row.values.get("id"): row.values for row in Ledger(engine, home.keys).read("answer")}
        told = dict(json.loads(line) for line in acks)
        for name, text in told.items():
            turn = find_completion(engine, "", name)
            if name not in facts or facts[name]["answer"] != answer_digest(answer_key(home), text):
                found.append(f"the fact of {name} is lost")
            if turn is None or turn.message.text != text:
                found.append(f"the text of {name} is lost")
        for name in facts:
            turn = find_completion(engine, "", str(name))
            if turn is not None and facts[name]["answer"] != answer_digest(answer_key(home), turn.message.text):
                found.append(f"{name} is another answer than its fact says")
    return found


# Teaching, learning, undoing, forgetting


def _teach(home: Home, ack: Ack) -> None:
    ack(json.loads(command(home, "teach", QUESTION, ANSWER, "--json"))["id"])


def _examples(home: Home) -> list[str]:
    with opened(home) as engine:
        return [one.id for one in list_examples(engine, "") if one.answer == ANSWER and one.state not in ("superseded", "undone")]


def _taught(home: Home, acks: Sequence[str]) -> list[str]:
    there, found = _examples(home), []
    if len(there) > 1:
        found.append(f"it was taught {len(there)} times")
    with opened(home) as engine:
        known = {one.id: one for one in list_examples(engine, "")}
        told = {row.values["example"] for row in Ledger(engine, home.keys).read("feedback")}
    found += [f"{id_} is lost" for id_ in acks if id_ not in known]
    found += [f"{id_} is in no fact" for id_ in acks if id_ not in told]
    return found


def _prepare_lesson(home: Home) -> None:
    from tests.learn.lessons import ANSWERS, POLICY, QUESTIONS

    kept_tiny(home)
    home.policy.write_text(POLICY, "utf-8")
    for question, answer in zip((QUESTION, *QUESTIONS[1:2]), (ANSWER, *ANSWERS[1:2]), strict=True):
        command(home, "teach", question, answer)


def _learn(home: Home, ack: Ack) -> None:
    from ingle.learn.learner import LOCK, Learner, LearnerWatch, learn_once
    from ingle.learn.teacher import trainer_of
    from tests.learn.lessons import SMALL

    with opened(home) as engine, home.lock(LOCK):
        learner = Learner(home, engine, trainer_of(home, engine, SMALL), Ledger(engine, home.keys).append, LearnerWatch())
        learner.start()
        learned = learn_once(learner)
        if not _all_learned(home):
            raise RefusedCommand(f"not all was learned: {learned}")
        ack("learned")


def _all_learned(home: Home) -> bool:
    with opened(home) as engine:
        return all(one.state == "learned" for one in list_examples(engine, None))


def _learned(home: Home, acks: Sequence[str]) -> list[str]:
    return [*lessons_wrong(home), *(["what was learned is lost"] if acks and not _all_learned(home) else [])]


def _prepare_learned(home: Home) -> None:
    _prepare_lesson(home)
    _learn(home, lambda _: None)


def _undo(home: Home, ack: Ack) -> None:
    command(home, "undo", _examples(home)[0])
    ack("undone")


def _is_undone(home: Home) -> bool:
    return not _examples(home)


def _undone(home: Home, acks: Sequence[str]) -> list[str]:
    return [*lessons_wrong(home), *(["what was undone acts"] if acks and not _is_undone(home) else [])]


def _prepare_forget(home: Home) -> None:
    _prepare_learned(home)
    home.history.write_text(json.dumps(f"I think it is {ANSWER}") + "\n")
    (home.root.parent / "id").write_text(_examples(home)[0])


def _forget(home: Home, ack: Ack) -> None:
    command(home, "forget", (home.root.parent / "id").read_text(), "--yes")
    ack("forgotten")


def _holds_words(home: Home) -> list[str]:
    files = [path for path in home.root.rglob("*") if path.is_file()]
    return [path.relative_to(home.root).as_posix() for path in files if b"Mara Quill" in path.read_bytes()]


def _is_forgotten(home: Home) -> bool:
    return not _examples(home) and not (home.root / "forgetting").exists()


def _forgotten(home: Home, acks: Sequence[str]) -> list[str]:
    found = lessons_wrong(home)
    if acks:
        found += [f"the forgotten words are in {name}" for name in _holds_words(home)]
        found += ["it is still taught"] if _examples(home) else []
    return found


# Models and deltas


def _pull(home: Home, ack: Ack) -> None:
    command(home, "pull", str(home.root.parent / "tiny"), "--name", "mine", "--format", "fp32")
    ack("mine")


def _prepare_pull(home: Home) -> None:
    from tests.cli.place import write_model

    write_model(home.root.parent / "tiny")


def _has(name: str) -> Callable[[Home], bool]:
    def settled(home: Home) -> bool:
        try:
            get_kept(home, name)
        except IngleError:
            return False
        return True

    return settled


def _pulled(home: Home, acks: Sequence[str]) -> list[str]:
    found = [f"{name} is lost" for name in acks if not _has(name)(home)]
    for kept in list_kept(home):
        said = command(home, "run", "hello", kept.name, "--format", "fp32", "--max-tokens", "4", "--temperature", "0", "--json")
        reference = home.root.parent / "answer"
        told = json.loads(said)["text"]
        if not reference.exists():
            reference.write_text(told)
        if reference.read_text() != told:
            found.append(f"it answers {told!r}, not {reference.read_text()!r}")
    return found


def _made(make: Callable[[Home], Any]) -> tuple[Callable[[Home, Ack], None], Callable[[Home, Sequence[str]], list[str]]]:
    """Act and check of a delta "x": it is that of the first whole run, tensor by tensor, or not there."""

    def act(home: Home, ack: Ack) -> None:
        make(home)
        ack("x")

    def check(home: Home, acks: Sequence[str]) -> list[str]:
        deltas = [delta for delta in list_deltas(home) if delta.name == "x"]
        if len(deltas) != 1:
            return ["the delta is lost"] if acks else [f"{len(deltas)} deltas of one name"] if deltas else []
        tensors = {name: entry.sha256 for name, entry in deltas[0].tensors.items()}
        reference = home.root.parent / "tensors"
        if not reference.exists():
            reference.write_text(json.dumps(tensors))
        return [] if json.loads(reference.read_text()) == tensors else ["the delta is another one than an undisturbed run makes"]

    return act, check


def _tune(home: Home) -> None:
    from tests.tuning.place import small, tuned, write_examples

    data = home.root.parent / "data.jsonl"
    if not data.exists():
        write_examples(data, count=12)
    tuned(home, str(data), small(train={"epochs": 2, "batch_tokens": 128, "checkpoint_every": 2}))


def _quantise(home: Home) -> None:
    from ingle.compress import quantising
    from ingle.compress.calibration import CalibrationSettings
    from ingle.compress.quantising import QuantiseSettings, quantise
    from tests.compress.place import some_texts
    from tests.tuning.place import admitting

    texts = some_texts()
    quantising.read_texts = lambda _home, _progress: texts  # type: ignore[assignment]
    settings = QuantiseSettings(calibration=CalibrationSettings(documents=4, tokens=64), sensitivity_documents=2)
    quantise(home, get_kept(home, "tiny"), "x", settings, admitting(home))


def _texts() -> list[list[str]]:
    import random

    draw, found = random.Random(0), []
    words = tuple("abcdefghijklmnopqr"[i : i + 4] for i in range(14))
    for _ in range(12):
        found.append(" ".join(" ".join(draw.choices(words, k=draw.randrange(4, 12))).capitalize() + "." for _ in range(30)))
    return [found]


def _hybridize(home: Home) -> None:
    from ingle.hybridize import hybridizing
    from tests.hybridize.test_hybridize_run import SMALL
    from tests.tuning.place import admitting

    texts = _texts()
    hybridizing.read_texts = lambda _home, _suites, _progress: texts  # type: ignore[assignment]
    hybridizing.hybridize(home, get_kept(home, "tiny"), "x", SMALL, admitting(home))


def _prepare_hybridize(home: Home) -> None:
    """Stopped after the search for groups and the first lesson."""
    from ingle.hybridize import hybridizing

    kept_tiny(home)
    real = hybridizing.train_for

    def stopped(*given: Any) -> Any:
        if given[5].name.startswith("logits"):
            raise Interrupted("training", "was interrupted", "here")
        return real(*given)

    hybridizing.train_for = stopped  # type: ignore[assignment]
    with contextlib.suppress(Interrupted):
        _hybridize(home)
    hybridizing.train_for = real


# Keys


def _add_key(home: Home, ack: Ack) -> None:
    try:
        said = command(home, "key", "add", "laptop", "--json")
    except RefusedCommand as error:
        if "ingle home keys revoke laptop" not in str(error):
            raise
        command(home, "key", "revoke", "laptop")  # of a kill between the key and its display; the message says so
        said = command(home, "key", "add", "laptop", "--json")
    ack(json.loads(said)["key"])


def _keys_good(home: Home, acks: Sequence[str]) -> list[str]:
    with opened(home) as engine:
        found = [] if all(check_key(engine, secret) for secret in acks) else ["a key that was told is not valid"]
        told = {row.subject for row in Ledger(engine, home.keys).read("key.add")}
        live = [key for key in list_keys(engine) if key.revoked is None]
        found += [f"{key.id} is good, and in no fact" for key in live if key.name == "laptop" and key.id not in told]
    return found


def _prepare_key(home: Home) -> None:
    kept_tiny(home)
    with opened(home) as engine:
        (home.root.parent / "secret").write_text(add_key(engine, "old")[1])


def _revoke(home: Home, ack: Ack) -> None:
    command(home, "key", "revoke", "old")
    ack("revoked")


def _is_revoked(home: Home) -> bool:
    with opened(home) as engine:
        told = [row for row in Ledger(engine, home.keys).read("key.revoke")]
        return bool(told) and check_key(engine, (home.root.parent / "secret").read_text()) is None


def _revoked(home: Home, acks: Sequence[str]) -> list[str]:
    return ["a revoked key is good, or in no fact"] if acks and not _is_revoked(home) else []


# Backups


def _back_up(home: Home, ack: Ack) -> None:
    command(home, "backup", str(home.root.parent / "outside" / "b.tar"), "--force")
    ack("backup")


def _backed_up(home: Home, acks: Sequence[str]) -> list[str]:
    path = home.root.parent / "outside" / "b.tar"
    if acks and not path.exists():
        return ["the backup is lost"]
    if path.exists():
        import shutil

        shutil.rmtree(home.root.parent / "back", ignore_errors=True)
        command(Home(home.root.parent / "back"), "restore", str(path))
    return []


def _prepare_backup(home: Home) -> None:
    kept_tiny(home)
    (home.root.parent / "outside").mkdir(exist_ok=True)


def _restore(home: Home, ack: Ack) -> None:
    command(home, "restore", str(home.root.parent / "kept.tar"))
    ack("restored")


def _prepare_restore(home: Home) -> None:
    kept_tiny(home)
    command(home, "backup", str(home.root.parent / "kept.tar"))
    import shutil

    shutil.rmtree(home.root)


def _restored(home: Home, acks: Sequence[str]) -> list[str]:
    return ["what was restored is lost"] if acks and not _has("tiny")(home) else []


def _is_restored(home: Home) -> bool:
    return _has("tiny")(home)


TUNE, QUANTISE, HYBRIDIZE = _made(_tune), _made(_quantise), _made(_hybridize)
JOURNEYS = {
    one.name: one
    for one in (
        Journey("answer", kept_tiny, _answer, _answers_kept, never),
        Journey("teach", kept_tiny, _teach, _taught, lambda home: bool(_examples(home))),
        Journey("lesson", _prepare_lesson, _learn, _learned, _all_learned, every=3),
        Journey("undo", _prepare_learned, _undo, _undone, _is_undone),
        Journey("forget", _prepare_forget, _forget, _forgotten, _is_forgotten),
        Journey("pull", _prepare_pull, _pull, _pulled, _has("mine")),
        Journey("tune", kept_tiny, *TUNE, _has("tiny+x"), every=3),
        Journey("key added", kept_tiny, _add_key, _keys_good, never),
        Journey("key revoked", _prepare_key, _revoke, _revoked, _is_revoked),
        Journey("quantise", kept_tiny, *QUANTISE, _has("tiny+x"), every=3),
        Journey("hybridise", _prepare_hybridize, *HYBRIDIZE, _has("tiny+x"), every=3),
        Journey("backup", _prepare_backup, _back_up, _backed_up, never),
        Journey("restore", _prepare_restore, _restore, _restored, _is_restored),
    )
}
