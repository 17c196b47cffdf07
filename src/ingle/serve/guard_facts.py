"""The ledger's facts of guards that judge content: what they told of, edited or blocked. Rules, scores and keyed digests; never words."""

from collections.abc import Sequence

from ingle.core.message import Verdict
from ingle.core.report import Event, Fact
from ingle.safety.policy import GuardPolicy

KINDS = {"allow": "guard.tell", "edit": "guard.edit", "block": "guard.block"}  # kinds of facts by a verdict's action
_MOST = 8  # most facts that one answer may leave beside its own; the last one says how many more there were
_SHORT = 120


def judged(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts on content, each once."""
    return [verdict for verdict in dict.fromkeys(verdicts) if verdict.rule]


def guard_events(
    verdicts: Sequence[Verdict], name: str, model: str, policy: GuardPolicy, request: str, answer: str = "", completion: str = "",
    asker: str = "",
) -> list[Event]:  # fmt: skip
    """Return the facts of the verdicts on content.

    `model`: its digest; `request`, `answer`: the keyed digests of what was judged; `completion`, `asker`: as for an answer's fact.
    """
    told = judged(verdicts)
    more = len(told) - _MOST
    events = []
    for number, verdict in enumerate(told[:_MOST], 1):
        facts: dict[str, Fact] = {
            "guard": verdict.guard, "rule": verdict.rule[:_SHORT], "mode": verdict.mode, "score": verdict.score,
            "threshold": verdict.threshold, "policy": policy.digest, "model": model, "request": request, "answer": answer,
            "id": completion, "key": asker, "more": more if more > 0 and number == _MOST else None,
        }  # fmt: skip
        events.append(Event(KINDS[verdict.action], name, {key: value for key, value in facts.items() if value not in (None, "")}))
    return events


def verdict_tables(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Return verdicts as responses show them."""
    return [
        {"guard": verdict.guard, "action": verdict.action, "rule": verdict.rule or None, "score": verdict.score, "mode": verdict.mode}
        for verdict in dict.fromkeys(verdicts)
    ]


def summary(verdicts: Sequence[Verdict], most: int) -> str:
    """Return verdicts in one line of at most so many characters: `output: block (words 1); pii: edit (e-mail)`."""
    lines: list[str] = []
    for verdict in dict.fromkeys(verdicts):
        score = "" if verdict.score is None else f" {verdict.score:.2f}"
        line = f"{verdict.guard}: {verdict.action}" + (f" ({verdict.rule}{score})" if verdict.rule else "")
        if line not in lines:
            lines.append(line)
    while len("; ".join(lines)) > most:
        lines.pop()
    return "; ".join(lines)
