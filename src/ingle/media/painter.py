"""The painter's hand: 64 codes out of 512 become a picture of 64×64 pixels. NumPy only; its training is in recipes/painter/emblem_net.py.

| tensor | means |
|---|---|
| painter.palette [512, 4] uint8 | the token of each code, 32 bits, the lowest first |
| painter.codebook [512, 16] | the vector of each code |
| painter.decoder.… | the decoder's layers, named as in recipes/painter/emblem_net.py |
| model.layers.… | a low-rank addition that acts while the model paints, and only then: as in the kind `lora` |
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import DeltaError, ShapeError
from ingle.core.media import Picture
from ingle.core.process import usable_cores
from ingle.kernels import conv_layout as at
from ingle.kernels.jit import kernel

GRID = 8  # codes of a side
CODES = 512  # codes of the codebook
WORDS = GRID * GRID  # codes of a picture
STYLES = ("twemoji", "noto", "fluent")  # artists whose manner a painter may have learnt
PALETTE, CODEBOOK, DECODER = "painter.palette", "painter.codebook", "painter.decoder."
_GROUPS, _EPSILON = 8, 1e-5

Floats = npt.NDArray[np.float32]


_BEGINS = re.compile(r"(?:(?:please|draw|paint|sketch|me|a|an|the|some|(?:picture|drawing|emoji|icon) of)[\s:]+)*", re.IGNORECASE)
_STYLE = re.compile(rf"[\s,;]*(?:in the )?(?:style of|manner of)?\s*({'|'.join(STYLES)})(?:\s+style)?[\s.!]*$", re.IGNORECASE)


_ASKS = re.compile(
    r"(?:please\s+|(?:can|could|will|would) you\s+(?:please\s+)?)?(?:draw|paint|sketch)\s+(?:me\s+)?(?P<what>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_IDIOMS = re.compile(
    r"(?:an?|the|some|any|my|your|our)?\s*(?:conclusions?|attention|inspiration|parallels?|comparisons?|lessons?|distinctions?|line|lines|lots|"
    r"blood|breath|on|from|up|near|out|in|to|upon|together)\b",
    re.IGNORECASE,
)
# Words of the names of things that are no things.
_SAYS_LITTLE = frozenset({"of", "ear", "hot", "white", "brown", "wilted", "leafy", "root"})
MOST_LETTERS = 200  # most characters of what is to be painted


def asks_to_paint(text: str) -> bool:
    """Return whether a message asks for a picture: "draw a red apple", and not "draw a conclusion"."""
    asked = _ASKS.fullmatch(text.strip())
    return asked is not None and len(text) <= MOST_LETTERS and not _IDIOMS.match(asked["what"]) and bool(wish_of(text)[0])


def wish_of(text: str) -> tuple[str, str]:
    """Return what is to be painted and in whose style, from what people say: `Draw a red apple, noto` gives (red apple, noto)."""
    words = " ".join(text.split())
    found = _STYLE.search(words)
    style = found[1].lower() if found else ""
    what = words[: found.start()] if found else words
    begun = _BEGINS.match(what)
    return what[begun.end() if begun else 0 :].strip(" .!?,"), style


def knows(things: Mapping[str, Sequence[str]], what: str) -> bool:
    """Return whether a wish names one of the things that a painter has learnt. `things`: as its report has them, by name, each with other
    words for it."""
    wish = {word for word in re.findall(r"[\w'-]+", what.lower())}
    words = {word for name in things for word in name.split()} - _SAYS_LITTLE
    words |= {other for others in things.values() for other in others}
    return any(_same_word(asked, word) for asked in wish for word in words)


def _same_word(one: str, other: str) -> bool:
    """Return whether two words are the same, or one is the other's plural."""
    short, long = sorted((one, other), key=len)
    return long in (short, f"{short}s", f"{short}es", f"{short[:-1]}ies" if short.endswith("y") else short)


def prompt_of(what: str, style: str = "") -> str:
    """Return the prompt after which a model paints: `draw: red apple, noto:`. Without a thing, it paints anything."""
    words = " ".join(what.split())
    return f"draw: {words}, {style}:" if words and style else f"draw: {words}:" if words else "draw:"


