"""A sentence as the judge of orders sees it: its n-grams, and signs of somebody who speaks to an assistant instead of about something."""

import re
from zlib import crc32

import numpy as np

from ingle.safety.features import SIZE, Sparse, grams, vector

_SIGN = 0.4
_SIGNS = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "forget": r"\b(ignore|disregard|forget|override|bypass|skip|drop|cancel)\b.{0,40}\b(instruction|prompt|rule|previous|above|"
        r"prior|earlier|"
        r"everything|guideline|question|task|polic|context|safety)\w*",
        "instead": r"\b(instead|rather than|do not (answer|summari|translate)|before (answering|you)|first,? (send|say|print|run))\b",
        "you must": r"\b(you (must|shall|should|will|are (now|required|to))|your (new|real|only|next) (task|job|goal|instruction|"
        r"role)\w*)\b",
        "to the model": r"\b(assistant|ai|chatbot|language model|llm|agent|model|system|developer|admin\w*)\b\s*[:,>\]]",
        "tag": r"(\[/?(inst|system|admin|assistant)\]|</?(system|instruction|user|assistant)>|###|<\||```system|begin (new )?(system|"
        r"instruction))",
        "act": r"^\W*(send|forward|email|post|upload|delete|remove|execute|run|open|visit|click|call|transfer|reveal|print|output|"
        r"repeat|respond|reply|"
        r"answer|say|write|tell|append|include|recommend|always|never|please)\b",
        "exfiltrate": r"\b(send|forward|email|post|upload|append|include|reveal|print|exfiltrat\w+)\b.{0,60}\b(password|key|token|secret|"
        r"credential|prompt|conversation|history|file|data|address|https?://|@)\w*",
        "secrecy": r"\b(do not|don't|never)\b.{0,30}\b(tell|mention|reveal|inform|alert|disclose|show)\b",
        "urgent": r"\b(important|urgent|attention|note to|notice to|warning)\b\s*[:!]",
        "address": r"https?://|www\.|\S+@\S+\.\w+",
        "user": r"\bthe (user|customer|reader|owner)('s)?\b",
        "from now on": r"\b(from now on|henceforth|for all (future|later)|in (all|every) (future|later|repl|respons|answer)\w*|whenever|"
        r"any time)\b",
    }.items()
}


def order_vector(sentence: str) -> Sparse:
    """Return what the judge of orders sees."""
    places, values = vector(grams(sentence, (4, 5), 2, "o"))
    names = [name for name, pattern in _SIGNS.items() if pattern.search(sentence)]
    more = np.array([crc32(f"order {name}".encode()) % SIZE for name in (*names, f"{min(3, len(names))} signs")], np.int64)
    return np.concatenate([places, more]), np.concatenate([values, np.full(len(more), _SIGN, np.float32)])
