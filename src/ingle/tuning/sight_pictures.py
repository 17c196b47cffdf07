"""Pictures with words to learn to see from: a folder of one's own, or the drawings of free artists."""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError, RequestError
from ingle.core.files import os_errors
from ingle.core.media import Picture, PictureLook, SightPiece
from ingle.core.message import ImagePart, Message, TextPart
from ingle.core.progress import Counted, FetchProgress
from ingle.engine.language_model import Seen, seen_prompt
from ingle.home.pictures import FREE, Illustration, illustrations
from ingle.home.place import Home
from ingle.media.eyes.efficientnet import Eye
from ingle.media.picture import read_picture
from ingle.media.sight import line_of, look, of_length, said
from ingle.model.template import render
from ingle.model.tokenizer import ControlToken, Tokenizer
from ingle.train.example_files import Document

if TYPE_CHECKING:
    from PIL.Image import Image


ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
# Folders of clip art whose pictures show things; the others are icons, patterns and playing cards by the hundred.
_CLIPART = (
    "animals", "buildings", "containers", "education", "electronics", "food", "office", "people", "plants", "recreation", "science",
    "tools", "transportation",
)  # fmt: skip
_SMALL = frozenset(
    ["a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "is", "it", "its", "of", "on", "or", "the", "to", "with"]
)
# Beginnings of a subcategory's name, and what such a thing is called in an answer; the first that fits.
_KINDS = (
    ("animal, cat-face, monkey-face", "an animal"), ("plant", "a plant"), ("food, drink", "food or drink"),
    ("transport-sign", "a sign"), ("transport", "a vehicle"), ("place, hotel, building", "a place or a building"),
    ("sky", "something of the sky"), ("time", "a clock"), ("sport, award", "something for sport"), ("game", "a game"),
    ("event, arts, recreation", "something for a feast"), ("clothing", "something to wear"), ("musical", "a musical instrument"),
    ("music, sound", "something of music"), ("phone, computer, light, electronics", "an electric device"),
    ("book, writing, office, mail, education", "something for the office"), ("money", "money"), ("lock", "a lock or a key"),
    ("tool", "a tool"), ("science, medical", "something of science"),
    ("household, dishware, furniture, container", "something for the house"),
    ("face, emotion, heart", "a face or a feeling"), ("hand, body", "a part of the body"), ("person, people, family", "a person"),
    ("other-object", "an object"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture to learn from, with its words."""

    data: bytes  # the file
    name: str  # its name, or its caption
    tags: tuple[str, ...] = ()  # words that go with it
    kind: str = ""  # the sort of thing that it is, as words of an answer: `an animal`; empty = unknown
    group: str = ""  # pictures of one group are alike in manner (one artist's): what is learnt from one group is tried on another
    family: str = ""  # pictures of one family show things of one sort


def words_of(text: str) -> tuple[str, ...]:
    """Return the words that say something, in small letters, each once."""
    return tuple(dict.fromkeys(word for word in re.findall(r"[^\W\d_]+", text.lower()) if word not in _SMALL and len(word) > 1))


def kind_of(*folders: str) -> str:
    """Return the sort of thing that subcategories or folders stand for, the innermost that says it; `a symbol` if none does."""
    for folder in reversed(folders):
        for beginnings, kind in _KINDS:
            if folder.startswith(tuple(beginnings.split(", "))):
                return kind
    return "a symbol"


def digest_of(pictures: Sequence[ShownPicture]) -> str:
    """Digest of all that is learnt from."""
    rows = [[digest_bytes(one.data), one.name, list(one.tags), one.kind, one.group, one.family] for one in pictures]
    return digest_json(rows)


def drawn_by(home: Home, artists: Collection[str], progress: FetchProgress) -> list[ShownPicture]:
    """Return the drawings of these artists that have words. Raises the errors of fetching."""
    found: list[ShownPicture] = []
    drawings = {artist: illustrations(home, artist, progress) for artist in artists}
    known = {
        word for artist, some in drawings.items() if artist != "openclipart" for one in some for word in (*words_of(one.name), *one.tags)
    }
    for artist, some in drawings.items():
        for one in some:
            shown = _clipart(one, known) if artist == "openclipart" else _emoji(one)
            if shown is not None:
                found.append(shown)
    return found


def _emoji(one: Illustration) -> ShownPicture | None:
    if one.category in ("flags", "component"):
        return None  # nobody can tell 270 flags at 64 pixels, and a patch of skin is nothing
    tags = tuple(tag for tag in dict.fromkeys(one.tags) if re.fullmatch(r"[a-z]{2,}", tag))
    return ShownPicture(one.data, one.name, tags, kind_of(one.subcategory), one.artist, one.subcategory)


def _clipart(one: Illustration, known: Collection[str]) -> ShownPicture | None:
    """File names end with their author's name: only words that emoji know, too, are taken for words."""
    if one.category not in _CLIPART or "cards" in one.tags:
        return None
    name = [word for word in words_of(one.name) if word in known]
    tags = [word for tag in one.tags for word in words_of(tag)]
    if not name:
        return None
    return ShownPicture(
        one.data, " ".join(name), tuple(dict.fromkeys((*name, *tags))), kind_of(one.category, *one.tags[1:]), one.artist, one.category
    )


def free_drawings(home: Home, progress: FetchProgress) -> list[ShownPicture]:
    """Return the drawings that anyone may learn from."""
    return drawn_by(home, FREE, progress)


def from_folder(folder: Path) -> list[ShownPicture]:
    """Return a folder's pictures with their captions: from captions.csv or .jsonl (`file`, `caption`), or from a .txt beside each picture.

    Raises ConfigError for a folder without such, for captions without a picture, and for fewer than eight pictures.
    """
    if not folder.is_dir():
        raise ConfigError("--from", "must be a folder of pictures with captions", str(folder))
    with os_errors(folder):
        files = {path.name: path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS}
        tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".csv", ".jsonl")]
        captions = dict[str, str]()
        for table in tables:
            captions |= dict(_rows(table, files))
        for name, path in files.items():
            beside = path.with_suffix(".txt")
            if name not in captions and beside.is_file():
                captions[name] = " ".join(beside.read_text("utf-8", "replace").split())
        shown = [
            ShownPicture(files[name].read_bytes(), text, words_of(text), group=str(i % 4))
            for i, (name, text) in enumerate(captions.items())
            if text
        ]
    if len(shown) < 8:
        cure = "Put a table captions.csv (file,caption), captions.jsonl, or a .txt with the same name beside each picture."
        raise ConfigError("--from", "must hold at least eight pictures with captions", len(shown), cure)
    return shown


def _rows(table: Path, files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    text = table.read_text("utf-8", "replace")
    try:
        rows = (
            list(csv.DictReader(text.splitlines()))
            if table.suffix.lower() == ".csv"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except ValueError as error:
        raise ConfigError(str(table), "must hold a JSON object a line", error) from error
    for number, row in enumerate(rows, 1):
        where = f"{table.name}, row {number}"
        if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("caption"), str):
            raise ConfigError(where, "must have file and caption", str(row)[:80])
        if row["file"] not in files:
            raise ConfigError(where, "must name a picture of this folder", row["file"])
        yield row["file"], " ".join(row["caption"].split())


# Questions about pictures, with answers made from their words: what it is, what sort of thing, its colours, words for it, a sentence.


NAME = "What is it? Answer with its name only."
WORDS = "Which words describe it? Answer with a list."
KIND = "What sort of thing is it?"
COLOURS = "Which colours does it have?"
_NAMES = (NAME, "What is this?", "What does the picture show?", "What do you see?", "Name it.")
_WORDS = (WORDS, "Give a few words for this picture.")
_KIND_GROUPS = (KIND, "What kind of thing does the picture show?")
_COLOURS = (COLOURS, "What colour is it?")
_SENTENCES = ("Describe the picture.", "Describe this picture in a sentence.")
_MOST_WORDS = 8


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def questions_of(one: ShownPicture, colours: Sequence[str], count: int, draw: np.random.Generator) -> list[tuple[str, str]]:
    """Return a picture's questions with their answers: its name is asked first, then `count` − 1 others."""

    def pick(texts: Sequence[str]) -> str:
        return texts[int(draw.integers(len(texts)))]

    called = pick(_NAMES)
    first = (called, one.name if called == NAME else f"The picture shows: {one.name}.")
    words = list(dict.fromkeys((*one.name.lower().split(), *one.tags)))[:_MOST_WORDS]
    others = [(pick(_WORDS), ", ".join(words))]
    if one.kind:
        others.append((pick(_KIND_GROUPS), f"It is {one.kind}."))
    if colours:
        others.append((pick(_COLOURS), f"It is {listed(colours)}."))
    kind = f" It is {one.kind}." if one.kind else ""
    coloured = f" Its colours are {listed(colours)}." if colours else ""
    others.append((pick(_SENTENCES), f"The picture shows: {one.name}.{kind}{coloured}"))
    chosen = draw.permutation(len(others))[: max(0, count - 1)]
    return [first, *(others[i] for i in chosen)]


class Marks:
    """A sight that only marks its places: the ids of a picture's vectors can be told by their order."""

    marker, digest, likeness = "", "marks", 1.0

    def see(self, picture: Picture) -> tuple[str, ...]:
        """Return nothing: no picture is ever shown to it."""
        return ()

    def fingerprint(self, picture: Picture, pieces: Sequence[SightPiece]) -> npt.NDArray[np.float32]:
        """Return nothing, too."""
        return np.zeros(0, np.float32)


def asked(tokenizer: Tokenizer, question: str) -> tuple[str | ControlToken, ...]:
    """Return a question about a picture as the model's template writes it."""
    return render(tokenizer, [Message("user", (ImagePart(b"", "image/png"), TextPart(question)))], True)


def document_of(
    tokenizer: Tokenizer, vocab_size: int, view: int, places: int, line: str, question: Sequence[str | ControlToken], answer: str
) -> Document:
    """Return a question about a picture (see `asked`) with its answer, as the engine would ask it. `view`: the number of the view."""
    seen = [Seen(PictureLook(str(view), "", np.zeros(0, np.float32)), (np.zeros((places, 1), np.float32), line))]
    ends = next(iter(tokenizer.facts.eos_ids), None)
    prompt = seen_prompt(tokenizer, question, seen, Marks(), vocab_size).ids
    place, ids = 0, list[int]()
    for id_ in prompt:
        if id_ >= vocab_size:
            ids.append(vocab_size + view * places + place)
            place += 1
        else:
            ids.append(id_)
    written = [*tokenizer.encode_pieces(["", answer]), *([] if ends is None else [ends])]
    return Document(np.array([*ids, *written], np.int32), np.arange(len(ids) + len(written)) >= len(ids))


def line_for(said: tuple[Sequence[str], Sequence[str]], colours: Sequence[str]) -> str:
    """Return the words behind a picture's vectors."""
    return line_of(*said, colours)


# An eye's numbers of the pictures to learn from, each also altered a little: turned, moved, on another ground, paler or darker.
# HOME/cache/sight/DIGEST/features-00000.safetensors, … 256 pictures each; a folder that was stopped goes on where it was


Array = npt.NDArray[Any]
EACH = 256  # pictures of a file
_SIDE = 256


def features_folder(home: Home, eye: Eye, pictures: Sequence[ShownPicture], views: int, seed: int) -> Path:
    """Return where the numbers of these pictures are kept, whatever is said of them."""
    key = digest_json([[digest_bytes(one.data) for one in pictures], eye.digest, views, seed])
    return home.root / "cache" / "sight" / key[:32]


def features(
    eye: Eye, pictures: Sequence[ShownPicture], views: int, folder: Path, seed: int, check: Callable[[], None],
    progress: Counted,
) -> tuple[Array, list[int]]:  # fmt: skip
    """Return the numbers, float16 [pictures, 1 + views, n], and which pictures they are of: damaged ones are left out.

    `check` raises when somebody wants to stop.
    """
    from safetensors.numpy import load_file, save_file

    parts, kept = list[Array](), list[int]()
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for start in range(0, len(pictures), EACH):
        path, some = folder / f"features-{start // EACH:05}.safetensors", pictures[start : start + EACH]
        with os_errors(path):
            if not path.exists():
                seen, numbers = list[Array](), list[int]()
                for number, one in enumerate(some, start):
                    check()
                    progress(number, len(pictures))
                    try:
                        seen.append(_looked(eye, one, views, seed))
                        numbers.append(number)
                    except RequestError:
                        continue  # it is counted by who asked
                looked: dict[str, Array] = {"numbers": np.array(numbers, np.int64), "seen": np.array(seen, np.float16)}
                part = path.with_suffix(".part")
                save_file(looked, part)
                part.replace(path)
            held = load_file(path)
        if len(held["numbers"]):
            parts.append(held["seen"])
            kept += held["numbers"].tolist()
    progress(len(pictures), len(pictures))
    return np.concatenate(parts) if parts else np.zeros((0, 1 + views, 0), np.float16), kept


def _looked(eye: Eye, one: ShownPicture, views: int, seed: int) -> Array:
    """Return the numbers of a picture as it is, and of its altered views: float16 [1 + views, n]."""
    draw = np.random.default_rng([seed, int(digest_bytes(one.data)[:8], 16)])
    whole = read_picture(one.data)
    seen = [look(eye, whole), *(look(eye, Picture(altered(one.data, draw))) for _ in range(views))]
    return np.stack(seen).astype(np.float16)


def altered(data: bytes, draw: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a picture's pixels, altered: on a ground of another colour in two of five, mirrored in one of three."""
    from PIL import Image, ImageEnhance

    image: Image.Image = Image.open(io.BytesIO(data)).convert("RGBA")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    image = image.rotate(draw.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    ground = (255, 255, 255) if draw.random() < 0.6 else tuple(int(value) for value in draw.integers(120, 256, 3))
    below = Image.new("RGBA", image.size, (*ground, 255))
    image = Image.alpha_composite(below, image).convert("RGB")
    if draw.random() < 1 / 3:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize((max(1, int(image.width * draw.uniform(0.85, 1.15))), image.height), Image.Resampling.BICUBIC)
    for kind, least in ((ImageEnhance.Color, 0.5), (ImageEnhance.Brightness, 0.8), (ImageEnhance.Contrast, 0.8)):
        image = kind(image).enhance(draw.uniform(least, 2 - least))
    return _moved(image, ground, draw)


def _moved(image: "Image", ground: tuple[int, ...], draw: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Put a picture somewhere on a square that is up to half as large again."""
    pixels, side = np.asarray(image), int(max(image.size) * draw.uniform(1.0, 1.5))
    out = np.empty((side, side, 3), np.uint8)
    out[:] = ground
    top, left = (int(draw.integers(0, side - size + 1)) for size in pixels.shape[:2])
    out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return out


# The heads of a sight, in closed form: which directions of the eye's numbers tell names apart, and where each name lies in them.
# The numbers are first taken to the 1,024 directions in which they differ most (randomised PCA, arXiv 0909.4061). A ridge regression from
# there to names gives the directions; the first k principal ones of what it predicts are kept (reduced-rank regression). In these k
# numbers, brought to one length, a name lies at the mean of its pictures; its score is the cosine.
# Shapes: n pictures with v views each, f numbers of a view, N names.


Floats = npt.NDArray[np.float32]
MOST_DIRECTIONS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Closed-form heads."""

    mean: Floats  # [f]
    reduce: Floats  # [k, f]
    names: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]  # words of each name
    places: Floats  # [N, k]: where each name lies; of length 1
    # The cosine that parts pictures of one name, by different groups, from those of the nearest other name with the fewest errors.
    likeness: float = 1.0

    def reduced(self, numbers: Array) -> Floats:
        """Return the k numbers: [..., f] → [..., k]."""
        return of_length(((numbers.astype(np.float32) - self.mean) @ self.reduce.T).astype(np.float32))

    def said(self, z: Floats) -> tuple[list[str], list[str]]:
        """Return names and words for the k numbers of one view."""
        return said(self.places @ z / len(z) ** 0.5, self.names, self.tags)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Sums over some pictures for a ridge regression; those of several sets add up."""

    gram: Floats  # [d, d], d = MOST_DIRECTIONS or fewer
    by_name: Floats  # [d, N]: sums of the views of each name


def names_of(pictures: Sequence[ShownPicture]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], Array]:
    """Return all names, the words of each, and which name each picture has."""
    names = tuple(dict.fromkeys(one.name for one in pictures))
    number = {name: i for i, name in enumerate(names)}
    tags: list[dict[str, None]] = [{} for _ in names]
    for one in pictures:
        tags[number[one.name]] |= dict.fromkeys(one.tags)
    return names, tuple(map(tuple, tags)), np.array([number[one.name] for one in pictures], np.int64)


def centred(numbers: Array, mean: Floats) -> Floats:
    """Return views around their mean, each of length 1: [..., f] → [n, f]."""
    x = numbers.reshape(-1, numbers.shape[-1]).astype(np.float32) - mean
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    return x


def basis(x: Floats, seed: int) -> Floats:
    """Return the directions in which these views differ most: [n, f] → [f, d], orthonormal."""
    most = min(MOST_DIRECTIONS, *x.shape)
    drawn = np.random.default_rng(seed).standard_normal((x.shape[1], most), np.float32)
    for _ in range(2):
        drawn = np.linalg.qr(x.T @ (x @ drawn))[0]
    return drawn


def sums_of(x: Floats, labels: Array, count: int) -> Sums:
    """Return the sums of these views: x [n, d], labels int [n]."""
    by_name = np.zeros((count, x.shape[1]), np.float32)
    np.add.at(by_name, labels, x)
    return Sums(x.T @ x, by_name.T)


def directions(sums: Sums, width: int, ridge: float) -> Floats:
    """Return the k directions: [k, d], k = width or fewer."""
    gram, target = sums.gram, sums.by_name - sums.by_name.mean(axis=1, keepdims=True)
    weights = np.linalg.solve(gram + ridge * np.eye(len(gram), dtype=np.float32), target)  # (d, N)
    _, vectors = np.linalg.eigh(weights.T @ gram @ weights)
    kept: Floats = np.ascontiguousarray((weights @ vectors[:, ::-1][:, :width]).T)
    kept /= np.maximum(np.linalg.norm(kept, axis=1).max(), 1e-9)
    return kept


Words = tuple[list[str], list[str]]  # names that a picture looks like, and words that go with it


def fit(
    numbers: Array, pictures: Sequence[ShownPicture], width: int, ridge: float, check: Callable[[], None],
    progress: Counted,
) -> tuple[Fitted, list[list[Words]]]:  # fmt: skip
    """Fit the heads on all pictures; return them, and the words for each picture's views by heads that were fitted without its group:
    whoever learns from these words learns how far they can be trusted.

    numbers: float16 [n, v, f]. `check` raises when somebody wants to stop.
    """
    names, tags, labels = names_of(pictures)
    mean = numbers.reshape(-1, numbers.shape[-1]).mean(axis=0, dtype=np.float64).astype(np.float32)
    x = centred(numbers, mean)
    wide = basis(x, 0)
    x = (x @ wide).reshape(*numbers.shape[:2], -1)  # (n, v, d)
    groups = sorted({one.group for one in pictures})
    of_group = np.array([groups.index(one.group) for one in pictures])
    parts = list[Sums]()
    for group in range(len(groups)):
        check()
        mine = of_group == group
        parts.append(sums_of(x[mine].reshape(-1, x.shape[-1]), np.repeat(labels[mine], numbers.shape[1]), len(names)))
    gram: Floats = np.sum([part.gram for part in parts], axis=0)
    by_name: Floats = np.sum([part.by_name for part in parts], axis=0)
    words: list[list[Words]] = [[] for _ in pictures]
    same, other = list[float](), list[float]()
    for group, part in enumerate(parts if len(parts) > 1 else []):
        check()
        progress(group, len(groups) + 1)
        others = of_group != group
        fold = _fitted(Sums(gram - part.gram, by_name - part.by_name), x[others], labels[others], (names, tags), width, ridge)
        for i in np.flatnonzero(~others):
            z = fold.reduced(x[i])
            words[i] = [fold.said(view) for view in z]
            cosines = fold.places @ z[0] / z.shape[1] ** 0.5
            if fold.places[labels[i]].any():
                same.append(float(cosines[labels[i]]))
                other.append(float(np.delete(cosines, labels[i]).max(initial=-1)))
    check()
    whole = _fitted(Sums(gram, by_name), x, labels, (names, tags), width, ridge)
    progress(len(groups) + 1, len(groups) + 1)
    whole = replace(whole, mean=mean, reduce=np.ascontiguousarray(whole.reduce @ wide.T))
    return replace(whole, likeness=parting(np.array(same), np.array(other))), words


def parting(same: Array, other: Array) -> float:
    """Return the threshold with the fewest of `same` below it and of `other` not below it; 0.9 where nothing is known."""
    if not len(same):
        return 0.9
    places = np.unique(np.concatenate([same, other]))
    errors = np.searchsorted(np.sort(same), places) + len(other) - np.searchsorted(np.sort(other), places)
    return float(places[int(np.argmin(errors))])


def _fitted(
    sums: Sums, x: Floats, labels: Array, words: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], width: int, ridge: float
) -> Fitted:  # fmt: skip
    """Fit heads that read views in the basis: x [n, v, d]."""
    reduce = directions(sums, width, ridge)
    bare = Fitted(np.zeros(x.shape[-1], np.float32), reduce, *words, np.zeros((0, len(reduce)), np.float32))
    places = np.zeros((len(words[0]), len(reduce)), np.float32)
    np.add.at(places, labels, bare.reduced(x).mean(axis=1))
    return replace(bare, places=places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-6))
