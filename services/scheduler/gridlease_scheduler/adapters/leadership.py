"""Who leads: an advisory lock elects, the epoch row fences.

The lock belongs to a session of its own; when that session breaks, a standby takes the lock and
counts the epoch up, and from that commit on every write of the old leader is refused, whatever it
still believes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
from gridlease_kernel.faults import Fault
from gridlease_store.connect import connect

_LOG = logging.getLogger(__name__)
_TRY_S = 0.5
_PING_S = 1.0
_ANSWER_S = 3.0
_IDLE_S = 8.0  # a leader that did not ping for so long has stopped
_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, Fault)
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
_TAKE = "UPDATE leader_epoch SET epoch = epoch + 1, holder = $1, taken_at = now() RETURNING epoch"


@dataclass(frozen=True, slots=True)
class Term:
    """One leadership: its number, and the event that is set when it is over."""

    epoch: int
    over: asyncio.Event


class Leadership:
    """Campaigns for, holds and gives up the leadership of one schema."""

    def __init__(self, dsn: str, schema: str, holder: str, *, role: str | None = None) -> None:
        self._dsn = dsn
        self._key = f"{schema}:leader"
        self._holder = holder
        # The server must soon notice a host that is gone, and a process that is stopped: it holds
        # the lock until then. A leader that lives pings far more often than it may be idle.
        self._settings = {
            "search_path": schema,
            "tcp_keepalives_idle": "2",
            "tcp_keepalives_interval": "1",
            "tcp_keepalives_count": "3",
            "idle_session_timeout": f"{_IDLE_S * 1e3:.0f}",
        } | ({"role": role} if role else {})

    @contextlib.asynccontextmanager
    async def term(self) -> AsyncIterator[Term]:
        """Wait until this process leads; the block ends the term, or ``over`` tells that it is."""
        session, epoch = await self._campaign()
        over = asyncio.Event()
        keeper = asyncio.create_task(self._keep(session, over))
        _LOG.info("leading", extra={"epoch": epoch})
        try:
            yield Term(epoch, over)
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
            session.terminate()
            _LOG.info("no longer leading", extra={"epoch": epoch})

    async def _campaign(self) -> tuple[asyncpg.Connection[Any], int]:
        session: asyncpg.Connection[Any] | None = None
        epoch: int | None = None
        try:
            while True:
                try:
                    if session is None or session.is_closed():
                        session = await self._connect()
                    epoch = await self._take(session)
                except _AWAY as trouble:
                    _LOG.debug("the campaign waits: %s", trouble)
                    if session is not None:
                        session.terminate()
                    session = None
                if session is not None and epoch is not None:
                    return session, epoch
                await asyncio.sleep(_TRY_S)
        finally:
            if epoch is None and session is not None:
                session.terminate()

    async def _connect(self) -> asyncpg.Connection[Any]:
        return await connect(
            self._dsn, wait_s=0.0, command_timeout_s=_ANSWER_S, settings=self._settings
        )

    async def _take(self, session: asyncpg.Connection[Any]) -> int | None:
        """The new epoch; None while another leads."""
        if not await session.fetchval(_LOCK, self._key):
            return None
        # Waits for the old leader's open writes; those after it are refused.
        epoch = await session.fetchval(_TAKE, self._holder)
        assert isinstance(epoch, int)
        return epoch

    @staticmethod
    async def _keep(session: asyncpg.Connection[Any], over: asyncio.Event) -> None:
        try:
            while not session.is_closed():
                await session.execute("SELECT 1", timeout=_ANSWER_S)
                await asyncio.sleep(_PING_S)
        except _AWAY as trouble:
            _LOG.warning("the leader's session broke: %s", trouble)
        finally:
            over.set()
