"""An eye's numbers of the pictures to learn from, each also altered a little: turned, moved, on another ground, paler or darker.

HOME/cache/sight/DIGEST/features-00000.safetensors, …    256 pictures each; a folder that was stopped goes on where it was
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import RequestError
from ingle.core.files import os_errors
from ingle.core.media import Picture
from ingle.home.place import Home
from ingle.media.eyes.efficientnet import Eye
from ingle.media.picture import read_picture
from ingle.media.sight import look
from ingle.tuning.sight_pictures import ShownPicture

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]
EACH = 256
"""Pictures of a file."""
_SIDE = 256


def features_folder(home: Home, eye: Eye, pictures: Sequence[ShownPicture], views: int, seed: int) -> Path:
    """Return where the numbers of these pictures are kept, whatever is said of them."""
    key = digest_json([[digest_bytes(one.data) for one in pictures], eye.digest, views, seed])
    return home.root / "cache" / "sight" / key[:32]


def features(
    eye: Eye, pictures: Sequence[ShownPicture], views: int, folder: Path, seed: int, check: Callable[[], None],
    progress: Callable[[int, int], None],
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
