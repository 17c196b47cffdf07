"""An example as a table: the same through the API and on the command line."""

from datetime import datetime
from typing import Any

from ingle.core.example import Example


def example_table(one: Example) -> dict[str, Any]:
    """An example, as the API shows it."""
    return {
        "id": one.id, "object": "example", "created_at": int(datetime.fromisoformat(one.at).timestamp()), "seq": one.seq,
        "model": one.model, "kind": one.kind, "question": one.question, "answer": one.answer, "refused": one.refused,
        "rating": one.rating or None, "comment": one.comment, "completion_id": one.completion or None, "learn": one.learn,
        "state": one.state, "reasons": list(one.reasons), "lesson": one.lesson or None,
    }  # fmt: skip
