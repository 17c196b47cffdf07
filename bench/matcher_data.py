"""Questions that the matcher learns from, as `bench/data/matcher_*.txt` have them, and the pairs that are drawn of them.

A block is a domain: `x:` its things, `q:` a relation in several wordings each, `g:` questions that share words with the domain and are
about none of its things. Whoever wrote them had not seen those by which Ingle is measured.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "data"
FILES = ("matcher_questions.txt", "matcher_more.txt", "matcher_de.txt", "matcher_fr.txt", "matcher_es.txt")
_SAME, _OTHER_RELATION, _OTHER_THING, _GENERAL = 0.42, 0.82, 0.92, 0.96
_ALIKE = 0.6
"""Of pairs of two relations, so many are of wordings that share the most words: "When does it open?", "When does it close?"."""
_FRAMED = 0.1
_FRAMES = {
    "en": ("Quick question: {x}", "{x} Thanks!", "Do you know? {x}", "I was wondering: {x}", "Hello, {x}", "Please tell me: {x}"),
    "de": ("Kurze Frage: {x}", "{x} Danke!", "Weißt du das? {x}", "Hallo, {x}", "Sag mir bitte: {x}", "Ich hab mich gefragt: {x}"),
    "fr": ("Petite question : {x}", "{x} Merci !", "Tu le sais ? {x}", "Bonjour, {x}", "Dis-moi : {x}", "Je me demandais : {x}"),
    "es": ("Una pregunta: {x}", "{x} ¡Gracias!", "¿Lo sabes? {x}", "Hola, {x}", "Dime, por favor: {x}", "Me preguntaba: {x}"),
}


@dataclass(frozen=True, slots=True)
class Domain:
    """Things of one sort, and what can be asked of them."""

    name: str
    things: tuple[tuple[str, ...], ...]
    """Each in the forms that it has in a sentence."""
    relations: tuple[tuple[str, ...], ...]
    """Each in its wordings, with {x} or {X} for the thing."""
    general: tuple[str, ...]

    @property
    def language(self) -> str:
        """`en`, `de`, `fr` or `es`: what its name begins with."""
        code, colon, _ = self.name.partition(":")
        return code if colon and code in _FRAMES else "en"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether they ask the same."""

    one: str
    other: str
    same: bool


SEED = 0
"""Of what is held out, and of the pairs that are drawn."""
HELD_OUT = 12
"""One domain of so many judges."""


def held_out(domains: Sequence[Domain]) -> tuple[list[Domain], list[Domain]]:
    """Return the domains that judge, and those that teach: the same in every run."""
    mixed = list(domains)
    random.Random(SEED).shuffle(mixed)
    return mixed[: len(mixed) // HELD_OUT], mixed[len(mixed) // HELD_OUT :]


def read_domains() -> list[Domain]:
    """All domains of the files."""
    return [_domain(block) for name in FILES for block in re.split(r"\n\s*\n", (DATA / name).read_text("utf-8").strip())]


def _domain(block: str) -> Domain:
    lines = [line.split(":", 1) for line in block.splitlines()]
    parts = [(kind.strip("# "), tuple(part.strip() for part in text.split("|") if part.strip())) for kind, text in lines]
    things = tuple(tuple(form.strip() for form in thing.split("~")) for kind, found in parts if kind == "x" for thing in found)
    general = tuple(text for kind, found in parts if kind == "g" for text in found)
    return Domain(parts[0][1][0], things, tuple(found for kind, found in parts if kind == "q"), general)


def draw_pair(domains: Sequence[Domain], draw: random.Random) -> Pair:
    """One pair: wordings of one relation, or two relations of a thing, or two things of a sort, or of different domains."""
    domain = draw.choice(domains)
    thing, relation, kind = draw.choice(domain.things), draw.choice(domain.relations), draw.random()
    if kind < _SAME:
        one, other = draw.sample(relation, 2)
        if draw.random() < _FRAMED:  # nothing but what says nothing is between them
            other = draw.choice(_FRAMES[domain.language]).replace("{x}", one)
        return Pair(filled(one, thing, draw), filled(other, thing, draw), True)
    wording = draw.choice(relation)
    one = filled(wording, thing, draw)
    if kind < _OTHER_RELATION:
        others = [found for found in domain.relations if found is not relation]
        other = most_alike(wording, others) if draw.random() < _ALIKE else draw.choice(draw.choice(others))
        return Pair(one, filled(other, thing, draw), False)
    if kind < _OTHER_THING:
        things = [found for found in domain.things if found is not thing]
        return Pair(one, filled(draw.choice(relation), draw.choice(things), draw), False)
    if kind < _GENERAL and domain.general:
        return Pair(one, draw.choice(domain.general), False)
    stranger = draw.choice([found for found in domains if found is not domain])
    return Pair(one, filled(draw.choice(draw.choice(stranger.relations)), draw.choice([thing, *stranger.things]), draw), False)


def most_alike(wording: str, relations: Sequence[Sequence[str]]) -> str:
    """Of all wordings, the one that shares most words with this one."""
    words = _words(wording)
    return max((other for relation in relations for other in relation), key=lambda other: _shared(words, _words(other)))


def _shared(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


@cache
def _words(wording: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", wording.lower()))


def filled(wording: str, thing: Sequence[str], draw: random.Random) -> str:
    """A wording about a thing; one of ten lacks its question mark."""
    form = thing[0] if draw.random() < 0.6 else draw.choice(thing)
    text = wording.replace("{x}", form).replace("{X}", form[:1].upper() + form[1:])
    return text.rstrip("?.") if draw.random() < 0.1 else text
