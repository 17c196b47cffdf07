"""`ingle make quantise`, as people use it."""

import json
import shlex
from pathlib import Path

from tests.cli.place import ingle

QUICK = ["--method", "round", "--policy", "safety.on=false", "--policy", "bits.most_rise_percent=90"]


def test_a_table_a_fact_and_how_to_use_it(tiny_home: Path) -> None:
    done = ingle(tiny_home, "quantise", "tiny", "--name", "q4", *QUICK)
    table = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert table["linears"].split()[1:4] == ["14", "of", "14;"]
    assert not any(name.startswith("in ") for name in table), "there is one form only"
    mixed = ingle(
        tiny_home,
        "quantise",
        "tiny",
        "--name",
        "mixed",
        *QUICK,
        "--bits",
        "4.5",
        "--set",
        "calibration.documents=4",
        "--set",
        "calibration.tokens=96",
    )
    assert sum(int(line.split()[3]) for line in mixed.stdout.splitlines() if line.startswith("in ")) == 14
    asked = ["--bits", "5", "--set", 'forms=["q4_1","int8"]', "--set", "calibration.documents=4", "--set", "calibration.tokens=96"]
    named = ingle(tiny_home, "quantise", "tiny", "--name", "named", *QUICK, *asked).stdout.splitlines()
    assert {line.split("  ")[0] for line in named if line.startswith("in ")} == {"in q4_1", "in 8 bits"}
    assert "4.00" in table["bits a weight"] and "5.00 with scales" in table["bits a weight"]
    assert done.stdout.splitlines()[-1] == "Talk with it: ingle chat tiny+q4"
    kinds = [json.loads(line)["kind"] for line in ingle(tiny_home, "log", "--json").stdout.splitlines()]
    assert {"gate.accept", "quantise"} <= set(kinds)
    assert "4.00 bits" in ingle(tiny_home, "log", "tiny").stdout
    assert ingle(tiny_home, "run", "hello", "tiny+q4", "--max-tokens", "4").stdout
    again = json.loads(ingle(tiny_home, "quantise", "tiny", "--name", "q4", *QUICK, "--json").stdout)
    assert (again["bits"], again["method"], again["gate"]["accepted"]) == (4, "round", True)


def test_the_command_that_a_delta_tells_needs_no_file(tiny_home: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('method = "mse"\n[calibration]\ndocuments = 4\n')
    ingle(tiny_home, "quantise", "tiny", "--name", "filed", *QUICK, "--config", str(path))
    [said] = [
        line.split("  ")[-1].strip() for line in ingle(tiny_home, "show", "tiny+filed").stdout.splitlines() if "ingle make quantise" in line
    ]
    told = ['--set=method="round"', "--set=calibration.documents=4"]  # what the command line says holds
    assert shlex.split(said) == ["ingle", "make", "quantise", "tiny", "--name", "filed", *told]


def test_what_cannot_be_is_one_line(tiny_home: Path) -> None:
    for arguments, message in [
        (["--bits", "2"], "bits must be from 3 to 8"),
        (["--method", "gtpq"], "Did you mean gptq"),
        (["--set", "calibration.nothing=1"], "nothing"),
        (["--documents", "0"], "calibration.documents must be at least 1"),
    ]:
        told = ingle(tiny_home, "quantise", "tiny", "--name", "x", *arguments, code=2).stderr
        assert message in told
        assert len(told.splitlines()) == 1
