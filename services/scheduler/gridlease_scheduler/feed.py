"""The feed of events: a page, or on and on from a sequence number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from . import names
from .ports import Event, EventQuery, Store, Wakeups

_PAGE = 500
# An event stays hidden while a transaction that might precede it is open: look again soon.
_FIRST_PAUSE_S = 0.02
_POLL_S = 0.5


class Feed:
    """The use cases that read events."""

    def __init__(self, store: Store, wakeups: Wakeups) -> None:
        self._store = store
        self._wakeups = wakeups

    async def list(self, query: EventQuery) -> list[Event]:
        """Events in order."""
        if query.project:
            names.check_project(query.project)
        async with self._store.reading() as tx:
            return await tx.events.after(query)

    async def watch(self, project: str, entity: str, after: int) -> AsyncIterator[Event]:
        """Events after a number, and on as they happen; a watcher that comes back goes on from
        the last number that it saw and misses nothing."""
        query = EventQuery(project, entity, after, _PAGE)
        pause_s = _POLL_S
        async with self._wakeups.watch("events") as ticket:
            while True:
                page = await self.list(query)
                for event in page:
                    yield event
                if page:
                    query = replace(query, after=page[-1].sequence)
                    continue
                woken = await ticket.wait(pause_s)
                pause_s = _FIRST_PAUSE_S if woken else min(_POLL_S, pause_s * 2)
