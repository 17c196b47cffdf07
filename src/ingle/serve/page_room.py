"""What all views of the page share: the service, who may come in, what is being written, and who has to be told."""

from typing import TYPE_CHECKING

from ingle.serve.page_book import Key
from ingle.serve.page_desk import Desk
from ingle.serve.page_door import PageDoor
from ingle.serve.service import Service

if TYPE_CHECKING:
    from ingle.serve.page_view import View


class Room:
    """One per application."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.door = PageDoor(service)
        self.desk = Desk(service, self.changed)
        self.views: set[View] = set()
        """Open tabs."""

    def changed(self, key: Key) -> None:
        """Lets every tab of a conversation's owner draw what is different now."""
        for view in list(self.views):
            if view.visitor.owner == key[0]:
                view.stale()

    async def close(self) -> None:
        """Waits for answers that are being written; the service ends them."""
        await self.service.drain()
        await self.desk.close()
