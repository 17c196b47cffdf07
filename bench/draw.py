"""What a painter paints, judged by pictures that it never learnt from.

    python bench/draw.py smollm2+painter [--best 4] [--most 150] [--sheet FOLDER] [--json FILE]

Four kinds of wishes: things by artists from whom both were learnt together (seen), things by an artist who drew them for others only
(thing × artist), things in colours that they were never shown in (colour × thing), and names that were never shown at all. For each, the
likeliest of `--best` pictures is judged.

The judge knows the drawings of two artists that nothing here was trained on, apple and facebook, and looks at plain pixels: 16×16 of them,
blurred, with their colours. A picture is right if its nearest drawing shows the thing that was asked, of all things that the painter knows.
A picture in another colour is right if the judge finds the thing when all are grey, and the named hue covers most of it.

Beside each figure stand the same for real drawings of that artist, for the training picture whose prompt shares most words with the wish
(retrieval), and chance. `copies`: pictures that differ from a training picture by less than 5 % of the range.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drift import opened
from harness import finish, show
from ingle.core.message import Sampling
from ingle.engine.answer import write
from ingle.engine.language_model import USUAL, LanguageModel, likeness, painted, painting_request
from ingle.home.deltas import delta_report, get_delta
from ingle.home.kept import get_kept
from ingle.home.pictures import HELD_OUT
from ingle.home.place import Home, find_home
from ingle.measure.intervals import wilson
from ingle.media.painter import wish_of
from ingle.media.picture import enlarged, png_of, sheet

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "painter"))
from emblems import (
    ARTISTS,
    Emblem,
    PaintingExample,
    emblems,
    learnable,
    main_colour,
    stacked,
    to_learn,
    unseen_colours,
    unseen_concepts,
    unseen_pairs,
)

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
_COPY = 0.05
"""Mean distance of pixels, as a share of their range, below which a picture counts as a copy; the autoencoder's own is 0.044."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Drawings of artists that nobody learnt from, and what they show."""

    concepts: Sequence[str]
    plain: Features
    grey: Features

    def finds(self, pixels: Pixels, concepts: Sequence[str], grey: bool = False) -> npt.NDArray[np.bool_]:
        """Whether each picture's nearest drawing shows the thing asked for."""
        seen = features(pixels, grey) @ (self.grey if grey else self.plain).T
        return np.array([self.concepts[int(row.argmax())] == wanted for row, wanted in zip(seen, concepts, strict=True)])


def features(pixels: Pixels, grey: bool) -> Features:
    """Blurred 16×16 pixels about their mean, of unit length: [n, 256] grey or [n, 768] coloured."""
    values = pixels.astype(np.float32) / 255
    if grey:
        values = np.repeat(values.mean(-1, keepdims=True), 1, -1)
    small = values.reshape(len(values), 16, 4, 16, 4, -1).mean((2, 4))
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    blurred = sum(padded[:, i : i + 16, j : j + 16] for i in range(3) for j in range(3)) / 9
    flat = np.asarray(blurred).reshape(len(values), -1)
    flat = flat - flat.mean(1, keepdims=True)
    result: Features = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return result


def judge_of(home: Home, concepts: Sequence[str]) -> Judge:
    """The judge, for these things."""
    wanted = set(concepts)
    known = [one for artist in HELD_OUT for one in emblems(home, artist) if one.of.concept in wanted]
    pixels = stacked(known)
    return Judge([one.of.concept for one in known], features(pixels, False), features(pixels, True))


def draw(model: LanguageModel, wishes: Sequence[PaintingExample], best: int, seed: int) -> Pixels:
    """The likeliest of `best` pictures for each wish."""
    chosen = []
    for number, wish in enumerate(wishes):
        what, style = asked(wish)
        samplings = [replace(USUAL, seed=seed + number * best + i) for i in range(best)]
        requests = [painting_request(model, what, style, sampling) for sampling in samplings]
        painting = model.answering(requests[0])
        texts = [text for _, text in sorted(write(painting, requests))]
        tokens = [model.tokenizer.encode(text) for text in texts]
        likely = likeness(painting, what, style, tokens)
        at = int(np.argmax(likely))
        chosen.append(painted(painting, texts[at]).pixels)
    return np.stack(chosen)


def asked(wish: PaintingExample) -> tuple[str, str]:
    """What is asked for, and in whose style."""
    return wish_of(wish.prompt.removeprefix("draw:").rstrip(":"))


def retrieved(wish: PaintingExample, learnt: Sequence[PaintingExample]) -> PaintingExample:
    """The training picture whose prompt shares most words with the wish; of equals, the first."""
    words = set(wish.prompt.replace(",", "").replace(":", "").split())
    return max(
        learnt, key=lambda one: len(words & set(one.prompt.replace(",", "").replace(":", "").split())) - 0.01 * len(one.prompt.split())
    )


