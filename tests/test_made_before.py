"""A home that was made before the house was rebuilt (at 5ab187e1) opens as it was: models, deltas, packs, states, memories, ledger.

`made_before/home.tar.xz` was written by that version's commands: pull, tune (also by virtual tokens), quantise, prune, hybridize, teach,
memory, run.
`expected.json` holds what that version said of it.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.engine.backend import prefill
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import get_kept
from ingle.home.place import Home
from tests.cli.place import ingle

HERE = Path(__file__).parent / "made_before"
EXPECTED: dict[str, Any] = json.loads((HERE / "expected.json").read_bytes())
READ = list(range(3, 60))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    root = tmp_path_factory.mktemp("before")
    with tarfile.open(HERE / "home.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return Home(root / "home")


def test_it_lists_and_remembers_the_same(home: Home) -> None:
    listed = zip(json.loads(ingle(home.root, "list", "--json").stdout), EXPECTED["list"], strict=True)
    assert all(one[key] == value for one, before in listed for key, value in before.items())
    assert json.loads(ingle(home.root, "memory", "--json").stdout)[::-1] == EXPECTED["memory"], "now the newest first"
    assert [line for line in ingle(home.root, "log").stdout.splitlines() if line.strip()] == EXPECTED["log"]


@pytest.mark.parametrize("name", EXPECTED["models"])
def test_a_model_is_the_one_that_it_was(home: Home, name: str) -> None:
    expected, kept = EXPECTED["models"][name], get_kept(home, name)
    packs = {path: path.stat().st_mtime_ns for path in home.packs.rglob("weights.bin")}
    model = open_model(kept_source(home, kept), "auto", threads=1)
    assert {path: path.stat().st_mtime_ns for path in home.packs.rglob("weights.bin")} == packs, "nothing is packed anew"
    assert (model.digest, list(kept.deltas)) == (expected["digest"], expected["deltas"])
    state = model.backend.new_state()
    prefill(model.backend, READ, state)
    np.testing.assert_allclose(np.ravel(prefill(model.backend, [7], state))[:40], expected["next"], atol=2e-3)


@pytest.mark.parametrize("name", EXPECTED["models"])
def test_a_state_goes_on_where_it_was(home: Home, name: str) -> None:
    model = open_model(kept_source(home, get_kept(home, name)), "auto", threads=1)
    state = model.backend.load_state(home.root / "states" / f"{name}.state", f"of {name}")
    assert state.length == len(READ)
    np.testing.assert_allclose(np.ravel(prefill(model.backend, [7], state))[:40], EXPECTED["models"][name]["next"], atol=2e-3)


def test_every_file_and_fact_is_as_it_was_kept(home: Home) -> None:
    told = ingle(home.root, "verify", "--models").stdout
    assert "The ledger is whole: " in told and "Every file of every kept model and delta is as it was kept." in told
