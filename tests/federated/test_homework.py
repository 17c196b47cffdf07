"""Homes that really learn: a tiny model, each home's own files, the worker's own code; the gate's vote reads what nobody learned from."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.core.report import Event
from ingle.federated.at_home import OWN, Taking, candidate_of, learner, node_of, read_own, read_spent
from ingle.federated.home_node import responder
from ingle.federated.invitation import Invitation, Privacy, invite, promised
from ingle.federated.rounds import EndedRound, Round, gather, run_round
from ingle.federated.standing import folder_of
from ingle.federated.transport import local
from ingle.gate.check import Policy
from ingle.gate.checks import own
from ingle.gate.decide import judge
from ingle.gate.trial import Probes, Trial
from ingle.home.database import open_database
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.ledger.chain import Ledger
from ingle.ledger.keys import Signer, load_ring
from ingle.ledger.table import MIGRATIONS
from ingle.tuning.homework import HeldOutExample, Homework, HomeworkDone, Learning
from ingle.tuning.homework_training import do_homework
from tests.cli.place import write_model

OWN_ALONE = Policy({name: {"on": False} for name in ("attacks", "bias", "bits", "refusals", "safety")})
"""The gate's other checks have tests of their own."""
LEARNING = Learning(rate=1e-2, steps=12, batch_tokens=256)
REACH = 1.0
"""Wide, so that one home can do harm: cut to what honest homes gain, it only slows the others down."""


@dataclass
class Street:
    """Three homes, each with its own file."""

    homes: list[Home]
    signers: list[Signer]
    kept: list[Kept]
    files: list[str]
    events: list[list[Event]]

    def invitation(self, **changes: Any) -> Invitation:
        members = tuple(signer.verifier.public for signer in self.signers)
        asked = Invitation("street", self.kept[0].digest, "", members, 3, 8, "2100-01-01T00:00:00Z", rank=2, seed=5, reach=REACH)
        return invite(promised(replace(asked, **{"learning": LEARNING, **changes})), self.signers[0])

    def takings(self, invitation: Invitation, poison: Mapping[int, float] | None = None) -> list[Taking]:
        def do(seat: int) -> Any:
            def done(homework: Homework, factors: Any, folder: Path) -> HomeworkDone:
                found = do_homework(homework, factors, folder)
                factor = (poison or {}).get(seat)
                if factor is None:
                    return found
                turned = {
                    name: (factors[name] + factor * (after - factors[name])).astype(np.float32) for name, after in found.tensors.items()
                }
                return replace(found, tensors=turned)

            return done

        return [
            Taking(home, kept, invitation, learner(home, kept, invitation, [file], do(seat)), OWN_ALONE, self.events[seat].append)
            for seat, (home, kept, file) in enumerate(zip(self.homes, self.kept, self.files, strict=True))
        ]

    def round(self, takings: list[Taking], number: int) -> EndedRound:
        nodes = [node_of(taking, signer) for taking, signer in zip(takings, self.signers, strict=True)]
        ask, complaints = local({seat: responder(node) for seat, node in enumerate(nodes)}), list[str]()
        terms = takings[0].invitation.terms()
        joined = tuple(gather(terms, ask, 300.0, lambda _, error: complaints.append(str(error))))
        now = Round(terms, number, nodes[0].base, takings[0].standing.length, joined)
        ended = run_round(now, ask, 300.0, lambda _, error: complaints.append(str(error)))
        assert not complaints, complaints
        return ended

    def held_out(self, taking: Taking) -> tuple[HeldOutExample, ...]:
        """What this home never learns from."""
        file, standing = self.files[self.homes.index(taking.home)], taking.standing
        look = Homework(str(taking.home.root), taking.kept, (file,), replace(LEARNING, steps=1), standing.names)
        return do_homework(look, standing.factors, taking.home.root / "look").held_out

    def own_loss(self, taking: Taking) -> float:
        """Nats a token on the home's own held-out examples, of what it has learned so far."""
        now = candidate_of(taking, taking.standing, taking.standing.factors, "now")
        trial = Trial(taking.home, taking.kept, now, Probes(own=self.held_out(taking)))
        finding = own.check(trial, own.Limits(most_rise_percent=1e9))
        assert finding is not None
        return finding.reports[2].value


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    model = write_model(tmp_path / "tiny")
    with ExitStack() as stack:
        homes, signers, files = [], [], []
        for seat in range(3):
            home = Home(tmp_path / f"home{seat}")
            pull(home, str(model), lambda _: None, "tiny")
            engine = open_database(home.database_url, {"ledger": MIGRATIONS})
            stack.callback(engine.dispose)
            Ledger(engine, home.keys).append(Event("pull", "tiny"))  # makes the key
            file = tmp_path / f"own{seat}.jsonl"
            words = ("the lake", "a hill", "the sea")
            rows = [
                {"prompt": f"{number} {words[seat]}", "completion": f"is {'even' if number % 2 == 0 else 'odd'}"} for number in range(60)
            ]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            homes.append(home)
            files.append(str(file))
            signers.append(load_ring(home.keys).signers[-1])
        yield Street(homes, signers, [get_kept(home, "tiny") for home in homes], files, [[], [], []])


