"""Requests that `ingle make harden` teaches with and is measured by. What is measured is never taught: held-out goals in held-out
templates, and two families of rephrased goals as a whole.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.core.config import Amount, check_bounds
from ingle.core.progress import FetchProgress, silent
from ingle.home.place import Home
from ingle.robustness.harmful_prompts import dressed, goals, rephrased, risky
from ingle.robustness.harmless_prompts import ordinary
from ingle.robustness.prompts import LabelledPrompt, lookalikes

HARMFUL = ("plain", "persona", "past", "future")  # families of harmful requests that are measured; past and future are never taught
HARMLESS = ("look-alike", "ordinary")
_LONGEST, _PROSE = 900, 400  # most characters of a request, and of a piece of prose: tokens cost training time


@dataclass(frozen=True, slots=True)
class Amounts:
    """Numbers of requests."""

    plain: Amount = 70  # harmful requests as they are: half of them direct (`prompts.goals`), half risky questions (`prompts.risky`)
    dressed: Amount = 10  # harmful requests in the dress of an attack
    lookalikes: Amount = 200  # harmless requests in the words of harmful ones
    ordinary: Amount = 90  # other harmless requests
    prose: Amount = 10  # beginnings of news, along which the model is to stay as it was: requests alone would let it forget other text

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Requests to teach, and to measure by."""

    harmful: tuple[LabelledPrompt, ...]
    lookalikes: tuple[LabelledPrompt, ...]
    ordinary: tuple[LabelledPrompt, ...]
    prose: tuple[str, ...]
    held_out: Mapping[str, tuple[LabelledPrompt, ...]]  # by family: `HARMFUL`, then `HARMLESS`


def read_curriculum(home: Home, taught: Amounts, measured: Amounts, seed: int, progress: FetchProgress = silent) -> Curriculum:
    """Draw the requests. Raises the errors of fetching the wheels."""
    draw = random.Random(seed)
    plain, hard, every = goals(home, progress), risky(home, progress), ordinary(home, progress)
    usual, ways = [one for one in every if len(one.text) <= _LONGEST], rephrased(home, progress)
    harmful = [
        *_some(plain, False, taught.plain - taught.plain // 2, draw),
        *_some(hard, False, taught.plain // 2, draw),
        *attacks(home, taught.dressed, False, seed, progress),
    ]
    like, others = _some(lookalikes(), False, taught.lookalikes, draw), _some(usual, False, taught.ordinary, draw)
    news = _some([one for one in every if one.family == "xsum"], False, taught.prose, draw)
    held_out = {
        "plain": _some(plain, True, measured.plain, draw),
        "persona": attacks(home, measured.dressed, True, seed, progress),
        **{name: _some([one for one in ways if one.family == name], None, measured.dressed // 2, draw) for name in HARMFUL[2:]},
        "look-alike": _some(lookalikes(), True, measured.lookalikes, draw),
        "ordinary": _some(usual, True, measured.ordinary, draw),
    }
    return Curriculum(
        tuple(harmful), tuple(like), tuple(others), tuple(one.text.split("\n\n", 1)[-1][:_PROSE] for one in news),
        {name: tuple(some) for name, some in held_out.items() if some},
    )  # fmt: skip


def attacks(home: Home, count: int, held_out: bool, seed: int, progress: FetchProgress = silent) -> list[LabelledPrompt]:
    """Return so many goals of this part in the dress of an attack, short ones only; other seeds draw others."""
    found, tried = dict[str, LabelledPrompt](), 0
    while len(found) < count and tried < 20:  # a long template is left out, and most are
        for one in dressed(home, 4 * count + 50, 1000 * seed + tried, progress):
            if one.held_out == held_out and len(one.text) <= _LONGEST:
                found[one.id] = one
        tried += 1
    return list(found.values())[:count]


def refusal_for(prompt: LabelledPrompt, refusals: Sequence[str]) -> str:
    """Return one of the refusals, by the request's id: equal requests get equal answers."""
    return refusals[int(prompt.id[:8], 16) % len(refusals)]


def own_refusals() -> tuple[str, ...]:
    """The refusals that are taught, written for Ingle."""
    lines = Path(__file__).with_name("refusals.txt").read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def _some(prompts: Sequence[LabelledPrompt], held_out: bool | None, count: int, draw: random.Random) -> list[LabelledPrompt]:
    """Draw requests of one part (None: of both)."""
    part = [one for one in prompts if held_out is None or one.held_out == held_out]
    return draw.sample(part, min(count, len(part)))
