"""Guard: a request attacks the model's rules: a role without limits, an order to forget what it was told, a junk suffix.

It looks at the form of the user's words, as `harm` looks at what they ask for; the same judge file, views and windows.
"""

from ingle.safety.judging import judging
from ingle.safety.limits import RequestLimits
from ingle.safety.middleware import Guard
from ingle.safety.policy import GuardRule, Mode

NAME = "attack"
ORDER = 51
MODES: tuple[Mode, ...] = ("tell", "off", "block")
EDITS = False
HOLDS_BACK = 0
TAKES = ("alarms", "say")
SAY = "I'd rather be asked plainly: what would you like to know?"


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    """Return the guard with the threshold of a rule."""
    return judging("attack", NAME, rule, ("user", "prompt"), "reads like an attack on the model's rules", SAY)
