"""The scope of what was taught: fits the constants of adapt/scope.py on the corrections for it, and says what they are worth.

It fits with one family of questions left out at a time and scores that family, against everything that the others taught as well: so every
figure is of relations that the constants have not seen. Pairs of the English domains that judged the matcher, and did not teach it
(bench/matcher_data.py), are fitted on as well: they are of many more relations than the corrections are. The second table takes the
relations of the left-out family out of the thesaurus too: what is left then of a relation that nobody thought of. `--without-matcher`
scores without the trained network. The last line is JSON.

    python bench/adapt_scope.py [--without-matcher]
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.adapt.asking import Asking, parse
from ingle.adapt.relations import Thesaurus, thesaurus
from ingle.adapt.scope import HOPE, MOST_MATCHED, SURE, WEIGHTS, features
from ingle.model.text_encoder import odds_of
from matcher_data import SEED, draw_pair, held_out, read_domains

DATA = Path(__file__).parent / "data" / "adapt_dev.json"
LEVELS = (0.4, 0.5, 0.6, 0.7, 0.75, 0.78, 0.79, 0.8, 0.81, 0.82, 0.85, 0.9)
_RIDGE = 0.3
_OWN_NEAR_MISS = 3.0
"""What a near-miss weighs beside a paraphrase."""
_DOMAINS = 5000
"""Pairs of the matcher's held-out domains; one weighs what a paraphrase does."""
_BY_HAND = {"kind more, of a measure": -3.0, "mine missing": -4.0}
"""The fit is less sure of these: of the first it has seen few; 26 of 50 near-misses of what is "my" lack it, and no paraphrase."""
_UNKNOWN = 0.4
"""What a pair weighs whose relation was taken out of the thesaurus: so that the constants are careful with relations that are not in it."""
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """A question, what was taught, and whether it is the same."""

    asked: str
    taught: str
    same: bool
    weight: float


def family_of(correction: Mapping[str, Any]) -> str:
    """Corrections of one family share their wordings: they are left out together."""
    return str(correction["id"]).rsplit("-", 1)[0]


def pairs_of(correction: Mapping[str, Any], family: list[Mapping[str, Any]], others: list[Mapping[str, Any]]) -> Iterator[Pair]:
    """What a correction teaches the constants: its own wordings, its near-misses, and questions of others."""
    wordings = [correction["question"], *correction["paraphrases"]]
    for number, taught in enumerate(wordings):
        yield from (Pair(asked, taught, True, 1.0) for asked in wordings if asked != taught)
        yield from (Pair(asked, taught, False, _OWN_NEAR_MISS) for asked in correction["near_misses"])
        for other in family:
            if other is not correction:
                yield Pair(other["question"], taught, False, 1.0)
                yield from (Pair(other["paraphrases"][i], taught, False, 1.0) for i in range(number % 2, 5, 2))
        if not number:
            yield from (Pair(other["question"], taught, False, 1.0) for other in others)


def without(words: Thesaurus, family: list[Mapping[str, Any]]) -> Thesaurus:
    """The thesaurus without the relations that this family's questions name."""
    texts = [text for one in family for text in (one["question"], *one["paraphrases"])]
    named = frozenset[str]().union(*(parse(text, words).relations for text in texts))
    return words.without(named)


def fit(rows: Array, same: Array, weights: Array) -> Array:
    """The constants of a logistic model with a ridge, by Newton's method."""
    found = np.zeros(rows.shape[1])
    ridge = np.eye(len(found)) * _RIDGE
    ridge[0, 0] = 1e-3
    for _ in range(50):
        p = 1 / (1 + np.exp(-rows @ found))
        slope = rows.T @ (weights * (p - same)) + ridge @ found
        step = np.linalg.solve((rows * (weights * p * (1 - p))[:, None]).T @ rows + ridge, slope)
        found -= step
        if np.abs(step).max() < 1e-8:
            break
    return found


