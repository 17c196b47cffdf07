"""Emblems: named pictures as 64×64 pixels on white, which of them no training may see, and their colours turned.

An emblem is held out by its concept's digest, so the choice is the same on every machine and in every run: of 100 concepts 4 are never
shown at all, and 12 lack one of the three emoji artists, who takes turns.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError, RequestError
from ingle.core.progress import FetchProgress, silent
from ingle.home.pictures import FREE, Illustration, illustrations
from ingle.home.place import Home
from ingle.media.painter import CODES, prompt_of
from ingle.media.picture import Pixels, emblem_of, read_picture
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Member, corpus_of
from ingle.train.example_files import Document
from ingle.train.packing import Data

ARTISTS = FREE[:3]
"""Emoji artists: each drew nearly every concept."""
FAMILIES = ("animals-nature", "food-drink", "travel-places", "activities", "objects", "smileys-emotion")
"""Categories of emoji that are worth drawing; the rest are flags, letters, signs, and people, who need more than 64 pixels."""
_CLIPART = ("animals", "food", "plants", "transportation", "tools", "buildings")
COLOURS = {"red": 0, "orange": 28, "yellow": 52, "green": 120, "blue": 220, "purple": 276, "pink": 330}
"""Hues that have a name, in degrees."""
_UNSEEN_CONCEPTS, _UNSEEN_PAIRS, _UNSEEN_COLOURS = 4, 12, 25
"""Per cent."""


@dataclass(frozen=True, slots=True, eq=False)
class Emblem:
    """A picture of 64×64 pixels with its words."""

    of: Illustration
    pixels: Pixels
    """[64, 64, 3] on white."""
    colour: str = ""
    """The name of the hue that it was given; empty = as it was drawn."""


def emblems(home: Home, artist: str, progress: FetchProgress = silent) -> list[Emblem]:
    """Return an artist's emblems, without flags; of clip art only the things that are worth drawing. Raises the errors of fetching."""
    found = illustrations(home, artist, progress)
    wanted = [one for one in found if (one.category in _CLIPART if artist == "openclipart" else one.category not in ("flags", "component"))]
    made = []
    for one in wanted:
        with suppress(RequestError):  # some clip art is posters of a hundred million pixels
            made.append(Emblem(one, emblem_of(read_picture(one.data))))
    return made


def is_unseen(concept: str, artist: str) -> bool:
    """Return whether no training may see this artist's drawing of this concept."""
    at = _percent(concept)
    return is_unseen_concept(concept) or (at < _UNSEEN_CONCEPTS + _UNSEEN_PAIRS and artist == ARTISTS[at % len(ARTISTS)])


def is_unseen_concept(concept: str) -> bool:
    """Return whether no training may see any drawing of this concept."""
    return _percent(concept) < _UNSEEN_CONCEPTS


def is_unseen_colour(concept: str, colour: str) -> bool:
    """Return whether no training may see this concept in this colour, unless it has it by nature."""
    return _percent(f"{concept} {colour}") < _UNSEEN_COLOURS


def _percent(text: str) -> int:
    return int(digest_bytes(text.encode())[:8], 16) % 100


