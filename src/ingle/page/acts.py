"""The buttons under a turn. A new capability adds an entry here and gets its button."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ingle.adapt.admit import Feedback, remember, take_feedback
from ingle.adapt.guards import guards_taught, take_back, teach_guards, texts_of_answer
from ingle.core.message import ImagePart
from ingle.home.turns import Turn
from ingle.page.choices import home_choices
from ingle.page.facts import judged
from ingle.page.learning import forget_example
from ingle.page.tab import Tab
from ingle.page.taught import TaughtNotes, look_up
from ingle.serve.auth import may_not_teach

TurnDeed = Callable[[Tab, Turn], Awaitable[None]]
Pressed = Callable[[Turn, TaughtNotes], bool]


@dataclass(frozen=True, slots=True)
class Act:
    """One button."""

    id: str
    label: str
    icon: str  # name of a symbol in `static/icons.svg`
    deed: TurnDeed | None = None  # none = the browser does it (`static/turn.js`)
    fits: Callable[[Turn], bool] = lambda _: True  # whether a turn has this button
    pressed: Pressed | None = None  # whether it shows as pressed; None = it is not a toggle
    # Where it stands: "" = in the row under the turn, "seen" = beside what the guards saw, "details" = under the details, "nearly" = beside
    # what was taught and came near.
    place: str = ""


def _kept(turn: Turn) -> bool:
    """Whether the turn is stored. Nothing is learned from a temporary chat, for that would store its words."""
    return bool(turn.conversation)


def _answered(turn: Turn) -> bool:
    painted = any(isinstance(part, ImagePart) for part in turn.message.parts)
    return _kept(turn) and bool(turn.completion) and bool(turn.message.text.strip()) and not painted


def _judged(turn: Turn) -> bool:
    return _answered(turn) and bool(judged(turn.facts or {}))


async def _again(tab: Tab, turn: Turn) -> None:
    await tab.again(turn.parent)


async def _good(tab: Tab, turn: Turn) -> None:
    await _rate(tab, turn, 1)


async def _bad(tab: Tab, turn: Turn) -> None:
    await _rate(tab, turn, -1)


async def _rate(tab: Tab, turn: Turn, rating: int) -> None:
    """Rates an answer. The same rating a second time removes it."""
    service, owner = tab.service, tab.owner
    before = (await _taught(tab, turn)).ratings.get(turn.completion)
    if before is not None and before.rating == rating:
        await forget_example(tab, before.id)
    else:
        feedback = Feedback(turn.completion, rating, model=_model(tab))
        await asyncio.to_thread(take_feedback, service.engine, owner, feedback, sink=service.record)
    tab.changed(turn.conversation)


async def _remember(tab: Tab, turn: Turn) -> None:
    """Remembers the words of a turn as a fact. A second press forgets them."""
    service, owner = tab.service, tab.owner
    before = (await _taught(tab, turn)).fact(turn)
    if before is not None:
        await forget_example(tab, before.id)
    else:
        model = str((turn.facts or {}).get("model_name") or "") or _model(tab)
        await asyncio.to_thread(remember, service.engine, owner, model, turn.message.text, sink=service.record)
    tab.changed(turn.conversation)


async def _why(tab: Tab, turn: Turn) -> None:
    await tab.explain(turn)


async def correct(tab: Tab, turn: Turn, text: str) -> None:
    """Stores `text` as the correction of an answer. Raises the errors of `take_feedback`."""
    service, owner = tab.service, tab.owner
    feedback = Feedback(turn.completion, correction=text, model=_model(tab))
    await asyncio.to_thread(take_feedback, service.engine, owner, feedback, sink=service.record)
    tab.changed(turn.conversation)


async def _meant(tab: Tab, turn: Turn) -> None:
    """Teaches that a question means what it came near, and answers it again."""
    example = (await _taught(tab, turn)).nearly(turn)
    if example is not None:
        await correct(tab, turn, example.answer)
        await tab.again(turn.parent)


async def _harmless(tab: Tab, turn: Turn) -> None:
    await _judge(tab, turn, False)


async def _harmful(tab: Tab, turn: Turn) -> None:
    await _judge(tab, turn, True)


async def _judge(tab: Tab, turn: Turn, harmful: bool) -> None:
    """Teaches the guards on which side the question of an answer belongs. A second press takes it back."""
    service, owner = tab.service, tab.owner
    if not tab.teaches_guards:
        raise may_not_teach()

    def act() -> str:
        if any(one.id == turn.completion and one.harmful is harmful for one in guards_taught(service.home)):
            take_back(service.home, turn.completion, service.record, owner)
            return "Taken back. The guards are as they were before it."
        texts = texts_of_answer(service.engine, owner, turn.completion)
        taught = teach_guards(service.home, texts, harmful, service.record, owner)
        if taught.id:
            return ""
        if harmful:
            return "This counts as a request for harm already, so nothing changed. What happens to those: Settings → Safety."
        return "The guards let this pass already, so nothing changed. Ask again to see."

    tab.say(await asyncio.to_thread(act))
    tab.changed(turn.conversation)


async def _taught(tab: Tab, turn: Turn) -> TaughtNotes:
    return await asyncio.to_thread(look_up, tab.service.engine, tab.owner, [turn])


def _model(tab: Tab) -> str:
    return tab.choices.model or str(home_choices(tab.service)["model"])


ANSWER_ACTS: Sequence[Act] = (
    Act("copy", "Copy the answer", "copy"),
    Act("aloud", "Read aloud", "aloud", fits=lambda turn: bool(turn.message.text.strip())),
    Act("again", "Answer again", "again", _again),
    Act("good", "Good answer", "good", _good, _answered, lambda turn, taught: taught.rating(turn) > 0),
    Act("bad", "Bad answer", "bad", _bad, _answered, lambda turn, taught: taught.rating(turn) < 0),
    Act("correct", "Correct this answer", "pencil", fits=_answered),
    Act("remember", "Remember this", "remember", _remember, _answered, lambda turn, taught: taught.fact(turn) is not None),
    Act("why", "Why it said that", "why", _why, lambda turn: bool(turn.completion) and bool(turn.message.text.strip())),
    Act("details", "Details of this answer", "info", fits=lambda turn: bool(turn.facts)),
    Act(
        "meant",
        "Yes, that is what I mean",
        "",
        _meant,
        lambda turn: _answered(turn) and bool((turn.facts or {}).get("nearly")),
        place="nearly",
    ),
    Act(
        "harmless",
        "This was fine, don't flag it again",
        "",
        _harmless,
        _judged,
        lambda turn, taught: taught.taught_guards(turn) is False,
        "seen",
    ),
    Act(
        "harmful",
        "This should have been stopped",
        "",
        _harmful,
        _answered,
        lambda turn, taught: taught.taught_guards(turn) is True,
        "details",
    ),
)
QUESTION_ACTS: Sequence[Act] = (
    Act("copy", "Copy", "copy"),
    Act("edit", "Edit and ask again", "pencil"),
    Act("remember", "Remember this", "remember", _remember, _kept, lambda turn, taught: taught.fact(turn) is not None),
)


def acts_of(turn: Turn) -> Sequence[Act]:
    """Return the buttons that fit a turn."""
    return [act for act in (QUESTION_ACTS if turn.message.role == "user" else ANSWER_ACTS) if act.fits(turn)]


def buttons(turn: Turn, taught: TaughtNotes) -> list[dict[str, Any]]:
    """Return the buttons of a turn as the properties that `static/turn.js` draws."""
    return [
        {
            "id": act.id, "label": act.label, "icon": act.icon, "place": act.place,
            "pressed": None if act.pressed is None else act.pressed(turn, taught),
        }
        for act in acts_of(turn)
        if act.place in ("", "nearly") or taught.guards is not None
    ]  # fmt: skip
