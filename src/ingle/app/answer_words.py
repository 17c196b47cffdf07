"""The line under an answer, and the details behind it."""

from collections.abc import Mapping
from typing import Any

from ingle.app.taught_notes import TaughtNotes
from ingle.core.energy import amount, energy_in
from ingle.core.errors import counted
from ingle.core.message import Chunk

# Words for an answer that did not end by itself.
_ENDS = {
    "length": "ended at the limit of {max_tokens} tokens",
    "repetition": "stopped because it only repeated itself",
    "cancelled": "stopped",
    "deadline": "ran out of time",
    "blocked": "ended here by a rule of this house",
}
_ENDED_BY = {
    "stop": "itself", "length": "the limit of tokens", "repetition": "the limit of repeated tokens", "cancelled": "you",
    "deadline": "the deadline",
}  # fmt: skip
# Words for a guard's deed, by its action.
_DONE = {"allow": "{guard} let something pass and told of it", "edit": "{guard} took something out", "block": "{guard} ended the answer"}
# Findings of the guards that judge meaning, and can be taught.
_JUDGED = {
    "harm": "a request for harm here", "attack": "an attack on the model's rules here",
    "injection": "orders to the assistant in what was given to read",
}  # fmt: skip
_DID = {"allow": "let it pass", "edit": "took it out", "block": "left it unanswered"}
# Words for an answer that another guard ended.
_STOPPED = {
    "topics": "The guard “topics” stopped this: it is about a topic of policy.toml.",
    "pii": "The guard “pii” stopped this: it would have gone on with personal data.",
    "output": "The guard “output” stopped this: it came to what policy.toml keeps out of answers.",
    "leak": "The guard “leak” stopped this: it would have repeated the secret instructions.",
}  # fmt: skip
_TAUGHT = {
    False: "Noted: this was fine. Questions like it pass from the next one on.",
    True: "Noted. Questions like this count as requests for harm from the next one on. What happens to those: Settings → Safety.",
    None: "",
}
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "repetition_window", "presence_penalty", "frequency_penalty",
    "repeat_limit",
)  # fmt: skip


def facts_of(chunk: Chunk) -> dict[str, Any]:
    """Return the facts of an answer that just ended, as the home stores them with its words."""
    assert chunk.usage is not None and chunk.event is not None
    times = {name: getattr(chunk.usage, name) for name in ("queued_s", "prefill_s", "decode_s")}
    return {**chunk.event.facts, **times, "model_name": chunk.event.subject}


def line(facts: Mapping[str, Any]) -> str:
    """The quiet line."""
    tokens, decode_s = facts.get("completion_tokens", 0), facts.get("decode_s", 0.0)
    parts = [
        f"{tokens / decode_s:.0f} tokens/s" if tokens and decode_s else "",
        counted(tokens, "token") if "completion_tokens" in facts else "",
        f"{facts['cached_tokens']:,} of {facts['prompt_tokens']:,} cached" if facts.get("cached_tokens") else "",
        f"first after {_seconds(_first(facts))}" if "prefill_s" in facts else "",
        _joules(facts),
        f"{facts.get('model_name', '')} {facts.get('model', '')[:8]}".strip(),
        f"event {facts['seq']}" if "seq" in facts else "",
        _ENDS.get(facts.get("finish", ""), "").format(max_tokens=f"{facts.get('max_tokens') or 0:,}"),
        "remembered" if facts.get("memories") else "",
        "learned" if facts.get("lessons") else "",
    ]
    return " · ".join(part for part in parts if part)


