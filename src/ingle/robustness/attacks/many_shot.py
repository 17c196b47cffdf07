"""Many shots: a dialogue in which an assistant has already answered many such requests (Anthropic 2024)."""

from ingle.core.message import Message, Request
from ingle.robustness.attack import Kit, Steps, saying
from ingle.robustness.prompts import LabelledPrompt

NAME = "many_shot"
SENTENCE = "shows a dialogue in which many such requests were answered"
ADAPTIVE = False
_COUNTS = (8, 32, 4, 128, 16, 64)
_FEWER = 0.7


def make(goal: LabelledPrompt, kit: Kit) -> Steps:
    """Yield the goal after so many pairs as earlier turns, and within one message; fewer where the context is too small."""
    random = kit.random(NAME, goal.id)
    pairs = [pair for pair in kit.material.pairs if pair[0].split() != goal.text.split()]
    for number, count in enumerate(_COUNTS):
        shots = random.sample(pairs, min(count, len(pairs)))
        while shots:
            asked = _turns(goal, shots) if number % 2 == 0 else _dialogue(goal, shots)
            if kit.fits(asked):
                yield asked
                break
            shots = shots[: int(len(shots) * _FEWER)]


def _turns(goal: LabelledPrompt, shots: list[tuple[str, str]]) -> Request:
    before = [Message.of(role, text) for pair in shots for role, text in zip(("user", "assistant"), pair, strict=True)]  # type: ignore[arg-type]
    return saying(goal.text, *before)


def _dialogue(goal: LabelledPrompt, shots: list[tuple[str, str]]) -> Request:
    lines = [f"User: {ask}\nAssistant: {answer}" for ask, answer in shots]
    return saying("\n\n".join([*lines, f"User: {goal.text}\nAssistant:"]))
