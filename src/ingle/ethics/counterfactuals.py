"""Counterfactuals: the same text about somebody else, or the opposite about the same person, made from lists of our own.

| kind | the two texts | what is to be equally likely |
|---|---|---|
| attribute | The nurse was kind. / The nurse was cruel. | both attributes, whoever it is (see also `beginnings`) |
| person | The Greek man found the cure. / The Thai man found the cure. | what follows the word that differs |
| next | He comes from Kenya. They herd goats. / He comes from Norway. They herd goats. | the second sentence |
| name | Omar was late this morning. / Finn was late this morning. | what follows the name |

Beside them, questions that a text doesn't answer, and the same with a sentence that does: first the answer that is right, then one that
isn't. No sentence is taken from a suite; names are those that no suite measures with.
"""

import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ingle.core import registry

Make = Callable[[random.Random], "Counterfactual"]
Kind = Literal["attribute", "person", "next", "name", "untold", "told"]
SHARES: Mapping[str, float] = {"attribute": 0.55, "person": 0.2, "next": 0.2, "name": 0.05}  # shares of the kinds of counterfactuals
# Shares where attributes are weighed all at once, after `beginnings`.
PEOPLE: Mapping[str, float] = {"person": 0.45, "next": 0.45, "name": 0.1}
# How often each style of attribute is drawn.
STYLES: Mapping[str, float] = {"trait": 0.5, "noun": 0.1, "act": 0.17, "adverb": 0.06, "pronoun": 0.17}
_UNGENDERED = ("profession",)  # groups after whose words either pronoun may follow
_SLOT = re.compile(r"\{(one|many|kind|place)\}")
# How often each group is drawn: by the number of its words.
GROUPS: Mapping[str, float] = {
    "race": 5, "profession": 4, "gender": 2, "religion": 2, "age": 1, "disability": 1, "orientation": 1, "appearance": 1,
    "socioeconomic": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Two texts, each in two parts: what is given, and what is weighed."""

    kind: Kind
    group: str  # the group that it concerns
    first: tuple[str, str]
    second: tuple[str, str]

    @property
    def texts(self) -> tuple[str, str]:
        return self.first[0] + self.first[1], self.second[0] + self.second[1]


def counterfactuals(
    count: int, names: Mapping[str, Sequence[str]], seed: int, shares: Mapping[str, float] = SHARES, groups: Sequence[str] = ()
) -> list[Counterfactual]:  # fmt: skip
    """Make so many different counterfactuals. `names`: first names by group. `groups`: only about these; none = about all."""
    makers: Mapping[str, Make] = {
        "attribute": lambda draw: _attribute(draw, groups),
        "person": lambda draw: _person(draw, groups),
        "next": lambda draw: _next(draw, groups),
        "name": lambda draw: _name(draw, names),
    }
    found: list[Counterfactual] = []
    for kind, share in shares.items():
        if kind != "name" or (len(names) > 1 and not groups):
            found += _distinct(makers[kind], round(count * share), random.Random(f"{seed} {kind}"))
    return found


@dataclass(frozen=True, slots=True)
class LineBeginning:
    """A text after which any word of its style may follow."""

    style: str
    group: str
    text: str


def beginnings(count: int, seed: int, groups: Sequence[str] = ()) -> list[tuple[LineBeginning, LineBeginning]]:
    """Make so many couples of beginnings: the same line about two people. `groups`: only of these; none = of all."""
    draw, found = random.Random(f"{seed} beginnings"), dict[tuple[str, str], tuple[LineBeginning, LineBeginning]]()
    for _ in range(20 * count):
        if len(found) == count:
            break
        style, line, form, group = _beginning(draw, groups)
        after = " a" if style == "noun" else ""
        texts = [_put(line, form, who) + after for who in draw.sample(_people(group)[form], 2)]
        found.setdefault((texts[0], texts[1]), (LineBeginning(style, group, texts[0]), LineBeginning(style, group, texts[1])))
    return list(found.values())


def words_of(style: str) -> list[tuple[str, str]]:
    """Return the pairs of single words of a style, no word twice; of nouns only those after "a", of acts their verbs."""
    found, used = list[tuple[str, str]](), set[str]()
    for sides in _lines("attributes", style):
        pair = [side.removeprefix("a ") if style == "noun" else side.split()[0] if style == "act" else side for side in sides.split("/")]
        if len(set(pair) - used) == 2 and not any(" " in word for word in pair):
            used |= set(pair)
            found.append((pair[0], pair[1]))
    return found


def questions(count: int, seed: int) -> list[Counterfactual]:
    """Make so many questions: three in five that nothing answers, whose first answer says so; the first answer of the others is right."""
    untold = _distinct(lambda draw: _question(draw, False), round(0.6 * count), random.Random(f"{seed} untold"))
    return [*untold, *_distinct(lambda draw: _question(draw, True), count - round(0.6 * count), random.Random(f"{seed} told"))]


@cache
def words() -> Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]]:
    """Return the lists of words and sentences: [part][list]; of people [part][group][form]. Pairs are still joined by a slash."""
    table = tomllib.loads(Path(__file__).with_name("counterfactuals.toml").read_text("utf-8"))
    people = {group: {form: _list(text, ",") for form, text in forms.items()} for group, forms in table.pop("people").items()}
    marks = {"attributes": ",", "within": "/", "next": "/", "said": "/"}
    lists = {part: {name: _list(text, mark) for name, text in table[part].items()} for part, mark in marks.items()}
    unknown = {"scene": "/", "ask": ";", "answer": "/", "pairs": ","}
    lists["unknown"] = {name: _list(table["unknown"][name], mark) for name, mark in unknown.items()}
    return {"people": people, **{part: {"": some} for part, some in lists.items()}}


def _list(text: str, mark: str) -> tuple[str, ...]:
    return tuple(" ".join(one.split()) for one in text.split(mark) if one.strip())


def _people(group: str) -> Mapping[str, tuple[str, ...]]:
    return words()["people"][group]


def _lines(part: str, name: str) -> tuple[str, ...]:
    return words()[part][""][name]


def _distinct(make: Make, count: int, draw: random.Random) -> list[Counterfactual]:
    found = dict[tuple[str, str], Counterfactual]()
    for _ in range(20 * count):
        if len(found) == count:
            break
        one = make(draw)
        found.setdefault(one.texts, one)
    return list(found.values())


def _drawn(draw: random.Random, lines: Sequence[str], groups: Sequence[str]) -> tuple[str, str, str]:
    """Draw a line, and a group that has words for it; return the line, the form that it wants, and the group."""
    while True:
        line = draw.choice(lines)
        form = _form(line)
        fitting = [group for group in groups or GROUPS if form in _people(group)]
        if fitting:
            return line, form, draw.choices(fitting, [GROUPS[group] for group in fitting])[0]


def _attribute(draw: random.Random, groups: Sequence[str]) -> Counterfactual:
    style, line, form, group = _beginning(draw, groups)
    given = _put(line, form, draw.choice(_people(group)[form]))
    sides = draw.choice(_lines("attributes", style)).split("/")
    draw.shuffle(sides)
    end = draw.choice((".", ".", ".", ",", " and", ""))
    return Counterfactual("attribute", group, (given, f" {sides[0]}{end}"), (given, f" {sides[1]}{end}"))


def _beginning(draw: random.Random, groups: Sequence[str]) -> tuple[str, str, str, str]:
    style = draw.choices([*STYLES], [*STYLES.values()])[0]
    if style == "pronoun":
        fitting = [group for group in groups or _UNGENDERED if group in _UNGENDERED]
        if not fitting:
            return _beginning(draw, groups)
        groups = fitting
    return style, *_drawn(draw, _lines("within", style), groups)


def _person(draw: random.Random, groups: Sequence[str]) -> Counterfactual:
    lines = [line for form in ("one", "many", "kind", "kind", "place") for line in _lines("said", form)]
    while True:
        line, form, group = _drawn(draw, lines, groups)
        before, after = line.split(f"{{{form}}}", 1)
        if after.strip(" ."):  # else nothing follows that could be weighed
            return _swapped("person", group, draw.sample(_people(group)[form], 2), before, after)


def _next(draw: random.Random, groups: Sequence[str]) -> Counterfactual:
    line, form, group = _drawn(draw, _lines("next", "first"), groups)
    after = draw.choice(_lines("next", "place" if form == "place" and draw.random() < 0.7 else "person"))
    first, second = (_put(line, form, who) for who in draw.sample(_people(group)[form], 2))
    return Counterfactual("next", group, (first, f" {after}"), (second, f" {after}"))


def _name(draw: random.Random, names: Mapping[str, Sequence[str]]) -> Counterfactual:
    line = draw.choice([line.removeprefix("The ") for line in _lines("said", "one") if line.startswith("The {one} ")])
    groups = draw.sample(sorted(names), 2)
    return _swapped("name", "names", [draw.choice(names[group]) for group in groups], *line.split("{one}", 1))


def _swapped(kind: Kind, group: str, who: Sequence[str], before: str, after: str) -> Counterfactual:
    first, second = (_upper(_article(before + one)) for one in who)
    return Counterfactual(kind, group, (first, after), (second, after))


def _question(draw: random.Random, told: bool) -> Counterfactual:
    a, b = draw.sample(draw.choice(_lines("unknown", "pairs")).split("/"), 2)
    ask, _, telling = draw.choice(_lines("unknown", "ask")).partition("?/")
    scene = draw.choice(_lines("unknown", "scene")).replace("{a}", a).replace("{b}", b).replace("{A}", _upper(a))
    who, unknown = draw.choice((a, b)), draw.choice(_lines("unknown", "answer"))
    other = b if who == a else a
    if told:
        scene = f"{scene} {telling.replace('{X}', _upper(who))}"
        right, wrong = _upper(who), draw.choice((_upper(other), unknown))
    else:
        right, wrong = unknown, _upper(who)
    given = f"{scene}\nQuestion: {ask}?\nAnswer:"
    return Counterfactual("told" if told else "untold", "unknown", (given, f" {right}"), (given, f" {wrong}"))


def check_groups(groups: Sequence[str]) -> None:
    """Raise ConfigError for a group that has no words here."""
    for group in groups:
        registry.check_known(group, GROUPS, "groups", "must be known")


def _form(line: str) -> str:
    [form] = set(_SLOT.findall(line))
    return str(form)


def _put(line: str, form: str, who: str) -> str:
    return _upper(_article(line.replace(f"{{{form}}}", who)))


def _article(text: str) -> str:
    return re.sub(r"\b([Aa]) (?!Eu|one)(?=[AEIOaeio])", r"\1n ", text)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
