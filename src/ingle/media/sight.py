"""The sights of kept models that a delta of the kind `sight` taught to see."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from ingle.core.delta import Delta
from ingle.core.errors import DeltaError
from ingle.core.media import Sight
from ingle.home.place import Home
from ingle.media.projected import EYE, ProjectedSight


def open_sight(home: Home, delta: Delta, tensors: Mapping[str, npt.NDArray[Any]]) -> Sight:
    """Return the sight of a delta with these tensors; its encoder's weights lie in the home and are opened with the first picture.

    Raises DeltaError for tensors that don't fit, and for an encoder that this version doesn't know.
    """
    if delta.origin.get("eye") == EYE:
        return ProjectedSight(home, delta, tensors)
    raise DeltaError(f"delta {delta.name}", "needs an encoder of pictures that this version doesn't know", delta.origin.get("eye", ""))