def test_homes_learn_together_and_refuse_what_hurts_their_own_examples(street: Street) -> None:
    takings = street.takings(street.invitation())
    before = [street.own_loss(taking) for taking in takings]
    for number in (1, 2):
        verdict = street.round(takings, number).round.verdict
        assert verdict is not None and verdict.accepted and verdict.yes == (0, 1, 2)
    learned = [street.own_loss(taking) for taking in takings]
    assert all(after < 0.9 * first for after, first in zip(learned, before, strict=True)), "held-out examples of every home got likelier"
    assert len({taking.standing.base for taking in takings}) == 1
    assert not (folder_of(street.homes[0], takings[0].invitation) / OWN).exists(), "words of the home are kept for the votes on one update"

    poisoned = street.takings(takings[0].invitation, {0: -6.0})
    verdict = street.round(poisoned, 3).round.verdict
    assert verdict is not None and not verdict.accepted and set(verdict.no) >= {1, 2}, "what it hurts says no"
    assert [street.own_loss(taking) for taking in takings] == learned
    assert street.round(takings, 4).round.verdict.accepted  # type: ignore[union-attr]


def test_with_privacy_of_a_record_a_round_is_one_noisy_step(street: Street) -> None:
    wanted = Privacy("record", epsilon=8.0, delta=1e-3, clip=1.0, share=0.8, records=40_000, numbers=4_000)
    invitation = street.invitation(privacy=wanted, rounds=2, learning=replace(LEARNING, rate=400.0))
    takings = street.takings(invitation)
    own = learner(street.homes[0], street.kept[0], invitation, [street.files[0]], do_homework)
    standing = takings[0].standing
    after = own(standing.factors, standing.names, 1)
    gain = np.concatenate([(after[name] - standing.factors[name]).reshape(-1) for name in standing.names])
    assert gain.dtype == np.float64 and 0 < np.linalg.norm(gain) <= 54 * 400.0 * 3 / (0.8 * 40_000)
    for number in (1, 2):
        street.round(takings, number)
        assert [read_spent(home, invitation) for home in street.homes] == [number] * 3
    spent = [event.facts for event in street.events[0] if event.kind == "federate.spent"]
    assert [facts["rounds"] for facts in spent] == [1, 2] and 0 < float(str(spent[-1]["epsilon"])) <= 8.0
    with pytest.raises(AssertionError, match="All of the privacy that was promised is spent"):
        street.round(takings, 3)


def test_a_kill_costs_what_may_have_left_and_nothing_before(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Privacy("record", epsilon=8.0, delta=1e-3, clip=1.0, share=0.8, records=40_000, numbers=4_000)
    invitation = street.invitation(privacy=wanted)

    def killed(_homework: Homework, _factors: Any, _folder: Path) -> HomeworkDone:
        raise KeyboardInterrupt

    def drawn(_count: int) -> Any:
        assert read_spent(street.homes[0], invitation) == 1, "it is paid before there is anything that could leave"
        raise KeyboardInterrupt

    home, kept = street.homes[0], street.kept[0]
    taking = Taking(home, kept, invitation, learner(home, kept, invitation, [street.files[0]], killed), OWN_ALONE, street.events[0].append)
    with pytest.raises(KeyboardInterrupt):
        node_of(taking, street.signers[0]).work.train(1)
    assert read_spent(home, invitation) == 0 and read_own(home, invitation) == ()
    monkeypatch.setattr("ingle.federated.invitation.secret_normal", drawn)
    with pytest.raises(KeyboardInterrupt):
        node_of(street.takings(invitation)[0], street.signers[0]).work.train(1)
    assert read_spent(home, invitation) == 1 and read_own(home, invitation)


def test_a_home_learns_by_another_process_unless_told_otherwise(street: Street) -> None:
    home, invitation = street.homes[0], street.invitation()
    standing = street.takings(invitation)[0].standing
    after = learner(home, street.kept[0], invitation, [street.files[0]])(standing.factors, standing.names, 1)
    assert after.keys() == standing.factors.keys()
    assert {name for name in after if (after[name] != standing.factors[name]).any()} == set(standing.names)
    assert len(read_own(home, invitation)) == 12 and not (folder_of(home, invitation) / "homework").exists()


def test_a_promise_counted_for_a_smaller_model_is_refused(street: Street) -> None:
    wanted = Privacy("record", epsilon=8.0, delta=1e-3, clip=1.0, share=0.8, records=40_000, numbers=100)
    taking = street.takings(street.invitation(privacy=wanted))[0]
    with pytest.raises(ConfigError, match=r"privacy.numbers must be at least [\d,]+, as many as a round trains of this model, not 100"):
        node_of(taking, street.signers[0])


def test_only_named_linears_learn(street: Street) -> None:
    invitation = street.invitation(learning=replace(LEARNING, layers="1", targets="q_proj,mlp"))
    assert {name.split(".lora")[0] for name in street.takings(invitation)[0].standing.factors} == {
        f"model.layers.1.{linear}" for linear in ("self_attn.q_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    }
    for wrong in ({"layers": "7"}, {"targets": "nose"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            _ = street.takings(street.invitation(learning=replace(LEARNING, **wrong)))[0].standing


def test_the_finding_compares_with_what_was_learned_so_far(street: Street) -> None:
    takings = street.takings(street.invitation())
    street.round(takings, 1)
    taking = takings[0]
    standing = taking.standing
    half = {name: values * np.float32(0.5 if "lora_B" in name else 1) for name, values in standing.factors.items()}
    candidate, so_far = candidate_of(taking, standing, half, "now"), candidate_of(taking, standing, standing.factors, "now")
    examples = street.held_out(taking)
    probes = Probes(own=examples)
    [worse] = judge(Trial(taking.home, taking.kept, candidate, probes, so_far=so_far), OWN_ALONE, "federate")
    [better] = judge(Trial(taking.home, taking.kept, candidate, probes), OWN_ALONE, "federate")
    assert (worse.check, worse.passed, better.passed) == ("own", False, True), "half of what was learned is better than nothing, and a loss"
    assert worse.reason.startswith("own examples that nobody learned from cost +") and worse.reports[0].n == len(examples)
    assert judge(Trial(taking.home, taking.kept, candidate), OWN_ALONE, "federate") == (), "without examples it does not apply"
