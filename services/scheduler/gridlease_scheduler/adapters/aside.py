"""Reading in a thread of its own: turning thousands of rows into values holds up nobody's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import asyncpg
from gridlease_kernel.faults import Unreachable
from gridlease_store.connect import connect
from gridlease_store.pool import Connection

from gridlease_scheduler.ports import Tx

from .queue import Parsed
from .store import PostgresTx

T = TypeVar("T")
_ANSWER_S = 20.0
_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class PostgresAside:
    """``ports.Aside``: a connection and an event loop for each reading."""

    def __init__(self, dsn: str, schema: str, *, role: str, disconnected_ms: int) -> None:
        self._dsn = dsn
        self._settings = {
            "application_name": f"gridlease-{schema}-aside",
            "search_path": schema,
            "timezone": "UTC",
            "statement_timeout": f"{_ANSWER_S * 1e3:.0f}",
            "role": role,
        }
        self._disconnected_ms = disconnected_ms
        self._parsed = Parsed()

    async def read(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        return await asyncio.to_thread(lambda: asyncio.run(self._read(work)))

    async def _read(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        connection = await connect(
            self._dsn, wait_s=0.0, command_timeout_s=_ANSWER_S, settings=self._settings
        )
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                alone = cast("Connection", connection)  # no pool gave it: the same calls
                return await work(PostgresTx(alone, self._disconnected_ms, self._parsed))
        except _AWAY as trouble:
            raise Unreachable(
                f"The database did not answer: {trouble}",
                reason="DATABASE_UNREACHABLE",
                field="postgres",
                remedy="Check that PostgreSQL runs at that address.",
            ) from trouble
        finally:
            connection.terminate()
