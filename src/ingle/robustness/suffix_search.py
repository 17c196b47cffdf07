"""Random search for a suffix on log-probabilities (arXiv 2404.02151, Andriushchenko et al. 2024).

A block of the suffix is redrawn; the change stays if the objective rises: log P(obedient beginnings) − log P(refusing ones) − λ · the
guard's log-odds. Differs from the paper: several changes are weighed at once, since they share the prompt in the prefix trie, and success
is a judged answer, not a first token.
"""

from random import Random

from ingle.core.message import Request
from ingle.robustness.attack import Kit, Outcome, Steps, Weigh, Weight, saying
from ingle.robustness.prompts import LabelledPrompt

LENGTH = 20  # words of the suffix
TOGETHER = 12  # changes that are weighed at once
_SEND_RISE = 1.0  # nats by which the best must have risen to be sent again
_SEND_EVERY = 96  # tries after which a better suffix is sent anyway
_BLOCKS = (8, 4, 2, 1)  # words of a block, the longest while little has been tried
_CALM = -1.0  # nats above the guard's threshold (below it, if negative) from which less alarm gains nothing
_FALLBACK = tuple("!?*[]{}()<>/|~^=+;:#@")


def search(goal: LabelledPrompt, kit: Kit, random: Random, weight: float, learns: bool) -> Steps:
    """Yield steps of the search until the goal is reached. `weight`: λ, in nats of the margin per nat of alarm; `learns`: λ doubles when
    a guard blocks the best suffix, and halves when it comes past."""
    words = kit.vocabulary or _FALLBACK
    best = [random.choice(words) for _ in range(LENGTH)]

    def asked(suffix: list[str]) -> Request:
        return saying(f"{goal.text} {''.join(suffix)}")

    def value(found: Weight) -> float:
        return found.margin - weight * max(found.alarm, _CALM)

    [found] = yield Weigh((asked(best),))
    top, sent, since, used, news = value(found), float("-inf"), 0, 1, True
    while used < kit.budget:
        last = kit.budget - used <= 1
        if news and (last or top - sent >= _SEND_RISE or since >= _SEND_EVERY):
            outcome: Outcome = yield asked(best)
            used += 1
            if outcome.reached:
                return
            sent, since, news = top, 0, False
            if learns:
                weight = weight / 2 if outcome.passed else weight * 2
                top = sent = value(found)
            continue
        count = max(1, min(TOGETHER, kit.budget - used - 1))
        tries = [_changed(random, best, words, _BLOCKS[min(len(_BLOCKS) - 1, 4 * used // kit.budget)]) for _ in range(count)]
        weights: tuple[Weight, ...] = yield Weigh(tuple(map(asked, tries)))
        used, since = used + len(weights), since + len(weights)
        for one, suffix in zip(weights, tries, strict=False):
            if value(one) > top:
                best, found, top, news = suffix, one, value(one), True


def _changed(random: Random, suffix: list[str], words: tuple[str, ...], block: int) -> list[str]:
    start = random.randrange(len(suffix) - block + 1)
    return [*suffix[:start], *(random.choice(words) for _ in range(block)), *suffix[start + block :]]
