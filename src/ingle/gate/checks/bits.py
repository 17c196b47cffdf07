"""Whether it still writes as well as before: bits per byte of texts that nobody trained on, paired by text.

Measured with the candidate at work on every text, also one that acts only near its own subject. Earlier figures of the same suite on the
same model, from the candidate's maker for instance, are used again.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from ingle.core.config import Count, check_bounds
from ingle.core.digest import digest_json
from ingle.core.report import Report
from ingle.gate.trial import Finding, Trial, general_texts
from ingle.measure.figures import CARRY, WINDOW_TOKENS, TextBits, forgetting, read_text
from ingle.measure.measuring import Options, run_suite
from ingle.measure.subjects import ItemPlan, Row, begin_id
from ingle.measure.suites import find_texts


@dataclass(frozen=True, slots=True)
class Limits:
    on: bool = True  # whether this check is run
    most_rise_percent: float = 5.0  # most by which bits per byte may rise, in percent of the incumbent's
    # A suite of texts, e.g. xsum-bits; empty = eight short texts that ship with the gate and need no network.
    suite: str = ""
    items: Count = 20  # texts of the suite to measure

    def __post_init__(self) -> None:
        if self.suite:
            find_texts(self.suite, "policy bits.suite")
        check_bounds(self, "policy bits.")


def check(trial: Trial, limits: Limits) -> Finding | None:
    before, after, data_digest = _by_suite(trial, limits) if limits.suite else _shipped(trial)
    lost = forgetting(before, after)
    rise = lost.relative.value
    digest = trial.challenger.digest
    first, second = (
        Report(name, value, "bits/byte", value, value, lost.n, of, data_digest, "of these texts")
        for name, value, of in (("before", lost.before, trial.incumbent.digest), ("after", lost.after, digest))
    )
    relative = replace(lost.reports(digest, data_digest, 0)[1], name="rise_percent")
    passed = rise <= limits.most_rise_percent
    reason = f"general text costs {rise:+.2f} % bits per byte (n = {lost.n}); at most {limits.most_rise_percent:+.2f} % are allowed"
    return Finding("bits", passed, reason, (relative, first, second), asdict(limits))


def _shipped(trial: Trial) -> tuple[dict[str, TextBits], dict[str, TextBits], str]:
    subject = trial.incumbent
    window, begin = min(WINDOW_TOKENS, subject.context_length), begin_id(subject.tokenizer)
    plans = []
    for number, text in enumerate(general_texts()):
        reading = read_text(subject.tokenizer, text, begin, window)

        def scored(parts: Any, reading: Any = reading) -> Row:
            return asdict(reading.bits(parts))

        plans.append(ItemPlan(str(number), digest_json(["bits", text, begin, window, CARRY]), [text], reading.tasks, scored))
    before, after = ({str(i): TextBits(**row) for i, row in enumerate(rows)} for rows in trial.measured(plans, "texts"))
    return before, after, digest_json([plan.asked for plan in plans])


def _by_suite(trial: Trial, limits: Limits) -> tuple[dict[str, TextBits], dict[str, TextBits], str]:
    suite, options = find_texts(limits.suite), Options(items=limits.items)
    before, after = (run_suite(trial.home, suite, one, options, trial.progress) for one in (trial.incumbent, trial.challenger))
    keys = TextBits.__dataclass_fields__
    first, second = ({str(row["asked"]): TextBits(**{key: row[key] for key in keys}) for row in one.rows} for one in (before, after))
    return first, second, after.main.data_digest
