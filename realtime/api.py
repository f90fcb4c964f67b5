"""The one REST route of this app: tickets for WebSockets."""

import msgspec
from django.conf import settings

from autoforge.api import ProjectController
from autoforge.models import Role
from realtime import tickets


class TicketOut(msgspec.Struct):
    """Good for one handshake, as `?ticket=`."""

    ticket: str
    expires_in_s: int


class TicketsController(ProjectController):
    """Tickets for WebSockets; whoever may read may have one."""

    write_role = Role.VIEWER

    def post(self) -> TicketOut:
        """A ticket that opens one WebSocket as the caller."""
        session = getattr(self.request, "session", None) if self.actor.user_id else None
        session_key = session.session_key if session else None
        return TicketOut(tickets.issue(self.actor, session_key), settings.WS_TICKET_TTL_S)
