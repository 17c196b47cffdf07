"""One training from scratch as its parts see it."""

from dataclasses import dataclass

from ingle.scaling.settings import ScratchSettings
from ingle.scaling.sources import Texts
from ingle.train.making import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchJob(Job[ScratchSettings]):
    """A training that is going on. Its key is of all that the trained tensors follow from."""

    texts: Texts
