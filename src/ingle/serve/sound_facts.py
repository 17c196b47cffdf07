"""The ledger's facts of what was heard and spoken: figures, joules, and digests under the home's key; never a word."""

import hashlib
import hmac
from collections.abc import Sequence

from ingle.app.facts import answer_digest
from ingle.core.energy import Energy
from ingle.core.report import Event, Fact
from ingle.home.parts import list_parts
from ingle.home.place import Home
from ingle.media.speech import Heard


def hear_event(
    home: Home, key: bytes, recording: str, heard: Heard, energy: Energy, asker: str = "", completion: str = ""
) -> Event:  # fmt: skip
    """Return the fact of a recording that was heard. `recording`: its digest; `completion`: the answer that it was heard for."""
    parts = {part.name: part.base for part in list_parts(home)}
    facts: dict[str, Fact] = {
        "model": parts.get(heard.model, ""), "seconds": round(heard.seconds, 3), "language": heard.language,
        "recording": hmac.digest(key, recording.encode(), hashlib.sha256).hex(), "words": answer_digest(key, heard.text),
        "id": completion, "key": asker,
    }  # fmt: skip
    return Event("hear", heard.model, {name: value for name, value in facts.items() if value != ""} | energy.facts())


def speak_event(
    key: bytes, voice: str, said: Sequence[str], seconds: float, took_s: float, ended: str, energy: Energy | None, asker: str = "",
    completion: str = "",
) -> Event:  # fmt: skip
    """Return the fact of a talk. `said`: its clauses; `ended`: stop, cancelled or error; `energy`: None = nothing was made."""
    facts: dict[str, Fact] = {
        "seconds": round(seconds, 3), "took_s": round(took_s, 3), "clauses": len(said), "ended": ended,
        "words": answer_digest(key, " ".join(said)), "id": completion, "key": asker,
    }  # fmt: skip
    return Event("speak", voice, {name: value for name, value in facts.items() if value != ""} | (energy.facts() if energy else {}))
