"""What a webhook may be sent: the events of its project from both rooms, by their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gridlease.billing.v1 import report_pb2
from gridlease.scheduler.v1 import job_pb2
from gridlease.type.v1 import fleet_pb2

from gridlease_gateway.inside import Inside
from gridlease_gateway.ports import Hook, Sent

ROOMS: Final = ("scheduler", "billing")
_ASK_S: Final = 10.0


class EventFeed:
    """Asks the rooms; only for what the webhook's tenant and project may see."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def after(
        self, hook: Hook, room: str, sequence: int, limit: int
    ) -> Sequence[fleet_pb2.Event]:
        """A room's events after a number, in order."""
        project = f"projects/{hook.project}"
        if room == "scheduler":
            told = await self._inside.ask(
                self._inside.jobs.ListEvents,
                job_pb2.ListEventsRequest(
                    project=project, after_sequence=sequence, page_size=limit
                ),
                _ASK_S,
                job_pb2.ListEventsResponse,
            )
            return list(told.events)
        noticed = await self._inside.ask(
            self._inside.reports.ListNotices,
            report_pb2.ListNoticesRequest(
                tenant=f"tenants/{hook.tenant}",
                project=project,
                after_sequence=sequence,
                page_size=limit,
            ),
            _ASK_S,
            report_pb2.ListNoticesResponse,
        )
        return list(noticed.events)

    async def one(self, hook: Hook, sent: Sent) -> fleet_pb2.Event | None:
        """The event of that number; None where it is not the project's, or no longer kept."""
        found = await self.after(hook, sent.room, sent.sequence - 1, 1)
        return found[0] if found and found[0].sequence == sent.sequence else None

    async def first_since(self, hook: Hook, room: str, ms: int, last: int) -> int:
        """After which number the events since a time begin: those up to ``last`` are looked at.

        Numbers and times have one order, so a few questions find it.
        """
        low, high = 0, last  # of all after ``high``, the first is of that time or later
        while low < high:
            middle = (low + high) // 2
            found = await self.after(hook, room, middle, 1)
            if not found or found[0].sequence > last or found[0].time.ToMilliseconds() >= ms:
                high = middle
            else:
                low = found[0].sequence
        return low
