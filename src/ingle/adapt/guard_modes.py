"""Sets what the guards of a home do, in its policy.toml, which stays the one place. The command line, the API and the page all do it here.

One mode of one guard is changed; every comment, blank line and other word of the file stays. What the file says for single models and keys
is the owner's to change, by hand. The ledger gets each change: guard, mode, and the one before.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ingle.core.config import read_table
from ingle.core.report import Event, Fact, Sink
from ingle.home.place import Home
from ingle.home.toml_file import read_bytes, rewritten, with_value
from ingle.safety.guard import WORDS, GuardFile, guard_files, guard_policy, is_idle, known_guard, mode_named, policy_of, words_of
from ingle.safety.policy import TABLE, GuardPolicy, Mode, rule_of

_WAIT_S = 30.0  # longest wait for another change of the file


@dataclass(frozen=True, slots=True)
class ModeFor:
    """A mode that policy.toml gives one model or key."""

    kind: Literal["model", "key"]
    name: str
    mode: Mode


@dataclass(frozen=True, slots=True)
class GuardSetting:
    """How a guard is set."""

    file: GuardFile
    mode: Mode
    said: bool  # whether policy.toml says it; if not, it is the usual mode
    idle: bool  # whether the policy gives it nothing to look for
    others: tuple[ModeFor, ...]  # modes of single models and keys

    def without_keys(self) -> "GuardSetting":
        """Return it without the names of keys, which are nobody's but the owner's to see."""
        return replace(self, others=tuple(one for one in self.others if one.kind != "key"))

    def table(self) -> dict[str, Any]:
        """Return it as JSON."""
        file = self.file
        return {
            "guard": file.name, "mode": self.mode, "modes": list(file.modes), "word": WORDS[self.mode], "words": list(words_of(file.modes)),
            "title": file.title, "about": file.about, "takes": list(file.takes), "set": self.said, "idle": self.idle,
            "others": [{one.kind: one.name, "mode": one.mode, "word": WORDS[one.mode]} for one in self.others],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class GuardSet:
    """The outcome of setting a guard."""

    guard: str
    mode: Mode
    before: Mode
    changed: bool  # whether the file was written: not if it said that already


def guard_settings(home: Home, key: str = "") -> tuple[GuardSetting, ...]:
    """Return how all guards are set; `key`: for whoever asks with the key of that name. Raises ConfigError for a policy that can't be
    read."""
    policy, table = guard_policy(home.policy), _table(home.policy)
    rules = policy.rules(key=key)
    settings = []
    for file in guard_files():
        rule = rule_of(rules, file.name, file.modes)
        settings.append(GuardSetting(file, rule.mode, file.name in table, is_idle(file, rule), tuple(_others(policy, table, file))))
    return tuple(settings)


def says_nothing_of(policy: GuardPolicy, guard: str) -> bool:
    """Return whether a policy says nothing of a guard, for nobody."""
    return not any(guard in rules for rules in policy.tables.values())


def set_guard(home: Home, guard: str, word: str, sink: Sink = lambda _: None, owner: str = "") -> GuardSet:
    """Set the mode of a guard, by its word or name, for everybody. It acts from the next request on.

    Raises NotKept for an unknown guard, RequestError for a mode that it hasn't, ConfigError for a policy.toml that can't be read: it then
    stays as it was, as it does where `sink` fails.
    """
    file = known_guard(guard)
    mode = mode_named(file, word)
    with home.lock("policy", timeout_s=_WAIT_S):
        before = rule_of(guard_policy(home.policy).rules(), guard, file.modes).mode
        if before == mode and guard in _table(home.policy):
            return GuardSet(guard, mode, before, False)
        path = home.policy.resolve()  # of a link, the file that it leads to
        old = read_bytes(path)
        keys = (TABLE, guard, "mode") if isinstance(_table(home.policy).get(guard), Mapping) else (TABLE, guard)
        new = with_value(old or b"", keys, mode, "policy.toml")
        digest = policy_of(tomllib.loads(new.decode())[TABLE], home.policy.parent).digest
        with rewritten(path, old, new):
            facts: dict[str, Fact] = {"guard": guard, "mode": mode, "before": before, "policy": digest}
            sink(Event("guard.set", "guards", facts | ({"key": owner} if owner else {})))
    return GuardSet(guard, mode, before, True)


def _table(path: Path) -> Mapping[str, Any]:
    """Return the table of guards of a policy.toml that can be read."""
    table: Mapping[str, Any] = read_table(path).get(TABLE, {}) if path.exists() else {}
    return table


def _others(policy: GuardPolicy, table: Mapping[str, Any], file: GuardFile) -> Iterator[ModeFor]:
    for name, said in table.get("models", {}).items():
        if file.name in said:
            yield ModeFor("model", name, rule_of(policy.tables[name, ""], file.name, file.modes).mode)
    for name, said in table.get("keys", {}).items():
        if file.name in said:
            yield ModeFor("key", name, rule_of(policy.tables["", name], file.name, file.modes).mode)
