"""Whether what it was not taught stays: answers to other questions word for word, and how far its probabilities moved.

The questions come from the maker. Where the candidate does not act, the incumbent answers: that counts as unchanged, and nothing is asked.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ingle.core.config import Count, check_bounds
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.report import Report
from ingle.core.state import STEP_TOKENS
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.gate.trial import Finding, ProbeQuestion, Trial
from ingle.measure.intervals import bootstrap, wilson


@dataclass(frozen=True, slots=True)
class Limits:
    on: bool = True  # whether this check is run
    least_same: float = 0.8  # least share of the answers that must be the same, word for word, as far as they are written
    # Most by which the next token's probabilities may move, as the mean KL divergence from the incumbent along its own answers.
    most_kl_nats: float = 0.3
    max_tokens: Count = 24  # most tokens of an answer

    def __post_init__(self) -> None:
        if not 0 <= self.least_same <= 1:
            raise ConfigError("policy unchanged.least_same", "must be a share between 0 and 1", self.least_same)
        check_bounds(self, "policy unchanged.")


def check(trial: Trial, limits: Limits) -> Finding | None:
    """See `gate.check.Check`; does not apply without questions."""
    questions = trial.probes.unchanged
    if not questions:
        return None
    acting = [question for question in questions if trial.probes.acts(question.ask)]
    before = trial.answers(trial.incumbent, acting, limits.max_tokens)
    after = trial.answers(trial.challenger, acting, limits.max_tokens)
    n, same = len(questions), len(questions) - len(acting) + sum(a == b for a, b in zip(before, after, strict=True))
    moved = [
        _divergence(trial.incumbent_model, trial.candidate_model, question, answer, limits.max_tokens)
        for question, answer in zip(acting, before, strict=True)
    ]
    table = np.array([[value, 1.0] for value in [*moved, *[0.0] * (n - len(acting))]], np.float64)
    kl, share = float(table[:, 0].mean()), same / n
    interval, spread = wilson(same, n), bootstrap(table)
    digest, question_digest = trial.challenger.digest, "" if trial.private else digest_json([question.ask for question in questions])
    reports = (
        Report("same", share, "share", interval.low, interval.high, n, digest, question_digest, interval.method),
        Report("kl", kl, "nats/token", spread.low, spread.high, n, digest, question_digest, spread.method, 0),
    )
    passed = share >= limits.least_same and kl <= limits.most_kl_nats
    reason = (
        f"{same} of {n} other answers stay word for word (at least {limits.least_same:.0%} must), and probabilities move by {kl:.3f} "
        f"nats a token (at most {limits.most_kl_nats:.3f})"
    )
    return Finding("unchanged", passed, reason, reports, asdict(limits))


def _divergence(before: LanguageModel, after: LanguageModel, question: ProbeQuestion, answer: str, most: int) -> float:
    """Mean KL(before ‖ after) of the next token, over the places of an answer that `before` gave."""
    prompt = before.encode(question.request(most))
    answered = before.tokenizer.encode(answer)[: most - 1]
    first, second = (_log_probabilities(model, prompt, answered) for model in (before, after))
    return float((np.exp(first) * (first - second)).sum(axis=1).mean())


def _log_probabilities(model: LanguageModel, prompt: Sequence[int], answer: Sequence[int]) -> Any:
    """Log-probabilities of the token after the prompt, and after each of the answer's: float64 [1 + answer, vocabulary]."""
    state, rows = model.backend.new_state(), []
    for start in range(0, len(prompt), STEP_TOKENS):
        part = prompt[start : start + STEP_TOKENS]
        last = start + len(part) == len(prompt)
        [logits_of_step] = model.backend.forward([Segment(state, part, "last" if last else "none", adapter=model.adapter)])
        rows += [logits_of_step.copy()] if last else []
    for start in range(0, len(answer), STEP_TOKENS):
        [logits_of_step] = model.backend.forward([Segment(state, answer[start : start + STEP_TOKENS], "all", adapter=model.adapter)])
        rows.append(logits_of_step.copy())
    logits = np.concatenate(rows).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
