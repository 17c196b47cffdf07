"""How well a model sees: pictures by artists that it never learnt from, named and described, beside what needs no language model.

    python bench/sight.py named --model smollm2+sight --items 400
    python bench/sight.py unseen --model smollm2+unseen      (made with --set without=… : families that it never learnt)
    python bench/sight.py stamps --model smollm2+sight
    python bench/sight.py looking --model smollm2+sight

All by the home of INGLE_HOME, as the model is served, greedy. Ties and empty answers count as wrong. Baselines read the same frozen eye:
the nearest training picture (cosine of its numbers around their mean, every artist's), its five nearest, the sight's own head, the words
that occur most, and a blank picture. Intervals are 95 %, paired bootstrap over pictures. The last line is JSON.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ingle.core.message import Request
from ingle.engine.loading import Opener
from ingle.home.archives import archive_file, members
from ingle.home.catalogue import Archive
from ingle.home.deltas import delta_tensors, get_delta
from ingle.home.kept import Kept, get_kept
from ingle.home.pictures import FREE, HELD_OUT
from ingle.home.place import Home, find_home
from ingle.media.picture import read_picture
from ingle.media.sight import Heads, look, open_eye
from ingle.tuning.sight_learning import answers, ask, blank, f1, plain, wanted_words
from ingle.tuning.sight_pictures import KIND, NAME, WORDS, ShownPicture, drawn_by, features, features_folder, words_of

Floats = np.ndarray[Any, np.dtype[np.float32]]
ROUNDS = 2000
TUX_PAINT = Archive(
    "tuxpaint-stamps-default", "2025.03.31-1", "tuxpaint-stamps-default_2025.03.31-1_all.deb", 80872956,
    "6312d03a37d0220b10fc91a7467bf2a2a2336e08c2f416de04311d25fd7aeacb",
)  # fmt: skip
STAMPS = {
    "an animal": ("animals",), "food or drink": ("food",), "a vehicle": ("vehicles",), "something to wear": ("clothes",),
    "a plant": ("plants",), "a person": ("people",), "something for sport": ("sports",), "something of the sky": ("space",),
}  # fmt: skip
"""Tux Paint's folders, as the sight calls what they hold."""


def looked_at(home: Home, pictures: Sequence[ShownPicture], views: int = 0) -> tuple[list[ShownPicture], Floats]:
    """The pictures that can be read, and the eye's numbers of each, [n, f]; as `ingle make tune sight` keeps them in the home's cache."""
    eye = open_eye(home)
    found, kept = features(eye, pictures, views, features_folder(home, eye, pictures, views, 0), 0, silent, silent)
    return [pictures[i] for i in kept], found[:, 0].astype(np.float32)


class Neighbours:
    """The training pictures, by their numbers."""

    def __init__(self, home: Home, without: Sequence[str] = ()) -> None:
        pictures, numbers = looked_at(home, drawn_by(home, FREE, silent), 1)
        chosen = [i for i, one in enumerate(pictures) if one.family not in without]
        self.pictures, numbers = [pictures[i] for i in chosen], numbers[chosen]
        self.mean = numbers.mean(axis=0)
        self.rows = _unit(numbers - self.mean)

    def nearest(self, numbers: Floats, count: int) -> list[list[ShownPicture]]:
        """The nearest training pictures of each, the nearest first."""
        cosines = _unit(numbers - self.mean) @ self.rows.T
        return [[self.pictures[i] for i in np.argsort(-row, kind="stable")[:count]] for row in cosines]


def silent(*_: object) -> None:
    """Show nothing."""


