"""An adapter that another program made."""

from ingle.core.maker import Maker

MAKER = Maker(
    noun="an import",
    sentences={"pull.delta": lambda subject, facts: f"got an adapter from elsewhere: {subject} ({facts.get('kind')})"},
    limits={"bits": {"most_rise_percent": 15.0}},
    activity="",
)
