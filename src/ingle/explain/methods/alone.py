"""Leaves out all sentences but one, in groups first where there are many. Costs little more than the prompt once; for long prompts."""

from collections.abc import Sequence

import numpy as np

from ingle.explain.cause import Nats
from ingle.explain.falls import Falls, Left

_MOST_GROUPS = 24
_BEST = 2  # groups whose sentences are looked at one by one


def propose(falls: Falls, answer: str, seed: int) -> Nats:
    """See explain/falls.py: how much less the answer loses with this sentence alone than with none."""
    [nothing] = falls.of([falls.every])
    places = list(range(len(falls.causes)))
    groups = [[place] for place in places]
    if len(groups) > _MOST_GROUPS:
        groups = [list(map(int, part)) for part in np.array_split(places, _MOST_GROUPS)]
    gains = _gains(falls, groups, nothing)
    found = np.full(len(places), float("-inf"))
    for group, gain in zip(groups, gains, strict=True):
        found[group] = gain if len(group) == 1 else min(0.0, gain)  # below what is looked at by itself
    for at in np.argsort(-gains)[:_BEST]:
        if len(groups[at]) > 1:
            found[groups[at]] = _gains(falls, [[place] for place in groups[at]], nothing)
    return found


def _gains(falls: Falls, groups: Sequence[Sequence[int]], nothing: float) -> Nats:
    kept = [Left(falls.causes[place] for place in group) for group in groups]
    return nothing - np.array(falls.of([falls.every - one for one in kept]))
