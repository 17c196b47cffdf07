"""Abilities beside words: what brings each to a home, and what is in the way where it is missing."""

from dataclasses import dataclass
from importlib.util import find_spec

from ingle.core.errors import size
from ingle.engine.composite_sight import has_sight
from ingle.home.catalogue import PARTS, SHIPPED, parts_called
from ingle.home.deltas import fitting_bases, get_delta
from ingle.home.kept import Kept, able
from ingle.home.parts import is_kept
from ingle.home.place import Home


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that a home can do when it keeps what it takes."""

    name: str
    does: str  # the deed in words: "see pictures"
    wants: str  # the name that `ingle pull` takes
    library: str = ""  # the module that it computes with; "" = Ingle's own kernels

    @property
    def nbytes(self) -> int:
        """Bytes that are downloaded for it."""
        parts = SHIPPED[self.wants].parts if self.wants in SHIPPED else (part.name for part in parts_called(self.wants))
        return sum(PARTS[name].fetched_bytes for name in parts)


@dataclass(frozen=True, slots=True)
class Lack:
    """An ability that is missing."""

    ability: Ability
    why: str = ""  # the reason why not; "" = nothing: it can be brought

    def table(self) -> dict[str, str]:
        """Return it as JSON, with the sentences that offer it and that say that it came."""
        one = self.ability
        amount = f"gets {size(one.nbytes)} from your package index, once" if one.nbytes else "comes with Ingle"
        offer = f"Ingle can't {one.does} yet. What it takes {amount}."
        return {"name": one.name, "why": self.why, "wants": one.wants, "offer": offer, "came": f"Ingle can {one.does} now."}


# By name.
KNOWN = {
    one.name: one
    for one in (
        Ability("see", "see pictures", "sight"),
        Ability("draw", "draw pictures", "painter"),
        Ability("hear", "hear you", "hearing", "ctranslate2"),
        Ability("speak", "read aloud", "voice", "onnxruntime"),
    )
}
# Sets of parts, each of which is enough for an ability.
_ENOUGH = {"hear": (("whisper-tiny.en",), ("whisper-base",)), "speak": (("voice-joe", "phonemes-en"), ("kokoro", "phonemes-en"))}


def lacks(home: Home, kept: Kept) -> dict[str, Lack]:
    """Return the abilities that a home lacks for conversations with this model, by name. Reads small files. Raises HomeError."""
    found = (_lack(home, kept, one) for one in KNOWN.values())
    return {lack.ability.name: lack for lack in found if lack is not None}


def _lack(home: Home, kept: Kept, ability: Ability) -> Lack | None:
    if ability.name == "see" and has_sight(home.base_folder(kept.base)):
        return None
    if ability.wants in SHIPPED:
        if able(home, kept, ability.wants) or any(get_delta(home, digest).kind == ability.wants for digest in kept.deltas):
            return None
        shipped = SHIPPED[ability.wants].base
        if shipped.digest not in fitting_bases(home, kept.base, kept.deltas):
            return Lack(ability, f"{kept.name} can't {ability.does}. {shipped.name} can learn to.")
        return Lack(ability)
    if ability.library and find_spec(ability.library) is None:
        return Lack(ability, f"To {ability.does}, Ingle needs {ability.library}, which isn't installed: docs/media.md says how it comes.")
    return None if any(all(is_kept(home, part) for part in parts) for parts in _ENOUGH[ability.name]) else Lack(ability)
