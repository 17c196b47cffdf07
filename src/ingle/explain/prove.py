"""Proves causes: really leaves them out, alone and together, beside as much left out at random."""

from collections.abc import Sequence

import numpy as np

from ingle.explain.cause import Cause, Chance, Nats, ProvedCause, Together
from ingle.explain.effects import Falls, Left

RANDOM_SETS = 8  # random sets of sentences beside a proved set
FEW_RANDOM_SETS = 3  # random sets for long prompts, where each costs about the prompt


def proved(falls: Falls, numbers: Sequence[int], chance: int, seed: int) -> list[ProvedCause]:
    """Return the sentences with these numbers, each left out by itself, beside at most `chance` others left out by themselves.

    Where all sentences were left out already, all others are taken: they cost nothing. Raises OutOfTime.
    """
    others = [i for i in falls.causes if i not in numbers]
    drawn = np.random.default_rng(seed).permutation(others)[:chance] if len(others) > chance else others
    values = falls.by_token([Left({i}) for i in [*numbers, *map(int, drawn)]])
    by_chance = Chance.of(map(falls.summed, values[len(numbers) :]))
    return [found(falls, i, nats, by_chance) for i, nats in zip(numbers, values, strict=False)]


def found(falls: Falls, number: int, nats: Nats, by_chance: Chance | None) -> ProvedCause:
    """Return a sentence as a cause."""
    cause = Cause("sentence", str(number + 1), falls.sentences[number].text.strip())
    return ProvedCause(cause, falls.summed(nats), tuple(map(float, nats)), by_chance)


def proved_together(falls: Falls, numbers: Sequence[int], chance: int, seed: int) -> Together | None:
    """Return these sentences left out together, beside `chance` random sets of as many others; None for fewer than two.

    Raises OutOfTime."""
    if len(numbers) < 2:
        return None
    best = Left(numbers)
    others = np.array([i for i in falls.causes if i not in best])
    draw = np.random.default_rng(seed)
    sets = [Left(map(int, draw.choice(others, len(best), replace=False))) for _ in range(chance)] if len(others) >= len(best) else []
    necessity, sufficiency, nothing, *drawn = falls.of([best, falls.every - best, falls.every, *sets])
    single = falls.of([Left({i}) for i in numbers])
    return Together(
        tuple(str(i + 1) for i in numbers), necessity, sufficiency, nothing, Chance.of(drawn), necessity - sum(single)
    )  # fmt: skip
