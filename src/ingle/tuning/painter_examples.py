"""Examples for a painter: emblems as documents of a prompt and 64 words, and those that it never sees."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes
from ingle.media.painter import prompt_of
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Member, corpus_of
from ingle.train.encode import Document
from ingle.train.packing import Data
from ingle.tuning.emblems import ARTISTS, COLOURS, Emblem, is_unseen, is_unseen_colour, is_unseen_concept, main_colour, recoloured

_RARE = 3
"""A tag that at most so many concepts have names a thing as well as its name does."""
_WATCHED = 48
"""Most held-out examples whose loss is watched."""


@dataclass(frozen=True, slots=True, eq=False)
class PaintingExample:
    """A prompt, and the emblem that answers it."""

    prompt: str
    emblem: Emblem


def learnable(emblems: Sequence[Emblem], families: Sequence[str]) -> list[Emblem]:
    """Return the emoji artists' emblems of these categories or subcategories."""
    wanted = set(families)
    return [one for one in emblems if one.of.artist in ARTISTS and wanted & {one.of.category, one.of.subcategory}]


def to_learn(emblems: Sequence[Emblem], colours: int, seed: int) -> list[PaintingExample]:
    """Return what is learnt: each emblem by its name and artist; some by a tag, without an artist, by colour, or by nothing at all."""
    counts = Counter(tag for concept, tags in {one.of.concept: one.of.tags for one in emblems}.items() for tag in set(tags))
    return [asked for one in emblems if not is_unseen(one.of.concept, one.of.artist) for asked in _prompts(one, counts, colours, seed)]


def with_moved(learnt: Sequence[PaintingExample], copies: int, seed: int) -> list[PaintingExample]:
    """Return examples, and so many copies of each with its emblem moved by up to three pixels, half of them mirrored."""
    rng = np.random.default_rng([seed, len(learnt)])
    return [*learnt, *(PaintingExample(one.prompt, _moved(one.emblem, rng)) for _ in range(copies) for one in learnt)]


def _moved(emblem: Emblem, rng: np.random.Generator) -> Emblem:
    down, right, mirrored = int(rng.integers(-3, 4)), int(rng.integers(-3, 4)), rng.random() < 0.5
    pixels = emblem.pixels[:, ::-1] if mirrored else emblem.pixels
    padded = np.pad(pixels, ((3, 3), (3, 3), (0, 0)), constant_values=255)
    side = len(pixels)
    return replace(emblem, pixels=np.ascontiguousarray(padded[3 - down : 3 - down + side, 3 - right : 3 - right + side]))


def unseen_pairs(emblems: Sequence[Emblem]) -> list[PaintingExample]:
    """Return the emblems whose concept was learnt from other artists only."""
    return [
        PaintingExample(prompt_of(one.of.name, one.of.artist), one)
        for one in emblems
        if is_unseen(one.of.concept, one.of.artist) and not is_unseen_concept(one.of.concept)
    ]


def unseen_concepts(emblems: Sequence[Emblem]) -> list[PaintingExample]:
    """Return the emblems whose concept was never shown."""
    return [PaintingExample(prompt_of(one.of.name, one.of.artist), one) for one in emblems if is_unseen_concept(one.of.concept)]


def unseen_colours(emblems: Sequence[Emblem]) -> list[PaintingExample]:
    """Return emblems in colours in which their concept was never shown, though in its own."""
    return [
        PaintingExample(prompt_of(f"{colour} {bare(one)}", one.of.artist), other)
        for one in emblems if not is_unseen(one.of.concept, one.of.artist)
        for colour in COLOURS if is_unseen_colour(one.of.concept, colour)
        if (other := recoloured(one, colour)) is not None
    ]  # fmt: skip


def bare(emblem: Emblem) -> str:
    """Return an emblem's name without the colours in it."""
    words = [word for word in emblem.of.name.split() if word not in COLOURS]
    return " ".join(words) or emblem.of.name


def things_of(learnt: Sequence[PaintingExample]) -> dict[str, list[str]]:
    """Return the things that are learnt, by name and without their colours, each with the other words that it is learnt by."""
    things = dict[str, set[str]]()
    for one in learnt:
        asked = one.prompt.removeprefix("draw:").rstrip(":").partition(",")[0].split()
        words = " ".join(word for word in asked if word not in COLOURS)
        things.setdefault(bare(one.emblem), set()).update({words} if words else ())
    return {name: sorted(words - {name}) for name, words in sorted(things.items())}


def _prompts(one: Emblem, counts: Mapping[str, int], colours: int, seed: int) -> Iterator[PaintingExample]:
    name, artist = one.of.name, one.of.artist
    rng = np.random.default_rng([seed, int(digest_bytes(f"{artist} {one.of.concept}".encode())[:8], 16)])
    yield PaintingExample(prompt_of(name, artist), one)
    if rng.random() < 0.3:
        yield PaintingExample(prompt_of(name), one)
    if rng.random() < 0.1:
        yield PaintingExample(prompt_of(""), one)
    rare = [tag for tag in one.of.tags if counts[tag] <= _RARE and tag not in name.split()]
    if rare and rng.random() < 0.4:
        yield PaintingExample(prompt_of(str(rng.choice(rare)), artist), one)
    own = main_colour(one.pixels)
    turned = [(colour, other) for colour in COLOURS if not is_unseen_colour(one.of.concept, colour) and (other := recoloured(one, colour))]
    if own and turned and rng.random() < 0.4:
        yield PaintingExample(prompt_of(f"{own} {bare(one)}", artist), one)
    for i in rng.permutation(len(turned))[:colours]:
        colour, other = turned[i]
        yield PaintingExample(prompt_of(f"{colour} {bare(one)}", artist), other)


def data_of(
    tokenizer: Tokenizer,
    learnt: Sequence[PaintingExample],
    held_out: Sequence[PaintingExample],
    codes: npt.NDArray[np.int64],
    palette: Sequence[int],
) -> Data:
    """Return the documents; `codes` [learnt + held out, 64] of their emblems. Of the held-out ones only some are kept."""
    tokens = np.array(palette, np.int32)[codes]
    members: list[Member] = []
    for asked, picture in zip([*learnt, *held_out], tokens, strict=True):
        prompt = tokenizer.encode_prompt(asked.prompt)
        ids = np.concatenate([np.array(prompt, np.int32), picture])
        of = asked.emblem.of
        members.append((f"{of.artist} {of.concept}", -1, (Document(ids, np.arange(len(ids)) >= len(prompt)),)))
    count = len(learnt)
    watched = range(count, count + len(held_out), max(1, -(-len(held_out) // _WATCHED)))
    return Data(corpus_of("answers", members), range(count), tuple(watched))
