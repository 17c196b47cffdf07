"""What a home has used: added up without a loss, told by day, model and activity, and drawn."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ingle.core.energy import Energy
from ingle.core.errors import ConfigError
from ingle.energy.totals import SIDES, Deed, add_up, days, deed_of, draw, find_grid

DEEDS = [
    Deed("2026-11-20", "answers", "a", Energy(10, 4, 30, "model")),
    Deed("2026-11-20", "answers", "b", Energy(20, 20, 25, "rapl")),
    Deed("2026-11-23", "trainings", "a", Energy(1000, 400, 3000, "model")),
    Deed("2026-11-23", "answers", "a", None),
]


def test_facts_of_the_ledger_become_deeds() -> None:
    facts = {"finish": "stop", **Energy(5, 2, 9, "model").facts()}
    deed = deed_of("2026-11-26T10:00:00.000001+00:00", "answer", "m", facts)
    assert deed == Deed("2026-11-26", "answers", "m", Energy(5, 2, 9, "model"))
    old = deed_of("2026-01-01T10:00:00+00:00", "tune", "m+x", {"steps": 3})
    assert old == Deed("2026-01-01", "trainings", "m+x", None)
    assert deed_of("2026-11-26T10:00:00+00:00", "tune.judge", "m", facts) is None
    assert deed_of("2026-11-26T10:00:00+00:00", "pull", "m", {}) is None


def test_every_side_adds_up_to_the_same() -> None:
    [whole] = add_up(DEEDS)
    assert (whole.count, whole.unmetered, whole.energy) == (4, 1, Energy(1030, 424, 3055, "model + rapl"))
    for side in SIDES:
        lines = add_up(DEEDS, side)
        assert sum(line.energy.joules for line in lines) == 1030 and sum(line.count for line in lines) == 4
    assert [(line.name, line.energy.joules) for line in add_up(DEEDS, "model")] == [("a", 1010), ("b", 20)]
    assert [(line.name, line.energy.joules) for line in add_up(DEEDS, "activity")] == [("answers", 30), ("trainings", 1000)]
    assert add_up([]) == [] and days([]) == []


def test_days_have_no_holes() -> None:
    assert [(line.name, line.energy.joules) for line in days(DEEDS)] == [
        ("2026-11-20", 30), ("2026-11-21", 0), ("2026-11-22", 0), ("2026-11-23", 1000)
    ]  # fmt: skip


def test_a_line_as_json_says_co2_where_a_region_is_known() -> None:
    [whole] = add_up(DEEDS)
    table = whole.table(find_grid("FR"))
    assert table["wh"] == pytest.approx(1030 / 3600, rel=1e-5) and table["source"] == "model + rapl"
    assert table["co2_g"] == pytest.approx([joules / 3.6e6 * 56 for joules in (1030, 424, 3055)], rel=1e-3)
    assert "co2_g" not in whole.table(None)


def test_the_picture_shows_every_day_with_its_interval(tmp_path: Path) -> None:
    draw(tmp_path / "e.svg", "a < b & c", days(DEEDS))
    root = ET.fromstring((tmp_path / "e.svg").read_text("utf-8"))
    texts = [one.text for one in root if one.tag.endswith("text")]
    boxes = [one.attrib for one in root if one.tag.endswith("rect")]
    assert texts[0] == "a < b & c" and {"2026-11-20", "2026-11-23", "3.00 kJ"} & set(texts) >= {"2026-11-20", "2026-11-23"}
    bars, whiskers = ([box for box in boxes if box["fill"] == colour] for colour in ("#fdba74", "#7c2d12"))
    assert len(bars) == len(whiskers) == 2
    assert float(bars[1]["height"]) / float(bars[0]["height"]) == pytest.approx(1000 / 30, rel=0.02)
    assert float(whiskers[1]["height"]) / float(bars[1]["height"]) == pytest.approx(2.6, rel=0.02)
    assert all(0 <= float(box.get("x", 0)) <= 720 and 0 <= float(box.get("y", 0)) <= 360 for box in boxes)
    draw(tmp_path / "none.svg", "nothing", [])
    with pytest.raises(ConfigError, match=r"\.svg or \.png"):
        draw(tmp_path / "e.pdf", "x", days(DEEDS))


def test_a_png_is_the_same_picture(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    draw(tmp_path / "e.png", "title", days(DEEDS))
    with image.open(tmp_path / "e.png") as drawn:
        assert drawn.size == (1440, 720) and (253, 186, 116) in {colour for _, colour in drawn.getcolors(1 << 20)}


def test_without_pillow_the_cure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"-m pip install 'pillow"):
        draw(tmp_path / "e.png", "x", [])
    assert not (tmp_path / "e.png").exists()
