"""A job of training from scratch."""

from dataclasses import dataclass

from ingle.scaling.settings import ScratchSettings
from ingle.scaling.sources import Texts
from ingle.train.making import MakingJob


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchJob(MakingJob[ScratchSettings]):
    """A training in progress. Its key is a digest of all that the trained tensors follow from."""

    texts: Texts
