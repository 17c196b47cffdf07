"""The parts of the page, each with its file in `static/`. Python tells a part what to show; it tells Python what the user wants."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nicegui.element import Element
from nicegui.events import GenericEventArguments

from ingle.home.turns import Turn
from ingle.page.markdown import Stroke

Heard = Callable[[Any], Awaitable[None]]  # handler of a part's event; takes the event's argument


class PagePart(Element):
    """One component of the page, shown by its script in `static/`."""

    def show(self, values: Mapping[str, Any]) -> None:
        """Sets properties. Unchanged ones are not sent."""
        for name, value in values.items():
            if self._props.get(name) != value:
                self._props[name] = value

    def hear(self, event: str, heard: Heard) -> None:
        """Calls `heard` with the argument of each such event."""

        async def listener(arguments: GenericEventArguments) -> None:
            await heard(arguments.args)

        self.on(event, listener)

    def do(self, method: str, argument: object = None) -> None:
        """Calls a method of the component in the browser."""
        if not self.is_deleted and not self.client.is_deleted:
            self.run_method(method, argument)


class Shell(PagePart, component="static/shell.js"):
    """Keys, address, theme and connection. Events: new, stop, last, go."""


class Scroll(PagePart, component="static/scroll.js"):
    """The scrolling middle; stays at the end while the user is there. Events: earlier."""


class Bar(PagePart, component="static/bar.js"):
    """The bar above a conversation. Events: settings, temporary, new."""


class ConversationList(PagePart, component="static/list.js"):
    """Conversations, newest first. Events: open, rename, remove, search, more, learning."""


class Composer(PagePart, component="static/composer.js"):
    """The message box. Events: send, stop, last, lost; want, bring, halt, leave, go_on."""


class SettingsPanel(PagePart, component="static/settings.js"):
    """The settings of a conversation, and of the guards. Events: change, reset, models, guard."""


class LearningPanel(PagePart, component="static/learning.js"):
    """The panel of what the user taught, and its state. Events: consent, undo, redo, rewrite, forget, more, shut."""


class ModelsPanel(PagePart, component="static/models.js"):
    """The panel of models that can be pulled. Events: pull, stop, use, shut."""


class Welcome(PagePart, component="static/welcome.js"):
    """The start of a new conversation. Events: sample, models, answer, better."""


class TurnPart(PagePart, component="static/turn.js"):
    """One turn, a pending answer, or the reason why there is none. Events: act, edit, correct, step, cure, learning, safety."""

    turn: Turn | None = None  # the turn it shows; None for a pending answer

    def grow(self, stage: str, strokes: Sequence[Stroke]) -> None:
        """Draws more of a pending answer."""
        self.do("grow", [stage, list(strokes)])


class WhyPart(PagePart, component="static/why.js"):
    """Why an answer says what it says. Events: stop, anew, choose, undo, redo."""
