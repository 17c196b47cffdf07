"""Whole measurements: every kind of suite, what is kept when one is stopped, and how two models are compared."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.errors import ConfigError, HomeError, Interrupted
from ingle.core.message import Request
from ingle.engine.language_model import LanguageModel
from ingle.home.place import Home
from ingle.measure.data_sets import Exercise, Question, Text, part
from ingle.measure.measuring import Options, compare, event_of, load_rows, run_suite, save, to_table
from ingle.measure.subjects import Finished, Nats, Subject, Task
from ingle.measure.suites import SUITES, Suite, check_parts, plant, training_rows
from tests.measure.models import even, subject_like, subject_of

WORDS = ["red", "green", "blue", "grey", "pink"]


def texts(*_: Any) -> list[Text]:
    return [Text(f"t{i}", f"t{i}", f"{WORDS[i % 5]} {WORDS[i // 5 % 5]} " * (1 + i % 4) + str(i)) for i in range(40)]


def questions(*_: Any) -> list[Question]:
    return [Question(f"q{i}", f"q{i}", f"Number {i}?", ("no", "yes"), i % 2) for i in range(60)]


def exercises(*_: Any) -> list[Exercise]:
    return [Exercise(f"e{i}", f"e{i}", f"Say {WORDS[i % 5]} {i}", f"{WORDS[i % 5]} {i}", WORDS[i % 5]) for i in range(40)]


BITS = Suite("wiki-bits", "", "bits", texts, "bits_per_byte", 0.5, 10)
CHOICE = Suite("boolq", "", "choice", questions, "accuracy", 0.5, 20, "{ask}\nAnswer:", baseline="majority")
WRITE = Suite("debian-fr", "", "write", exercises, "chrf", 0.5, 8, baseline="copy", metrics=("chrf", "exact_match"), max_tokens=6)


def counting(subject: Subject, seen: list[int], stop_after: int | None = None) -> Subject:
    """The subject, noting which tasks and requests it answered, and stopping after so many."""

    def score(tasks: Sequence[Task]) -> Iterator[tuple[int, list[Nats]]]:
        for number, values in subject.score(tasks):
            if stop_after is not None and len(seen) >= stop_after:
                return
            seen.append(number)
            yield number, values

    def write(requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
        for number, text in subject.write(requests):
            if stop_after is not None and len(seen) >= stop_after:
                return
            seen.append(number)
            yield number, text

    return replace(subject, score=score, write=write)


def test_bits_of_a_real_model(home: Home, tiny: LanguageModel) -> None:
    outcome = run_suite(home, BITS, subject_of(tiny), Options())
    micro, macro = outcome.reports
    assert (micro.name, micro.unit, micro.n, micro.model_digest) == ("bits_per_byte", "bits/byte", 10, tiny.backend.digest)
    assert 4 < micro.low <= micro.value <= micro.high < 12  # random weights know next to nothing
    assert macro.name == "bits_per_byte_macro"
    measured = {item.id: item.text for item in part(texts(), "held_out", 0.5)}
    assert all(row["nbytes"] == len(measured[row["id"]].encode()) for row in outcome.rows)
    assert micro.value == pytest.approx(sum(row["bits"] for row in outcome.rows) / sum(row["nbytes"] for row in outcome.rows))
    assert "<|endoftext|>" in outcome.notes[0]


def test_choice_counts_ties_as_wrong_and_shows_the_majority(home: Home, tiny: LanguageModel) -> None:
    tie = run_suite(home, CHOICE, subject_like(tiny, even(-1.0)), Options(style="letters"))
    assert [report.name for report in tie.reports] == ["accuracy", "accuracy_per_byte", "baseline_majority"]
    assert (tie.main.value, tie.main.low, tie.main.n, tie.main.interval) == (0, 0, 20, "95 % Wilson")
    assert 0.2 < tie.reports[2].value < 0.8
    assert tie.reports[2].model_digest == ""
    # One token a byte: " no" is shorter than " yes", so the sum prefers it, and it is right in as many cases as "no" is.
    short = run_suite(home, CHOICE, replace(subject_like(tiny, even(-1.0)), digest="other"), Options())
    golds = [question.gold for question in part(questions(), "held_out", 0.5)[:20]]
    assert short.main.value == pytest.approx(golds.count(0) / 20)


def test_shots_change_what_is_asked_and_so_the_data(home: Home, tiny: LanguageModel) -> None:
    subject = subject_of(tiny)
    outcomes = [run_suite(home, CHOICE, subject, Options(shots=shots, seed=seed)) for shots, seed in ((0, 0), (2, 0), (2, 1), (2, 0))]
    digests = [outcome.main.data_digest for outcome in outcomes]
    assert digests[1] == digests[3]
    assert len(set(digests)) == 3
    with pytest.raises(ConfigError, match="at most"):
        run_suite(home, CHOICE, subject, Options(shots=1000))


def test_writing_stands_beside_the_copy(home: Home, tiny: LanguageModel) -> None:
    def perfect(request: Request) -> str:
        return request.messages[-1].text.removeprefix("Say ")

    outcome = run_suite(home, WRITE, subject_like(tiny, even(0), perfect), Options(shots=2))
    figures = {report.name: report for report in outcome.reports}
    assert list(figures) == ["chrf", "exact_match", "chrf_copy", "exact_match_copy", "chrf_above_copy"]
    assert (figures["chrf"].value, figures["exact_match"].value) == (pytest.approx(100), 1)
    assert figures["exact_match_copy"].value == 0
    assert figures["chrf_above_copy"].value == pytest.approx(100 - figures["chrf_copy"].value)
    assert figures["chrf_above_copy"].low > 0
    assert any("together" in note for note in outcome.notes)
    real = run_suite(home, WRITE, subject_of(tiny), Options())
    assert real.main.value < 50
    assert all(len(row["text"]) <= 6 for row in real.rows)


@pytest.mark.parametrize("suite", [BITS, CHOICE, WRITE], ids=lambda suite: suite.kind)
def test_a_stopped_run_goes_on_where_it_was(home: Home, tiny: LanguageModel, suite: Suite) -> None:
    whole = run_suite(Home(home.root / "other").create(), suite, subject_of(tiny), Options())
    first: list[int] = []
    with pytest.raises(Interrupted, match="5 of") as error:
        run_suite(home, suite, counting(subject_of(tiny), first, 5), Options())
    assert error.value.exit_code == 130
    second: list[int] = []
    told: list[tuple[str, int, int]] = []
    outcome = run_suite(home, suite, counting(subject_of(tiny), second), Options(), lambda *call: told.append(call))
    assert len(first) + len(second) == suite.items
    assert (told[0], told[-1]) == ((suite.name, 5, suite.items), (suite.name, suite.items, suite.items))
    assert outcome == whole
    run_suite(home, suite, counting(subject_of(tiny), third := []), Options())
    assert third == []
    run_suite(home, suite, counting(subject_of(tiny), third), Options(items=suite.items + 2))
    assert len(third) == 2


def test_another_model_or_another_prompt_is_not_taken_from_the_cache(home: Home, tiny: LanguageModel) -> None:
    run_suite(home, CHOICE, subject_of(tiny), Options())
    seen: list[int] = []
    run_suite(home, CHOICE, counting(replace(subject_of(tiny), digest="other"), seen), Options())
    run_suite(home, CHOICE, counting(subject_of(tiny), seen), Options(style="letters"))
    run_suite(home, CHOICE, counting(subject_of(tiny), seen), Options(shots=1))
    assert len(seen) == 60


def test_a_cut_off_line_costs_one_item(home: Home) -> None:
    finished = Finished(home, "suite", "model")
    for i in range(4):
        finished.add(f"k{i}", {"value": i / 3, "text": "zwei\nZeilen é"})
    data = finished.path.read_bytes()
    finished.path.write_bytes(data[:-7])
    again = Finished(home, "suite", "model")
    assert (len(again), again.get("k3"), again.get("k2")) == (3, None, {"value": 2 / 3, "text": "zwei\nZeilen é"})
    again.add("k3", {"value": 1.0})
    again.add("k4", {"value": 2.0})
    last = Finished(home, "suite", "model")
    assert [last.get(f"k{i}") is not None for i in range(5)] == [True] * 5
    assert len(Finished(home, "suite", "other")) == 0


def test_a_cache_that_can_not_be_written_is_an_error(home: Home) -> None:
    (home.root / "cache" / "measure").write_bytes(b"")
    with pytest.raises(HomeError):
        Finished(home, "suite", "model").add("k", {})


def test_two_models_are_compared_item_by_item(home: Home, tiny: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    save(run_suite(home, BITS, subject_like(tiny, even(-2.0)), Options()), path)
    worse = run_suite(home, BITS, replace(subject_like(tiny, even(-2.2)), digest="after"), Options(items=15))
    compared = compare(worse, path)
    change, relative = compared.reports[2:]
    assert (change.name, change.n, relative.value) == ("forgetting", 10, pytest.approx(10.0))
    assert "10 of 10 documents" in compared.notes[-1]
    # Choice: one that always says yes against one that always says no.
    yes, no = (replace(subject_like(tiny, prefer(number)), digest=str(number)) for number in (1, 0))
    save(run_suite(home, CHOICE, yes, Options()), path)
    compared = compare(run_suite(home, CHOICE, no, Options()), path)
    golds = [question.gold for question in part(questions(), "held_out", 0.5)[:20]]
    assert compared.reports[-1].value == pytest.approx((golds.count(0) - golds.count(1)) / 20)
    assert "McNemar" in compared.notes[-1]
    with pytest.raises(ConfigError, match="must hold items of wiki-bits"):
        compare(worse, path)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="--out"):
        load_rows(path)


def prefer(number: int) -> Any:
    return lambda task: [np.full(len(ending), 0.0 if i == number else -5.0) for i, ending in enumerate(task[1])]


def test_what_is_saved_recorded_and_printed_is_the_same(home: Home, tiny: LanguageModel, tmp_path: Path) -> None:
    outcome = run_suite(home, CHOICE, subject_of(tiny), Options())
    save(outcome, tmp_path / "out.json")
    table = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert table["reports"][0]["value"] == outcome.main.value
    assert len(table.pop("rows")) == 20
    assert table == json.loads(json.dumps(to_table(outcome)))
    event = event_of(outcome)
    assert (event.kind, event.subject, event.facts["suite"], event.facts["value"]) == ("measure", "tiny", "boolq", outcome.main.value)
    assert (event.facts["model_digest"], event.facts["data_digest"]) == (outcome.main.model_digest, outcome.main.data_digest)


def test_options_that_make_no_sense(home: Home, tiny: LanguageModel) -> None:
    for options in (Options(style="letters"), Options(shots=1)):
        with pytest.raises(ConfigError, match="only for suites"):
            run_suite(home, BITS, subject_of(tiny), options)
    with pytest.raises(ConfigError, match="held out"):
        run_suite(home, replace(CHOICE, held_out=0.0), subject_of(tiny), Options())
    with pytest.raises(ConfigError, match="below 0"):
        Options(items=-1)


def test_training_rows_are_put_as_the_suite_puts_them(home: Home, tiny: LanguageModel) -> None:
    rows = list(training_rows(CHOICE, home))
    assert {row["id"] for row in rows} == {item.id for item in part(questions(), "train", 0.5)}
    assert rows[0]["prompt"].endswith("?\nAnswer:")
    assert {row["completion"] for row in rows} == {" no", " yes"}
    [first, *_] = training_rows(WRITE, home)
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    assert set(next(training_rows(BITS, home))) == {"id", "text"}
    found = check_parts(CHOICE, questions())
    assert (found.n, found.exact) == (len(part(questions(), "held_out", 0.5)), ())


def test_the_table_holds_together() -> None:
    for name, suite in SUITES.items():
        assert suite.name == name
        only_measures = suite.kind in ("recall", "pairs", "names") or name == "bbq"
        assert 0 < suite.held_out < 1 or (only_measures and suite.held_out == 1)
        assert (suite.kind == "write") == bool(suite.metrics) == bool(suite.max_tokens)
        assert suite.kind != "write" or suite.main == suite.metrics[0]
        assert suite.kind not in ("choice", "write") or suite.baseline
        assert "{ask}" in suite.stem


def test_recall_is_what_was_planted_and_is_told_by_kind(home: Home, tiny: LanguageModel) -> None:
    items = plant([Text(str(i), str(i), "A sentence is here. " * 60) for i in range(3)], 400, 6)
    suite = Suite("recall-1k", "", "recall", lambda *_: items, "recall", 1.0, 6)
    names = [item.fact.answer for item in part(items, "held_out", 1.0)]

    def write(requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
        for number, request in enumerate(requests):
            assert isinstance(request.prompt, tuple)
            yield number, f" {names[number]}." if number else "something else"

    outcome = run_suite(home, suite, replace(subject_of(tiny), write=write, digest="1" * 64), Options())
    assert (outcome.main.name, outcome.main.value, outcome.main.n) == ("recall", 5 / 6, 6)
    assert sum(report.n for report in outcome.reports[1:]) == 6
    assert [row["recall"] for row in outcome.rows] == [False] + [True] * 5
    with pytest.raises(ConfigError, match="shots"):
        run_suite(home, suite, subject_of(tiny), Options(shots=1))
