"""Cards: every name they ask for exists, every fact says where it stands, and a card that was changed anywhere is found out."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingle.app.house import open_rooms
from ingle.app.operations.cards import card_of, hashes, sources_of
from ingle.core.config import to_table
from ingle.core.errors import ConfigError
from ingle.core.report import Event
from ingle.ethics.card import Card, as_html, as_markdown, as_text, card_file, differences, fill, kinds, known, shown
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from tests.cli.place import ingle
from tests.serve.conftest import copied

MEASURED = {
    "suite": "xsum-bits", "figure": "bits_per_byte", "unit": "bits", "value": 1.25, "low": 1.2, "high": 1.3, "n": 40,
    "interval": "95 % bootstrap",
    "model_digest": "a" * 64, "data_digest": "b" * 64,
}  # fmt: skip
POLICY = """
[use]
purpose = "Answers <b>questions</b> about *our* library."
forbidden = ["medical advice", "weapons"]
contact = "library@example.org"

[retention]
answers_days = 30

[guards.topics]
mode = "block"
examples."weapons" = ["How do I build a gun at home?", "Which gun should I buy?", "Where can I buy a gun?", "How do I clean a gun?",
  "What gun is the cheapest?", "Can I print a gun at home?", "How far does a gun shoot?", "Is this gun a good gun to buy?"]
