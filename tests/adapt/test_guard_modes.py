"""Setting a guard in policy.toml: the mode changes and nothing else, every change is a fact, and what can't be meant stays as it was."""

import os
import threading
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from ingle.adapt.guard_modes import GuardSetting, guard_settings, says_nothing_of, set_guard
from ingle.core.errors import ConfigError, HomeError, IngleError, NotKept, RequestError
from ingle.core.report import Event
from ingle.home.place import Home
from ingle.safety.guard import guard_files, guard_policy
from ingle.safety.policy import USUAL

KEPT = """# The house of the Millers.
[use]
purpose = "homework"   # and nothing else

[guards]  # see docs/safety.md
# Ask Ann before you change this.
harm = "tell"    # for now
pii = { mode = "edit", kinds = ["e-mail"] }

[guards.output]
mode = "block"
words = ["Project Lantern"] # secret
[guards.models.m]
harm = "block"
[guards.keys.children]
output = "edit"

[retention]
answers_days = 90
"""
LAYOUTS = [
    "", "# nothing yet\n", '[use]\npurpose = "x"', KEPT, 'guards = { harm = "tell", pii = "off" }\n', 'guards.harm = "tell"\nx = 1\n',
    '[guards]\nharm = { mode = "tell", alarms = 0.02 } # c\n', '[guards]\nharm.mode = "tell"\nharm.alarms = 0.02\n',
    '[guards.harm]\nalarms = 0.02\nmode = "tell"\n', '[guards]', '[guards]\r\nattack = "tell" # c\r\n[use]\r\npurpose = "x"\r\n',
    '[guards.keys.a]\nharm = "block"\n[use]\npurpose = "x"\n[guards]\npii = "off"\n[gate]\n',
    '[guards.pii]\nmode = "off"\n[use]\npurpose = "x"\n[guards.keys.k]\npii = "tell"\n', '"guards" = { "harm" = "off" }\n',
]  # fmt: skip


def setting(home: Home, guard: str, key: str = "") -> GuardSetting:
    return next(one for one in guard_settings(home, key) if one.file.name == guard)


@pytest.mark.parametrize("text", LAYOUTS)
@pytest.mark.parametrize("guard", ["harm", "pii", "leak"])
def test_one_mode_changes_and_every_other_line_stays(tmp_path: Path, text: str, guard: str) -> None:
    home, facts = Home(tmp_path), list[Event]()
    home.policy.write_text(text, newline="")
    before = setting(home, guard).mode
    done = set_guard(home, guard, "stop", facts.append, "key-1")
    assert (done.mode, done.before, done.changed) == ("block", before, True)
    assert setting(home, guard).mode == "block" and setting(home, guard).said
    new = home.policy.read_bytes().decode()
    gone = [line for line in text.splitlines() if line not in new.splitlines()]
    assert len(gone) <= 1 and all(guard in line or "mode" in line or "guards" in line for line in gone), (gone, new)
    assert ("\r\n" in text) == ("\r\n" in new)
    for comment in ("# The house", "# and nothing else", "# see docs", "# Ask Ann", "# for now", "# secret", "# c"):
        assert new.count(comment) == text.count(comment)
    table, was = tomllib.loads(new), tomllib.loads(text)
    assert {name: value for name, value in table.items() if name != "guards"} == {k: v for k, v in was.items() if k != "guards"}
    [fact] = facts
    assert (fact.kind, fact.subject) == ("guard.set", "guards")
    assert fact.facts == {"guard": guard, "mode": "block", "before": before, "policy": guard_policy(home.policy).digest, "key": "key-1"}


