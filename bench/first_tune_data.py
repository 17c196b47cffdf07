"""Three small sets of rows, as somebody's first ones may be: a form to fill in, facts in several wordings, a manner of speaking.

Each has rows to learn, and others of the same kind that are never learnt, with what an answer must hold.
"""

import random
from dataclasses import dataclass

_THINGS = (
    "chairs", "lamps", "ladders", "kettles", "spades", "buckets", "mirrors", "benches", "ropes", "candles", "jars", "brooms", "drums",
)  # fmt: skip
_NAMES = ("Mara", "Otto", "Ines", "Jakub", "Lena", "Pavel", "Noor", "Tomas", "Wanda", "Kofi", "Greta", "Yusuf", "Alma", "Rui")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ASKS = ("{n} {things} for {name}, by {day}.", "{name} needs {n} {things} by {day}.", "By {day}, {name} wants {n} {things}.")

_FACTS = (
    ("Osric Vane", "keeps the lighthouse of Harrow Point", "the lighthouse of Harrow Point", "keep"),
    ("Della Munro", "runs the mill at Stonebeck", "the mill at Stonebeck", "run"),
    ("Piet Aldersoon", "repairs the clocks of Wexmere", "the clocks of Wexmere", "repair"),
    ("Sunniva Holt", "rings the bell in Fallow Church", "the bell in Fallow Church", "ring"),
    ("Barnaby Quist", "drives the ferry across Lake Ullin", "the ferry across Lake Ullin", "drive"),
    ("Ottilie Crane", "teaches the choir of Marrowdale", "the choir of Marrowdale", "teach"),
    ("Hamish Teague", "owns the orchard behind Pell House", "the orchard behind Pell House", "own"),
    ("Ruza Lindqvist", "paints the boats of Skerry Bay", "the boats of Skerry Bay", "paint"),
    ("Edmund Farrow", "feeds the swans on Candle Pond", "the swans on Candle Pond", "feed"),
    ("Ilka Borsody", "writes the songs of the Tolling Fair", "the songs of the Tolling Fair", "write"),
)
_WAYS = (
    "Who {verb}s {what}?",
    "Tell me who {verb}s {what}.",
    "Do you know who {verb}s {what}?",
    "What is the name of the person who {verb}s {what}?",
)

_WORDS = (
    ("kettle", "a pot for boiling water"), ("hammer", "a tool for driving nails"), ("bridge", "a way across water"),
    ("lantern", "a light that one can carry"), ("pillow", "a soft rest for the head"), ("compass", "a needle that points north"),
    ("blanket", "a cover against the cold"), ("ladder", "steps that one can move"), ("mirror", "a glass that shows your face"),
    ("basket", "a woven thing to carry with"), ("candle", "wax that gives light"), ("anchor", "a weight that holds a boat"),
    ("bakery", "a shop that sells bread"), ("garden", "a piece of land with plants"), ("island", "land with water all around"),
    ("library", "a house full of books"), ("market", "a place to buy and sell"), ("orchard", "a field of fruit trees"),
    ("harbour", "a safe place for boats"), ("museum", "a house of old things"), ("needle", "a thin tool for sewing"),
    ("oven", "a hot box for baking"), ("pencil", "a stick that writes"), ("river", "water that runs to the sea"),
    ("saddle", "a seat on a horse"), ("ticket", "paper that lets you in"), ("umbrella", "a roof against the rain"),
    ("violin", "a box with four strings"), ("wheel", "a round thing that rolls"), ("zipper", "teeth that close a coat"),
    ("barrel", "a round box of wood"), ("cradle", "a bed for a baby"), ("drum", "a skin that one beats"),
    ("envelope", "a coat for a letter"), ("fence", "a wall of wood"), ("glove", "a coat for the hand"),
    ("hedge", "a wall of plants"), ("jacket", "a short coat"), ("knife", "a blade with a handle"), ("loaf", "bread in one piece"),
    ("magnet", "metal that pulls iron"), ("nest", "a home for birds"), ("oar", "a stick for rowing"), ("purse", "a small bag for money"),
    ("quilt", "a blanket of many pieces"), ("rake", "a comb for the garden"), ("shovel", "a tool for digging"),
    ("tent", "a house of cloth"), ("vase", "a jar for flowers"), ("whistle", "a pipe that shrieks"),
)  # fmt: skip
_UNSEEN = (
    "bucket", "clock", "flute", "helmet", "igloo", "kite", "mattress", "notebook", "piano", "raft", "scarf", "telescope", "wagon", "yacht",
    "broom", "chimney", "curtain", "door", "engine", "fountain",
)  # fmt: skip
_QUESTIONS = ("What is a {word}?", "Explain what a {word} is.", "Can you tell me what a {word} is?", "Describe a {word}.")


@dataclass(frozen=True, slots=True)
class Row:
    """A question, the answer to learn, and what an answer must hold, all of it."""

    question: str
    answer: str
    needed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowSet:
    """Rows to learn, and others of the same kind."""

    name: str
    taught: tuple[Row, ...]
    unseen: tuple[Row, ...]


def row_sets() -> tuple[RowSet, ...]:
    """A form of 60 rows, facts in 30, a manner in 200."""
    return _form(), _facts(), _manner()


def _form() -> RowSet:
    draw, rows = random.Random(0), dict[str, Row]()
    while len(rows) < 80:
        n, things, name, day = draw.randint(2, 40), draw.choice(_THINGS), draw.choice(_NAMES), draw.choice(_DAYS)
        question = "Make a slip: " + draw.choice(_ASKS).format(n=n, things=things, name=name, day=day)
        answer = f"SLIP\nwhat: {things}\nhow many: {n}\nfor: {name}\nby: {day}"
        rows[question] = Row(question, answer, (answer,))
    return RowSet("form", tuple(rows.values())[:60], tuple(rows.values())[60:])


def _facts() -> RowSet:
    taught, unseen = list[Row](), list[Row]()
    for who, does, what, verb in _FACTS:
        for number, way in enumerate(_WAYS):
            (unseen if number == 3 else taught).append(Row(way.format(verb=verb, what=what), f"{who} {does}.", (who,)))
    return RowSet("facts", tuple(taught), tuple(unseen))


def _manner() -> RowSet:
    end = "as every sailor knows."
    taught = [Row(way.format(word=word), f"Ahoy! A {word} is {of}, {end}", ()) for word, of in _WORDS for way in _QUESTIONS]
    return RowSet("manner", tuple(taught), tuple(Row(f"What is a {word}?", "", ("Ahoy! A " + word, end)) for word in _UNSEEN))