@dataclass(frozen=True, eq=False)
class Hand:
    """The decoder of emblems, with the palette that its codes are written in."""

    palette: tuple[int, ...]  # the token of each code
    codebook: Floats  # [512, width]
    layers: Mapping[str, Floats]  # the decoder's tensors, without their prefix

    def paint(self, tokens: Sequence[int]) -> Picture:
        """Return the picture that 64 words of the palette stand for. Raises DeltaError for other tokens, or another number of them."""
        place = {token: code for code, token in enumerate(self.palette)}
        if len(tokens) != WORDS or any(token not in place for token in tokens):
            raise DeltaError("picture", f"must be {WORDS} words of the palette", f"{len(tokens)} tokens")
        return Picture(self.decode(np.array([[place[token] for token in tokens]]))[0])

    def decode(self, codes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        """Return pixels [n, 64, 64, 3] of codes [n, 64], row by row of the picture."""
        return np.concatenate([self._decode_one(one) for one in codes])

    def _decode_one(self, codes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        x = self.codebook[codes].reshape(GRID, GRID, -1)  # [H, W, channels]
        x = self._wide(x, "0.")
        for layer in ("1.", "2."):
            x = self._residual(x, layer)
        x = _unfolded(self._narrow(x, "3.0."))
        for layer in ("4.", "5."):
            x = self._residual(x, layer)
        x = _unfolded(self._narrow(x, "6.0."))
        x = _unfolded(self._wide(self._residual(x, "7."), "8."))
        pixels: npt.NDArray[np.uint8] = (np.clip(x * 0.5 + 0.5, 0, 1) * 255 + 0.5).astype(np.uint8)
        return pixels[None]

    def _residual(self, x: Floats, name: str) -> Floats:
        """x + the 1×1 convolution of a 3×3 convolution, each after a ReLU; normalised in groups of channels first."""
        height, width, channels = x.shape
        grouped = x.reshape(height * width, _GROUPS, channels // _GROUPS)
        mean, spread = grouped.mean((0, 2), keepdims=True), grouped.var((0, 2), keepdims=True)
        normal = ((grouped - mean) / np.sqrt(spread + _EPSILON)).reshape(x.shape)
        inner = np.maximum(normal * self.layers[f"{name}norm.weight"] + self.layers[f"{name}norm.bias"], 0)
        return x + self._narrow(np.maximum(self._wide(inner, f"{name}wide."), 0), f"{name}narrow.")

    def _narrow(self, x: Floats, name: str) -> Floats:
        """A 1×1 convolution: [H, W, in] → [H, W, out]."""
        weight = self.layers[f"{name}weight"]
        product: Floats = x @ weight[:, :, 0, 0].T + self.layers[f"{name}bias"]
        return product

    def _wide(self, x: Floats, name: str) -> Floats:
        """A 3×3 convolution with a border of zeros: [H, W, in] → [H, W, out]."""
        height, width, _ = x.shape
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        around = np.concatenate([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=2)
        weight = self.layers[f"{name}weight"]  # [out, in, 3, 3]
        product: Floats = around @ weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0]) + self.layers[f"{name}bias"]
        return product


def _unfolded(x: Floats) -> Floats:
    """Return channels as pixels: [H, W, 4 c] → [2 H, 2 W, c]; channel 4 c + 2 i + j goes to row i and column j of each four."""
    height, width, channels = x.shape
    return x.reshape(height, width, channels // 4, 2, 2).transpose(0, 3, 1, 4, 2).reshape(2 * height, 2 * width, channels // 4)


def hand_of(name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> Hand:
    """Return the hand in a delta's tensors. `name` is for messages. Raises DeltaError for tensors that are missing or don't fit."""
    for part, shape in _shapes().items():
        if part not in tensors or tensors[part].shape != shape:
            got = tensors[part].shape if part in tensors else "nothing"
            raise DeltaError(f"delta {name}, {part}", f"must have shape {shape}", got, "The delta is incomplete; make it again.")
    palette = np.ascontiguousarray(tensors[PALETTE], np.uint8).view("<u4")[:, 0]
    if len(np.unique(palette)) != CODES:
        raise DeltaError(f"delta {name}, {PALETTE}", f"must be {CODES} different tokens", len(np.unique(palette)))
    layers = {key.removeprefix(DECODER): values.astype(np.float32) for key, values in tensors.items() if key.startswith(DECODER)}
    return Hand(tuple(map(int, palette)), tensors[CODEBOOK].astype(np.float32), layers)


def palette_tensor(palette: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return tokens as `painter.palette`."""
    return np.array(palette, "<u4")[:, None].view(np.uint8)


def _shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a hand."""
    shapes: dict[str, tuple[int, ...]] = {PALETTE: (CODES, 4), CODEBOOK: (CODES, 16)}

    def convolution(name: str, inputs: int, outputs: int, side: int) -> None:
        shapes[f"{DECODER}{name}weight"], shapes[f"{DECODER}{name}bias"] = (outputs, inputs, side, side), (outputs,)

    for name, inputs, outputs, side in (("0.", 16, 96, 3), ("3.0.", 96, 256, 1), ("6.0.", 64, 128, 1), ("8.", 32, 12, 3)):
        convolution(name, inputs, outputs, side)
    for name, width in (("1.", 96), ("2.", 96), ("4.", 64), ("5.", 64), ("7.", 32)):
        shapes[f"{DECODER}{name}norm.weight"] = shapes[f"{DECODER}{name}norm.bias"] = (width,)
        convolution(f"{name}wide.", width, width, 3)
        convolution(f"{name}narrow.", width, width, 1)
    return shapes


# A convolutional network over square pictures: the kernel of kernels/conv.py with its weights and pictures laid out for it.


Array = npt.NDArray[Any]
MOST_THREADS = 8  # more threads wait for each other longer than they work


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """One convolution, with a border of zeros as TensorFlow's SAME has it: its larger half lies behind."""

    weight: Floats  # dense [channels out, channels in, size, size], depthwise [channels, 1, size, size]
    bias: Floats  # [channels out]
    step: int = 1  # pixels from one place of the filter to the next
    clipped: bool = True  # whether outputs are kept between 0 and 6 (ReLU6)
    depthwise: bool = False
    skip: int = 0  # how many convolutions ago the picture was read that is added to the sum; 0 = none is


def border(pixels: int, size: int, step: int) -> int:
    """Return the pixels of border before the first one of a side."""
    return max((-(-pixels // step) - 1) * step + size - pixels, 0) // 2


class Network:
    """Convolutions one after the other. Several threads may call it; they wait for each other."""

    def __init__(self, convolutions: Sequence[Convolution], side: int, channels: int, threads: int | None = None) -> None:
        """`side`, `channels`: of the pictures that come in. Only the first convolution may be dense and wider than a pixel.

        Raises ShapeError for another.
        """
        self._threads = max(1, min(threads or usable_cores(), MOST_THREADS))
        self._side, self._channels, self._lock = side, channels, threading.Lock()
        for number, one in enumerate(convolutions):
            if number and not one.depthwise and one.weight.shape[-1] > 1:
                raise ShapeError(f"convolution {number}", "must be depthwise, or one pixel wide", one.weight.shape)
        self._of = list(convolutions)
        self._records = np.zeros((len(self._of), at.RECORD), np.int64)
        self._pictures = [self._first(self._of[0])]
        self._kept = [self._add(number, *_packed(one, number == 0)) for number, one in enumerate(self._of)]

    def __call__(self, picture: Floats) -> Floats:
        """Return what the last convolution gives: [side, side, channels in] → [side, side, channels out]. Raises KernelError."""
        if picture.shape != (self._side, self._side, self._channels):
            raise ShapeError("picture", f"must have shape ({self._side}, {self._side}, {self._channels})", picture.shape)
        work = kernel("convolve")
        with self._lock:
            size, step = self._of[0].weight.shape[-1], self._of[0].step
            start = 0 if self._of[0].depthwise else border(self._side, size, step)
            self._pictures[0][start : start + self._side, start : start + self._side, : self._channels] = picture
            counters = np.zeros(len(self._records) + 1, np.int64)
            arguments = (self._records.ctypes.data, len(self._records), counters.ctypes.data, self._threads)
            others = [threading.Thread(target=work, args=arguments, daemon=True) for _ in range(self._threads - 1)]
            for other in others:
                other.start()
            work(*arguments)
            for other in others:
                other.join()
            return self._pictures[-1][:, :, : len(self._of[-1].bias)].copy()

    def _first(self, one: Convolution) -> Floats:
        """Make room for the first picture: with its border where it is read by a dense convolution."""
        size, step = one.weight.shape[-1], one.step
        wide = self._side if one.depthwise else max(self._side, (-(-self._side // step) - 1) * step + size)
        return np.zeros((wide, wide, self._channels if size > 1 and not one.depthwise else _up(self._channels)), np.float32)

    def _add(self, number: int, weights: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """Fill in a convolution's record, and make room for its picture. Returns what must stay where it is."""
        one, source, record = self._of[number], self._pictures[-1], self._records[number]
        side = self._side if number == 0 else len(source)
        size, after, pixel = one.weight.shape[-1], -(-side // one.step), source.shape[2] * 4
        target = np.zeros((after, after, len(bias)), np.float32)
        record[at.DEPTHWISE], record[at.SIZE], record[at.STEP] = one.depthwise, size, one.step
        record[at.PAD], record[at.CLIPPED] = border(side, size, one.step), one.clipped
        record[at.CHANNELS], record[at.PIXEL], record[at.LINE] = source.shape[2], pixel, source.shape[1] * pixel
        record[at.HEIGHT], record[at.WIDTH], record[at.ROWS], record[at.COLUMNS] = side, side, after, after
        if size == 1 and one.step == 1 and not one.depthwise:  # one long line
            record[at.ROWS], record[at.COLUMNS] = 1, after * after
        record[at.OUT_CHANNELS] = len(bias)
        record[at.SOURCE], record[at.TARGET] = source.ctypes.data, target.ctypes.data
        record[at.WEIGHTS], record[at.BIAS] = weights.ctypes.data, bias.ctypes.data
        record[at.RESIDUAL] = self._pictures[-one.skip].ctypes.data if one.skip else 0
        self._pictures.append(target)
        return weights, bias


def _up(channels: int) -> int:
    """Return the next multiple of 16."""
    return -(-channels // 16) * 16


def _packed(one: Convolution, first: bool) -> tuple[Floats, Floats]:
    """Lay weights and bias out as kernels/conv.py reads them; channels up to the next 16 are zeros."""
    out, into, size, _ = one.weight.shape
    bias = np.zeros(_up(out), np.float32)
    bias[:out] = one.bias
    if one.depthwise:
        weights = np.zeros((size * size, _up(out)), np.float32)
        weights[:, :out] = one.weight.reshape(out, size * size).T
        return weights, bias
    read = into if first and size > 1 else _up(into)  # a picture's three colours stand alone, what was written before does not
    wide = np.zeros((_up(out), size, size, read), np.float32)
    wide[:out, :, :, :into] = one.weight.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(wide.reshape(_up(out) // 16, 16, -1).transpose(0, 2, 1)), bias


# Matrices in eight bits, for what ships: each row has a scale. The bytes are numbers + 128, because deltas hold no signed ones.


def pack_rows(name: str, matrix: Array) -> dict[str, Array]:
    """Return the tensors `NAME.weight` uint8 [rows, columns] and `NAME.scale` float16 [rows]."""
    most = np.abs(matrix).max(axis=1)
    scale = np.where(most > 0, most / 127, 1).astype(np.float16)
    whole = np.clip(np.rint(matrix / scale.astype(np.float32)[:, None]), -127, 127)
    return {f"{name}.weight": (whole + 128).astype(np.uint8), f"{name}.scale": scale}


def unpack_rows(name: str, tensors: Mapping[str, Array]) -> Floats:
    """Return the matrix, float32. Raises DeltaError where it is missing or its parts don't fit."""
    weight, scale = tensors.get(f"{name}.weight"), tensors.get(f"{name}.scale")
    if weight is None or scale is None or weight.ndim != 2 or weight.dtype != np.uint8 or scale.shape != (len(weight),):
        raise DeltaError(f"tensor {name}", "must be rows of bytes with a scale each", "", "The delta is incomplete; make it again.")
    return (weight.astype(np.float32) - 128) * scale.astype(np.float32)[:, None]


def pack_lines(lines: list[str]) -> Array:
    """Return short texts as bytes, a line each."""
    return np.frombuffer("\n".join(lines).encode(), np.uint8).copy()


def unpack_lines(name: str, tensors: Mapping[str, Array], count: int) -> tuple[str, ...]:
    """Return the texts of tensor NAME. Raises DeltaError where there are not as many as `count`."""
    values = tensors.get(name)
    lines = tuple(values.tobytes().decode("utf-8", "replace").split("\n")) if values is not None and values.dtype == np.uint8 else ()
    if len(lines) != count:
        raise DeltaError(f"tensor {name}", f"must hold {count} lines", len(lines), "The delta is incomplete; make it again.")
    return lines
