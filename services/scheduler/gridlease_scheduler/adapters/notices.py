"""Wake-ups over LISTEN/NOTIFY: one connection a process, any number of waiters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from gridlease_kernel.faults import Fault
from gridlease_store.connect import connect

_LOG = logging.getLogger(__name__)
_TOPICS = {"scheduler_work": "work", "scheduler_event": "events"}
_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, Fault)
_PAUSE_S = 0.5
_PING_S = 5.0


class NoticeTicket:
    """``ports.Ticket``."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.woken.wait()
        heard = self.woken.is_set()
        self.woken.clear()
        return heard


class Notices:
    """``ports.Wakeups``. Run ``run`` beside; without a connection waits just time out."""

    def __init__(self, dsn: str, schema: str, *, role: str | None = None) -> None:
        self._dsn = dsn
        self._settings = {"search_path": schema} | ({"role": role} if role else {})
        self._tickets: dict[str, set[NoticeTicket]] = {}

    @contextlib.asynccontextmanager
    async def watch(self, topic: str) -> AsyncIterator[NoticeTicket]:
        ticket = NoticeTicket()
        self._tickets.setdefault(topic, set()).add(ticket)
        try:
            yield ticket
        finally:
            self._tickets[topic].discard(ticket)
            if not self._tickets[topic]:
                del self._tickets[topic]

    async def run(self) -> None:
        """Listen until cancelled; comes back by itself."""
        while True:
            session: asyncpg.Connection[Any] | None = None
            try:
                session = await connect(
                    self._dsn, wait_s=0.0, command_timeout_s=_PING_S, settings=self._settings
                )
                for channel in (*_TOPICS, "scheduler_job"):
                    await session.add_listener(channel, self._heard)
                for topic in list(self._tickets):  # what was missed
                    self._wake(topic)
                while not session.is_closed():
                    await session.execute("SELECT 1")
                    await asyncio.sleep(_PING_S)
            except _AWAY as trouble:
                _LOG.debug("notices are away: %s", trouble)
            finally:
                if session is not None:
                    session.terminate()
            await asyncio.sleep(_PAUSE_S)

    def _heard(self, _session: object, _pid: object, channel: str, payload: object) -> None:
        self._wake(_TOPICS.get(channel) or f"job:{payload}")

    def _wake(self, topic: str) -> None:
        for ticket in self._tickets.get(topic, ()):
            ticket.woken.set()
