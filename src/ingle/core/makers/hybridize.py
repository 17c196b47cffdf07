"""Turning a transformer into a hybrid."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="a hybrid",
    sentences={"hybridize": lambda _facts: "was made: a hybrid"},
    # What it lost shows only in texts longer than its window, and in facts behind it.
    limits={"bits": {"suite": "xsum-bits"}, "recall": {"on": True}},
)
