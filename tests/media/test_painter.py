"""The painter's hand: NumPy's decoder against PyTorch's, tensors that don't fit, and what people say when they want a picture."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from emblem_net import EmblemNet
from ingle.core.errors import DeltaError
from ingle.core.media import Picture
from ingle.home.catalogue import SHIPPED
from ingle.media.painter import CODEBOOK, CODES, DECODER, PALETTE, WORDS, hand_of, knows, palette_tensor, prompt_of, wish_of
from ingle.media.picture import SIDE, emblem_of, enlarged, sheet

TOKENS = [7 * code + 3 for code in range(CODES)]


def random_hand_tensors(seed: int = 0, palette: Sequence[int] = TOKENS) -> dict[str, npt.NDArray[Any]]:
    """Tensors of a hand that paints noise."""
    torch.manual_seed(seed)
    net = EmblemNet()
    net.codebook.copy_(torch.randn(CODES, net.codebook.shape[1]))
    tensors = {DECODER + name: values.numpy() for name, values in net.decoder.state_dict().items()}
    return {**tensors, CODEBOOK: net.codebook.numpy(), PALETTE: palette_tensor(palette)}


def test_the_hand_paints_what_the_net_paints() -> None:
    tensors = random_hand_tensors()
    net = EmblemNet()
    net.decoder.load_state_dict({name.removeprefix(DECODER): torch.tensor(tensors[name]) for name in tensors if name.startswith(DECODER)})
    net.codebook.copy_(torch.tensor(tensors[CODEBOOK]))
    codes = np.random.default_rng(1).integers(0, CODES, (3, WORDS))
    with torch.no_grad():
        wanted = net.painted(net.codebook[torch.tensor(codes)].reshape(-1, net.codebook.shape[1])).clamp(0, 1) * 255
    got = hand_of("x", tensors).decode(codes)
    assert got.shape == (3, SIDE, SIDE, 3)
    assert np.abs(got - wanted.permute(0, 2, 3, 1).numpy()).max() <= 0.51
    assert got.std() > 10


def test_words_of_the_palette_are_painted_and_others_refused() -> None:
    hand = hand_of("x", random_hand_tensors())
    codes = np.random.default_rng(2).integers(0, CODES, WORDS)
    painted = hand.paint([TOKENS[code] for code in codes])
    assert (painted.pixels == hand.decode(codes[None])[0]).all()
    for wrong in ([TOKENS[0]] * (WORDS - 1), [TOKENS[0]] * (WORDS - 1) + [TOKENS[0] + 1]):
        with pytest.raises(DeltaError, match="must be 64 words of the palette"):
            hand.paint(wrong)


@pytest.mark.parametrize("change", ["gone", "shape", "twice"])
def test_tensors_that_are_no_hand_are_refused(change: str) -> None:
    tensors = random_hand_tensors()
    if change == "gone":
        del tensors[f"{DECODER}8.bias"]
    elif change == "shape":
        tensors[CODEBOOK] = tensors[CODEBOOK][:-1]
    else:
        tensors[PALETTE][1] = tensors[PALETTE][0]
    with pytest.raises(DeltaError, match=r"must (have shape|be 512 different tokens)"):
        hand_of("x", tensors)


@pytest.mark.parametrize(
    ("said", "what", "style"),
    [
        ("a red apple", "red apple", ""),
        ("Draw a red apple in the style of Noto.", "red apple", "noto"),
        ("please draw me a picture of the moon", "moon", ""),
        ("paint: an owl, fluent", "owl", "fluent"),
        ("drawbridge", "drawbridge", ""),
        ("ant", "ant", ""),
        ("antenna twemoji style", "antenna", "twemoji"),
        ("draw", "draw", ""),
        ("  ", "", ""),
    ],
)
def test_a_wish_is_read_from_what_people_say(said: str, what: str, style: str) -> None:
    assert wish_of(said) == (what, style)


def test_prompts() -> None:
    assert [prompt_of("red  apple", "noto"), prompt_of("owl"), prompt_of("")] == ["draw: red apple, noto:", "draw: owl:", "draw:"]


def test_an_emblem_is_whole_and_in_the_middle_of_white() -> None:
    wide = Picture(np.zeros((50, 200, 3), np.uint8))
    emblem = emblem_of(wide)
    assert emblem.shape == (SIDE, SIDE, 3)
    assert (emblem[:24] == 255).all()
    assert (emblem[24:40] == 0).all()
    assert (emblem[40:] == 255).all()
    small = emblem_of(Picture(np.zeros((3, 3, 3), np.uint8)))
    assert (small == 0).all()


def test_sheets_and_enlargements() -> None:
    pixels = np.arange(5 * 8 * 8 * 3, dtype=np.uint8).reshape(5, 8, 8, 3)
    whole = sheet(pixels, 3, 2)
    assert whole.pixels.shape == (18, 28, 3)
    assert (whole.pixels[10:18, 10:18] == pixels[4]).all()
    assert enlarged(whole, 1) is whole
    assert enlarged(whole, 2).pixels.shape == (36, 56, 3)


@pytest.mark.parametrize(
    ("what", "known"),
    [
        ("a strawberry", True), ("strawberries", True), ("some cherries", True), ("a blue apple", True), ("tomatoes", True),
        ("an aubergine", True),
        ("a mushroom", True), ("an ear", False), ("a cat", False), ("a red car", False), ("", False), ("my grandmother", False),
    ],
)  # fmt: skip
def test_a_painter_knows_what_it_has_learnt(what: str, known: bool) -> None:
    report = json.loads((SHIPPED["painter"].folder / "report.json").read_bytes())
    assert knows(report["things"], what) is known
