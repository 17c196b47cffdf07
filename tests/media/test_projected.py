"""What stands for a picture: views, colours, words, matrices in eight bits, and what doesn't fit."""

from pathlib import Path

import numpy as np
import pytest

from ingle.core.delta import Delta
from ingle.core.errors import DeltaError, NotKept
from ingle.core.media import Picture
from ingle.home.place import Home
from ingle.media.eyes.efficientnet import FEATURES
from ingle.media.painter import pack_lines, pack_rows, unpack_lines, unpack_rows
from ingle.media.picture import POOLED, colours, pooled, square
from ingle.media.sight import EYE, Heads, ProjectedSight, gelu, line_of, open_sight, said
from tests.media.eye import give_eye


def tensors(k: int = 6, inner: int = 5, places: int = 2, hidden: int = 4) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    names, tags = ["red apple", "green leaf", "dog"], ["fruit food", "plant", ""]
    return {
        "reduce.mean": np.zeros(POOLED * FEATURES, np.float16),
        **pack_rows("reduce", draw.standard_normal((k, POOLED * FEATURES))),
        **pack_rows("names", draw.standard_normal((3, k))),
        "names.likeness": np.array([0.5], np.float16),
        "names.lines": pack_lines(names),
        "tags.lines": pack_lines(tags),
        **pack_rows("inner", draw.standard_normal((inner, k))),
        "inner.bias": np.zeros(inner, np.float16),
        **pack_rows("outer", draw.standard_normal((places * hidden, inner + k + 1))),
        "outer.places": np.array([places], np.float16),
    }


def plain(pixels: np.ndarray) -> Picture:
    return Picture(pixels.astype(np.uint8))


def test_rows_in_eight_bits_are_close_and_lines_come_back() -> None:
    matrix = np.random.default_rng(1).standard_normal((7, 40)) * np.logspace(-3, 3, 7)[:, None]
    matrix[3] = 0
    back = unpack_rows("x", pack_rows("x", matrix))
    assert (np.abs(back - matrix) <= np.abs(matrix).max(axis=1, keepdims=True) / 127 * 0.51 + 1e-9).all()
    assert unpack_lines("x", {"x": pack_lines(["ä b", "", "c"])}, 3) == ("ä b", "", "c")
    for bad in ({}, {"x": pack_lines(["a"])}, {"x": np.zeros(3, np.float32)}):
        with pytest.raises(DeltaError, match="must hold 2 lines"):
            unpack_lines("x", bad, 2)


def test_the_whole_picture_stands_in_a_white_square() -> None:
    pixels = square(plain(np.zeros((10, 40, 3))), 224)
    assert pixels.shape == (224, 224, 3)
    assert (pixels[:80] == 255).all()
    assert (pixels[90:134] == 0).all()
    assert (square(plain(np.zeros((1, 1, 3))), 16) == 0).all()


def test_numbers_are_means_of_the_whole_and_of_its_quarters() -> None:
    features = np.arange(49, dtype=np.float32).reshape(7, 7, 1)
    whole, *quarters = pooled(features)
    assert whole == features.mean()
    assert quarters == [features[:4, :4].mean(), features[:4, 3:].mean(), features[3:, :4].mean(), features[3:, 3:].mean()]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((230, 20, 20), "red"), ((250, 140, 20), "orange"), ((250, 220, 40), "yellow"), ((30, 160, 60), "green"), ((30, 80, 220), "blue"),
        ((140, 40, 200), "purple"), ((250, 110, 180), "pink"), ((120, 70, 30), "brown"), ((10, 10, 10), "black"), ((120, 120, 120), "grey"),
    ],
)  # fmt: skip
def test_colours_of_what_stands_on_a_ground(rgb: tuple[int, int, int], name: str) -> None:
    for ground in (255, 130 if name != "grey" else 255):
        pixels = np.full((64, 64, 3), ground)
        pixels[16:48, 16:48] = rgb
        assert colours(plain(pixels)) == (name,)
    assert colours(plain(np.full((5, 9, 3), rgb))) == (name,)


def test_names_vote_for_words() -> None:
    names, tags = ["red apple", "pear", "dog"], [["fruit", "food", "red"], ["fruit", "food"], ["animal"]]
    assert said(np.array([0.9, 0.88, 0.1], np.float32), names, tags) == (["red apple"], ["food", "fruit"])
    assert said(np.array([0.1, 0.1, 0.9], np.float32), names, tags) == (["dog"], ["animal"])
    assert line_of(["a", "b"], [], ["red"]) == " (looks like: a, b; colours: red)\n"


def test_matrices_that_do_not_fit_are_refused() -> None:
    heads = Heads(tensors())
    assert (heads.places, heads.hidden, heads.names) == (2, 4, ("red apple", "green leaf", "dog"))
    for name, value in {
        "reduce.mean": np.zeros(3, np.float16), "reduce.weight": np.zeros((6, 9), np.uint8), "names.lines": pack_lines(["a"]),
        "outer.places": np.array([3], np.float16), "inner.weight": np.zeros((5, 9), np.uint8), "names.scale": np.zeros(1, np.float16),
    }.items():  # fmt: skip
        with pytest.raises(DeltaError):
            Heads({**tensors(), name: value})
        with pytest.raises(DeltaError):
            Heads({key: held for key, held in tensors().items() if key != name})


def test_a_sight_sees_the_same_in_the_same_pixels_and_says_what_it_lacks(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    delta = Delta("sight", "sight", "base", {}, {"eye": EYE})
    sight = open_sight(home, delta, tensors())
    assert isinstance(sight, ProjectedSight)
    draw = np.random.default_rng(2)
    first, second = (plain(draw.integers(0, 256, (50, 70, 3))) for _ in range(2))
    with pytest.raises(NotKept, match="ingle pull sight"):
        sight.see(first)
    give_eye(home, tmp_path / "eye")
    vectors, line = sight.see(first)
    assert isinstance(vectors, np.ndarray)
    assert vectors.shape == (2, 4)
    assert isinstance(line, str)
    assert line.startswith(" (looks like: ")
    assert line.endswith(")\n")
    other, _ = sight.see(second)
    again, same_line = open_sight(home, delta, tensors()).see(plain(first.pixels.copy()))
    assert np.array_equal(vectors, again)
    assert line == same_line
    assert isinstance(other, np.ndarray)
    assert not np.array_equal(vectors, other)
    fingerprint = sight.fingerprint(first, (vectors, line))
    assert np.linalg.norm(fingerprint) == pytest.approx(1, abs=1e-5)
    assert sight.likeness == 0.5


def test_an_eye_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeltaError, match="doesn't know"):
        open_sight(Home(tmp_path), Delta("sight", "sight", "base", {}, {"eye": "another"}), tensors())


def test_gelu_is_pytorchs() -> None:
    import torch

    x = np.linspace(-6, 6, 101, dtype=np.float32)
    np.testing.assert_allclose(gelu(x), torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy(), atol=1e-6)
