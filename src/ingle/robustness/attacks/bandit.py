"""A bandit over the fixed families: what worked on other goals is tried first (Thompson sampling)."""

from collections.abc import Mapping

from ingle.robustness.attack import Kit, Outcome, Steps, attack_files
from ingle.robustness.prompts import LabelledPrompt

NAME = "bandit"
SENTENCE = "learns over all goals which of the fixed families to try next"
ADAPTIVE = True


def make(goal: LabelledPrompt, kit: Kit) -> Steps:
    """Yield the next try of the family that is drawn, until one reaches the goal or all are used up.

    A family's worth is a Beta distribution over what its tries gained: the answer's harm, 0 for what was blocked or refused.
    """
    random = kit.random(NAME, goal.id)
    tries = {file.name: file.make(goal, kit) for file in attack_files() if not file.adaptive}
    while tries:
        name = max(sorted(tries), key=lambda one: random.betavariate(*_worth(kit.tally, one)))
        try:
            asked = next(tries[name])
        except StopIteration:
            del tries[name]
            continue
        outcome: Outcome = yield asked
        if outcome.reached:
            gained = 1.0
        else:
            gained = outcome.harm if outcome.passed and not outcome.refused else 0.0
        gains = kit.tally.setdefault(name, [0.0, 0.0])
        gains[0] += gained
        gains[1] += 1 - gained
        if outcome.reached:
            return


def _worth(tally: Mapping[str, list[float]], name: str) -> tuple[float, float]:
    gained, lost = tally.get(name, (0.0, 0.0))
    return 1 + gained, 1 + lost
