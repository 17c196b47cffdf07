"""Counts words that a sentence shares with the answer, rare ones for more. Reads nothing; the baseline that could embarrass the others."""

import math
import re
from collections import Counter

import numpy as np

from ingle.explain.cause import Nats
from ingle.explain.falls import Falls

_WORD = re.compile(r"\w+")


def propose(falls: Falls, answer: str, seed: int) -> Nats:
    """See explain/falls.py: the sum of log(n / sentences with the word) over the shared words."""
    bags = [set(_WORD.findall(falls.sentences[i].text.lower())) for i in falls.causes]
    spread = Counter(word for bag in bags for word in bag)
    said = set(_WORD.findall(answer.lower()))
    return np.array([sum(math.log((1 + len(bags)) / spread[word]) for word in sorted(bag & said)) for bag in bags])
