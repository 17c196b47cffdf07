"""Passages that repeat themselves in an answer, and where it may.

An answer ends when it has long said nothing that it did not say three times before.

A token is stale if the passage of twelve tokens that ends with it stood in the answer three times already. One new word makes the
next twelve tokens fresh. So tables, lists and code with similar lines go on, a refrain is forgiven once a new verse begins, and what ends
is a text that nothing new enters. A limit in tokens, not in rounds, lets short lines be repeated more often than long paragraphs.
"""

from collections import Counter, deque

_PASSAGE = 12
"""Tokens that are compared: some eight words of English."""
_ROUNDS = 3
"""Times that a passage must have stood there before."""
_MOST_KNOWN = 1 << 15
"""Passages that are remembered, a few MB: an answer longer than that begins anew."""
_FENCE_COLUMNS = 40
"""How far from its beginning a line's fence is looked for."""


class Repeats:
    """Watches the tokens of one answer."""

    def __init__(self, limit: int) -> None:
        """limit: stale tokens in a row that end the answer."""
        self._limit = limit
        self._passage = deque[int](maxlen=_PASSAGE)
        self._seen = Counter[int]()
        self._stale = 0

    def add(self, token: int) -> bool:
        """Whether the answer is to end with this token."""
        self._passage.append(token)
        if len(self._passage) < _PASSAGE:
            return False
        if len(self._seen) >= _MOST_KNOWN:
            self._seen.clear()
        passage = hash(tuple(self._passage))
        self._stale = self._stale + 1 if self._seen[passage] >= _ROUNDS else 0
        self._seen[passage] += 1
        return self._stale >= self._limit


class CodeBlock:
    """Where an answer in Markdown stands: within a fenced block, or outside. Code says the same words again because it has to."""

    def __init__(self) -> None:
        self.inside = False
        self._line = ""
        self._counted = False
        """Whether the fence on this line has been seen."""

    def feed(self, text: str) -> None:
        """Takes what was written next, however it is cut."""
        for part in text.splitlines(keepends=True):
            self._line = (self._line + part)[:_FENCE_COLUMNS]
            if not self._counted and self._line.lstrip().startswith("```"):
                self.inside, self._counted = not self.inside, True
            if part.endswith("\n"):
                self._line, self._counted = "", False
