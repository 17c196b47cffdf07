"""The lines of `ingle home guards`: how the guards are set, and what they would do with a text."""

from typing import TYPE_CHECKING, Any

from ingle.safety.guard import WORDS, words_of

if TYPE_CHECKING:
    from ingle.adapt.guard_modes import GuardSetting
    from ingle.safety.policy import LooksAt
    from ingle.safety.tried import GuardTry, TriedGuard

_AS: "dict[LooksAt, str]" = {"question": "as a question", "document": "in what it is given to read", "answer": "as an answer"}
_OUTCOMES = {"tell": "You would be told, and it would be answered", "edit": "It would be taken out", "block": "It would be stopped"}


def setting_lines(one: "GuardSetting", width: int) -> list[str]:
    """Return how a guard is set, in lines."""
    can = f"  (can be {', '.join(words_of(one.file.modes))})" if len(one.file.modes) > 1 else ""
    idle = "  policy.toml gives it nothing to look for yet." if one.idle and one.mode != "off" else ""
    lines = [f"{one.file.name:{width}}  {WORDS[one.mode]:4}  {one.file.about}{can}{idle}"]
    return lines + [f"{'':{width}}  {WORDS[other.mode]:4}  for the {other.kind} {other.name}" for other in one.others]


def try_table(one: "TriedGuard") -> dict[str, Any]:
    """Return what a guard would do with a text, as JSON."""
    found = {
        place: {"does": "pass" if tried.does == "off" else tried.does, "why": tried.why, "score": tried.score, "threshold": tried.threshold}
        for place, tried in one.tries.items()
    }
    return {"guard": one.file.name, "mode": one.mode, "word": WORDS[one.mode], **{place: found.get(place) for place in _AS}}


def try_line(one: "TriedGuard", width: int) -> str:
    """Return what a guard would do with a text, in a line."""
    head = f"  {one.file.name:{width}}  {WORDS[one.mode]:4}  "
    if not one.tries:
        others = "|".join(word for word in words_of(one.file.modes) if word != WORDS["off"])
        return f"{head}nobody looks. To change that: ingle home guards set {one.file.name} {others}"
    # What is said of a question holds for what comes with it as well, and is said once.
    shown = {place: tried for place, tried in one.tries.items() if place != "document" or "question" not in one.tries}
    if all(tried.does == "off" for tried in shown.values()):
        return f"{head}fine {' and '.join(_AS[place] for place in shown)}{_because(next(iter(shown.values())))}"
    said = (
        f"{'fine' if tried.does == 'off' else 'ALARM'} {_AS[place]}{_because(tried)}{_outcome(tried)}" for place, tried in shown.items()
    )
    return head + " ".join(said)


def _outcome(tried: "GuardTry") -> str:
    return "" if tried.does == "off" else f" {_OUTCOMES[tried.does]}."


def _because(tried: "GuardTry") -> str:
    scored = ""
    if tried.score is not None and tried.threshold is not None:
        scored = f" (score {tried.score:+.2f}, alarms above {tried.threshold:+.2f})"
    return f": {tried.why}{scored}." if tried.why else f"{scored}."
