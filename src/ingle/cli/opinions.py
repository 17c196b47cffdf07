"""The commands of a chat that teach: ratings, corrections and facts to remember."""

from typing import TYPE_CHECKING

from ingle.app.operations.teaching import when_learned
from ingle.cli.output import note
from ingle.core.errors import ConfigError
from ingle.core.message import Message

if TYPE_CHECKING:
    from ingle.cli.talk import Talk
    from ingle.core.example import Example


def good(talk: "Talk", rest: str) -> None:
    """rate the last answer as good; TEXT says why"""
    _feedback(talk, 1, None, rest)
    note("Noted: more like this one.")


def bad(talk: "Talk", rest: str) -> None:
    """rate the last answer as bad; TEXT says why"""
    _feedback(talk, -1, None, rest)
    note("Noted: less like this one. /fix TEXT says what it should have been.")


def fix(talk: "Talk", rest: str) -> None:
    """correct the last answer"""
    if not rest:
        raise ConfigError("/fix TEXT", "Say what the answer should have been: /fix TEXT")
    example = _feedback(talk, -1, rest, "")
    talk.conversation.turns[-1] = Message.of("assistant", rest)  # the talk goes on from what should have been said
    note("It acts from the next question on.")
    talk.here.say_once(when_learned(example.learn, example.kind))


def meant(talk: "Talk", rest: str) -> None:
    """say that you meant what you had taught, as the remark under the answer asks"""
    if rest or talk.nearly is None:
        raise ConfigError("/meant", "Only where the remark under an answer asks: Is that what you mean?")
    fix(talk, talk.nearly.answer)


def remember(talk: "Talk", rest: str) -> None:
    """remember a fact; `ingle memory` lists them"""
    from ingle.adapt.admit import remember as keep
    from ingle.app.here import OWNER

    if not rest:
        raise ConfigError("/remember TEXT", "Say what to remember: /remember TEXT")
    example = keep(talk.here.engine, OWNER, talk.model.name, rest, sink=talk.here.house.record)
    note(f"Remembered as {example.id}.")


def _feedback(talk: "Talk", rating: int, correction: str | None, comment: str) -> "Example":
    from ingle.adapt.admit import Feedback, take_feedback
    from ingle.app.here import OWNER

    messages = talk.conversation.messages
    if len(messages) < 2 or (messages[-2].role, messages[-1].role) != ("user", "assistant"):
        raise ConfigError("feedback", "There is no answer yet to say this about")
    before = tuple((message.role, message.text) for message in messages[:-2])
    feedback = Feedback(
        rating=rating, correction=correction, comment=comment, question=messages[-2].text, answer=messages[-1].text, before=before,
        model=talk.model.name,
    )  # fmt: skip
    return take_feedback(talk.here.engine, OWNER, feedback, sink=talk.here.house.record)
