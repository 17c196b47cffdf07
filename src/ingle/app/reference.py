"""The page of the documentation that lists all operations."""

from typing import Any

from ingle.app.operation import Operation, abouts, operations

_WHO = {
    "own": "every key, on what is its own", "metrics": "keys that may see all figures", "guards": "keys that may set guards",
    "owner": "the owner alone, at the machine itself",
}  # fmt: skip


def reference() -> str:
    """Return the page of the documentation that lists all operations."""
    return "\n".join([_HEAD, *(_entry(one) for _, one in sorted(operations().items()))])


_HEAD = """# What Ingle can do

Made from the code: `python -m ingle.app.reference > docs/operations.md`. Each operation is one function. The terminal, HTTP and Python show
the same one: `ingle memory add TEXT`, `POST /v1/memory`, `ingle.open_home().memory_add(text=…)`.
"""


def _entry(one: Operation) -> str:
    lines = [f"## {one.name}\n", one.words, *([f"\n{one.details}"] if one.details else []), ""]
    route = f"`{one.route}`" if one.route else "not by HTTP"
    lines += [f"{route} · {_WHO[one.right]}\n", "```sh", *one.examples, "```", ""]
    rows = [f"| `{name}` | {_kind(type_)} | {about.words} |" for name, (type_, about, _) in abouts(one.asked).items()]
    return "\n".join([*lines, *(["| asked | type | |", "|---|---|---|", *rows, ""] if rows else [])])


def _kind(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) else str(type_).replace("typing.", "").replace(" | ", " or ")


if __name__ == "__main__":
    print(reference(), end="")
