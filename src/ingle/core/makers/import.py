"""An adapter that another program made."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="an import",
    sentences={"pull.delta": lambda _facts: "came here from a folder of the PEFT library"},
    limits={"bits": {"most_rise_percent": 15.0}},
    activity="",
)
