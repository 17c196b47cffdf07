"""The layout of the page."""

from dataclasses import dataclass

from nicegui.element import Element

from ingle.page.parts import Bar, Composer, ConversationList, LearningPanel, ModelsPanel, Scroll, SettingsPanel, Shell, Welcome


@dataclass(frozen=True, slots=True)
class PageParts:
    """The parts of one tab."""

    shell: Shell
    list: ConversationList
    bar: Bar
    scroll: Scroll
    column: Element  # holds the turns
    welcome: Welcome
    composer: Composer
    settings: SettingsPanel
    learning: LearningPanel
    models: ModelsPanel


def lay_out() -> PageParts:
    """Build the parts inside the page that is being made."""
    shell = Shell()
    with Element("div").classes("house"):
        listed = ConversationList()
        with Element("main").classes("room"):
            bar = Bar()
            with Scroll() as scroll:
                welcome = Welcome()
                column = Element("div").classes("turns").props('role="log" aria-label="Conversation"')
            composer = Composer()
    return PageParts(shell, listed, bar, scroll, column, welcome, composer, SettingsPanel(), LearningPanel(), ModelsPanel())