def recoloured(emblem: Emblem, colour: str) -> Emblem | None:
    """Return the emblem with its main hue turned to a colour; None if it has no main hue, or has that one already."""
    values = emblem.pixels.astype(np.float32) / np.float32(255)
    hue, chroma = _hues(values)
    total = float(chroma.sum())
    if total < 0.08 * chroma.size:  # grey things
        return None
    bins = np.bincount((hue // 10).astype(np.int64).ravel() % 36, chroma.ravel(), 36)
    smooth = bins + np.roll(bins, 1) + np.roll(bins, -1)
    main = int(smooth.argmax())
    near = np.abs((hue - (main * 10 + 5) + 180) % 360 - 180) < 30
    if float(chroma[near].sum()) < 0.6 * total:
        return None
    centre = _mean_hue(hue[near], chroma[near])
    turn = (COLOURS[colour] - centre + 180) % 360 - 180
    if abs(turn) < 25:
        return None
    turned = np.where(near[..., None], _turned(values, turn), values)
    return Emblem(emblem.of, (turned * 255 + 0.5).astype(np.uint8), colour)


def main_colour(pixels: Pixels) -> str:
    """Return the name of the hue that covers most of a picture; empty for grey ones."""
    hue, chroma = _hues(pixels.astype(np.float32) / np.float32(255))
    if float(chroma.sum()) < 0.04 * chroma.size:
        return ""
    angles = np.array(list(COLOURS.values()))
    nearest = np.abs((hue[..., None] - angles + 180) % 360 - 180).argmin(-1)
    return list(COLOURS)[int(np.bincount(nearest.ravel(), chroma.ravel(), len(angles)).argmax())]


def _hues(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return hue in degrees and chroma (0 … 1) of RGB values in 0 … 1."""
    red, green, blue = np.moveaxis(values, -1, 0)
    most, chroma = values.max(-1), values.max(-1) - values.min(-1)
    safe = np.where(chroma > 0, chroma, 1)
    sixth = np.where(most == red, (green - blue) / safe % 6, np.where(most == green, (blue - red) / safe + 2, (red - green) / safe + 4))
    return (sixth * 60).astype(np.float32), chroma


def _mean_hue(hue: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> float:
    radians = np.deg2rad(hue)
    return float(np.rad2deg(np.arctan2((np.sin(radians) * weight).sum(), (np.cos(radians) * weight).sum())))


def _turned(values: npt.NDArray[np.float32], degrees: float) -> npt.NDArray[np.float32]:
    """Return RGB values with their hue turned; lightness (the mean of highest and lowest) and chroma stay."""
    hue, chroma = _hues(values)
    sixth = ((hue + degrees) % 360 / 60)[..., None]
    floor = values.min(-1)[..., None]
    offsets: npt.NDArray[Any] = np.array([0, 4, 2], np.float32)  # red, green, blue
    ramp = np.clip(np.abs((sixth + offsets) % 6 - 3) - 1, 0, 1)
    turned: npt.NDArray[np.float32] = (floor + chroma[..., None] * ramp).astype(np.float32)
    return turned


def stacked(emblems: Sequence[Emblem]) -> Pixels:
    """Return the pixels of emblems as [n, 64, 64, 3]."""
    return np.stack([emblem.pixels for emblem in emblems])


# Examples for a painter: emblems as documents of a prompt and 64 words, and those that it never sees.


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


# The palette: 512 words that stand for the codes of emblems, so that a picture is a text of 64 words.
# A word is one token of the model's vocabulary, a space and small letters, so texts and tokens turn into each other without loss. The
# words' embedding rows lie far apart (farthest point first), and codes that look alike get words whose rows are near each other.


_WORD = re.compile(rb" [a-z]{3,}")
_COMMON = 20_000
"""Only so many of the vocabulary's first words are taken: rare ones have rows that hardly any training has touched."""
_AXES = 8
"""Principal axes along which rows and codes are compared."""


def choose_palette(tokenizer: Tokenizer, rows: npt.NDArray[np.float32], codebook: npt.NDArray[np.float32]) -> list[int]:
    """Return the token of each code. `rows`: the embedding [vocabulary, hidden]; `codebook`: [512, width].

    Raises ConfigError for a vocabulary with too few words of one token.
    """
    words = words_of(tokenizer, min(_COMMON, len(rows)))
    if len(words) < CODES:
        cure = "Use a model with a larger vocabulary, like smollm2."
        raise ConfigError("model", f"must have {CODES} words of one token each", f"{len(words)}", cure)
    chosen = [words[i] for i in farthest(rows[words], CODES)]
    return [chosen[i] for i in matched(codebook, rows[chosen])]


def words_of(tokenizer: Tokenizer, most: int) -> list[int]:
    """Return the tokens below `most` that are a space and small letters, and that their own text turns into again."""
    found = [(token, tokenizer.token_bytes(token)) for token in range(most)]
    return [token for token, text in found if _WORD.fullmatch(text) and tokenizer.encode(text.decode()) == [token]]


def farthest(rows: npt.NDArray[np.float32], count: int) -> list[int]:
    """Return the numbers of so many rows, far apart by angle: each is the farthest from all before it, the first from their mean."""
    unit = _unit(rows)
    near = unit @ _unit(unit.mean(0, keepdims=True))[0]
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(near.argmin()))
        near = np.maximum(near, unit @ unit[chosen[-1]]) if len(chosen) > 1 else unit @ unit[chosen[-1]]
    return chosen


def matched(codes: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]) -> list[int]:
    """Return for each code the number of its row, each row once: the nearest pairs of both along their principal axes come first."""
    apart = np.square(_axes(codes)[:, None] - _axes(rows)[None]).sum(-1)
    place = np.full(len(codes), -1)
    taken = np.zeros(len(rows), bool)
    for pair in np.argsort(apart, axis=None, kind="stable"):
        code, row = divmod(int(pair), len(rows))
        if place[code] < 0 and not taken[row]:
            place[code], taken[row] = row, True
    return [int(row) for row in place]


def codes_of(ids: Sequence[int], palette: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the codes that tokens stand for. Raises ConfigError for a token that is none of the palette's."""
    place = {token: code for code, token in enumerate(palette)}
    if strange := [token for token in ids if token not in place]:
        raise ConfigError("picture", "must be words of the palette", strange[0])
    return np.array([place[token] for token in ids], np.int64)


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _axes(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return points along their first principal axes, each axis scaled to one."""
    centred = points.astype(np.float64) - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:_AXES]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # a sign of an SVD is nobody's choice
    along = centred @ axes.T
    scaled: npt.NDArray[np.float64] = along / np.where(along.std(0) > 0, along.std(0), 1)
    return scaled
