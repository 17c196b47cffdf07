"""The modes of guards in words that anybody understands: on the page, at a terminal, and by the API. Mode names are taken as well."""

from collections.abc import Mapping
from types import MappingProxyType

from ingle.core.errors import NotKept, RequestError
from ingle.safety.guard_files import GuardFile, guard_files
from ingle.safety.policy import GuardRule, Mode

# By mode, the mildest first: the word for it.
WORDS: Mapping[Mode, str] = MappingProxyType({"off": "off", "tell": "tell", "edit": "hide", "block": "stop"})
# By mode: how a button calls it.
LABELS: Mapping[Mode, str] = MappingProxyType({"off": "Off", "tell": "Tell me", "edit": "Hide it", "block": "Stop it"})
# By mode: what it does, in a sentence.
DOES: Mapping[Mode, str] = MappingProxyType({
    "off": "Nobody looks.",
    "tell": "It is answered all the same, and you are told.",
    "edit": "It is taken out, and the rest goes on.",
    "block": "It is not answered, or the answer ends there.",
})  # fmt: skip
# Choices of a policy that say what a guard looks for; the guards that take them find nothing without.
_LOOKED_FOR = ("words", "patterns", "topics", "harm")


def known_guard(name: str) -> GuardFile:
    """Return a guard by its name. Raises NotKept."""
    found = next((file for file in guard_files() if file.name == name), None)
    if found is None:
        raise NotKept("guard", "There is no such guard", name[:80], f"Known: {', '.join(file.name for file in guard_files())}.")
    return found


def mode_named(file: GuardFile, word: str) -> Mode:
    """Return the mode of a guard by its word or its name. Raises RequestError for one that the guard hasn't."""
    said = word.strip().lower()
    found = next((mode for mode in file.modes if said in (mode, WORDS[mode])), None)
    if found is None:
        words = ", ".join(words_of(file.modes))
        cure = "" if len(file.modes) > 1 else "It always does that."
        raise RequestError("mode", f"must be one of {words} for the guard {file.name}", repr(word[:40]), cure)
    return found


def by_mildness(modes: tuple[Mode, ...]) -> tuple[Mode, ...]:
    """Return modes, the mildest first."""
    return tuple(mode for mode in WORDS if mode in modes)


def words_of(modes: tuple[Mode, ...]) -> tuple[str, ...]:
    """Return the words for modes, the mildest first."""
    return tuple(WORDS[mode] for mode in by_mildness(modes))


def is_idle(file: GuardFile, rule: GuardRule) -> bool:
    """Return whether the policy gives a guard nothing to look for."""
    looked_for = [name for name in _LOOKED_FOR if name in file.takes]
    return bool(looked_for) and not any(getattr(rule, name) for name in looked_for)
