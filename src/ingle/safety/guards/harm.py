"""Guard: a request asks for harm, whatever it is dressed in: weapons, crimes, cruelty.

The judge reads all that was sent, every view of it (safety/views.py), and the pieces of longer texts (safety/reading.py), by n-grams and by
meaning. It errs: how often on harmless requests is what `alarms` sets. What it finds and what slips through: docs/safety.md.

A kept guard model may judge beside it, or in its place (safety/judging.py), of answers too.
"""

from ingle.core.message import Request
from ingle.safety.guard import RequestLimits
from ingle.safety.judge import load_judge
from ingle.safety.judging import asking, judging, look
from ingle.safety.middleware import Guard
from ingle.safety.opinion import AskGuard, nobody
from ingle.safety.policy import GuardRule, LooksAt, Mode
from ingle.safety.texts import Speaker

NAME = "harm"
TITLE = "Requests for harm"
ABOUT = "Questions that ask for weapons, crimes or cruelty, also in disguise."
LOOKS_AT: tuple[LooksAt, ...] = ("question", "document")
ORDER = 50
MODES: tuple[Mode, ...] = ("block", "tell", "off")
EDITS = False
HOLDS_BACK = 0
TAKES = ("alarms", "say", "fails", "by", "model", "risk")
SILENT: tuple[Speaker, ...] = ()
_ASKS = "reads like a request for harm"


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    """Return the guard with the threshold of a rule; without a guard model."""
    return make_asking(_limits, rule, nobody)


def make_asking(_limits: RequestLimits, rule: GuardRule, ask: AskGuard) -> Guard:
    """Return the guard, which asks a guard model where the rule says so."""
    return judging(NAME, rule, SILENT, _ASKS) if rule.by == "judge" else asking(NAME, rule, SILENT, _ASKS, ask)


def judge_ahead(rule: GuardRule, request: Request) -> None:
    """Read a request: what was read is remembered."""
    if rule.by != "model":
        look(load_judge(rule.judge), NAME, rule.alarms, request, SILENT)
