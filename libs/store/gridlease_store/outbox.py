"""A transactional outbox: what a room must tell others is committed with what it did.

A room's migration creates the table with ``TABLE_SQL``; ``emit`` writes to it inside the room's
transaction; a relay sends what is unsent, in the order of ids, and marks it sent. Whatever happens
in between, each row is told at least once, under the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from .connect import connect
from .faults import fault_of
from .pool import Connection, Pool, transaction

TABLE_SQL: Final = """
CREATE TABLE outbox (
    id bigserial PRIMARY KEY,
    subject text NOT NULL,
    payload bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz
);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL;
"""

_EMIT: Final = """
WITH row AS (
    INSERT INTO outbox (subject, payload, headers) VALUES ($1, $2, $3) RETURNING id
)
SELECT id, pg_notify('outbox_' || current_schema(), '') FROM row
"""
_EMIT_QUIETLY: Final = """
INSERT INTO outbox (subject, payload, headers) VALUES ($1, $2, $3) RETURNING id
"""
_FETCH: Final = """
SELECT id, subject, payload, headers FROM outbox WHERE sent_at IS NULL ORDER BY id LIMIT $1
"""
_LEAD: Final = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
_MARK: Final = "UPDATE outbox SET sent_at = now() WHERE id = ANY($1::bigint[]) AND sent_at IS NULL"
_PRUNE: Final = """
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE sent_at < now() - make_interval(secs => $1) ORDER BY id LIMIT $2
)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to tell: where, what, and the id that makes telling it twice harmless."""

    id: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]


async def emit(
    connection: Connection | asyncpg.Connection[Any],
    subject: str,
    payload: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    notify: bool = True,
) -> int:
    """Add one row in the caller's transaction and wake the relay at its commit; the row's id.

    Args:
        connection: inside a transaction, on the room's schema.
        subject: where it will be told.
        payload: what.
        headers: words beside it.
        notify: False where the caller wakes its own relay: commits that notify queue behind one
            another (a quarter fewer a second on a fast disk, more on a slow one).
    """
    sql = _EMIT if notify else _EMIT_QUIETLY
    row_id = await connection.fetchval(sql, subject, payload, dict(headers or {}))
    assert isinstance(row_id, int), row_id
    return row_id


class PostgresOutbox:
    """A schema's outbox as ``gridlease_mesh.outbox.Relay`` sees it.

    Of several processes of a room, one relays at a time (an advisory lock of its own session), so
    that rows of one resource keep their order; the others' ``unsent`` answers nothing.
    """

    def __init__(self, pool: Pool, dsn: str, schema: str, *, role: str | None = None) -> None:
        self._pool = pool
        self._dsn = dsn
        self._schema = schema
        self._settings = {"search_path": schema} | ({"role": role} if role else {})
        self._session: asyncpg.Connection[Any] | None = None
        self._leading = False
        self._callbacks: list[Callable[[], None]] = []

    async def unsent(self, limit: int) -> list[Row]:
        """The oldest unsent rows, at most ``limit``; none while another process relays."""
        if not await self._leads():
            return []
        async with transaction(self._pool, readonly=True) as connection:
            rows = await connection.fetch(_FETCH, limit)
        return [Row(it["id"], it["subject"], it["payload"], it["headers"]) for it in rows]

    async def mark_sent(self, ids: Sequence[int]) -> None:
        """Record that these were told."""
        async with transaction(self._pool) as connection:
            await connection.execute(_MARK, list(ids))

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call back at each commit that emitted (``Relay.wake``).

        A hint only: none comes while the session is down, so the relay polls as well.
        """
        self._callbacks.append(callback)

    async def prune(self, keep_s: float, limit: int = 10_000) -> int:
        """Delete rows sent more than ``keep_s`` seconds ago, at most ``limit``; how many."""
        async with transaction(self._pool) as connection:
            done = await connection.execute(_PRUNE, keep_s, limit)
        return int(done.split()[-1])

    async def close(self) -> None:
        """Give up the session, and with it the relay's lock."""
        session, self._session = self._session, None
        self._leading = False
        if session is not None and not session.is_closed():
            session.terminate()

    async def _leads(self) -> bool:
        """Hold a session that listens; whether it also holds the relay's lock."""
        try:
            session = self._session
            if session is None or session.is_closed():
                session = await connect(
                    self._dsn, wait_s=0.0, command_timeout_s=5.0, settings=self._settings
                )
                self._session, self._leading = session, False
                await session.add_listener(f"outbox_{self._schema}", self._heard)
            if not self._leading:  # once taken it is held until the session ends
                self._leading = bool(await session.fetchval(_LEAD, f"outbox:{self._schema}"))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            await self.close()
            known = fault_of(error)
            if known is None:
                raise
            raise known from error
        return self._leading

    def _heard(self, *_: object) -> None:
        for callback in self._callbacks:
            callback()