def details(facts: Mapping[str, Any], at: str, taught: TaughtNotes = TaughtNotes()) -> list[tuple[str, str]]:  # noqa: B008 - frozen
    """Return all details of an answer as (name, value). `taught` resolves the ids of memories and lessons."""
    request: Any = facts.get("request")
    stored = isinstance(request, Mapping)
    rows = [
        ("Model", facts.get("model_name", "")),
        ("Model digest", facts.get("model", "")),
        ("Ledger", f"event {facts['seq']}" if "seq" in facts else ""),
        ("Replay", f"ingle prove replay {facts['seq']}" if stored and "seq" in facts and facts.get("finish") != "cancelled" else ""),
        ("Written", at[:19].replace("T", " ") + " UTC" if at else ""),
        ("Remembered", "\n".join(taught.memories(facts))),
        ("Learned", "\n".join(taught.learned(facts))),
        ("Prompt", _prompt(facts)),
        ("Answer", f"{counted(facts.get('completion_tokens', 0), 'token')}, ended by {_end(facts)}"),
        ("Waited", _seconds(facts["queued_s"]) if "queued_s" in facts else ""),
        ("Prompt read in", _seconds(facts["prefill_s"]) if "prefill_s" in facts else ""),
        ("Answer written in", _seconds(facts["decode_s"]) if "decode_s" in facts else ""),
        ("Energy", str(energy_in(facts) or "")),
        ("Seed", str(facts.get("seed", ""))),
        ("Sampling", ", ".join(f"{name} {facts[name]:g}" for name in _SAMPLING if facts.get(name) is not None)),
        ("Longest answer, in tokens", f"{facts['max_tokens']:,}" if facts.get("max_tokens") else ""),
        ("System prompt", "\n".join(request.get("system") or ()) if stored else ""),
        ("What the guards saw", "\n".join(_seen(str(facts.get("verdicts") or ""))) or "nothing"),
        ("Answer's digest", facts.get("answer", "")),
        ("Id", facts.get("id", "")),
    ]
    return [(name, value) for name, value in rows if value]


def judged(facts: Mapping[str, Any]) -> list[str]:
    """Return what the guards that judge meaning saw before an answer, a sentence each."""
    said = [(guard, action) for guard, action in _verdicts(facts) if guard in _JUDGED]
    return [f"The guard “{guard}” saw {_JUDGED[guard]}, and {_DID.get(action, action)}." for guard, action in dict.fromkeys(said)]


def _verdicts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return guards and their actions."""
    parts = (verdict.partition(": ") for verdict in str(facts.get("verdicts") or "").split("; "))
    return [(guard, rest.partition(" ")[0]) for guard, _, rest in parts]


def seen(facts: Mapping[str, Any], taught: bool | None) -> dict[str, Any] | None:
    """Return what stands under an answer of the guards that judge meaning, or ended it; `taught`: that it is harmful, harmless, or
    nothing."""
    stopped = dict.fromkeys(guard for guard, action in _verdicts(facts) if action == "block" and guard in _STOPPED)
    lines = judged(facts) + [_STOPPED[guard] for guard in stopped]
    return {"lines": lines, "taught": _TAUGHT[taught]} if lines or taught is not None else None


def _seen(verdicts: str) -> list[str]:
    """Return what guards said, a sentence each; `verdicts`: as the fact has them, `output: block (words 1); …`."""
    lines = []
    for verdict in filter(None, verdicts.split("; ")):
        guard, _, said = verdict.partition(": ")
        action, _, rule = said.partition(" (")
        done = _DONE.get(action, action).format(guard=guard)
        lines.append(f"{done}: {rule.removesuffix(')')}" if rule else done)
    return lines


def _first(facts: Mapping[str, Any]) -> float:
    """Return the seconds from the request to the first token."""
    return float(facts.get("queued_s", 0.0)) + float(facts["prefill_s"])


def _prompt(facts: Mapping[str, Any]) -> str:
    return f"{counted(facts.get('prompt_tokens', 0), 'token')}, {facts.get('cached_tokens', 0):,} of them cached"


def _joules(facts: Mapping[str, Any]) -> str:
    energy = energy_in(facts)
    return "" if energy is None else amount(energy.joules) if energy.measured else f"≈ {amount(energy.joules)}"


def _end(facts: Mapping[str, Any]) -> str:
    return _ENDED_BY.get(facts.get("finish", ""), "a guard")


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
