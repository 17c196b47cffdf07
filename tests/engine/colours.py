"""A sight that is as simple as one can be: it sees colours."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from ingle.core.media import Picture, SightPiece
from ingle.core.message import ImagePart


@dataclass
class Colours:
    """Sees the mean colour of each quarter of a picture."""

    marker: str = ""
    digest: str = "colours"
    looks: list[str] = field(default_factory=list)
    around: tuple[SightPiece, ...] = ("[", "]")

    width: int = 48
    likeness: float = 0.99

    def fingerprint(self, picture: Picture, _pieces: Sequence[SightPiece]) -> npt.NDArray[np.float32]:
        mean = picture.pixels.mean((0, 1)).astype(np.float32) + 1e-6
        return mean / np.float32(np.linalg.norm(mean))

    def see(self, picture: Picture) -> tuple[SightPiece, ...]:
        self.looks.append(picture.digest)
        height, width, _ = picture.pixels.shape
        quarters = [picture.pixels[y : y + height // 2, x : x + width // 2] for y in (0, height // 2) for x in (0, width // 2)]
        means = np.stack([quarter.mean((0, 1)) / 255 for quarter in quarters]).astype(np.float32)
        widen = np.random.default_rng(0).standard_normal((3, self.width)).astype(np.float32)
        return (self.around[0], means @ widen, *self.around[1:])


def png(colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> ImagePart:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return ImagePart(file.getvalue(), "image/png")
