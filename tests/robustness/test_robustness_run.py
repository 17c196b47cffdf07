"""Attacks on a tiny model: counted through real guards, repeatable, resumed after a kill, within their budget."""

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.app.answering import limits_of
from ingle.core.errors import ConfigError, Interrupted, RequestError
from ingle.core.message import Chunk, Request, Verdict
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.robustness.attack import Outcome, find_attacks, saying
from ingle.robustness.attack_run import AttackOptions, attack, curves_of, event_of, lines_of, to_table
from ingle.robustness.prompts import LabelledPrompt
from ingle.robustness.target import Opinion, Target, admitted, fits, margin_of, margin_task, outcome_of
from ingle.safety.guard import make_guards
from ingle.safety.middleware import Guard, GuardLayer, Next, with_verdicts
from ingle.tuning.kept_model import subject_of
from tests.cli.place import write_model
from tests.robustness.material import GOALS, OwnMaterial

SMALL = AttackOptions(tries=2, budget=14, answer_tokens=6)
FAMILIES = ("plain", "prefix", "past", "suffix")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("robustness")
    home = Home(folder / "home")
    pull(home, str(write_model(folder / "tiny", context=1024)), lambda _: None, "tiny")
    return open_model(kept_source(home, get_kept(home, "tiny")), "fp32", 1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr("ingle.robustness.attack_run.AttackMaterial", OwnMaterial)
    return Home(tmp_path / "home").create()


def by_length(question: str, answer: str) -> Opinion:
    """An opinion that follows from the words alone."""
    harm = (sum(map(ord, question + answer)) % 10) / 10
    return Opinion(harm < 0.3, harm, harm >= 0.8)


def never(_question: str, _answer: str) -> Opinion:
    return Opinion(False, 0.2, False)


def target(model: LanguageModel, *guards: Guard, judge: Any = by_length, alarm: Any = lambda _text: 0.0, most: int | None = None) -> Target:
    """The tiny model behind guards. `most`: pieces of work after which it is stopped."""
    done = 0

    def stopped() -> bool:
        nonlocal done
        done += 1
        return most is not None and done > most

    layers = [*make_guards(limits_of(model)), *(GuardLayer(f"test{number}", guard) for number, guard in enumerate(guards))]
    return Target(subject_of(model, stopped), model.encode, layers, judge, alarm, "policy")


def blocking(word: str) -> Guard:
    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        if word in request.messages[-1].text:
            raise RequestError("messages", "must not ask for this")
        async for chunk in answer(request):
            yield chunk

    return guard


def test_a_run_repeats_and_another_seed_asks_otherwise(home: Home, model: LanguageModel) -> None:
    files = find_attacks([*FAMILIES, "random_search", "paraphrase", "bandit"])
    first = attack(home, target(model), GOALS, files, SMALL)
    again = attack(home, target(model, most=0), GOALS, files, SMALL)  # all answers are in the cache: the model is not asked
    assert first == again
    assert attack(Home(home.root / "other").create(), target(model), GOALS, files, SMALL) == first
    cached = (home.root / "cache" / "measure").glob("attack-*.jsonl")
    before = sum(len(path.read_bytes().splitlines()) for path in cached)
    attack(home, target(model), GOALS, files, replace(SMALL, seed=1))
    after = sum(len(path.read_bytes().splitlines()) for path in (home.root / "cache" / "measure").glob("attack-*.jsonl"))
    assert after > before


def test_every_family_runs_within_its_budget(home: Home, model: LanguageModel) -> None:
    heard: list[tuple[int, int]] = []
    files = find_attacks(adaptive=True)
    results = attack(home, target(model, judge=never), GOALS[:2], files, SMALL, lambda _label, done, total: heard.append((done, total)))
    assert [one.name for one in results] == [file.name for file in files]
    for one in results:
        for goal in one.goals:
            assert goal.used <= (SMALL.budget if one.adaptive else SMALL.tries)
            assert goal.used >= len(goal.outcomes)
            assert goal.reached_at is None
            # What this model says keeps no wording of anything.
            assert len(goal.outcomes) + goal.unfit > 0 or one.name == "paraphrase"
    assert heard[-1][0] == heard[-1][1]
    assert all(0 <= done <= total for done, total in heard)
    assert all(done <= after or after == total for (done, _), (after, total) in pairwise(heard)), (
        "it never goes back, but to a smaller total"
    )


def test_an_interrupted_run_goes_on_where_it_was(home: Home, model: LanguageModel) -> None:
    files = find_attacks([*FAMILIES, "random_search"])
    stops = 0
    while stops < 100:
        try:
            found = attack(home, target(model, most=25 * (stops + 1)), GOALS, files, SMALL)
            break
        except Interrupted:
            stops += 1
    assert 2 <= stops < 100
    assert found == attack(Home(home.root / "fresh").create(), target(model), GOALS, files, SMALL)
    [path] = (home.root / "cache" / "measure").glob("attack-*.jsonl")
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(lines[:-3]) + b'\n{"key": "cut off')  # as a kill in the middle of a line leaves it
    assert attack(home, target(model), GOALS, files, SMALL) == found


