"""The section "Safety" of the settings of one tab: what each guard does. And the question that is asked once, where a home begins."""

import asyncio
from collections.abc import Mapping
from typing import Any

from ingle.adapt.guard_modes import GuardSetting, says_nothing_of
from ingle.core.errors import IngleError, RequestError
from ingle.home.asked_once import never_again, was_asked
from ingle.page.parts import SettingsPanel
from ingle.page.tab import Deed, Tab
from ingle.page.troubles import said
from ingle.safety.guard import DOES, LABELS, WORDS, by_mildness, known_guard
from ingle.safety.policy import GuardPolicy, Mode
from ingle.serve.auth import may_not_teach
from ingle.serve.guards import set_here, settings_for

ASKED = "harm"  # the guard that the owner is asked about once; also the question's name in the database


class SafetySection:
    """Draws how the guards are set, and sets them."""

    def __init__(self, tab: Tab, part: SettingsPanel) -> None:
        self._tab, self._part = tab, part
        self._drawn: GuardPolicy | None = None  # the policy that the section shows; None = it was not opened yet
        self._failures, self._answered, self._unread = 0, False, False
        self.deeds: Mapping[str, Deed] = {"guard": self.set}

    async def draw(self, note: str = "") -> None:
        """Shows how the guards are set."""
        tab = self._tab
        try:
            self._drawn = await tab.service.live.renewed()
            found = await asyncio.to_thread(settings_for, tab.service, tab.owner, tab.teaches_guards)
            shown = sorted((one for one in found if one.file.title and not one.idle), key=lambda one: one.file.modes[0] == "off")
            rows = [_row(one) for one in shown]  # those that usually look come first
            self._unread = False
        except IngleError as error:  # whoever mends the file by hand reads here what is wrong with it
            rows, note, self._unread = [], note or said(error), True
        self._failures += bool(note)
        self._part.show({"safety": {"may": tab.teaches_guards, "guards": rows, "note": note, "failures": self._failures}})

    async def redraw(self) -> None:
        """Shows what somebody else changed."""
        if self._drawn is not None and (self._unread or self._drawn is not self._tab.service.policy):
            await self.draw()

    async def set(self, argument: Any) -> None:
        """Sets a guard; `argument`: [name, word]."""
        note = ""
        try:
            name, word = argument
            await self._set(str(name), str(word))
        except (IngleError, TypeError, ValueError) as error:
            note = said(error) if isinstance(error, IngleError) else "This can't be set."
        await self.draw(note)

    async def question(self) -> dict[str, Any] | None:
        """Return what to ask the owner, where nobody was asked yet and policy.toml says nothing of it; None = nothing."""
        tab = self._tab
        if self._answered or not tab.teaches_guards or not says_nothing_of(tab.service.policy, ASKED):
            return None
        self._answered = await asyncio.to_thread(was_asked, tab.service.engine, ASKED)
        modes = known_guard(ASKED).modes
        return None if self._answered else {"usual": WORDS[modes[0]], "choices": _choices(modes)}

    async def answer(self, argument: Any) -> None:
        """Takes the answer to the question: a word, or "" where it was sent away. It is not asked again."""
        tab = self._tab
        if not tab.teaches_guards:
            raise may_not_teach()
        if argument:
            await self._set(ASKED, str(argument))
        await asyncio.to_thread(never_again, tab.service.engine, ASKED)
        tab.say("Kept. You can change it any time: Settings → Safety." if argument else "")
        tab.changed()

    async def _set(self, name: str, word: str) -> None:
        if not self._tab.teaches_guards:
            raise may_not_teach()
        if not known_guard(name).title:
            raise RequestError("guard", "is not for the page to set", name)
        await set_here(self._tab.service, name, word, self._tab.owner)


def _row(one: GuardSetting) -> dict[str, Any]:
    others = [f"Set for the {other.kind} {other.name} in policy.toml: {LABELS[other.mode]}." for other in one.others]
    words = {"word": WORDS[one.mode], "label": LABELS[one.mode], "does": DOES[one.mode]}
    return {
        "name": one.file.name,
        "title": one.file.title,
        "about": one.file.about,
        **words,
        "choices": _choices(one.file.modes),
        "others": others,
    }


def _choices(modes: tuple[Mode, ...]) -> list[dict[str, str]]:
    return [{"word": WORDS[mode], "label": LABELS[mode], "does": DOES[mode]} for mode in by_mildness(modes)]
