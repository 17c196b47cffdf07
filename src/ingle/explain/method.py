"""The contract of a method that proposes sentences. To add one, put a file into explain/methods.

The file holds `propose(falls, answer, seed)`, which returns a number for each sentence that may be left out: the larger, the more the
answer rests on it. A method only proposes. What is shown was proved by really leaving it out (explain/prove.py).
"""

import importlib
import pkgutil
from typing import Protocol

from ingle.core.errors import ConfigError
from ingle.explain.cause import Nats
from ingle.explain.effects import Falls


class Propose(Protocol):
    """A method."""

    def __call__(self, falls: Falls, answer: str, seed: int) -> Nats:
        """Return a number for each of `falls.causes`. Raises OutOfTime."""
        ...


def methods() -> list[str]:
    """Return the names of all methods."""
    import ingle.explain.methods as folder

    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def method(name: str) -> Propose:
    """Return the method of that name. Raises ConfigError with the names there are."""
    if name not in methods():
        raise ConfigError("method", f"must be auto or one of {', '.join(methods())}", name)
    propose: Propose = importlib.import_module(f"ingle.explain.methods.{name}").propose
    return propose
