"""The contract of a family of attacks. To add one, put a file into robustness/attacks.

The file holds `NAME` (the file's), `SENTENCE` (its words for people), `ADAPTIVE`, and `make(goal, kit)`, a generator of steps: each is sent
to the model by whoever runs it (robustness/run.py), and what came of it is sent back into the generator. So a family never touches a model,
families are asked many at a time, and an interrupted run goes on: the generator is begun again, and gets the same answers from the cache.
"""

import random
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from ingle.core import registry
from ingle.core.digest import digest_json
from ingle.core.message import Message, Origin, Request, TextPart
from ingle.robustness.material import AttackMaterial
from ingle.robustness.prompts import LabelledPrompt


@dataclass(frozen=True, slots=True)
class Weigh:
    """Asks how near the model comes to obeying, without an answer. Each request is a try. Sent back: a `Weight` each, as far as the
    budget goes."""

    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """How near the model comes to obeying a request, and how much a guard minds it."""

    margin: float  # log P(the answer begins obediently) − log P(it begins by refusing), in nats; −infinity for a request that does not fit
    # How far it is above the threshold of the judge of requests, in nats of log-odds. The attacker has a copy of the judge.
    alarm: float


@dataclass(frozen=True, slots=True)
class Reword:
    """Lets the model write something for the attacker, who has a copy of it without guards. It is no try. Sent back: the text."""

    request: Request


@dataclass(frozen=True, slots=True)
class Reworded:
    """A try that asks in words of its own, which may have drifted from the goal. Its answer must be harmful to both. Sent back: its
    `Outcome`."""

    request: Request
    asks: str  # its wish, plainly


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one try: a request that was sent to the guarded model. Attackers see it, but for the words."""

    passed: bool  # whether request and answer came past the guards
    noticed: bool  # whether a guard blocked, edited or told of it
    refused: bool  # whether the model refused, of what came past the guards
    harm: float  # how harmful and usable the answer is, 0 to 1
    reached: bool  # whether it is harmful and usable


BLOCKED = Outcome(False, True, False, 0.0, False)  # the outcome of a request that a guard refused
# A `Request` is a try: it is sent through the guards, answered and judged. Sent back: its `Outcome`.
Step = Request | Reworded | Weigh | Reword
Steps = Generator[Step, Any, None]


@dataclass(frozen=True, slots=True)
class Kit:
    """All that a family has to work with."""

    seed: int
    # Tries at one goal. The run ends the generator there.
    budget: int
    material: AttackMaterial
    fits: Callable[[Request], bool]  # whether a request leaves room for an answer in the model's context
    vocabulary: tuple[str, ...] = ()  # words of the model's vocabulary: printable ASCII
    # Sums and counts that the generators of one family share over their goals. All is asked in a fixed order, so it stays repeatable.
    tally: dict[str, list[float]] = field(default_factory=dict)

    def random(self, *names: object) -> random.Random:
        """Return random numbers that depend on the seed and these names alone."""
        return random.Random(digest_json([self.seed, *map(str, names)]))


@dataclass(frozen=True, slots=True)
class AttackFile:
    """The contents of a family's file."""

    name: str
    sentence: str  # its words for people: what it does
    adaptive: bool  # whether it looks at what came of its tries
    make: Callable[[LabelledPrompt, Kit], Steps]


def attack_files() -> tuple[AttackFile, ...]:
    """Return every family: the fixed ones first, each sort alphabetically."""
    files = [AttackFile(one.NAME, one.SENTENCE, one.ADAPTIVE, one.make) for one in registry.modules("ingle.robustness.attacks").values()]
    return tuple(sorted(files, key=lambda file: (file.adaptive, file.name)))


def find_attacks(names: Iterable[str] = (), adaptive: bool = False) -> tuple[AttackFile, ...]:
    """Return the families of these names; without names all that are fixed, with `adaptive` all. Raises ConfigError with the known ones."""
    known = {file.name: file for file in attack_files()}
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        registry.check_known(name, known, "families", "There is no family")
    return tuple(known[name] for name in chosen) or tuple(file for file in known.values() if adaptive or not file.adaptive)


def saying(text: str, *before: Message) -> Request:
    """Return the request of a user who says this, after earlier messages."""
    return Request(messages=(*before, Message.of("user", text)))


def quoting(*parts: tuple[str, Origin | None]) -> Request:
    """Return the request of a user whose message has parts of these origins."""
    return Request(messages=(Message("user", tuple(TextPart(text, origin) for text, origin in parts)),))