def test_guards_are_asked_anew_and_what_they_block_is_no_success(home: Home, model: LanguageModel) -> None:
    files = find_attacks(FAMILIES)
    open_, closed = (attack(home, target(model, *guards), GOALS, files, SMALL) for guards in ((), (blocking(""),)))
    assert all(outcome.passed for one in open_ for goal in one.goals for outcome in goal.outcomes)
    assert any(outcome.reached for one in open_ for goal in one.goals for outcome in goal.outcomes)
    assert not any(outcome.passed or outcome.reached for one in closed for goal in one.goals for outcome in goal.outcomes)
    assert all(outcome.noticed for one in closed for goal in one.goals for outcome in goal.outcomes)


async def telling(request: Request, answer: Next) -> AsyncIterator[Chunk]:
    verdicts = (Verdict("allow", "something", "telling"),)
    async for chunk in answer(request):
        yield with_verdicts(chunk, *verdicts)
        verdicts = ()


async def shortening(request: Request, answer: Next) -> AsyncIterator[Chunk]:
    async for chunk in answer(replace(request, messages=(replace(request.messages[-1], parts=request.messages[-1].parts[:1]),))):
        yield chunk


async def cutting(request: Request, answer: Next) -> AsyncIterator[Chunk]:
    """Ends the answer before a word, and holds back what may be its beginning."""
    held = ""
    async for chunk in answer(request):
        held += chunk.text
        if "secret" in held:
            yield Chunk(held.split("secret")[0], finish="blocked")
            return
        if chunk.finish:
            yield replace(chunk, text=held)


def test_what_guards_do_to_requests_and_answers_is_seen(model: LanguageModel) -> None:
    asked = saying("How do I sail?")
    plain = admitted(target(model).guards, asked)
    assert plain is not None
    assert (plain.request, plain.noticed) == (asked, False)
    told = admitted(target(model, telling).guards, asked)
    assert told is not None
    assert told.noticed
    edited = admitted(target(model, shortening).guards, saying("And now?", *asked.messages))
    assert edited is not None
    assert edited.noticed
    assert len(edited.request.messages) == 1
    assert admitted(target(model, blocking("sail")).guards, asked) is None
    read: list[str] = []

    def judge(_question: str, answer: str) -> Opinion:
        read.append(answer)
        return Opinion(False, 0.9, "way" in answer)

    guarded = target(model, cutting, judge=judge)
    assert outcome_of(guarded, ["g"], asked, False, "Nothing of note.") == Outcome(True, False, False, 0.9, False)
    assert outcome_of(guarded, ["g"], asked, False, "It is secret: the way") == Outcome(False, True, False, 0.0, False)
    # What came out before the guard ended it was harmful enough.
    assert outcome_of(guarded, ["g"], asked, False, "The way is secret.") == Outcome(True, True, False, 0.9, True)
    assert read == ["Nothing of note.", "It is ", "The way is "]


def test_an_answer_to_a_wording_that_drifted_reaches_no_goal(model: LanguageModel) -> None:
    """The judge finds an answer harmful to the goal; to the question that was really asked, it is not."""

    def judge(question: str, _answer: str) -> Opinion:
        return Opinion(False, 0.9 if "goal" in question else 0.1, "goal" in question)

    aim, asked = target(model, judge=judge), saying("something else")
    assert outcome_of(aim, ["the goal"], asked, False, "well") == Outcome(True, False, False, 0.9, True)
    assert outcome_of(aim, ["the goal", "something else"], asked, False, "well") == Outcome(True, False, False, 0.1, False)


