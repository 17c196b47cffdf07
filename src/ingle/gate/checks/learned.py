"""Whether it was learned: free answers to wordings that were not trained on.

An answer counts if it says what was taught: nearly all telling words of the taught answer (those that are neither in the question nor
everywhere) stand in the model's answer; of a long answer, those that the limit of tokens leaves room for. No part of the answer is given:
the model writes from its first token on.
"""

import re
import unicodedata
from dataclasses import asdict, dataclass

from ingle.core.config import Count, check_bounds
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.gate.trial import Finding, Trial
from ingle.robustness.refusing import shares


@dataclass(frozen=True, slots=True)
class Limits:
    on: bool = True  # whether this check is run
    least: float = 0.5  # least share of the wordings that must be answered as taught
    words: float = 0.8  # share of an answer's telling words that must be there
    max_tokens: Count = 48  # most tokens of an answer; as many of the taught answer are looked for

    def __post_init__(self) -> None:
        for name in ("least", "words"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"policy learned.{name}", "must be a share between 0 and 1", getattr(self, name))
        check_bounds(self, "policy learned.")


_WORD = re.compile(r"[^\W_]+")
_EVERYWHERE = frozenset(
    _WORD.findall(
        "a an and are as at be but by can do does for from has have he her his i in is it its my no not of on or our she so that the their "
        "there they this to was we were what which who will with you your"
    )
)


def check(trial: Trial, limits: Limits) -> Finding | None:
    """See `gate.check.Check`; does not apply without questions."""
    questions = trial.probes.learned
    if not questions:
        return None
    written = trial.answers(trial.challenger, questions, limits.max_tokens)
    words = trial.incumbent_model.tokenizer
    taught = [words.decode(words.encode(one.answer)[: limits.max_tokens]) for one in questions]
    right = [says(one.ask, answer, text, limits.words) for one, answer, text in zip(questions, taught, written, strict=True)]
    count, n = sum(right), len(right)
    question_digest = digest_json([[one.ask, one.answer, list(map(list, one.before))] for one in questions])
    # A digest of taught words would let others try which they were: only their number is recorded.
    data_digest = "" if trial.private else question_digest
    [report] = shares({"share": right}, trial.challenger.digest, data_digest)
    reason = f"{count} of {n} questions in other words are answered as taught; at least {limits.least:.0%} must be"
    return Finding("learned", count / n >= limits.least, reason, (report,), asdict(limits))


def says(ask: str, answer: str, said: str, share: float) -> bool:
    """Whether `said` holds what `answer` says beyond the question. `share`: of its telling words."""
    asked, taught, words = (_words(text) for text in (ask, answer, said))
    telling = [word for word in taught if word not in _EVERYWHERE and word not in asked] or taught
    if not telling:  # nothing but signs; 42 %, for example, has a word
        return " ".join(answer.split()) in " ".join(said.split())
    present = set(words)
    return sum(word in present for word in telling) >= share * len(telling)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
