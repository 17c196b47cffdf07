"""The owner's policy for guards: the table `[guards]` of HOME/policy.toml. A guard has a mode, or a table that begins with one.

[guards]
control_tokens = "block"
output = { mode = "edit", words = ["Project Lantern"], patterns = ['PL-\\d{4}'] }

[guards.models.smollm2]
control_tokens = "off"

[guards.keys.children]
output = "block"

What a model's or a key's table says of a guard comes over what is said for all: field by field, the key's last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError

# `off`: the guard is not used. `tell`: it reports its findings. `edit`: it removes them. `block`: it refuses the request, or ends the
# answer.
Mode = Literal["off", "tell", "edit", "block"]
# Places that a guard looks at: somebody's words, texts that come with them (memories, tools' results, documents), the model's words.
LooksAt = Literal["question", "document", "answer"]
# The action of a guard's verdicts, by its mode.
ACTIONS: Mapping[Mode, Literal["allow", "edit", "block"]] = MappingProxyType({"tell": "allow", "edit": "edit", "block": "block"})
TABLE = "guards"  # the table's name in the file
FEWEST_EXAMPLES, MOST_EXAMPLES = 8, 1000  # examples of a topic: fewer say nothing certain, more take too long
_MOST_BYTES = 1 << 20  # of a file of examples
_LONGEST = 1000  # characters of one example, word, pattern or sentence of a policy


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuardRule:
    """The policy for one guard. Which fields a guard takes beside `mode`, its file says (`TAKES`)."""

    mode: Mode
    alarms: float = 0.01  # largest share of ordinary texts that may alarm it; its threshold follows
    words: tuple[str, ...] = ()  # words and phrases, whole, whatever their case; `word*` finds all that begins so
    patterns: tuple[str, ...] = ()  # regular expressions
    topics: tuple[Topic, ...] = ()  # in the file: `examples.NAME`, a list, or a file with one example a line
    harm: float | None = None  # score from which the judge of answers calls an answer harmful, 0 to 1; none = it is not asked
    kinds: tuple[str, ...] = ()  # kinds of personal data; none named = all
    say: str = ""  # words that an answer ends with where the guard ended it; empty = the guard's own
    # The fate of a request that the guard could not judge: it passes and that is told, or it is refused.
    fails: Literal["open", "closed"] = "open"
    # Who judges: the judge that ships with Ingle, a kept guard model, or the judge first and the model where the judge is unsure.
    by: Literal["judge", "model", "both"] = "judge"
    model: str = "guard"  # name of the kept guard model
    risk: float = 0.5  # risk from which a guard model's opinion counts, 0 to 1
    judge: Path | None = None  # file of this home's own judge, if there is one; no policy says it, the registry does

    def __post_init__(self) -> None:
        if not 0.0 < self.alarms <= 0.5:
            raise ConfigError("alarms", "must be above 0 and at most 0.5", self.alarms)
        for name in ("harm", "risk"):
            share: float | None = getattr(self, name)
            if share is not None and not 0.0 < share <= 1.0:
                raise ConfigError(name, "must be above 0 and at most 1", share)
        if not self.model.strip() or len(self.model) > _LONGEST:
            raise ConfigError("model", "must name a kept model", repr(self.model[:40]), "Bring one: ingle pull guard")
        for name in ("words", "patterns", "kinds"):
            for text in (*getattr(self, name),):
                if not text.strip() or len(text) > _LONGEST:
                    raise ConfigError(name, f"must be texts of 1 to {_LONGEST:,} characters", repr(text[:40]))
        if len(self.say) > _LONGEST:
            raise ConfigError("say", f"must be at most {_LONGEST:,} characters", f"{len(self.say):,}")


Rules = Mapping[str, GuardRule]  # rules by guard; the others keep their usual mode


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """Rules for everybody, and for single models and API keys."""

    # Rules by model and key; "" = every other one.
    tables: Mapping[tuple[str, str], Rules] = field(default_factory=lambda: MappingProxyType({("", ""): MappingProxyType({})}))
    digest: str = ""  # SHA-256 of all that it says; empty = it says nothing
    judge: Path | None = None  # file of this home's own judge, whether or not there is one

    def rules(self, model: str = "", key: str = "") -> Rules:
        """Return the rules for a model (and its deltas, unless they have their own), and a key by its name."""
        models = [name for name, _ in self.tables if name and (model == name or model.startswith(f"{name}+"))]
        name = max(models, key=len, default="")
        return self.tables[name, key] if (name, key) in self.tables else self.tables[name, ""]

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(key for _, key in self.tables if key)

    @property
    def guard_models(self) -> Mapping[str, str]:
        """Names of the guard models that it asks, each with the guard that asks first."""
        rules = [(name, rule) for table in self.tables.values() for name, rule in table.items() if rule.mode != "off"]
        return {rule.model: name for name, rule in reversed(rules) if rule.by != "judge"}


USUAL = GuardPolicy()


@dataclass(frozen=True, slots=True)
class KnownGuard:
    modes: tuple[Mode, ...]  # the usual one first
    takes: tuple[str, ...] = ()  # fields beside `mode`


def rule_of(rules: Rules, guard: str, modes: tuple[Mode, ...]) -> GuardRule:
    """Return the rule of a guard whose modes are these, the usual one first."""
    return rules.get(guard) or GuardRule(modes[0])


def read_policy(table: Any, known: Mapping[str, KnownGuard], folder: Path) -> GuardPolicy:
    """Return the policy in a table. `folder`: where files of examples lie. Raises ConfigError for what it can't mean."""
    if not isinstance(table, Mapping):
        raise ConfigError(TABLE, "must be a table", repr(table), 'For example [guards] with control_tokens = "block".')
    base = {name: rule for name, rule in table.items() if name not in ("models", "keys")}
    over = {part: _tables(table.get(part, {}), f"{TABLE}.{part}") for part in ("models", "keys")}
    tables: dict[tuple[str, str], Rules] = {}
    for model in ("", *over["models"]):
        for key in ("", *over["keys"]):
            said: list[tuple[Mapping[str, Any], str]] = [(base, TABLE)]
            said += [(over["models"][model], f"{TABLE}.models.{model}")] if model else []
            said += [(over["keys"][key], f"{TABLE}.keys.{key}")] if key else []
            tables[model, key] = _rules(said, known, folder)
    plain = {f"{model}\n{key}": to_table(rules) for (model, key), rules in tables.items()}
    return GuardPolicy(MappingProxyType(tables), digest_json(plain) if table else "")


