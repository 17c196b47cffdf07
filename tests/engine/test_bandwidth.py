"""The decoder's speed on this machine: measured by the decoder itself, kept, and turned into tokens a second."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.clock import Clock
from ingle.core.config import to_table
from ingle.core.process import usable_cores
from ingle.energy.meter import busy_s
from ingle.engine import bandwidth
from ingle.engine.backend import Backend, Segment
from ingle.engine.bandwidth import _LARGE_BYTES, KINDS, LENGTH, Bandwidth, _written, bandwidth_of, read_bandwidth
from ingle.home.catalogue import CATALOGUE, HUB_MODELS
from ingle.home.lean import WEIGHTS
from ingle.home.model_size import BITS, QUANTISATIONS, ModelShape, cache_bytes, read_bytes
from ingle.home.place import Home
from tests.engine.tiny import unpacked
from tests.waiting import wait_until

SHAPE = ModelShape(10, 256, 512, 4, 2, 64, 1000)


def steady() -> Clock:
    """A clock by which each token takes ten milliseconds."""
    return Clock(now=partial(next, itertools.count(0.0, 0.01)))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Bandwidth, list[tuple[str, int, int]]]:
    home, told = Home(tmp_path_factory.mktemp("home") / "new"), list[tuple[str, int, int]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth, "busy_s", lambda: 0.0)
        return home, bandwidth_of(home, told=lambda *what: told.append(what), clock=steady()), told


def test_it_is_measured_once_and_kept(measured: tuple[Home, Bandwidth, list[tuple[str, int, int]]]) -> None:
    home, found, told = measured
    assert set(found.bytes_per_s) == set(KINDS) and found.threads == usable_cores()
    assert all(_LARGE_BYTES / 0.01 <= rate < 3 * _LARGE_BYTES / 0.01 for rate in found.bytes_per_s.values())
    assert 0 < found.layer_s < 0.01
    assert ("measuring this machine's speed", 0, 6) in told and ("measuring this machine's speed", 6, 6) in told
    assert read_bandwidth(home) == bandwidth_of(home, told=lambda *_: pytest.fail("it is not measured again")) == found
    assert not list(home.staging.iterdir()), "no weights stay on the disk"
    assert (home.root / "cache" / "speed.json").stat().st_mode & 0o077 == 0


def test_what_others_take_is_counted() -> None:
    before = busy_s()
    if before is None:
        pytest.skip("this system doesn't tell")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        wait_until(lambda: (busy_s() or 0.0) > before + 0.5, "half a second of processor time is gone")
        spinning.kill()


def test_beside_others_it_is_measured_for_the_time_being(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home").create()
    monkeypatch.setattr(bandwidth, "busy_s", partial(next, itertools.count(0.0, 1e6)))
    first = bandwidth_of(home, usable_cores())
    assert first.provisional and first.others == 1
    path = home.root / "cache" / "speed.json"
    path.write_text(json.dumps(to_table(replace(first, bytes_per_s=dict.fromkeys(KINDS, 1e13)))))
    again = bandwidth_of(home, usable_cores(), again=True)
    assert again.provisional and again.bytes_per_s["Q4_K"] == 1e13, "of two for the time being the faster one is kept"
    monkeypatch.setattr(bandwidth, "busy_s", lambda: 0.0)
    again = bandwidth_of(home, usable_cores(), again=True)
    assert not again.provisional and again.bytes_per_s["Q4_K"] < 1e13, "and one on a quiet machine rather than either"
    path.write_text(json.dumps(to_table(replace(first, others=0.0))))
    kept = read_bandwidth(home)
    assert kept is not None and not kept.provisional


def test_what_is_read_is_a_model_whose_logits_are_finite(tmp_path: Path) -> None:
    """And it is what the bytes say: each kind's own blocks, not rounded to others."""
    for kind in KINDS:
        info, nbytes = _written(tmp_path, kind, (256, 512), 2)
        logits = Backend(tmp_path, info).forward([Segment(Backend(tmp_path, info).new_state(), [1, 2, 3])])[0]
        assert np.isfinite(logits).all() and np.abs(logits).max() > 0
        weights = [matrix for _, matrix in unpacked(tmp_path, info) if matrix.ndim == 2]
        assert nbytes == pytest.approx(sum(matrix.size for matrix in weights) * BITS[kind] / 8)
        assert (tmp_path / WEIGHTS).stat().st_size < 1.1 * nbytes


