"""What homes learn together: topics of Debian packages, ten homes that each know few topics, beside what each learns alone.

Homes' topics are drawn from Dirichlet(0.3). Every home has a gate, a key and a vote; they sum by the secure sum, in this process. Arms,
each with the same steps of training a home: the base; each home alone (the mean of ten); all examples in one place; `alternate` and
`frozen` under the sum; and A and B averaged apart, which is no mean of products and is what those are to beat.

`--privacy` adds ε = 8 for a record (one noisy step a round) beside usual learning from the same, larger files, and asks both for canaries:
records of made-up names and numbers, of which half were learned from. Their AUC is the chance that a learned one looks likelier than one
that was not; 0.5 is what privacy promises.

tesseract's language packages are left out: they differ in a word, and one decision about them moves accuracy by 0.15.

python bench/federated.py HOME [--quick] [--homes 10] [--rounds 6] [--items 300] [--seed 0] [--privacy] [--arms alone,central,…]
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import finish, show
from ingle.core.candidate import Candidate
from ingle.engine.adapter import linear_shapes
from ingle.engine.loading import open_model
from ingle.engine.packs import candidate_source, kept_source, open_weights
from ingle.federated.aggregate import first_factors, trained_names
from ingle.federated.at_home import Taking, learner, node_of
from ingle.federated.home_node import responder
from ingle.federated.invitation import Invitation, Privacy, invite, promised
from ingle.federated.rounds import Round, gather, run_round
from ingle.federated.terms import fewest_of
from ingle.federated.transport import local
from ingle.gate.check import Policy
from ingle.gate.check import names as checks
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home, find_home
from ingle.ledger.keys import new_signer
from ingle.measure.intervals import bootstrap, paired_bootstrap
from ingle.measure.measuring import Options, run_suite
from ingle.measure.suites import find_suite, training_rows
from ingle.tuning.homework import Homework, Learning
from ingle.tuning.homework_training import do_homework
from ingle.tuning.kept_model import subject_of
from ingle.tuning.linears import chosen_layers, chosen_linears
from model import smollm2
from servers import own_home, say

SUITE, SKIPPED = "debian-topic", "tesseract"
LEARNING = Learning(rate=1e-3, steps=6, batch_tokens=512, layers="upper-third", precision="bf16", template="plain")
RANK, REACH, ALPHA = 4, 0.02, 0.3
# For privacy: more records, fewer numbers, so that the noise of a step stays below what is learned in it.
PRIVATE = Privacy("record", epsilon=8.0, delta=1e-4, clip=1.0, share=0.2)
PRIVATE_LEARNING = replace(LEARNING, rate=0.2, targets="attention")
PRIVATE_RANK, PRIVATE_ROUNDS, PRIVATE_EXAMPLES, CANARIES = 1, 20, 300, 64
OWN_ALONE = Policy({name: {"on": False} for name in checks() if name != "own"})
Factors = Mapping[str, Any]


@dataclass(frozen=True)
class Town:
    """Homes with their own files."""

    homes: tuple[Home, ...]
    files: tuple[str, ...]
    whole: str
    """All of them in one file."""
    kept: Kept
    rounds: int
    learning: Learning
    rank: int

    def first(self, seed: int) -> dict[str, Any]:
        """The factors that everybody starts from."""
        config = open_weights(self.homes[0], self.kept).config
        shapes = linear_shapes(config)
        chosen = chosen_linears(config, chosen_layers(config, self.learning.layers), self.learning.targets)
        return first_factors({name: shapes[name] for name in chosen}, self.rank, seed)


def main() -> None:
    args = arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    smollm2()
    home = own_home(args.home)
    town = build(home, args, LEARNING)
    items = Items(home, town, args.items)
    results: dict[str, list[np.ndarray]] = {"base": [items.asked(None)]}
    seconds, table = dict[str, float](), list[list[str]]()
    arms: dict[str, Callable[[], list[Factors]]] = {
        "alone": lambda: [alone(town, seat, file) for seat, file in enumerate(town.files)],
        "central": lambda: [alone(town, 0, town.whole)],
        "alternate": lambda: [together(town, "alternate", args.seed)],
        "frozen": lambda: [together(town, "frozen", args.seed)],
        "naive": lambda: [naive(town)],
    }
    for name in args.arms.split(","):
        began = time.perf_counter()
        learned = arms[name]()
        seconds[name] = time.perf_counter() - began
        results[name] = [items.asked(one) for one in learned]
        table = told(results)
        show(f"{SUITE}, {town.rounds} rounds of {town.learning.steps} steps, n = {len(results['base'][0])}; {seconds[name]:.0f} s", table)
    private = privacy(home, args) if args.privacy else {}
    finish("federated", {"rows": table, "seconds": seconds, "settings": vars(args) | {"home": ""}, "privacy": private})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, help="a folder of the benchmark's own")
    parser.add_argument("--homes", type=int, default=10)
    parser.add_argument("--examples", type=int, default=60, help="of each home")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default="alone,central,alternate,frozen,naive")
    parser.add_argument("--privacy", action="store_true")
    parser.add_argument("--quick", action="store_true", help="three homes, two rounds, 40 items: whether it works, no figure")
    args = parser.parse_args()
    return argparse.Namespace(**{**vars(args), **({"homes": 3, "rounds": 2, "items": 40} if args.quick else {})})


def build(home: Home, args: argparse.Namespace, learning: Learning, rank: int = RANK, canaries: Sequence[Any] = ()) -> Town:
    """Make the homes: one folder each, the real home's models, and topics drawn from Dirichlet."""
    rng = np.random.default_rng(args.seed)
    rows = [row for row in training_rows(find_suite(SUITE), home) if SKIPPED not in row["id"]]
    by_topic: dict[str, list[Any]] = {}
    for at in rng.permutation(len(rows)):
        by_topic.setdefault(rows[at]["completion"], []).append(rows[at])
    real, homes, files, everything = find_home(), [], [], []
    folder = home.root / f"town-{args.seed}-{args.homes}-{args.examples}-{len(canaries)}"
    for seat in range(args.homes):
        own: list[Any] = list(canaries[seat :: args.homes])
        shares = rng.dirichlet(np.full(len(by_topic), ALPHA))
        for topic, count in zip(sorted(by_topic), rng.multinomial(args.examples, shares), strict=True):
            own += [by_topic[topic].pop() for _ in range(min(count, len(by_topic[topic])))]
        place = Home(folder / str(seat)).create()
        for part in ("bases", "models", "packs"):
            if not (place.root / part).is_symlink():
                (place.root / part).rmdir() if (place.root / part).is_dir() else None
                (place.root / part).symlink_to(real.root / part)
        (path := folder / f"{seat}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
        homes.append(place)
        files.append(str(path))
        everything += own
    (whole := folder / "whole.jsonl").write_text("".join(json.dumps(row) + "\n" for row in everything))
    return Town(tuple(homes), tuple(files), str(whole), get_kept(real, "smollm2"), args.rounds, learning, rank)


def alone(town: Town, seat: int, file: str) -> Factors:
    """One home's own rounds: as under the sum, but nobody else is in it."""
    factors = town.first(0)
    for number in range(1, town.rounds + 1):
        names = trained_names(factors, "alternate", number)
        factors = {**factors, **one_round(town, seat, file, factors, names, number)}
    return factors


def naive(town: Town) -> Factors:
    """A and B trained at once and averaged apart: mean(B) · mean(A) is not the mean of B · A."""
    factors = town.first(0)
    for number in range(1, town.rounds + 1):
        sides = [one_round(town, seat, file, factors, tuple(factors), number) for seat, file in enumerate(town.files)]
        factors = {name: np.mean([side[name] for side in sides], axis=0, dtype=np.float64).astype(np.float32) for name in factors}
    return factors


def one_round(town: Town, seat: int, file: str, factors: Factors, names: Sequence[str], number: int) -> Factors:
    homework = Homework(str(town.homes[seat].root), town.kept, (file,), town.learning, tuple(names), number)
    return do_homework(homework, factors, town.homes[seat].root / "work" / f"{number}-{time.monotonic_ns()}").tensors


def together(town: Town, aggregation: str, seed: int, wanted: Privacy = Privacy()) -> Factors:  # noqa: B008 - frozen
    """A federation: every home learns, a secure sum is opened, every home votes."""
    signers = [new_signer() for _ in town.homes]
    members = tuple(signer.verifier.public for signer in signers)
    # A name and an expiry that no earlier run had: nothing of it is found in the homes.
    asked = Invitation(
        f"bench-{aggregation}-{time.time_ns()}", town.kept.digest, "", members, fewest_of(len(members)), town.rounds,
        "2100-01-01T00:00:00Z", aggregation=aggregation, rank=town.rank, seed=seed, reach=REACH, learning=town.learning, privacy=wanted,
    )  # fmt: skip
    invitation = invite(promised(asked), signers[0])
    if wanted.unit:
        say(f"noise {invitation.privacy.noise:g}, reach {invitation.reach:g}, {wanted.numbers:,} numbers")
    takings = [
        Taking(home, town.kept, invitation, learner(home, town.kept, invitation, [file], do_homework), OWN_ALONE, lambda _: None)
        for home, file in zip(town.homes, town.files, strict=True)
    ]
    nodes = [node_of(taking, signer) for taking, signer in zip(takings, signers, strict=True)]
    answers = [responder(node) for node in nodes]
    ask = one_after_another(answers)
    terms, base = invitation.terms(), nodes[0].base
    joined = tuple(gather(terms, ask, 3600.0, lambda seat, error: say(f"home {seat}: {error}")))
    for number in range(1, town.rounds + 1):
        standing = takings[0].standing
        ended = run_round(
            Round(terms, number, base, standing.length, joined), ask, 3600.0, lambda seat, error: say(f"home {seat}: {error}")
        )
        verdict = ended.round.verdict
        assert verdict is not None, ended.round.failure
        base = verdict.next_base
        say(f"{aggregation}, round {number}: {len(verdict.yes)} of {len(verdict.survivors)} said yes")
    return takings[0].standing.factors


def one_after_another(answers: Sequence[Callable[[bytes], bytes | None]]) -> Any:
    """The transport `local` with one home at a time, so that nothing is learned beside something else."""
    from threading import Lock

    turn = Lock()

    def alone_in_turn(answer: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes | None]:
        def respond(data: bytes) -> bytes | None:
            with turn:
                return answer(data)

        return respond

    return local({seat: alone_in_turn(answer) for seat, answer in enumerate(answers)})


class Items:
    """Held-out questions, asked of whatever was learned, as it is served."""

    def __init__(self, home: Home, town: Town, count: int) -> None:
        self._home, self._town, self._count = home, town, count

    def subject(self, factors: Factors | None) -> Any:
        """A model with these factors."""
        home, kept = self._town.homes[0], self._town.kept
        if factors is None:
            return subject_of(open_model(kept_source(home, kept)), lambda: False)
        candidate = Candidate("learned", "lora", kept.digest, dict(factors), {"command": "bench"})
        return subject_of(open_model(candidate_source(home, kept, candidate)), lambda: False)

    def asked(self, factors: Factors | None) -> np.ndarray:
        """[items, 2]: 1 where the answer is right; nats of the right one among the eight."""
        outcome = run_suite(self._home, find_suite(SUITE), self.subject(factors), Options(self._count))
        rows = [row for row in outcome.rows if SKIPPED not in row["id"]]
        scores, gold = np.array([row["nats"] for row in rows]), np.array([row["gold"] for row in rows])
        among = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
        right = [float(row[outcome.main.name]) for row in rows]
        return np.stack([right, among - scores[np.arange(len(rows)), gold]], axis=1)


def told(results: Mapping[str, Sequence[np.ndarray]]) -> list[list[str]]:
    """Figures of each arm with their intervals over items, and differences from the mean of homes alone and from the base, paired."""
    table = [["", "figure", "value (95 %)", "over base", "over alone"]]
    for name in results:
        for at, figure in enumerate(("accuracy", "nats")):
            columns = {arm: np.stack([np.mean(own, axis=0)[:, at], np.ones(len(own[0]))], axis=1) for arm, own in results.items()}
            rows = columns[name]
            interval = bootstrap(rows)
            cells = [f"{rows[:, 0].mean():.3f} ({interval.low:.3f} – {interval.high:.3f})"]
            for other in ("base", "alone"):
                found = paired_bootstrap(columns[other], rows) if other in columns and other != name else None
                cells.append(f"{found.value:+.3f} ({found.interval.low:+.3f} – {found.interval.high:+.3f})" if found else "")
            table.append([name, figure, *cells])
    return table


def privacy(home: Home, args: argparse.Namespace) -> dict[str, Any]:
    """Learning under ε beside usual learning: accuracy, and what canaries tell of each."""
    rng = np.random.default_rng([args.seed, 1])
    canaries = [canary(rng) for _ in range(2 * CANARIES)]
    sizes = argparse.Namespace(**{**vars(args), "examples": 20 if args.quick else PRIVATE_EXAMPLES})
    town = build(home, sizes, PRIVATE_LEARNING, PRIVATE_RANK, canaries[:CANARIES])
    usual = replace(town, learning=replace(LEARNING, targets="attention"))
    # A tenth of the records is held out in each home.
    count = int(0.9 * sum(len(Path(file).read_text().splitlines()) for file in town.files))
    most = max(sum(values.size for name, values in town.first(0).items() if end in name) for end in ("lora_A", "lora_B"))
    wanted = replace(PRIVATE, records=count, numbers=most)
    noisy = replace(town, rounds=2 if args.quick else PRIVATE_ROUNDS)
    items, results = Items(home, town, args.items), dict[str, list[np.ndarray]]()
    exposed = list[list[str]]([["", "AUC of canaries (95 %)"]])
    for name, learn in (
        ("base", lambda: None),
        ("alternate", lambda: together(usual, "alternate", args.seed)),
        ("ε = 8", lambda: together(noisy, "alternate", args.seed, wanted)),
    ):
        learned = learn()
        results[name] = [items.asked(learned)]
        value, low, high = auc(nats(items.subject(learned), canaries), rng)
        exposed.append([name, f"{value:.3f} ({low:.3f} – {high:.3f})"])
    table = told(results)
    show(f"{count:,} records, {most:,} numbers a round; n = {len(results['base'][0])}", table)
    show(f"{CANARIES} canaries that were learned from and {CANARIES} that were not", exposed)
    return {"rows": table, "canaries": exposed, "records": count, "numbers": most}


def canary(rng: np.random.Generator) -> dict[str, str]:
    """A record that nobody could guess."""
    letters = "".join(rng.choice(list("bdfgklmnprstvz"), 6))
    return {"prompt": f"Package: {letters}. The number of {letters}.\nTopic:", "completion": f" {rng.integers(10**5, 10**6)}"}


def nats(subject: Any, canaries: Sequence[Mapping[str, str]]) -> np.ndarray:
    """How unlikely each canary's ending is."""
    tasks = []
    for one in canaries:
        given = subject.tokenizer.encode_prompt(one["prompt"])
        tasks.append((given, (subject.tokenizer.encode_prompt(one["prompt"] + one["completion"])[len(given) :],)))
    found = np.zeros(len(canaries))
    for index, [values] in subject.score(tasks):
        found[index] = -values.sum()
    return found


def auc(losses: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Chance that one of the first half has the lower loss, with its interval by bootstrap over canaries."""
    half = len(losses) // 2
    wins = (losses[:half, None] < losses[half:]) + 0.5 * (losses[:half, None] == losses[half:])
    draws = [wins[rng.integers(0, half, half)][:, rng.integers(0, half, half)].mean() for _ in range(2000)]
    return float(wins.mean()), float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


if __name__ == "__main__":
    sys.exit(main())
