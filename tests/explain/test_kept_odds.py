"""Calibrations on disk: what was kept comes back; what is damaged, or of another model, counts as none."""

import json
from pathlib import Path

import pytest

from ingle.explain import odds
from ingle.explain.odds import Calibration, find_calibration, fitted, keep_calibration, sealed
from ingle.home.place import Home
from tests.explain.test_odds import drawn


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Home, Calibration, Path]:
    monkeypatch.setattr(odds, "SHIPPED", tmp_path / "shipped")
    fit = fitted("text", drawn(60))
    assert fit is not None
    home, calibration = Home(tmp_path), Calibration("one model", "2026-11-30", (fit,))
    return home, calibration, keep_calibration(home, calibration)


def test_what_was_kept_comes_back(kept: tuple[Home, Calibration, Path]) -> None:
    home, calibration, _ = kept
    assert find_calibration(home, "one model") == calibration
    assert find_calibration(home, "another model") is None


def test_a_file_of_another_model_counts_as_none(kept: tuple[Home, Calibration, Path]) -> None:
    home, calibration, path = kept
    other = keep_calibration(home, Calibration("another model", calibration.made, calibration.kinds))
    path.write_bytes(other.read_bytes())
    assert find_calibration(home, "one model") is None


def test_every_damage_counts_as_none(kept: tuple[Home, Calibration, Path]) -> None:
    home, _, path = kept
    whole = path.read_bytes()
    table = json.loads(whole)
    table["kinds"][0]["weights"][0] += 1.0
    damaged = [b"", b"[]", b"null", b"{}", whole[: len(whole) // 2], b"\xff" + whole, json.dumps(table).encode(), b"[" * 100_000]
    digits = [place for place, code in enumerate(whole) if chr(code).isdigit()]
    damaged += [whole[:place] + (b"1" if whole[place : place + 1] != b"1" else b"2") + whole[place + 1 :] for place in digits[::97]]
    for data in damaged:
        path.write_bytes(data)
        assert find_calibration(home, "one model") is None, data[:80]
    path.write_bytes(whole)
    assert find_calibration(home, "one model") is not None


def test_figures_of_another_number_of_signals_count_as_none(kept: tuple[Home, Calibration, Path]) -> None:
    home, calibration, path = kept
    table = json.loads(sealed(calibration))
    del table["digest"]
    table["kinds"][0]["low"].pop()
    path.write_bytes(json.dumps({"digest": odds.digest_json(table), **table}).encode())
    assert find_calibration(home, "one model") is None


def test_a_home_without_one_uses_what_ingle_brings(kept: tuple[Home, Calibration, Path], tmp_path: Path) -> None:
    home, calibration, path = kept
    (tmp_path / "shipped").mkdir()
    path.rename(tmp_path / "shipped" / path.name)
    assert find_calibration(home, "one model") == calibration


def test_what_ingle_brings_is_whole_and_of_as_many_questions_as_it_says(tmp_path: Path) -> None:
    brought = sorted(odds.SHIPPED.glob("*.json"))
    assert brought
    for path in brought:
        model = json.loads(path.read_bytes())["model"]
        found = find_calibration(Home(tmp_path), model)
        assert found is not None and len(found.kinds) == 5
        assert sum(one.n for one in found.kinds) >= 500
