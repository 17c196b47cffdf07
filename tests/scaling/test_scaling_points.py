"""Runs as a CSV: what goes out comes back, and what can't be meant is said in a sentence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError
from ingle.scaling.points import Place, Point, check_points, parse_points, places_array, read_points, repeats, short, shown, write_points

positive = st.floats(1e-6, 1e15, allow_nan=False)
counts = st.floats(1e3, 1e15, allow_nan=False)
maybe = st.floats(0, 1e15, allow_nan=False)
words = st.sampled_from(["", "hybrid", "deux mots, une virgule"])
points = st.builds(Point, counts, counts, positive, maybe, st.integers(0, 10**9), st.just(0.0), words, maybe, maybe)


@given(st.lists(points, min_size=1, max_size=8, unique_by=lambda one: (one.parameters, one.tokens, one.unique, one.seed, one.kind)))
def test_what_goes_out_comes_back(some: list[Point]) -> None:
    assert parse_points(write_points(some)) == some


def test_columns_that_say_nothing_are_left_out() -> None:
    assert write_points([Point(240_000, 750_000.0, 2.5), Point(240_000, 1.5e6, 2.25, seed=1)]) == (
        "parameters,tokens,loss,seed\n240000,750000,2.5,0\n240000,1500000,2.25,1\n"
    )


def test_a_file_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes("\ufeffTokens; Parameters ;loss;model\r\n1e6;2e5;3.5;a\r\n\r\n2e6;2e5;3.25;b\r\n".encode())
    assert read_points(path) == [Point(2e5, 1e6, 3.5), Point(2e5, 2e6, 3.25)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "runs.csv is empty"),
        ("\n \n", "runs.csv is empty"),
        ("parameters,tokens,loss\n", "a heading and no rows"),
        ("2e5,1e6,3.5\n", "begins with numbers"),
        ("parameters,tokens\n1,2\n", "must have a column loss"),
        ("parameters,tokens,loss_nats\n1,2,3\n", "If loss_nats is the loss, name it loss"),
        ("params(M),tokens,loss\n1,2,3\n", "params(m) seems to be parameters in millions: name it parameters"),
        ("parameters,tokens (B),loss\n1,2,3\n", "tokens (b) seems to be tokens in billions"),
        ("N,D,loss\n1,2,3\n", "If n is the parameters, name it parameters"),
        ("parameters,tokens,perplexity\n1,2,3\n", "logarithm of the perplexity"),
        ("parameters,tokens,loss,uniqe\n1,2,3,4\n", "If uniqe is the unique, name it unique"),
        ("parameters,tokens,loss,loss\n1,2,3,4\n", "has loss twice"),
        ("parameters,tokens,loss\n1,2\n", "line 2 of runs.csv has 2"),
        ("parameters,tokens,loss\n1,200,000,5,3\n", "write 1200000, not 1,200,000"),
        ('parameters,tokens,loss\n"1,200,000",5,3\n', "parameters in line 2 of runs.csv must be written without separators, not 1,200,000"),
        ("parameters;tokens;loss\n1.200.000;5;3\n", "without separators"),
        ("parameters;tokens;loss\n1 200 000;5;3\n", "without separators"),
        ("parameters;tokens;loss\n100;5;3,25\n", "with a point, not 3,25. For example 3.25"),
        ("parameters,tokens,loss\n1.2M,5,3\n", "write 1.2e6"),
        ("parameters,tokens,loss\n1_000,5,3\n", "must be written without separators, not 1_000"),
        ("parameters,tokens,loss\n100,5,\n", "loss in line 2 of runs.csv is missing"),
        ("parameters,tokens,loss\n100,5,nan\n", "must be a number, not nan. Leave out a run whose loss went astray"),
        ("parameters,tokens,loss\n100,5,inf\n", "must be a number, not inf"),
        ("parameters,tokens,loss\n100,5,-1\n", "must be above 0, not -1"),
        ("parameters,tokens,loss\n0,5,1\n", "parameters of line 2 of runs.csv must be above 0, not 0"),
        ("parameters,tokens,loss,seconds\n1,5,1,-3\n", "must not be negative, not -3"),
        ("parameters,tokens,loss,seed\n1,5,1,1.5\n", "seed in line 2 of runs.csv must be a whole number"),
        ("parameters,tokens,loss,seed\n1,5,1,\n1,5,2,\n", "2 runs have parameters 1, tokens 5"),
        ("parameters,tokens,loss\n0.24,7e5,3\n6.4,7e5,3\n", "parameters must be counted one by one; the largest number is 6.4"),
        ("parameters,tokens,loss\n2e5,7,3\n", "tokens must be counted one by one"),
        ("parameters,tokens,loss,flops\n2e5,1e6,3,0.0012\n", "about 1.2e+12 for 200k × 1M, not 0.0012. Leave the column out"),
    ],
)
def test_what_cannot_be_meant_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_points(text)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_points(tmp_path / "none.csv")
    (tmp_path / "runs.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_points(tmp_path / "runs.csv")


def test_places_and_their_names() -> None:
    one = Point(820_000, 1.5e6, 2.0, unique=5e5, seed=3)
    assert places_array([one, Place(1e6, 2e6), Place(1e6, 2e6, 5e6)]).tolist() == [[820_000, 1.5e6, 5e5], [1e6, 2e6, 2e6], [1e6, 2e6, 2e6]]
    assert repeats(one) and not repeats(Place(1e6, 2e6, 2e6))
    assert shown(one) == "820k × 1.5M seed 3"
    assert [short(number) for number in (12, 999.6e3, 6.43e6, 2e14)] == ["12", "1M", "6.43M", "200T"]
    assert one.compute == 6 * 820_000 * 1.5e6 and Point(1, 1, 1, flops=7.0).compute == 7.0


def test_points_that_are_the_same_run_are_refused() -> None:
    with pytest.raises(ConfigError, match="must differ"):
        check_points([Point(1.0, 2.0, 3.0, kind="a"), Point(1.0, 2.0, 4.0, kind="a")])
    check_points([Point(1.0, 2.0, 3.0, kind="a"), Point(1.0, 2.0, 4.0, kind="b")])
