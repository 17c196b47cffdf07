"""The meter on machines made of files: counters first, a battery next, else the model; and it never calls a guess a measurement."""

from pathlib import Path
from typing import Any

import pytest

from ingle.energy.meter import CURE, Gpus, Meter, Span, find_rapl, open_meter
from tests.energy.machines import EPYC, RANGE_UJ, Fake


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path).cpuinfo(EPYC).resident(100_000)


def taken(fake: Fake, meter: Meter, seconds: float, **what: float) -> Any:
    first = meter.read()
    fake.go(seconds, **what)
    return meter.between(first, meter.read())


def test_counters_are_what_counts(fake: Fake) -> None:
    fake.rapl("0", "package-0", 5).rapl("0:0", "core", 9).rapl("0:2", "dram").rapl("1", "package-1").rapl("2", "psys")
    fake.rapl("0", "package-0", 5, kind="intel-rapl-mmio")
    energy = taken(fake, fake.meter(), 10, cpu_s=20, d0=100, d0_0=80, d0_2=7, d1=50, d2=300)
    assert (energy.source, energy.measured) == ("rapl", True)
    assert energy.joules == energy.high == pytest.approx(157) and 0 < energy.low < 157


def test_a_counter_that_begins_anew_is_followed(fake: Fake) -> None:
    fake.rapl("0", "package-0", RANGE_UJ - 1_000_000).rapl("0:0", "dram")
    energy = taken(fake, fake.meter(), 3, cpu_s=6, d0=31.5)
    assert energy.measured and energy.joules == pytest.approx(31.5)


def test_a_window_in_which_it_may_begin_anew_twice_is_the_models(fake: Fake) -> None:
    fake.rapl("0", "package-0")
    meter = fake.meter()
    assert taken(fake, meter, 100, cpu_s=1, d0=10).source == "rapl"
    assert taken(fake, meter, 200, cpu_s=1, d0=10).source == "model"  # 2 kW would fill 262 kJ in 131 s


def test_so_is_one_in_which_the_machine_slept_and_the_sleep_is_nobodys(fake: Fake) -> None:
    fake.rapl("0", "package-0", 900_000_000)
    meter = fake.meter()
    first = meter.read()
    fake.go(10, cpu_s=10, sleep_s=3600)
    fake.rapl("0", "package-0", 4)  # begun anew with the machine: as if it had run through
    slept = meter.between(first, meter.read())
    assert slept.source == "model"
    assert slept == meter.modelled(first, meter.read()) and slept.high < 10 * 30
    assert taken(fake, meter, 10, cpu_s=10, d0=44).joules == pytest.approx(44)


def test_of_what_the_machine_took_this_process_is_given_its_share(fake: Fake) -> None:
    fake.rapl("0", "package-0").rapl("0:0", "dram")
    meter = fake.meter()
    energy = taken(fake, meter, 10, cpu_s=5, others_s=15, d0=80)
    assert energy.joules == pytest.approx(20) and 0 < energy.low < 20
    assert energy.high == pytest.approx(80), "others may have been there for its sake"
    assert taken(fake, meter, 0.1, cpu_s=0.1, d0=1).joules == pytest.approx(0.25), "too short to say anew who used the CPU"


def test_what_happened_before_a_span_is_not_in_its_share(fake: Fake) -> None:
    fake.rapl("0", "package-0").rapl("0:0", "dram")
    meter = fake.meter()
    fake.go(3600, others_s=3600, d0=9)
    span = Span(meter)
    fake.go(0.05, cpu_s=0.1, d0=2)
    assert span.end().joules == pytest.approx(2), "others were busy, but before"


def test_short_answers_one_after_the_other_are_not_given_the_whole_machine(fake: Fake) -> None:
    fake.rapl("0", "package-0").rapl("0:0", "dram")
    meter = fake.meter()
    took = []
    for _ in range(50):
        span = Span(meter)
        fake.go(0.15, cpu_s=0.15, others_s=0.15 * 7, d0=6)
        took.append(span.end())
    assert took[0].joules == pytest.approx(6), "nobody knows yet who else was there"
    assert all(energy.joules == pytest.approx(6 / 8, rel=0.1) for energy in took[2:])
    assert all(energy.low <= energy.joules <= energy.high for energy in took)


def test_memory_that_is_not_counted_only_widens(fake: Fake) -> None:
    fake.rapl("0", "package-0")
    energy = taken(fake, fake.meter(), 10, cpu_s=20, d0=100)
    assert energy.joules == pytest.approx(100) and energy.low < 100 and energy.measured
    assert 100 < energy.high < 105


def test_counters_that_are_locked_are_not_read_and_the_cure_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.rapl("0", "package-0")
    read = Path.read_text

    def refuse(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)  # an administrator, as tests may be, can read everything
    assert find_rapl(fake.root).state == "locked"
    assert "chmod a+r" in CURE and "udev" in CURE
    assert taken(fake, fake.meter(), 10, cpu_s=20).source == "model"


