"""Whether its answers still belong to their questions: a style that says the same nice thing to everybody is none.

The candidate answers questions that have nothing to do with its lessons. The incumbent then says how much likelier each of these answers is
after its own question than after two of the others, in nats a token (pointwise mutual information). An answer that could stand under
any question has none, however it is worded.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ingle.core.config import Count, check_bounds
from ingle.core.digest import digest_json
from ingle.core.errors import Interrupted
from ingle.core.report import Report
from ingle.gate.trial import Finding, Trial, general_questions
from ingle.measure.intervals import bootstrap
from ingle.measure.subjects import Task

_OTHERS = 2  # other questions that each answer is compared with


@dataclass(frozen=True, slots=True)
class Limits:
    # Whether this check is run. A model that was tuned to one task answers everything in its manner, as it should.
    on: bool = False
    least_share: float = 0.5  # least part of the information that the incumbent's own answers share with their questions
    max_tokens: Count = 32  # most tokens of an answer

    def __post_init__(self) -> None:
        check_bounds(self, "policy sense.")


def check(trial: Trial, limits: Limits) -> Finding | None:
    """See `gate.check.Check`; does not apply to candidates that act near their own questions only."""
    questions = [question for question in general_questions() if trial.probes.acts(question.ask)]
    if len(questions) <= _OTHERS:
        return None
    model, n = trial.incumbent_model, len(questions)
    prompts = [model.encode(question.request(limits.max_tokens)) for question in questions]
    before, after = (
        _belonging(trial, prompts, trial.answers(subject, questions, limits.max_tokens)) for subject in (trial.incumbent, trial.challenger)
    )
    usual, now = float(before.mean()), float(after.mean())
    spread = bootstrap(np.stack([after, np.ones(n)], axis=1))
    digest, question_digest = trial.challenger.digest, digest_json([question.ask for question in questions])
    report = Report("belonging", now, "nats/token", spread.low, spread.high, n, digest, question_digest, spread.method, 0)
    least = limits.least_share * usual
    reason = (
        f"its answers to {n} other questions are {now:.2f} nats a token likelier after their own question than after another one "
        f"({usual:.2f} before; at least {least:.2f} it must be)"
    )
    return Finding("sense", now >= least, reason, (report,), asdict(limits))


def _belonging(trial: Trial, prompts: Sequence[Sequence[int]], answers: Sequence[str]) -> Any:
    """float64 [answers]: nats a token by which the incumbent finds each likelier after its own prompt than after two others; 0 if empty."""
    encoded, n = [trial.incumbent_model.tokenizer.encode(answer) for answer in answers], len(prompts)
    places = [(number, (number + step) % n) for number, ids in enumerate(encoded) if ids for step in range(_OTHERS + 1)]
    tasks: list[Task] = [(prompts[prompt], [encoded[number]]) for number, prompt in places]
    table, scored = np.zeros((n, n)), 0
    for index, [nats] in trial.incumbent.score(tasks):
        table[places[index]], scored = nats.mean(), scored + 1
    if scored < len(tasks):
        raise Interrupted("gate", "was interrupted", "while answers were scored", "Run the same command again.")
    return np.array([row[i] - np.mean([row[(i + step) % n] for step in range(1, _OTHERS + 1)]) for i, row in enumerate(table)])
