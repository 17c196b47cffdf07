"""Examples and forgotten examples as JSON, for the API and the command line."""

from datetime import datetime
from typing import Any

from ingle.adapt.forget import Forgotten
from ingle.core.example import Example


def example_table(one: Example) -> dict[str, Any]:
    """Return an example as JSON."""
    return {
        "id": one.id, "object": "example", "created_at": int(datetime.fromisoformat(one.at).timestamp()), "seq": one.seq,
        "model": one.model, "kind": one.kind, "question": one.question, "answer": one.answer, "refused": one.refused,
        "rating": one.rating or None, "comment": one.comment, "completion_id": one.completion or None, "learn": one.learn,
        "state": one.state, "reasons": list(one.reasons), "lesson": one.lesson or None,
    }  # fmt: skip


def forgotten_table(gone: Forgotten) -> dict[str, Any]:
    """Return as JSON what was deleted with an example, and what was left."""
    left = [{"id": turn.id, "conversation": turn.conversation, "completion": turn.completion} for turn in gone.turns]
    return {
        "lessons": gone.lessons, "learned_again": gone.again, "scrubbed": gone.scrubbed, "turns_deleted": gone.dropped, "turns_left": left,
        "lines_deleted": gone.typed, "same": gone.same, "leaning": gone.leaning, "back": gone.back, "system_prompts": gone.prompts,
    }  # fmt: skip
