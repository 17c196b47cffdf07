"""Guard: reports when a text spells the names of control tokens, as prompt injections do, and honest text about models too.

It changes nothing and refuses nothing. Such names are always plain text to the model: `model/tokenizer.py` never makes a
control token of given text, `model/template.py` only of the template's own.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable

from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.guard import RequestLimits
from ingle.safety.middleware import Guard, Next, with_verdicts
from ingle.safety.policy import GuardRule, LooksAt, Mode
from ingle.safety.texts import request_texts

NAME = "control_tokens"
ABOUT = "Names of the model's control tokens, read as plain text."
LOOKS_AT: tuple[LooksAt, ...] = ("question", "document")
ORDER = 40
MODES: tuple[Mode, ...] = ("tell", "off", "block")
EDITS = False
HOLDS_BACK = 0
Tree = dict[str, "Tree"]  # names as a tree of characters; the key "" marks the end of a name


def make(limits: RequestLimits, rule: GuardRule) -> Guard:
    names = names_pattern(limits.control_names)

    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        verdicts = told(request, names)
        if verdicts and rule.mode == "block":
            raise RequestError("messages", "must not spell the names of control tokens", verdicts[0].reason, "Write them otherwise.")
        async for chunk in answer(request):
            yield with_verdicts(chunk, *verdicts)
            verdicts = ()

    return guard


def told(request: Request, names: re.Pattern[str]) -> tuple[Verdict, ...]:
    """Return a verdict that counts the names by origin; none if there are none. Raises RequestError for tools that are no JSON."""
    by_speaker: Counter[str] = Counter()
    for _place, speaker, text in request_texts(request):
        if names.search(text):
            by_speaker[speaker] += len(names.findall(text))
    if not by_speaker:
        return ()
    counts = ", ".join(f"{count} by {speaker}" for speaker, count in by_speaker.items())
    return (Verdict("allow", f"names of control tokens, read as plain text: {counts}", NAME),)


def names_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for the names; of several at one place, the longest.

    It branches by character, not by name: some models have hundreds of names with the same beginning, and a text that repeats this
    beginning would be compared with each of them at every place.
    """
    tree: Tree = {}
    for name in names:
        node = tree
        for character in name:
            node = node.setdefault(character, {})
        if name:
            node[""] = {}
    return re.compile(_branches(tree) if tree else "(?!)")


def _branches(tree: Tree) -> str:
    ways = [re.escape(character) + _branches(below) for character, below in tree.items() if character]
    if not ways:
        return ""
    return (ways[0] if len(ways) == 1 and "" not in tree else f"(?:{'|'.join(ways)})") + ("?" if "" in tree else "")