def test_memory_and_disk_are_bounded() -> None:
    most = max(BITS[kind] for kind in KINDS) / 8 * (4 * 2048**2 + 3 * 2048 * 8192)
    assert _LARGE_BYTES + most < 260e6


def flat(rate: float = 10e9, layer_s: float = 0.0) -> Bandwidth:
    return Bandwidth(2, "a CPU", 2, 2, "2026-01-01T00:00:00+00:00", dict.fromkeys(KINDS, rate), layer_s)


def test_a_token_takes_what_is_read_and_the_layers() -> None:
    for quantisation in QUANTISATIONS:
        nbytes = sum(read_bytes(SHAPE, quantisation).values())
        assert flat().token_s(SHAPE, quantisation, 0) == pytest.approx(nbytes / 10e9)
        assert flat(layer_s=1e-3).token_s(SHAPE, quantisation, 0) == pytest.approx(nbytes / 10e9 + 0.01)
        assert flat().token_s(SHAPE, quantisation) == pytest.approx((nbytes + cache_bytes(SHAPE, LENGTH)) / 10e9)
    slow = replace(flat(), bytes_per_s={**flat().bytes_per_s, "Q6_K": 5e9})
    extra = read_bytes(SHAPE, "Q4_K_M")["Q6_K"] / 10e9
    assert slow.token_s(SHAPE, "Q4_K_M", 0) == pytest.approx(flat().token_s(SHAPE, "Q4_K_M", 0) + extra)


def test_all_known_models_can_be_foretold_and_larger_ones_are_slower() -> None:
    entry = CATALOGUE["smollm2"]
    assert entry.shape is not None
    known = [(entry.shape, entry.quantisation), *((model.shape, model.quantisation) for model in HUB_MODELS.values())]
    seconds = [flat(25e9, 1e-5).token_s(*one) for one in known]
    assert seconds[0] == min(seconds) and seconds[-1] == max(seconds)


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "another"}, {"others": 2.0}, {"others": -1.0}, {"version": 99}, {"cores": 1000}, {"threads": 77},
        {"bytes_per_s": {}}, {"bytes_per_s": {"Q4_K": 1e9}},
        {"bytes_per_s": dict.fromkeys(KINDS, 0.0)}, {"bytes_per_s": dict.fromkeys(KINDS, -1.0)}, {"layer_s": -1.0}, {"layer_s": 10.0},
        {"bytes_per_s": dict.fromkeys(KINDS, float("nan"))}, {"bytes_per_s": dict.fromkeys(KINDS, float("inf"))}, {"layer_s": float("nan")},
        {"bytes_per_s": dict.fromkeys(KINDS, "fast")}, {"bytes_per_s": [1]}, {"unknown": 1}, {"cpu": 7},
    ],
    ids=str,
)  # fmt: skip
def test_another_machines_or_a_damaged_one_is_measured_again(
    measured: tuple[Home, Bandwidth, list[tuple[str, int, int]]], tmp_path: Path, change: dict[str, Any]
) -> None:
    home = Home(tmp_path).create()
    (tmp_path / "cache" / "speed.json").write_text(json.dumps({**to_table(measured[1]), **change}))
    assert read_bandwidth(home, usable_cores()) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"7"], ids=lambda data: repr(data[:4]))
def test_a_file_that_is_no_table_is_measured_again(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "speed.json").write_bytes(data)
    assert read_bandwidth(Home(tmp_path)) is None