def right(judge: Judge, kind: str, pixels: Pixels, wishes: Sequence[PaintingExample]) -> npt.NDArray[np.bool_]:
    """Whether each picture shows what was asked for."""
    concepts = [one.emblem.of.concept for one in wishes]
    if kind != "colour × thing":
        return judge.finds(pixels, concepts)
    named = np.array([main_colour(one) == wish.emblem.colour for one, wish in zip(pixels, wishes, strict=True)])
    return judge.finds(pixels, concepts, grey=True) & named


def styled(pixels: Pixels, wishes: Sequence[PaintingExample], learnt: Sequence[PaintingExample]) -> npt.NDArray[np.bool_]:
    """Whether the nearest training picture of all is by the artist asked for."""
    known = features(stacked([one.emblem for one in learnt]), False)
    nearest = (features(pixels, False) @ known.T).argmax(1)
    return np.array([learnt[int(i)].emblem.of.artist == wish.emblem.of.artist for i, wish in zip(nearest, wishes, strict=True)])


def cell(hits: npt.NDArray[np.bool_]) -> str:
    """A share with its interval."""
    interval = wilson(int(hits.sum()), len(hits))
    return f"{hits.mean():.2f} ({interval.low:.2f}–{interval.high:.2f})"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--best", type=int, default=4)
    parser.add_argument("--most", type=int, default=150, help="most wishes of a kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="folder for the pictures themselves")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    home = find_home()
    kept = get_kept(home, given.model)
    painter = next(one for digest in reversed(kept.deltas) if (one := get_delta(home, digest)).kind == "painter")
    settings = (delta_report(home, painter.digest) or {})["settings"]
    drawn: list[Emblem] = learnable([one for artist in ARTISTS for one in emblems(home, artist)], settings["families"])
    learnt = to_learn(drawn, settings["colours"], settings["seed"])
    named = [one for one in learnt if not one.emblem.colour and one.prompt.endswith(f"{one.emblem.of.name}, {one.emblem.of.artist}:")]
    kinds = {
        "seen": named,
        "thing × artist": unseen_pairs(drawn),
        "colour × thing": unseen_colours(drawn),
        "new name": unseen_concepts(drawn),
    }
    judge = judge_of(home, sorted({one.of.concept for one in drawn}))
    model = opened(home, given.model)
    chance = 1 / len(set(judge.concepts))
    rows = [["wishes", "n", "right", "real drawings", "retrieval", "chance", "artist's style", "copies"]]
    table: dict[str, Any] = {}
    for kind, all_wishes in kinds.items():
        order = np.random.default_rng(given.seed).permutation(len(all_wishes))[: given.most]
        wishes = [all_wishes[i] for i in order]
        if not wishes:
            continue
        pixels = draw(model, wishes, given.best, given.seed)
        nearest = [retrieved(wish, learnt) for wish in wishes]
        figures = {
            "right": right(judge, kind, pixels, wishes),
            "real": right(judge, kind, stacked([one.emblem for one in wishes]), wishes),
            "retrieval": right(judge, kind, stacked([one.emblem for one in nearest]), wishes),
            "style": styled(pixels, wishes, named),
            "copies": copies(pixels, learnt),
        }
        rows.append([kind, str(len(wishes)), *(cell(figures[key]) for key in ("right", "real", "retrieval")), f"{chance:.3f}",
                     cell(figures["style"]), cell(figures["copies"])])  # fmt: skip
        table[kind] = {key: float(hits.mean()) for key, hits in figures.items()} | {"n": len(wishes)}
        if given.sheet:
            given.sheet.mkdir(parents=True, exist_ok=True)
            some = np.concatenate([pixels[:32], stacked([one.emblem for one in wishes[:32]])])
            (given.sheet / f"{kind.replace(' × ', '-').replace(' ', '-')}.png").write_bytes(png_of(enlarged(sheet(some, 16), 1.5)))
    show(f"{given.model}: the likeliest of {given.best}, judged by plain pixels of {' and '.join(HELD_OUT)} (95 %)", rows)
    if given.json:
        given.json.write_text(json.dumps(table, indent=1))
    finish("draw", {"model": given.model, "best": given.best, "sampling": sampling_row(USUAL), "kinds": table})


def copies(pixels: Pixels, learnt: Sequence[PaintingExample]) -> npt.NDArray[np.bool_]:
    """Whether a picture is all but one that was learnt."""
    known = stacked([one.emblem for one in learnt]).reshape(len(learnt), -1).astype(np.float32) / 255
    flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    return np.array([bool(np.abs(known - one).mean(1).min() < _COPY) for one in flat])


def sampling_row(sampling: Sampling) -> dict[str, float]:
    """Sampling of the pictures."""
    return {"temperature": sampling.temperature, "top_p": sampling.top_p}


if __name__ == "__main__":
    main()
