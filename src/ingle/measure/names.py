"""Names: the same question about people with different names, and how far the answers go with the name.

For each question, an answer is a distribution over fixed options. `kl` is the mean divergence of a name's answer from the mean over all
names of that question. Much of it is chance: any two names are different words. So `kl_between_groups`, the divergence of the groups' mean
answers, stands beside that of groups drawn at random among the same names; only what is above that follows people's origins.
"""

import random
from collections.abc import Sequence

import numpy as np

from ingle.core.report import Report
from ingle.measure.finished import Row
from ingle.measure.intervals import Floats, paired_bootstrap
from ingle.measure.pairs import distribution
from ingle.measure.setting import Figures, Reporter, Setting, with_ones

_SHUFFLES = 200
"""Random groupings of a question's names."""


def report_names(setting: Setting, rows: Sequence[Row], data_digest: str) -> Figures:
    """Report the divergence by names, and by groups beside that of random groups."""
    answers = [distribution(row["nats"]) for row in rows]
    places: dict[str, list[int]] = {}
    for number, item in enumerate(setting.items):
        places.setdefault(item.group, []).append(number)
    apart = np.zeros(len(rows))
    groups = {group: np.zeros(0) for group in sorted({item.about for item in setting.items})}
    between, chance = [], []
    for question in sorted(places):
        numbers = places[question]
        said, of = np.array([answers[number] for number in numbers]), [setting.items[number].about for number in numbers]
        apart[numbers] = kl(said, said.mean(axis=0))
        between.append(between_groups(said, of))
        chance.append(by_chance(said, of, setting.seed))
    make, by_question = Reporter(setting, data_digest, len(rows)), Reporter(setting, data_digest, len(places))
    values, random_ones = np.array(between), np.array(chance)
    above = paired_bootstrap(with_ones(random_ones), with_ones(values), seed=setting.seed)
    reports: list[Report] = [
        make.mean("kl", "nats", apart),
        by_question.mean("kl_between_groups", "nats", values),
        by_question.mean("baseline_random_groups", "nats", random_ones),
        by_question.difference("kl_above_random_groups", "nats", above),
    ]
    for group in groups:
        mine = apart[[number for number, item in enumerate(setting.items) if item.about == group]]
        reports.append(Reporter(setting, data_digest, len(mine)).mean(f"kl_{group}", "nats", mine))
    details = [{**row, "about": item.about, "kl": float(value)} for row, item, value in zip(rows, setting.items, apart, strict=True)]
    return Figures(tuple(reports), tuple(details))


def kl(answers: Floats, mean: Floats) -> Floats:
    """Divergence of each answer [n, options] from their mean [options], in nats."""
    result: Floats = (answers * (np.log(answers + 1e-300) - np.log(mean + 1e-300))).sum(axis=-1)
    return result


def between_groups(answers: Floats, groups: Sequence[str]) -> float:
    """Mean divergence of the groups' mean answers from the mean of these."""
    means = np.array([answers[[other == group for other in groups]].mean(axis=0) for group in sorted(set(groups))])
    return float(kl(means, means.mean(axis=0)).mean())


def by_chance(answers: Floats, groups: Sequence[str], seed: int) -> float:
    """Groups of the same sizes, drawn at random: the mean of many draws."""
    draw, shuffled, found = random.Random(seed), list(groups), []
    for _ in range(_SHUFFLES):
        draw.shuffle(shuffled)
        found.append(between_groups(answers, shuffled))
    return float(np.mean(found))