def _unit(x: Floats) -> Floats:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def heads_of(home: Home, kept: Kept) -> Heads:
    """The heads of the model's sight."""
    [delta] = [one for one in (get_delta(home, digest) for digest in kept.deltas) if one.kind == "sight"]
    return Heads(delta_tensors(home, delta))


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of a mean, by bootstrap."""
    x, draw = np.array(values, np.float64), np.random.default_rng(seed)
    means = np.array([x[draw.integers(0, len(x), len(x))].mean() for _ in range(ROUNDS)])
    return float(x.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def row(label: str, values: Sequence[float], against: Sequence[float] | None = None) -> dict[str, Any]:
    """Print a figure, with the paired difference from another where one is given; return it."""
    mean, low, high = interval(values)
    told: dict[str, Any] = {"what": label, "value": mean, "low": low, "high": high, "n": len(values)}
    text = f"{label:<46} {mean:.3f} ({low:.3f} to {high:.3f})"
    if against is not None:
        gain = interval([a - b for a, b in zip(values, against, strict=True)])
        told |= {"gain": gain[0], "gain_low": gain[1], "gain_high": gain[2]}
        text += f"   {gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f})"
    print(text, flush=True)
    return told


def served(home: Home, kept: Kept, requests: Sequence[Request]) -> list[str]:
    """Answers as served, a few at a time."""
    model, done = Opener()(home, kept), list[str]()
    for start in range(0, len(requests), 32):
        done += answers(model, requests[start : start + 32], lambda: False)
        print(f"\r{len(done)} of {len(requests)}", end="", flush=True)
    print("\r" + " " * 24 + "\r", end="")
    return done


def some(pictures: list[ShownPicture], items: int, seed: int) -> list[ShownPicture]:
    """So many of them, chosen by chance."""
    return random.Random(seed).sample(pictures, min(items, len(pictures))) if items else pictures


def named(home: Home, kept: Kept, items: int) -> list[dict[str, Any]]:
    """Seen concepts by unseen artists: the exact name."""
    told, near, heads = [], Neighbours(home), heads_of(home, kept)
    known = {one.name for one in near.pictures if one.group != "openclipart"}
    for artist in HELD_OUT:
        pictures, numbers = looked_at(home, some([one for one in drawn_by(home, (artist,), silent) if one.name in known], items, 0))
        print(f"\n{artist}: the exact name, {len(pictures)} pictures, {len(known)} concepts")
        found = near.nearest(numbers, 1)
        first = [float(plain(some_[0].name) == plain(one.name)) for some_, one in zip(found, pictures, strict=True)]
        told.append({"artist": artist} | row("nearest training picture (4 artists)", first))
        z = heads.reduced(numbers)
        head = [float(plain(heads.words(one)[0][0]) == plain(shown.name)) for one, shown in zip(z, pictures, strict=True)]
        told.append({"artist": artist} | row("the sight's head, without a language model", head, first))
        got = served(home, kept, [ask(one.data, NAME) for one in pictures])
        said = [float(plain(answer) == plain(one.name)) for answer, one in zip(got, pictures, strict=True)]
        told.append({"artist": artist} | row(f"{kept.name}, as served", said, first))
        [nothing] = served(home, kept, [ask(blank(), NAME)])
        unseen_ = [float(plain(nothing) == plain(one.name)) for one in pictures]
        told.append({"artist": artist} | row("the same, of a blank picture", unseen_))
        for answer, one in list(zip(got, pictures, strict=True))[:6]:
            print(f"    {one.name} → {answer!r}")
    return told


def unseen(home: Home, kept: Kept, items: int) -> list[dict[str, Any]]:
    """Unseen concepts by unseen artists, whole families of them: words."""
    without = json.loads(get_delta(home, kept.deltas[-1]).origin["settings"])["without"]
    near, pool = Neighbours(home, without), [one for one in drawn_by(home, HELD_OUT, silent) if one.family in without]
    pictures, numbers = looked_at(home, some(pool, items, 0))
    wanted = [wanted_words(one) for one in pictures]
    print(f"\nwords (F1) of {len(pictures)} pictures of {len(without)} families that it never learnt: {', '.join(without)}")
    found = near.nearest(numbers, 5)
    first = [f1(wanted_words(some_[0]), one) for some_, one in zip(found, wanted, strict=True)]
    votes = [_voted(some_) for some_ in found]
    usual = [word for word, _ in Counter(word for one in near.pictures for word in wanted_words(one)).most_common(6)]
    told = [row("nearest training picture's own words", first)]
    told.append(row("five nearest, words of at least two", [f1(some_, one) for some_, one in zip(votes, wanted, strict=True)], first))
    told.append(row("six most frequent words", [f1(usual, one) for one in wanted], first))
    heads = heads_of(home, kept)
    words = [[word for part in heads.words(z) for text in part for word in words_of(text)] for z in heads.reduced(numbers)]
    told.append(row("the sight's line of words, all of it", [f1(some_, one) for some_, one in zip(words, wanted, strict=True)], first))
    got = served(home, kept, [ask(one.data, WORDS) for one in pictures])
    told.append(row(f"{kept.name}, as served", [f1(words_of(answer), one) for answer, one in zip(got, wanted, strict=True)], first))
    [nothing] = served(home, kept, [ask(blank(), WORDS)])
    told.append(row("the same, of a blank picture", [f1(words_of(nothing), one) for one in wanted], first))
    for answer, one in list(zip(got, pictures, strict=True))[:6]:
        print(f"    {one.name} → {answer!r}")
    return told


def _voted(pictures: Sequence[ShownPicture]) -> list[str]:
    counts = Counter(word for one in pictures for word in set(wanted_words(one)))
    return [word for word, count in counts.items() if count >= 2]


def stamps(home: Home, kept: Kept, items: int) -> list[dict[str, Any]]:
    """Tux Paint's stamps, mostly photographs: which of eight sorts of things."""
    pictures, numbers = looked_at(home, some(tux_paint(home), items, 0))
    near = Neighbours(home)
    print(f"\nTux Paint's stamps: which of {len(STAMPS)} sorts, {len(pictures)} pictures")
    found = near.nearest(numbers, 40)
    sorts = [next((one.kind for one in some_ if one.kind in STAMPS), "") for some_ in found]
    first = [float(sort == one.kind) for sort, one in zip(sorts, pictures, strict=True)]
    told = [row("nearest training picture of one of the eight", first)]
    choice = f"{KIND} Choose one of these: {'; '.join(STAMPS)}."
    got = served(home, kept, [ask(one.data, choice) for one in pictures])
    told.append(row(f"{kept.name}, asked to choose", [_chose(answer, one.kind) for answer, one in zip(got, pictures, strict=True)], first))
    got = served(home, kept, [ask(one.data, KIND) for one in pictures])
    told.append(row(f"{kept.name}, asked freely", [_chose(answer, one.kind) for answer, one in zip(got, pictures, strict=True)], first))
    print("    asked freely it says: " + ", ".join(f"{text!r} {count}" for text, count in Counter(got).most_common(6)))
    return told