def test_without_counters_the_model_says_so(fake: Fake) -> None:
    meter = fake.meter()
    energy = taken(fake, meter, 10, cpu_s=20)
    assert (energy.source, energy.measured) == ("model", False)
    assert 0 < energy.low < energy.joules < energy.high
    nothing_done = taken(fake, meter, 10)
    assert nothing_done.joules < 0.1 * energy.joules and nothing_done.high > 10


def test_an_unknown_cpu_is_said_and_widens(fake: Fake, tmp_path: Path) -> None:
    known = taken(fake, fake.meter(), 10, cpu_s=20)
    other = Fake(tmp_path / "other").cpuinfo({"vendor_id": "CentaurHauls", "model name": "VIA C7"}).resident(100_000)
    unknown = taken(other, other.meter(), 10, cpu_s=20)
    assert unknown.source == "model, unknown CPU" and not unknown.measured
    assert unknown.high / unknown.low > 2 * known.high / known.low
    nowhere = Fake(tmp_path / "nowhere")
    assert taken(nowhere, nowhere.meter(), 1, cpu_s=1).low > 0


def test_a_battery_counts_while_it_is_used(fake: Fake) -> None:
    fake.battery(power_now="12500000")
    energy = taken(fake, fake.meter(), 10, cpu_s=20)
    assert (energy.source, energy.measured) == ("battery", True)
    assert energy.joules == energy.high == pytest.approx(125) and energy.low < 125
    fake.battery(power_now="12500000", status="Charging")
    assert taken(fake, fake.meter(), 10, cpu_s=20).source == "model"


def test_a_battery_may_tell_current_and_voltage(fake: Fake) -> None:
    fake.battery(current_now="-1000000", voltage_now="11000000")
    assert taken(fake, fake.meter(), 10, cpu_s=20).joules == pytest.approx(110)


def test_counters_are_trusted_more_than_the_battery(fake: Fake) -> None:
    fake.battery(power_now="12500000").rapl("0", "package-0")
    assert taken(fake, fake.meter(), 10, cpu_s=20, d0=3).source == "rapl"


class FakeNvml:
    """As much of `pynvml` as we call."""

    def __init__(self, mj: dict[str, int]) -> None:
        self.mj = mj

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in self.mj:
            raise RuntimeError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        return self.mj[handle]


def test_gpus_are_counted_beside_the_cpu(fake: Fake) -> None:
    library = FakeNvml({"GPU-a": 1000, "GPU-b": 5, "GPU-c": 7})
    meter = fake.meter()
    meter.gpus = Gpus(("GPU-a", "GPU-b"), library)
    first, before = meter.read(), meter.modelled(meter.read(), meter.read())
    library.mj = {"GPU-a": 251_000, "GPU-b": 50_005, "GPU-c": 999_999}
    energy = meter.between(first, meter.read())
    assert before.joules == 0 and energy.joules == pytest.approx(300)
    assert energy.source == "model + nvml" and not energy.measured, "the CPU's part is a guess"
    fake.rapl("0", "package-0")
    counted = fake.meter()
    counted.gpus = meter.gpus
    first = counted.read()
    fake.go(1, cpu_s=1, d0=9)
    library.mj["GPU-a"] += 1000
    assert (both := counted.between(first, counted.read())).measured and both.joules == pytest.approx(10)


@pytest.mark.parametrize("library", [FakeNvml({}), FakeNvml({"GPU-a": 1000})])
def test_a_gpu_without_a_counter_is_missing_and_that_is_said(fake: Fake, library: FakeNvml) -> None:
    meter = fake.meter()
    meter.gpus = Gpus(("GPU-a",), library)
    first = meter.read()
    library.mj = {"GPU-a": 10} if library.mj else {}  # begun anew with its driver
    assert "model, without the GPU" in meter.between(first, meter.read()).source


def test_a_span_is_the_sum_of_its_pieces(fake: Fake) -> None:
    fake.rapl("0", "package-0").rapl("0:0", "dram")
    span = Span(fake.meter(), pace_s=1.0)
    pieces = []
    for _ in range(10):
        fake.go(0.4, cpu_s=0.4, d0=4)
        pieces.append(span.tick())
    assert [piece is None for piece in pieces] == [True, True, False] * 3 + [True]
    assert span.end().joules == pytest.approx(40)
    assert sum(piece.joules for piece in pieces if piece) == pytest.approx(36)


def test_this_very_machine_can_be_metered() -> None:
    meter = open_meter()
    assert meter is open_meter()
    span = Span(meter)
    while meter.clocks.cpu_s() < span._last.cpu_s + 0.05:
        sum(range(1000))
    energy = span.end()
    assert 0 < energy.low <= energy.joules <= energy.high and energy.source
