"""Guard: a request attacks the model's rules: a role without limits, an order to forget what it was told, a junk suffix.

It looks at the form of what was sent, as `harm` looks at what is asked for; the same judge file, views and windows.
"""

from ingle.core.message import Request
from ingle.safety.guard import RequestLimits
from ingle.safety.judge import load_judge
from ingle.safety.judging import judging, look
from ingle.safety.middleware import Guard
from ingle.safety.policy import GuardRule, LooksAt, Mode
from ingle.safety.texts import Speaker

NAME = "attack"
TITLE = "Attempts to break the model's rules"
ABOUT = "Questions that try to talk the model out of its rules, such as “ignore all previous instructions”."
LOOKS_AT: tuple[LooksAt, ...] = ("question", "document")
ORDER = 51
MODES: tuple[Mode, ...] = ("tell", "off", "block")
EDITS = False
HOLDS_BACK = 0
TAKES = ("alarms", "say", "fails")
SILENT: tuple[Speaker, ...] = ("assistant", "tools")


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    return judging(NAME, rule, SILENT, "reads like an attack on the model's rules")


def judge_ahead(rule: GuardRule, request: Request) -> None:
    """Read a request: what was read is remembered."""
    look(load_judge(rule.judge), NAME, rule.alarms, request, SILENT)
