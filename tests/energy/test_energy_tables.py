"""The tables: every row is sane, CPUs find theirs, and countries theirs."""

import pytest

from ingle.core.energy import Energy
from ingle.core.errors import ConfigError
from ingle.energy import meter, totals
from ingle.energy.meter import find_machine
from tests.energy.machines import EPYC, Fake


def test_every_row_says_where_it_is_from_and_holds_an_interval() -> None:
    names = [rule.cpu.name for rule in meter.RULES]
    assert len(set(names)) == len(names) > 15
    for cpu in [*(rule.cpu for rule in meter.RULES), meter.UNKNOWN]:
        assert 0 < cpu.low < cpu.watts < cpu.high < 60 and 0 < cpu.idle_w < 6, cpu.name
        assert cpu.source and 2015 < cpu.year < 2030
        assert cpu.known == (cpu is not meter.UNKNOWN)
        assert meter.UNKNOWN.high / meter.UNKNOWN.low > cpu.high / cpu.low or cpu is meter.UNKNOWN


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        (EPYC, "Genoa"),
        ({"vendor_id": "AuthenticAMD", "cpu family": "25", "model": "33", "model name": "AMD Ryzen 7 5800X"}, "Zen 3"),
        ({"vendor_id": "AuthenticAMD", "cpu family": "23", "model": "49", "model name": "AMD EPYC 7B12"}, "Rome"),
        ({"vendor_id": "GenuineIntel", "cpu family": "6", "model": "85", "stepping": "4", "model name": "Intel(R) Xeon(R) CPU"}, "Skylake"),
        ({"vendor_id": "GenuineIntel", "cpu family": "6", "model": "85", "stepping": "7", "model name": "Intel(R) Xeon(R) CPU"}, "Cascade"),
        ({"vendor_id": "GenuineIntel", "cpu family": "6", "model": "142", "model name": "Intel(R) Core(TM) i5-8250U"}, "Rocket Lake"),
        ({"CPU implementer": "0x41", "CPU part": "0xd08"}, "Raspberry Pi 4"),
        ({"CPU implementer": "0x41", "CPU part": "0xd0c"}, "Neoverse"),
        ({"vendor_id": "GenuineIntel", "cpu family": "6", "model": "1", "model name": "Pentium Pro"}, "unknown"),
    ],
)
def test_a_cpu_finds_its_row(fields: dict[str, str], row: str, request: pytest.FixtureRequest) -> None:
    machine = find_machine(Fake(request.getfixturevalue("tmp_path")).cpuinfo(fields).root)
    assert row in machine.cpu.name
    assert machine.cores == 2


def test_threads_of_one_core_and_virtual_cores_are_less_than_a_core(request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue("tmp_path")
    plain = find_machine(Fake(root / "a").cpuinfo(EPYC, 4).root)
    threads_of_cores = find_machine(Fake(root / "b").cpuinfo(EPYC | {"siblings": "4", "cpu cores": "2"}, 4).root)
    virtual = find_machine(Fake(root / "c").cpuinfo(EPYC | {"flags": "fpu hypervisor avx2"}, 4).root)
    assert (plain.cores, plain.share) == (4, (1.0, 1.0, 1.0))
    assert threads_of_cores.cores == 2 and threads_of_cores.share[1] <= threads_of_cores.share[0] < 1 <= threads_of_cores.share[2]
    assert virtual.virtual and virtual.share[1] < virtual.share[0] <= virtual.share[2] == 1


def test_a_country_has_its_electricity_with_year_and_source() -> None:
    germany = totals.find_grid(" de ")
    assert (germany.region, germany.g_per_kwh, germany.year) == ("DE", 381.0, 2023) and germany.source
    assert germany.grams(Energy(3.6e6, 1.8e6, 7.2e6, "model")) == pytest.approx((381, 190.5, 762))
    assert totals.find_grid("uk") == totals.find_grid("GB")
    assert totals.find_grid("world").source != germany.source
    for code in {*totals._OF_2023, *totals._OF_2022} - {"WORLD"}:
        assert len(code) == 2 and code.isupper() and 15 <= totals.find_grid(code).g_per_kwh < 1400
    assert not {*totals._OF_2023} & {*totals._OF_2022}
    with pytest.raises(ConfigError, match=r"--region.*WORLD"):
        totals.find_grid("Atlantis")
