"""Typed values from tables that others wrote (JSON, GGUF metadata). Errors name a wrong or missing key."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.core.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Fields:
    """A table and its source. Each method returns one value; a default of None makes the key required.

    A key whose value is null counts as absent, as in Hugging Face's files. All methods raise CheckpointError.
    """

    table: Mapping[str, Any]
    where: str

    def whole(self, key: str, default: int | None = None) -> int:
        """Return a whole number."""
        value = self._value(key, default, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
            raise self._wrong(key, "a whole number", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self._value(key, default, "a number")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:  # NaN is not below either
            raise self._wrong(key, "a finite number", value)
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._value(key, default, "true or false")
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default, "a string")
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def texts(self, key: str) -> list[str] | None:
        """Return a list of strings; None where the key is absent."""
        value = self.table.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise self._wrong(key, "a list of strings", value)
        return value

    def numbers(self, key: str) -> "np.ndarray[Any, Any] | None":
        """Return a one-dimensional array of numbers; None where the key is absent."""
        import numpy as np

        value = self.table.get(key)
        if value is not None and not (isinstance(value, np.ndarray) and value.ndim == 1):
            raise self._wrong(key, "an array of numbers", value)
        return value

    def table_of(self, key: str) -> Mapping[str, Any]:
        """Return a table inside this one; empty where the key is absent."""
        value = self.table.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._wrong(key, "a table", value)
        return value

    def _value(self, key: str, default: object, expected: str) -> object:
        value = self.table.get(key)
        if value is None:
            value = default
        if value is None:
            raise CheckpointError(f"{self.where}: {key}", f"is required and must be {expected}", "nothing")
        return value

    def _wrong(self, key: str, expected: str, value: object) -> CheckpointError:
        return CheckpointError(f"{self.where}: {key}", f"must be {expected}", repr(value)[:80])


def read_json(path: Path) -> dict[str, Any]:
    """Return the table in a JSON file. Raises CheckpointError where it is missing, unreadable or no table."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(str(path), "is needed, but missing", "", "Pull the model again.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(path), "must be valid JSON", error, "Pull the model again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(str(path), "must hold a JSON object", type(value).__name__)
    return value
