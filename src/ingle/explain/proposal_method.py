"""The contract of a method that proposes sentences. To add one, put a file into explain/methods.

The file holds `propose(falls, answer, seed)`, which returns a number for each sentence that may be left out: the larger, the more the
answer rests on it. A method only proposes. What is shown was proved by really leaving it out (explain/prove.py).
"""

from typing import Protocol

from ingle.core import registry
from ingle.explain.cause import Nats
from ingle.explain.effects import Falls

METHODS = "ingle.explain.methods"


class Propose(Protocol):
    """A method."""

    def __call__(self, falls: Falls, answer: str, seed: int) -> Nats:
        """Return a number for each of `falls.causes`. Raises OutOfTime."""
        ...


def methods() -> list[str]:
    """Return the names of all methods."""
    return registry.names(METHODS)


def method(name: str) -> Propose:
    """Return the method of that name. Raises ConfigError with the names there are."""
    propose: Propose = registry.find(METHODS, name, "method", "must be auto or a known method").propose
    return propose
