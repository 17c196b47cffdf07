"""A style learned from answers that a user rated."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a style",
    limits={"sense": {"on": True}, "refusals": {"on": False}, "attacks": {"on": False}, "bias": {"on": False}},
    personal=True,
    activity="",
)
