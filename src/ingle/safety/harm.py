"""Guard: a request asks for harm, whatever it is dressed in: weapons, crimes, cruelty.

A linear judge reads every view of the user's words (views.py), the long ones window by window too. It errs: how often on harmless
requests is what `alarms` sets. What it finds and what slips through: docs/safety.md.
"""

from ingle.safety.judging import judging
from ingle.safety.limits import RequestLimits
from ingle.safety.middleware import Guard
from ingle.safety.policy import GuardRule, Mode

NAME = "harm"
ORDER = 50
MODES: tuple[Mode, ...] = ("tell", "off", "block")
EDITS = False
HOLDS_BACK = 0
TAKES = ("alarms", "say")
SAY = "I can't help with that. If you think that this is a mistake, say it in other words, or ask whoever keeps this house."


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    """Return the guard with the threshold of a rule."""
    return judging("harm", NAME, rule, ("user", "prompt"), "reads like a request for harm", SAY)
