"""The parts of the page, each with its file in `static/`. Python tells a part what to show; it tells Python what the user wants."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nicegui.element import Element
from nicegui.events import GenericEventArguments

from ingle.home.turns import Turn
from ingle.page.markdown import Stroke

Heard = Callable[[Any], Awaitable[None]]
"""Is given what a part says."""


class Part(Element):
    """What all have in common."""

    def show(self, values: Mapping[str, Any]) -> None:
        """Shows other values; those that are the same cost nothing."""
        for name, value in values.items():
            if self._props.get(name) != value:
                self._props[name] = value

    def hear(self, event: str, heard: Heard) -> None:
        """Calls `heard` with what the part says."""

        async def listener(arguments: GenericEventArguments) -> None:
            await heard(arguments.args)

        self.on(event, listener)

    def do(self, method: str, argument: object = None) -> None:
        """Lets it do something at once."""
        if not self.is_deleted and not self.client.is_deleted:
            self.run_method(method, argument)


class Shell(Part, component="static/shell.js"):
    """Keys, address, theme and connection. Says: new, stop, last, go."""


class Scroll(Part, component="static/scroll.js"):
    """What scrolls, and stays at the end as long as one is there. Says: earlier."""


class Bar(Part, component="static/bar.js"):
    """What stands above a conversation. Says: settings, passing."""


class ConversationList(Part, component="static/list.js"):
    """Conversations, newest first. Says: open, rename, remove, search, more, learning."""


class Composer(Part, component="static/composer.js"):
    """Where one writes. Says: send, stop, last."""


class SettingsPanel(Part, component="static/settings.js"):
    """What a conversation asks of the model. Says: change, reset."""


class LearningPanel(Part, component="static/learning.js"):
    """What is taught, and what became of it. Says: consent, undo, redo, rewrite, forget, more, shut."""


class Welcome(Part, component="static/welcome.js"):
    """What stands where nothing was said yet. Says: sample."""


class TurnPart(Part, component="static/turn.js"):
    """One turn, or the answer that is being written, or why there is none. Says: act, edit, correct, step, cure, learning."""

    turn: Turn | None = None
    """Which; None for an answer that is not there yet."""

    def grow(self, stage: str, strokes: Sequence[Stroke]) -> None:
        """More of an answer that is being written."""
        self.do("grow", [stage, list(strokes)])