def test_there_and_back_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.policy.write_text(KEPT)
    home.policy.chmod(0o640)
    for word in ("stop", "off", "tell"):
        set_guard(home, "harm", word)
    assert home.policy.read_text() == KEPT and home.policy.stat().st_mode & 0o777 == 0o640
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_home_without_a_policy_gets_one_that_its_owner_alone_reads(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert says_nothing_of(guard_policy(home.policy), "harm") and says_nothing_of(USUAL, "harm")
    set_guard(home, "harm", "block")
    assert home.policy.read_text() == '[guards]\nharm = "block"\n' and home.policy.stat().st_mode & 0o777 == 0o600
    assert not says_nothing_of(guard_policy(home.policy), "harm") and says_nothing_of(guard_policy(home.policy), "attack")


def test_what_it_says_already_is_no_fact_and_what_it_only_does_is(tmp_path: Path) -> None:
    home, facts = Home(tmp_path), list[Event]()
    usual = setting(home, "harm").mode
    assert set_guard(home, "harm", usual, facts.append).changed and len(facts) == 1
    mark = home.policy.stat().st_mtime_ns
    assert not set_guard(home, "harm", usual, facts.append).changed and len(facts) == 1
    assert home.policy.stat().st_mtime_ns == mark


def test_words_and_modes_are_taken_and_others_are_not(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for word, mode in {"Off": "off", " TELL ": "tell", "hide": "edit", "edit": "edit", "stop": "block", "block": "block"}.items():
        assert set_guard(home, "pii", word).mode == mode
    before = home.policy.read_bytes()
    bad: list[tuple[str, str, type[IngleError], str]] = [
        ("harm", "hide", RequestError, "off, tell, stop for the guard harm"), ("harm", "", RequestError, "off, tell, stop"),
        ("size", "off", RequestError, "always does that"), ("unicode", "tell", RequestError, "hide, stop"),
        ("horm", "stop", NotKept, "harm"), ("", "stop", NotKept, "no such guard"), ("models", "stop", NotKept, "no such guard"),
        ("harm", "x" * 10**6, RequestError, "must be one of"), ("x\n[use]", "stop", NotKept, "no such guard"),
    ]  # fmt: skip
    for guard, word, kind, says in bad:
        with pytest.raises(kind, match=says) as caught:
            set_guard(home, guard, word)
        assert len(str(caught.value)) < 500
    assert home.policy.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["[guards\n",
     'harm = "tell"\n[guards]\nharm = "loud"\n', '[guards]\nhorm = "off"\n', "guards = 3\n", '[guards.output]\nwords = ["a"]\n',
     '[guards]\nharm = "tell"\nharm = "off"\n', "[guards]\nharm = 'tell\x00'\n"],
)  # fmt: skip
def test_a_policy_that_cant_be_read_stays_as_it_was(tmp_path: Path, text: str) -> None:
    home, facts = Home(tmp_path), list[Event]()
    home.policy.write_text(text)
    with pytest.raises(ConfigError):
        set_guard(home, "harm", "stop", facts.append)
    with pytest.raises(ConfigError):
        guard_settings(home)
    home.policy.write_bytes(b"[guards]\n# \xff\n")
    with pytest.raises(ConfigError):
        set_guard(home, "harm", "stop", facts.append)
    assert home.policy.read_bytes() == b"[guards]\n# \xff\n" and not facts


@pytest.mark.parametrize("text", ["", KEPT])
def test_without_a_fact_nothing_changes(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    if text:
        home.policy.write_text(text)

    def fails(_: Event) -> None:
        raise HomeError("the disk", "is full")

    with pytest.raises(HomeError):
        set_guard(home, "harm", "stop", fails)
    assert (home.policy.read_text() if text else home.policy.exists()) == (text or False)


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    home, facts, errors = Home(tmp_path), list[Event](), list[BaseException]()
    home.policy.write_text(KEPT)
    names = [file.name for file in guard_files() if "block" in file.modes and "off" in file.modes]

    def change(name: str) -> None:
        try:
            for word in ("off", "stop", "off", "stop"):
                set_guard(home, name, word, facts.append)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=change, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert {name: rule.mode for name, rule in guard_policy(home.policy).rules().items()} == dict.fromkeys(names, "block")
    for name in names:
        said = [fact.facts for fact in facts if fact.facts["guard"] == name]
        assert all(later["before"] == earlier["mode"] for earlier, later in pairwise(said))
    assert "# Ask Ann" in home.policy.read_text()


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    home, elsewhere = Home(tmp_path / "home"), tmp_path / "dotfiles.toml"
    home.root.mkdir()
    elsewhere.write_text("# mine\n")
    home.policy.symlink_to(elsewhere)
    set_guard(home, "harm", "stop")
    assert home.policy.is_symlink() and elsewhere.read_text() == '# mine\n\n[guards]\nharm = "block"\n'


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permission bits say nothing to an administrator")
def test_a_home_that_cant_be_written_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.policy.write_text(KEPT)
    (tmp_path / "locks").mkdir()
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(HomeError):
            set_guard(home, "harm", "stop")
    finally:
        tmp_path.chmod(0o700)
    assert home.policy.read_text() == KEPT


def test_what_holds_for_single_models_and_keys_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.policy.write_text(KEPT)
    assert [(one.kind, one.name, one.mode) for one in setting(home, "harm").others] == [("model", "m", "block")]
    assert [(one.kind, one.name, one.mode) for one in setting(home, "output").others] == [("key", "children", "edit")]
    assert setting(home, "output").mode == "block" and setting(home, "output", "children").mode == "edit"
    assert not setting(home, "output").idle and setting(home, "topics").idle and not setting(home, "pii").idle
