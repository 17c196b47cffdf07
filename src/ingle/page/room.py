"""The state that all tabs of the page share: the service, the sessions, the pending answers and the open tabs."""

from typing import TYPE_CHECKING

from ingle.page.conversation import Key
from ingle.page.pending_answers import PendingAnswers
from ingle.page.session import Sessions
from ingle.serve.service import Service

if TYPE_CHECKING:
    from ingle.page.view import View
    from ingle.page.voice import VoiceLine


class Room:
    """Shared state of the page, one per application."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sessions = Sessions(service)
        self.pending = PendingAnswers(service, self.changed)
        self.views: set[View] = set()  # open tabs
        self.voices: dict[tuple[str, str], VoiceLine] = {}  # tabs with sound, by their owner and their own id
        service.puller.changed.append(self._pulled)
        service.live.changed.append(self._policy_changed)

    def changed(self, key: Key) -> None:
        """Redraws every tab of a conversation's owner."""
        for view in list(self.views):
            if view.visitor.owner == key[0]:
                view.stale()

    def _pulled(self) -> None:
        """Redraws tabs when a pull has ended, or the machine was measured: another model may be offered."""
        if self.service.puller.state.state != "running":
            self.changed(("", ""))

    def _policy_changed(self) -> None:
        """Redraws every tab when the guards are set otherwise."""
        for view in list(self.views):
            view.stale()

    def beside(self, view: "View") -> list["View"]:
        """Return the other tabs that show the same stored conversation."""
        shown = (view.visitor.owner, view.place)
        return [other for other in self.views if other is not view and view.place and (other.visitor.owner, other.place) == shown]

    def ended(self, sign_in: str) -> None:
        """Sends every tab of an ended sign-in to the sign-in form."""
        for view in list(self.views):
            if view.visitor.sign_in == sign_in:
                view.stale()

    async def close(self) -> None:
        """Waits until the service has ended the pending answers."""
        await self.service.drain()
        await self.pending.close()