def _chose(answer: str, kind: str) -> float:
    """1 if the answer names this sort, and no other of the eight."""
    heads = {one: re.findall(r"[a-z]+", one)[-1] if one.startswith(("a ", "an ")) else one for one in STAMPS}
    said = [one for one, word in heads.items() if word in answer.lower()]
    return float(said == [kind])


def tux_paint(home: Home) -> list[ShownPicture]:
    """Tux Paint's stamps of the eight sorts (Debian's package, GPL: for figures only)."""
    found = []
    for name, data in members(archive_file(home, TUX_PAINT, silent)):
        folder = name.partition("/stamps/")[2].partition("/")[0]
        kind = next((one for one, folders in STAMPS.items() if folder in folders), "")
        if kind and name.endswith(".png"):
            found.append(ShownPicture(data, re.sub(r"[\d_-]+", " ", name.rpartition("/")[2][:-4]).strip(), kind=kind, group="tuxpaint"))
    return found


def looking(home: Home, kept: Kept, items: int) -> list[dict[str, Any]]:
    """Does it look? Answers with the picture swapped, and blank; and what a picture costs."""
    pictures, _ = looked_at(home, some(drawn_by(home, ("facebook",), silent), items or 100, 1))
    told = []
    for question in (NAME, WORDS, "Describe the picture."):
        [nothing] = served(home, kept, [ask(blank(), question)])
        got = served(home, kept, [ask(one.data, question) for one in pictures])
        swapped = [float(first != second) for first, second in zip(got, [*got[1:], got[0]], strict=True)]
        told.append(row(f"{question[:30]}…: changes when swapped", swapped))
        told.append(row(f"{question[:30]}…: differs from the blank one's", [float(one != nothing) for one in got]))
    eye, heads = open_eye(home), heads_of(home, kept)
    times, shown = {"eye": list[float](), "all": list[float]()}, [read_picture(one.data) for one in pictures]
    for one in shown:
        begun = time.perf_counter()
        numbers = look(eye, one)
        times["eye"].append(time.perf_counter() - begun)
        z = heads.reduced(numbers)
        heads.vectors(z), heads.words(z)
        times["all"].append(time.perf_counter() - begun)
    for label, seconds in times.items():
        told.append({"what": f"ms a picture: {label}", "value": 1000 * float(np.median(seconds))})
        print(f"ms a picture, {label}: median {1000 * np.median(seconds):.1f}, 95 % within {1000 * np.quantile(seconds, 0.95):.1f}")
    return told


PARTS: Mapping[str, Callable[[Home, Kept, int], list[dict[str, Any]]]] = {
    "named": named, "unseen": unseen, "stamps": stamps, "looking": looking,
}  # fmt: skip


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--model", default="smollm2+sight")
    parser.add_argument("--items", type=int, default=0, help="most pictures; 0 = all")
    options = parser.parse_args()
    home = find_home()
    told = PARTS[options.part](home, get_kept(home, options.model), options.items)
    print(json.dumps({"part": options.part, "model": options.model, "rows": told}))


if __name__ == "__main__":
    main()
