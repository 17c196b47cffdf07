"""The other side of test_apart.py: does as it is told, well or badly."""

import time
from pathlib import Path
from typing import Any

from ingle.core.apart import Answer, answer_calls
from ingle.core.errors import RequestError


def _echo(question: dict[str, Any], data: bytes) -> Answer:
    return {"said": question["words"]}, data[::-1]


def _refuse(_question: dict[str, Any], _data: bytes) -> Answer:
    raise RequestError("words", "must be kind")


def _break(_question: dict[str, Any], _data: bytes) -> Answer:
    raise ZeroDivisionError("by nothing")


def _burn(_question: dict[str, Any], _data: bytes) -> Answer:
    while True:
        pass


def _sleep(question: dict[str, Any], _data: bytes) -> Answer:
    """Says that it has begun, and never ends."""
    Path(question["mark"]).touch()
    while True:
        time.sleep(60)


def _hold(question: dict[str, Any], _data: bytes) -> Answer:
    """Says that it has begun, and ends when it may."""
    Path(question["mark"]).touch()
    while not Path(question["until"]).exists():
        time.sleep(0.01)
    return {}, b""


def _fill(question: dict[str, Any], _data: bytes) -> Answer:
    return {"size": len(bytes(question["size"]))}, b""


if __name__ == "__main__":
    calls = {"echo": _echo, "refuse": _refuse, "break": _break, "burn": _burn, "sleep": _sleep, "hold": _hold, "fill": _fill}
    answer_calls(calls, 256 << 20, nice=1, cpu_s=1)