class Questions:
    """The data, parsed once with the whole thesaurus and once without each family's relations."""

    def __init__(self, matched: bool) -> None:
        self._matched = matched
        self._odds: dict[tuple[str, str], float] = {}
        table = json.loads(DATA.read_text("utf-8"))
        self.unrelated: list[str] = table["unrelated"]
        self.corrections: list[Mapping[str, Any]] = table["corrections"]
        self.families: dict[str, list[Mapping[str, Any]]] = {}
        for one in self.corrections:
            self.families.setdefault(family_of(one), []).append(one)
        self._parsed: dict[tuple[str, str], Asking] = {}
        self._features: dict[tuple[str, str, str], Array] = {}
        draw, domains = random.Random(SEED), [domain for domain in held_out(read_domains())[0] if domain.language == "en"]
        self._domains = [draw_pair(domains, draw) for _ in range(_DOMAINS)]
        self._words = {name: without(thesaurus(), family) for name, family in self.families.items()} | {"": thesaurus()}

    def read(self) -> None:
        """The matcher's odds of all pairs that are fitted on, on all cores."""
        pairs = sorted({
            (pair.asked, pair.taught)
            for name, family in self.families.items() for one in family
            for pair in pairs_of(one, family, [other for other in self.corrections if family_of(other) != name])
        } | {(pair.one, pair.other) for pair in self._domains})  # fmt: skip
        with ProcessPoolExecutor() as pool:
            found = pool.map(odds_of, *zip(*pairs, strict=True), chunksize=50)
            self._odds = {pair: min(SURE, max(-SURE, odds)) for pair, odds in zip(pairs, found, strict=True)}

    def parsed(self, text: str, left_out: str = "") -> Asking:
        """`left_out`: a family whose relations are unknown."""
        key = text, left_out
        if key not in self._parsed:
            self._parsed[key] = parse(text, self._words[left_out])
        return self._parsed[key]

    def features(self, asked: str, taught: str, left_out: str = "") -> Array:
        """[len(WEIGHTS)]: without the matcher's odds."""
        key = asked, taught, left_out
        if key not in self._features:
            self._features[key] = features(self.parsed(asked, left_out), self.parsed(taught, left_out))
        return self._features[key]

    def odds(self, asked: str, taught: str) -> float:
        """Of the matcher, as far as it is heard."""
        if not self._matched:
            return 0.0
        if (asked, taught) not in self._odds:
            self._odds[asked, taught] = min(SURE, max(-SURE, odds_of(asked, taught)))
        return self._odds[asked, taught]

    def against_all(self, asked: str, constants: Array, left_out: str = "") -> Array:
        """Scores [corrections] of a question against all that was taught, as `adapt.scope` has them."""
        found = np.stack([self.features(asked, one["question"], left_out) for one in self.corrections]) @ constants[:-1]
        for number in np.argsort(-found, kind="stable")[:MOST_MATCHED].tolist():
            if found[number] >= HOPE:
                found[number] += constants[-1] * self.odds(asked, self.corrections[number]["question"])
        return 1 / (1 + np.exp(-found))

    def constants(self, families: list[str]) -> Array:
        """WEIGHTS and MATCHED, fitted on these families and on the domains: of the features alone first, then of their sum and the matcher.

        Fitted together, a feature is worth what the matcher doesn't know, which in families that it finds easy is nothing.
        """
        rows = [self.features(pair.one, pair.other) for pair in self._domains]
        odds = [self.odds(pair.one, pair.other) for pair in self._domains]
        same, weights = [pair.same for pair in self._domains], [1.0] * len(rows)
        for name in families:
            for one in self.families[name]:
                others = [other for other_name in families if other_name != name for other in self.families[other_name]]
                for pair in pairs_of(one, self.families[name], others):
                    for left_out, weight in (("", pair.weight), (name, pair.weight * _UNKNOWN)):
                        rows.append(self.features(pair.asked, pair.taught, left_out))
                        odds.append(self.odds(pair.asked, pair.taught))
                        same.append(pair.same)
                        weights.append(weight)
        table, truth, weighed = np.stack(rows), np.array(same, np.float64), np.array(weights)
        alone = fit(table, truth, weighed)
        bias, share, matched = 0.0, 1.0, 0.0
        if self._matched:
            bias, share, matched = fit(np.column_stack([np.ones(len(table)), table @ alone, odds]), truth, weighed)
        together = share * alone
        together[0] += bias
        return np.append(np.minimum(together, [_BY_HAND.get(name, np.inf) for name in WEIGHTS]), matched)

    def scores(self, family: str, constants: Array, unknown: bool) -> tuple[Array, Array, Array]:
        """Of a family: scores of paraphrases [n], of near-misses [n, all that was taught], of wrong corrections for paraphrases [n]."""
        left_out = family if unknown else ""
        right, near, wrong = [], [], []
        for one in self.families[family]:
            number = self.corrections.index(one)
            for text in one["paraphrases"]:
                found = self.against_all(text, constants, left_out)
                right.append(found[number])
                wrong.append(np.delete(found, number).max())
            near += [self.against_all(text, constants, left_out).max() for text in one["near_misses"]]
        return np.array(right), np.array(near), np.array(wrong)


def measured(questions: Questions, unknown: bool) -> list[dict[str, float]]:
    """The trade-off: shares of paraphrases recognised (and nearest), and of near-misses and unrelated questions taken for one."""
    parts = []
    for family in questions.families:
        constants = questions.constants([name for name in questions.families if name != family])
        parts.append(questions.scores(family, constants, unknown))
    right, near, wrong = (np.concatenate(list(part)) for part in zip(*parts, strict=True))
    everything = questions.constants(list(questions.families))
    unrelated = np.array([questions.against_all(text, everything).max() for text in questions.unrelated])
    return [
        {
            "level": level, "recognised": float(((right >= level) & (right > wrong)).mean()), "another's": float((wrong >= level).mean()),
            "near-misses": float((near >= level).mean()), "unrelated": float((unrelated >= level).mean()),
        }
        for level in LEVELS
    ]  # fmt: skip


def main() -> None:
    """Prints the trade-off and the constants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--without-matcher", action="store_true", help="Score by the features alone.")
    matched = not parser.parse_args().without_matcher
    questions = Questions(matched)
    if matched:
        questions.read()
    print(f"{len(questions.corrections)} corrections in {len(questions.families)} families, one left out at a time")
    curves = {}
    for unknown, title in ((False, "with all words of the thesaurus"), (True, "without those of the relations that are asked for")):
        table = curves[title] = measured(questions, unknown)
        print(f"\n{title}\n" + "".join(f"{name:>14}" for name in table[0]))
        for row in table:
            print("".join(f"{value:14.3f}" for value in row.values()))
    constants = dict(zip([*WEIGHTS, "MATCHED"], questions.constants(list(questions.families)).round(2).tolist(), strict=True))
    print("\n".join(f'    "{name}": {value:.2f},' for name, value in constants.items()))
    print(json.dumps({"bench": "adapt_scope", "matcher": matched, "curves": curves, "constants": constants}))


if __name__ == "__main__":
    main()