def _tables(value: Any, where: str) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping) or not all(isinstance(inner, Mapping) and name for name, inner in value.items()):
        raise ConfigError(where, "must hold one table for each name", repr(value)[:80], f"For example [{where}.NAME].")
    return value


def _rules(said: list[tuple[Mapping[str, Any], str]], known: Mapping[str, KnownGuard], folder: Path) -> Rules:
    """Return the rules of one model and key. `said`: tables with their places, the later ones over the earlier."""
    merged: dict[str, dict[str, Any]] = {}
    for table, where in said:
        for name, value in table.items():
            place = f"{where}.{name}"
            if name not in known:
                raise ConfigError(place, "is not a guard", "", f"Known: {', '.join(known)}.")
            merged[name] = merged.get(name, {}) | _checked(value, known[name], place, folder)
    for name, fields_ in merged.items():
        if "mode" not in fields_:
            modes = ", ".join(known[name].modes)
            raise ConfigError(f"{TABLE}.{name}.mode", "is required", "nothing", f"Say one of {modes}.")
    return MappingProxyType({name: _rule(name, fields_) for name, fields_ in merged.items()})


def _rule(guard: str, table: Mapping[str, Any]) -> GuardRule:
    place = f"{TABLE}.{guard}."
    try:
        return from_table(GuardRule, table, place)
    except ConfigError as error:
        field = error.field if error.field.startswith(place) else place + error.field
        raise ConfigError(field, error.rule, error.got, error.cure) from None


def _checked(value: Any, known: KnownGuard, place: str, folder: Path) -> dict[str, Any]:
    table = {"mode": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        raise ConfigError(place, f"must be one of {', '.join(known.modes)}, or a table", repr(value)[:80])
    takes = ("mode", *("examples" if name == "topics" else name for name in known.takes))
    for name in table:
        if name not in takes:
            raise ConfigError(f"{place}.{name}", "is not what this guard takes", "", f"It takes {', '.join(takes)}.")
    if "mode" in table and table["mode"] not in known.modes:
        raise ConfigError(place, f"must be one of {', '.join(known.modes)}", repr(table["mode"])[:80])
    rest = {name: item for name, item in table.items() if name != "examples"}
    if "examples" in table:
        topics = _tables_of_examples(table["examples"], f"{place}.examples")
        rest["topics"] = [{"name": name, "texts": _texts(item, f"{place}.examples.{name}", folder)} for name, item in topics.items()]
    return rest


def _tables_of_examples(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(0 < len(name) <= 40 and name.isprintable() for name in value):
        rule = "must be a table: for each topic (1 to 40 printable characters) a list of examples, or a file"
        raise ConfigError(place, rule, repr(value)[:80])
    return value


def _texts(value: Any, place: str, folder: Path) -> list[str]:
    """Return the examples of a topic. Raises ConfigError for too few, for the same again and again, and for what is no text."""
    if isinstance(value, str):
        value = _lines(folder / value, place)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ConfigError(place, "must be a list of texts, or the name of a file", repr(value)[:80])
    texts = list(dict.fromkeys(text.strip() for text in value if text.strip()))
    if not FEWEST_EXAMPLES <= len(texts) <= MOST_EXAMPLES:
        rule = f"must hold {FEWEST_EXAMPLES} to {MOST_EXAMPLES:,} examples, all different"
        raise ConfigError(place, rule, len(texts), "Write more of them, each another way to say it.")
    for text in texts:
        if len(text) > _LONGEST:
            raise ConfigError(place, f"must hold texts of at most {_LONGEST:,} characters", f"{len(text):,}")
    return texts


def _lines(path: Path, place: str) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(place, f"must be a file of at most {_MOST_BYTES:,} bytes", f"{path.stat().st_size:,}")
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise ConfigError(
            place, f"The examples of {place} can't be read", why, "One example a line, as UTF-8, beside policy.toml."
        ) from None
