"""Transactions, and the leader's fence inside each of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from gridlease_kernel.faults import Conflict
from gridlease_store.pool import Connection, Pool, transaction

from .capacity import PostgresCapacity
from .events import PostgresEvents
from .jobs import PostgresJobs
from .leases import PostgresLeases
from .nodes import PostgresNodes
from .planning import PostgresPlanning
from .queue import Parsed

_FENCE = """
SELECT epoch FROM leader_epoch,
    set_config('idle_in_transaction_session_timeout', '8s', true) FOR SHARE OF leader_epoch
"""


class PostgresTx:
    """``ports.Tx``: one connection's open transaction."""

    def __init__(self, connection: Connection, disconnected_ms: int, parsed: Parsed) -> None:
        self.jobs = PostgresJobs(connection, parsed)
        self.leases = PostgresLeases(connection)
        self.nodes = PostgresNodes(connection, disconnected_ms)
        self.events = PostgresEvents(connection)
        self.planning = PostgresPlanning(connection)
        self.capacity = PostgresCapacity(connection)


class PostgresStore:
    """``ports.Store`` over a pool."""

    def __init__(self, pool: Pool, *, disconnected_ms: int) -> None:
        self._pool = pool
        self._disconnected_ms = disconnected_ms
        self._parsed = Parsed()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[PostgresTx]:
        async with transaction(
            self._pool, isolation="repeatable_read", readonly=True
        ) as connection:
            yield PostgresTx(connection, self._disconnected_ms, self._parsed)

    @contextlib.asynccontextmanager
    async def writing(self, epoch: int | None = None) -> AsyncIterator[PostgresTx]:
        async with transaction(self._pool) as connection:
            if epoch is not None:
                await _fence(connection, epoch)
            yield PostgresTx(connection, self._disconnected_ms, self._parsed)


async def _fence(connection: Connection, epoch: int) -> None:
    """Hold the epoch's row for the whole transaction: a takeover waits, or is seen here.

    A leader that is stopped in the middle of it does not keep the others waiting for long.
    """
    current = await connection.fetchval(_FENCE)
    if current != epoch:
        raise Conflict(
            f"Epoch {epoch} is over; {current} leads now.",
            reason="LEADER_DEPOSED",
            remedy="Nothing to do: the new leader carries on.",
        )
