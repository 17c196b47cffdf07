"""Deltas that come with Ingle: whole, small, for a model of the catalogue, and refused if a byte is not as it was."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.core.errors import HomeError
from ingle.home.catalogue import SHIPPED, Shipped, close_names
from ingle.home.deltas import TENSORS, adopt_delta, delta_report, list_deltas, verify_delta
from ingle.home.place import Home

every = pytest.mark.parametrize("shipped", SHIPPED.values(), ids=list(SHIPPED))


@every
def test_it_is_whole_and_for_a_model_of_the_catalogue(home: Home, shipped: Shipped) -> None:
    delta = adopt_delta(home, shipped.folder, shipped.delta)
    assert (delta.digest, delta.base_digest) == (shipped.delta, shipped.base.digest)
    assert delta.origin["command"].startswith("ingle ")
    assert verify_delta(home, delta.digest) == []
    assert delta_report(home, delta.digest) is not None
    assert sum(path.stat().st_size for path in shipped.folder.iterdir()) < 6_000_000
    assert adopt_delta(home, shipped.folder, shipped.delta) == delta
    assert list_deltas(home) == [delta]


@every
def test_what_is_not_as_it_was_is_not_kept(home: Home, shipped: Shipped, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shipped.folder, folder)
    data = bytearray((folder / TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / TENSORS).write_bytes(data)
    with pytest.raises(HomeError, match="as it was made"):
        adopt_delta(home, folder, shipped.delta)
    with pytest.raises(HomeError, match="must describe delta"):
        adopt_delta(home, shipped.folder, replace(shipped, delta="0" * 64).delta)
    with pytest.raises(HomeError):
        adopt_delta(home, tmp_path, shipped.delta)
    assert list_deltas(home) == []


def test_it_is_found_by_a_name_that_is_nearly_right() -> None:
    assert "smollm2-hybrid" in close_names("smollm2-hibrid")