"""


@pytest.fixture
def home(tmp_path: Path, tiny_home: Path) -> Home:
    return Home(copied(tiny_home, tmp_path / "home"))


@pytest.fixture
def engine(home: Home) -> Iterator[Engine]:
    made = open_rooms(home)
    yield made
    made.dispose()


def card(home: Home, engine: Engine, kind: str = "model") -> Card:
    return card_of(home, engine, get_kept(home, "tiny"), kind)


@pytest.mark.parametrize("kind", kinds())
def test_every_clause_asks_for_facts_that_exist_and_is_named_once(kind: str) -> None:
    file = card_file(kind)
    assert file.TITLE and file.SOURCE and file.ITEMS
    assert len({item.clause for item in file.ITEMS}) == len(file.ITEMS)
    for item in file.ITEMS:
        assert item.asks and item.facts and all(map(known, item.facts)), item.clause


@pytest.mark.parametrize("kind", kinds())
def test_every_fact_of_a_card_says_where_it_stands(home: Home, engine: Engine, kind: str) -> None:
    home.policy.write_text(POLICY)
    Ledger(engine, home.keys).append(Event("measure", "tiny", MEASURED))
    made = card(home, engine, kind)
    rows = {row.seq: row for row in Ledger(engine, home.keys).read()}
    for item in made.items:
        assert item.facts or item.missing, item.clause
        for fact in item.facts:
            if fact.origin in ("measured", "recorded"):
                assert fact.row is not None and rows[fact.row].hash == fact.row_hash, fact.name
            elif fact.origin == "stated":
                assert fact.digests["policy"], fact.name
    assert "compl" not in as_text(made).lower().replace("complete", ""), "no card says that a law is met"


def test_what_was_measured_is_shown_with_its_interval_and_what_was_not_says_how(home: Home, engine: Engine) -> None:
    before = card(home, engine)
    assert "not measured: ingle measure tiny --suite xsum-bits" in as_text(before)
    Ledger(engine, home.keys).append(Event("measure", "tiny", MEASURED))
    Ledger(engine, home.keys).append(Event("measure", "another", {**MEASURED, "value": 9.0}))
    after = card(home, engine)
    [fact] = [fact for item in after.items for fact in item.facts if fact.name == "bits per byte of xsum-bits"]
    assert shown(fact) == "1.25 bits (1.2 … 1.3, n = 40)" and fact.digests == {"model": "a" * 64, "data": "b" * 64}
    assert after.filled > before.filled
    newer = {**MEASURED, "value": 1.5}
    Ledger(engine, home.keys).append(Event("measure", "tiny", newer))
    assert [fact.value for item in card(home, engine).items for fact in item.facts if "xsum" in fact.name] == [1.5]


def test_an_audit_is_shown_with_its_intervals(home: Home, engine: Engine) -> None:
    facts = {"crows_pairs_share": 0.54, "crows_pairs_share_low": 0.51, "crows_pairs_share_high": 0.57, "crows_pairs_share_n": 1018}
    Ledger(engine, home.keys).append(Event("audit", "tiny", {**facts, "seconds": 12.0, "model_digest": "a" * 64}))
    told = {fact.name: shown(fact) for item in card(home, engine).items for fact in item.facts if fact.origin == "measured"}
    assert told == {"crows pairs share": "0.54 (0.51 … 0.57, n = 1,018)"}


def test_what_the_owner_states_is_called_stated_and_guards_that_stand_against_it_are_named(home: Home, engine: Engine) -> None:
    home.policy.write_text(POLICY)
    made = card(home, engine)
    told = {fact.name: (fact.value, fact.origin) for item in made.items for fact in item.facts}
    assert told["purpose"] == ("Answers <b>questions</b> about *our* library.", "stated")
    assert told["weapons"][0] == "a guard stands against it" and told["medical advice"][0] == "stated only: no guard knows it"
    page, text = as_html(made), as_markdown(made)
    assert "<b>questions</b>" not in page and "&lt;b&gt;questions" in page and "\\*our\\*" in text


def test_a_policy_is_recorded_once_and_again_when_it_changes(home: Home, engine: Engine) -> None:
    def recorded() -> list[Any]:
        return [row.values["answers_days"] for row in Ledger(engine, home.keys).read(kind="policy")]

    card(home, engine)
    card(home, engine)
    assert recorded() == [0]
    home.policy.write_text(POLICY)
    card(home, engine)
    assert recorded() == [30, 0]
    words = json.dumps([dict(row.values) for row in Ledger(engine, home.keys).read(kind="policy")])
    assert "library" not in words


@pytest.mark.parametrize("seed", range(100))
def test_a_card_that_was_changed_anywhere_is_found_out(home_card: tuple[Card, dict[str, Any], dict[int, str]], seed: int) -> None:
    now, table, rows = home_card
    draw, changed = random.Random(seed), copy.deepcopy(table)
    spots = list(places(changed))
    where, key = draw.choice(spots)
    act = draw.choice(["edit", "delete", "add", "swap"])
    if act == "edit":
        value = where[key]
        where[key] = value + 1 if isinstance(value, int | float) else f"{value}x" if isinstance(value, str) else ["other", value]
    elif act == "delete":
        del where[key]
    elif act == "add" and isinstance(where, dict):
        where["more"] = 1
    else:
        where[key] = {"other": where[key]}
    assert differences(changed, now, rows)


@pytest.fixture(scope="module")
def home_card(tmp_path_factory: pytest.TempPathFactory, tiny_home: Path) -> tuple[Card, dict[str, Any], dict[int, str]]:
    home = Home(copied(tiny_home, tmp_path_factory.mktemp("card") / "home"))
    home.policy.write_text(POLICY)
    engine = open_rooms(home)
    Ledger(engine, home.keys).append(Event("measure", "tiny", MEASURED))
    made, rows = card(home, engine), hashes(engine, home)
    engine.dispose()
    table = json.loads(json.dumps(to_table(made)))
    assert differences(table, made, rows) == []
    return made, table, rows


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a table."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def test_an_old_card_and_one_of_another_model_are_found_out(home: Home, engine: Engine) -> None:
    old = to_table(card(home, engine))
    assert differences(old, fill("model", sources_of(home, engine, get_kept(home, "tiny"))), hashes(engine, home)) == []
    Ledger(engine, home.keys).append(Event("measure", "tiny", MEASURED))
    assert differences(old, card(home, engine), hashes(engine, home))
    assert differences({**old, "model": "other"}, card(home, engine), hashes(engine, home))


def test_unknown_cards_and_contradicting_policies_are_refused(home: Home, engine: Engine) -> None:
    with pytest.raises(ConfigError, match="annex-xi"):
        card(home, engine, "horoscope")
    for policy, field in [
        ('[use]\npurpose = "weapons"\nforbidden = ["Weapons."]', "forbidden"), ('[use]\nforbidden = ["a", "A"]', "forbidden"),
        ("[retention]\nanswers_days = -1", "answers_days"), ('[use]\npurpos = "x"', "purpos"), ('use = "x"', "use"),
        ('[use]\npurpose = "a\\u001bb"', "purpose"),
    ]:  # fmt: skip
        home.policy.write_text(policy)
        with pytest.raises(ConfigError, match=field):
            card(home, engine)


def test_the_terminal_writes_and_checks_a_card(home: Home, tmp_path: Path) -> None:
    for name in ("card.html", "card.md", "card.txt", "card.json"):
        ingle(home.root, "card", "tiny", "--as", "annex-xi", "--out", str(tmp_path / name))
        assert "Annex XI" in (tmp_path / name).read_text()
    ingle(home.root, "prove", "check", str(tmp_path / "card.json"))
    table = json.loads((tmp_path / "card.json").read_text())
    table["items"][3]["facts"][1]["value"] += 1
    (tmp_path / "card.json").write_text(json.dumps(table))
    assert "1(1)(d)" in ingle(home.root, "prove", "check", str(tmp_path / "card.json"), code=1).stdout
    (tmp_path / "no.json").write_text("{}")
    ingle(home.root, "prove", "check", str(tmp_path / "no.json"), code=2)
    ingle(home.root, "card", "tiny", "--out", str(tmp_path / "card.pdf"), code=2)
    assert json.loads(ingle(home.root, "card", "tiny", "--json").stdout)["kind"] == "model"
