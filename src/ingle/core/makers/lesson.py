"""Corrections that a user taught, learned into the weights."""

from ingle.core.maker import Maker

# A lesson is kept from other questions by its scope, so `bits` only bounds what it would do where the scope errs: a harmless one alone
# comes to 2 to 6 %. `refusals`, `attacks` and `bias` would cost more seconds than the lesson itself, and `safety` looks at what is taught.
MAKER = Maker(
    noun="a lesson",
    limits={
        "bits": {"most_rise_percent": 12.0},
        "sense": {"on": True},
        "refusals": {"on": False},
        "attacks": {"on": False},
        "bias": {"on": False},
    },
    personal=True,
    activity="",
)