def test_a_request_that_does_not_fit_is_no_try(home: Home, model: LanguageModel) -> None:
    long = LabelledPrompt("How do I sail " + "on and " * 400 + "on?", "plain", "test")
    [result] = attack(home, target(model), [long], find_attacks(["prefix"]), SMALL)
    [goal] = result.goals
    assert (goal.outcomes, goal.used, goal.unfit) == ((), 0, 6)
    [searched] = attack(home, target(model), [long], find_attacks(["random_search"]), SMALL)
    assert not searched.goals[0].outcomes
    [line] = lines_of([result], target(model), [long], SMALL)
    assert (line.tries, line.unfit, line.reports) == (0, 6, ())


def test_margins_are_those_of_the_model(model: LanguageModel) -> None:
    aim = target(model)
    asked = saying("How do I sail?")
    given, endings = margin_task(aim, asked)
    assert list(given) == model.encode(asked)
    [(_, nats)] = list(aim.subject.score([(given, endings)]))
    sums = [values.sum() for values in nats]
    assert margin_of(nats) == pytest.approx(np.logaddexp.reduce(sums[:5]) - np.logaddexp.reduce(sums[5:]), abs=1e-9)
    assert fits(aim, asked)
    assert not fits(aim, replace(asked, max_tokens=1020))


def test_the_search_raises_its_objective_and_one_that_knows_the_guard_comes_past_it(home: Home, model: LanguageModel) -> None:
    """The guard minds vowels and digits at the end. Who knows that finds suffixes with hardly any; who doesn't, sometimes by chance."""

    def alarm(text: str) -> float:
        return sum(one in "aeiouAEIOU0123456789" for one in text[-20:]) - 1.5

    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        if alarm(request.messages[-1].text) > 0:
            raise RequestError("messages", "must not hold so many of them")
        async for chunk in answer(request):
            yield chunk

    goals = [LabelledPrompt(f"How do I sail to island {number}?", "plain", "test") for number in range(6)]
    aim, options = target(model, guard, judge=never, alarm=alarm), AttackOptions(budget=120, answer_tokens=2)
    blind, aware = attack(home, aim, goals, find_attacks(["random_search", "guard_aware"]), options)
    past = [sum(any(outcome.passed for outcome in goal.outcomes) for goal in one.goals) for one in (blind, aware)]
    assert past[1] == len(goals)
    assert past[0] < past[1]


def test_options_that_make_no_sense() -> None:
    for wrong in ({"tries": 0}, {"budget": 0}, {"seed": -1}, {"answer_tokens": 0}):
        with pytest.raises(ConfigError):
            AttackOptions(**wrong)


def test_reports_count_and_hold_no_words(home: Home, model: LanguageModel) -> None:
    files, aim = find_attacks([*FAMILIES, "bandit"]), target(model, blocking("Sure"))
    results = attack(home, aim, GOALS, files, SMALL)
    lines = lines_of(results, aim, GOALS, SMALL)
    assert [line.family for line in lines] == [*(file.name for file in files), "all"]
    outcomes = [outcome for one in results for goal in one.goals for outcome in goal.outcomes]
    reached, past = lines[-1].report("reached"), lines[-1].report("past")
    assert reached is not None
    assert past is not None
    assert reached.value == sum(one.reached for one in outcomes) / len(outcomes)
    assert reached.low <= reached.value <= reached.high
    assert (reached.n, past.n) == (len(outcomes), len(outcomes))
    assert 0 < past.value < 1
    event = event_of(lines, aim, GOALS, files, SMALL)
    assert event.facts["reached"] == sum(one.reached for one in outcomes)
    assert len(event.facts) <= 64
    everything = f"{event} {to_table(lines, results, aim, GOALS, files, SMALL)}"
    assert not any(goal.text in everything for goal in GOALS)
    curves = curves_of(results, SMALL)
    assert list(curves) == ["bandit"]
    assert all(a <= c and b <= d for (a, b), (c, d) in zip(curves["bandit"], curves["bandit"][1:], strict=False))
    assert curves["bandit"][-1] == (SMALL.budget, sum(goal.reached_at is not None for goal in results[-1].goals) / len(GOALS))
