"""What liked answers have in common that others have not, as far as it can be seen: their length, paragraphs, lists, tone. No PyTorch.

A model that writes at length hardly ever shows the short answer that its user would like, so thumbs up are few. But a disliked answer
often begins in the form that is liked, and only goes on too long, or into a list. That beginning is one more answer to like.
"""

import re
from collections.abc import Callable, Sequence

_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_CONTRACTION = re.compile(r"\b\w+['’](?:t|m|re|ve|ll|d)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?]+(?=\s|$)|\n+|$)")
_FEW_WORDS = 15  # no thumb asks for less: one short answer that was liked is no rule for all
Form = Callable[[str], bool]


def common_forms(liked: Sequence[str], others: Sequence[str]) -> list[Form]:
    """Forms that nearly all liked answers have, and at most half of the others."""
    if not liked or not others:
        return []
    most = max(_FEW_WORDS, *(len(text.split()) for text in liked))
    forms: tuple[Form, ...] = (
        lambda text: len(text.split()) <= most,
        lambda text: "\n" not in text.strip(),
        lambda text: not _ITEM.search(text),
        lambda text: "!" not in text,
        lambda text: not _CONTRACTION.search(text),
    )
    return [form for form in forms if _share(form, liked) >= 0.9 and _share(form, others) <= 0.5]


def beginning(text: str, forms: Sequence[Form]) -> str:
    """The whole sentences at the beginning of an answer that have all these forms; "" if not even the first has, or no form is given."""
    kept, at = "", 0
    while forms and at < len(text):
        found = _SENTENCE.match(text, at)
        if not found or not found.group() or not all(form(text[: found.end()]) for form in forms):
            break
        at = found.end()
        if re.search(r"[.!?]\s*$", text[:at]):
            kept = text[:at]
    return kept.strip() if len(kept) < len(text) else ""


def _share(form: Form, texts: Sequence[str]) -> float:
    return sum(map(form, texts)) / len(texts)
