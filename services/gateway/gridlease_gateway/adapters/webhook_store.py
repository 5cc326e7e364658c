"""``ports.WebhookStore`` on PostgreSQL."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import asyncpg
from gridlease_store.pool import Connection, Pool, transaction

from gridlease_gateway.ports import Again, Dead, Hook, NewHook, Sent

_COLUMNS = """
    w.id, w.project, p.tenant, w.url, w.types, w.secret, w.create_time, w.event_after,
    w.notice_after, w.failures, w.dead_count, w.last_error,
    CASE WHEN w.old_secret_until > now() THEN w.old_secret END AS old_secret
"""
_INSERT = """
    INSERT INTO webhook (id, project, url, types, secret)
    SELECT $1, $2, $3, $4, $5
    WHERE (SELECT count(*) FROM webhook WHERE project = $2 AND delete_time IS NULL) < $6
"""
_CLAIM = f"""
    WITH due AS (
        SELECT id FROM webhook
        WHERE delete_time IS NULL AND next_time <= now() AND claimed_until <= now()
        ORDER BY next_time LIMIT $1 FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE webhook SET claimed_until = now() + make_interval(secs => $2)
        WHERE id IN (SELECT id FROM due) RETURNING *
    )
    SELECT {_COLUMNS} FROM claimed AS w JOIN project AS p ON p.id = w.project
"""  # noqa: S608 - a constant
_MOVE = """
    UPDATE webhook SET event_after = greatest(event_after, $2),
        notice_after = greatest(notice_after, $3), failures = $4, last_error = $5,
        dead_count = dead_count + $6, next_time = now() + make_interval(secs => $7),
        claimed_until = CASE WHEN $8 THEN now() ELSE claimed_until END
    WHERE id = $1 AND delete_time IS NULL
"""
_RENEW = """
    UPDATE webhook SET secret = $2, old_secret = CASE WHEN $3 > 0 THEN secret END,
        old_secret_until = CASE WHEN $3 > 0 THEN now() + $3 * interval '1 ms' END
    WHERE id = $1 RETURNING coalesce(old_secret_until, now())
"""
_AGAIN = """
    INSERT INTO webhook_replay (webhook, room, sequence)
    SELECT $1, * FROM unnest($2::text[], $3::bigint[])
    ON CONFLICT (webhook, room, sequence) DO UPDATE SET failures = 0, next_time = now()
"""
_DUE_AGAIN = """
    SELECT room, sequence, failures FROM webhook_replay WHERE webhook = $1 AND next_time <= now()
    ORDER BY room, sequence LIMIT $2
"""
_PUT_OFF = """
    UPDATE webhook_replay SET failures = $4, next_time = now() + make_interval(secs => $5)
    WHERE webhook = $1 AND room = $2 AND sequence = $3
"""
_DEAD = """
    INSERT INTO webhook_dead (webhook, room, sequence, type, last_error, tries)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (webhook, room, sequence) DO UPDATE SET time = now(),
        last_error = excluded.last_error, tries = webhook_dead.tries + excluded.tries
"""
_FORGET = "DELETE FROM webhook_dead WHERE webhook = $1 AND time < now() - interval '90 days'"
_LETTERS = """
    SELECT d.*, w.project FROM webhook_dead AS d JOIN webhook AS w ON w.id = d.webhook
    WHERE ($1 = '' OR w.project = $1) AND ($2 = '' OR d.webhook = $2) AND d.id < $3
    ORDER BY d.id DESC LIMIT $4
"""


class PostgresWebhooks:
    """Webhooks, and how far each has come."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, hook: NewHook, most: int) -> Hook | None:
        values = (hook.id, hook.project, hook.url, list(hook.types), hook.secret)
        async with transaction(self._pool) as connection:
            await connection.execute(_INSERT, *values, most)
        return await self._one(hook.id)

    async def of_project(self, project: str) -> list[Hook]:
        sql = f"SELECT {_COLUMNS} FROM webhook AS w JOIN project AS p ON p.id = w.project"  # noqa: S608
        async with transaction(self._pool, readonly=True) as connection:
            rows = await connection.fetch(
                f"{sql} WHERE w.project = $1 AND w.delete_time IS NULL"
                " ORDER BY w.create_time, w.id",
                project,
            )
        return [_hook(row) for row in rows]

    async def remove(self, hook_id: str, project: str) -> bool:
        async with transaction(self._pool) as connection:
            done = await connection.execute(
                "UPDATE webhook SET delete_time = coalesce(delete_time, now())"
                " WHERE id = $1 AND project = $2",
                hook_id,
                project,
            )
        return str(done) == "UPDATE 1"

    async def claim(self, limit: int, for_s: float) -> list[Hook]:
        async with transaction(self._pool) as connection:
            return [_hook(row) for row in await connection.fetch(_CLAIM, limit, for_s)]

    async def move(
        self, hook: Hook, *, dead: Dead | None = None, pause_s: float = 0.0, release: bool = False
    ) -> bool:
        async with transaction(self._pool) as connection:
            if dead is not None:
                await _bury(connection, hook.id, dead)
            done = await connection.execute(
                _MOVE,
                hook.id,
                hook.event_after,
                hook.notice_after,
                hook.failures,
                hook.last_error,
                int(dead is not None),
                pause_s,
                release,
            )
        return str(done) == "UPDATE 1"

    async def one(self, hook_id: str, project: str) -> Hook | None:
        sql = f"SELECT {_COLUMNS} FROM webhook AS w JOIN project AS p ON p.id = w.project"  # noqa: S608
        async with transaction(self._pool, readonly=True) as connection:
            row = await connection.fetchrow(
                f"{sql} WHERE w.id = $1 AND ($2 = '' OR w.project = $2) AND w.delete_time IS NULL",
                hook_id,
                project,
            )
        return None if row is None else _hook(row)

    async def renew(self, hook_id: str, secret: bytes, overlap_ms: int) -> datetime.datetime:
        async with transaction(self._pool) as connection:
            until = await connection.fetchval(_RENEW, hook_id, secret, overlap_ms)
        assert isinstance(until, datetime.datetime), hook_id
        return until

    async def ask_again(self, hook_id: str, events: Sequence[Sent]) -> int:
        rooms, sequences = [it.room for it in events], [it.sequence for it in events]
        async with transaction(self._pool) as connection:
            await connection.execute(_AGAIN, hook_id, rooms, sequences)
            sql = "SELECT count(*) FROM webhook_replay WHERE webhook = $1"
            waiting = await connection.fetchval(sql, hook_id)
            await connection.execute(
                "UPDATE webhook SET next_time = now() WHERE id = $1 AND failures = 0", hook_id
            )
        return int(waiting)

    async def due_again(self, hook_id: str, limit: int) -> list[Again]:
        async with transaction(self._pool, readonly=True) as connection:
            rows = await connection.fetch(_DUE_AGAIN, hook_id, limit)
        return [Again(Sent(it["room"], it["sequence"]), it["failures"]) for it in rows]

    async def put_off(self, hook_id: str, again: Again, pause_s: float) -> None:
        sent = again.sent
        async with transaction(self._pool) as connection:
            await connection.execute(
                _PUT_OFF, hook_id, sent.room, sent.sequence, again.failures, pause_s
            )

    async def done_again(self, hook_id: str, sent: Sent, dead: Dead | None) -> None:
        place = (hook_id, sent.room, sent.sequence)
        where = "WHERE webhook = $1 AND room = $2 AND sequence = $3"
        async with transaction(self._pool) as connection:
            await connection.execute(f"DELETE FROM webhook_replay {where}", *place)  # noqa: S608
            if dead is not None:
                await _bury(connection, hook_id, dead)
            else:
                await connection.execute(
                    f"UPDATE webhook_dead SET taken_time = now() {where}",  # noqa: S608
                    *place,
                )

    async def dead(self, project: str, hook_id: str, before: int, limit: int) -> list[Dead]:
        async with transaction(self._pool, readonly=True) as connection:
            rows = await connection.fetch(_LETTERS, project, hook_id, before, limit)
        return [
            Dead(
                Sent(it["room"], it["sequence"]), it["type"], it["tries"], it["last_error"],
                it["id"], it["webhook"], it["project"], it["time"], it["taken_time"],
            )
            for it in rows
        ]  # fmt: skip

    async def _one(self, hook_id: str) -> Hook | None:
        sql = f"SELECT {_COLUMNS} FROM webhook AS w JOIN project AS p ON p.id = w.project"  # noqa: S608
        async with transaction(self._pool, readonly=True) as connection:
            row = await connection.fetchrow(f"{sql} WHERE w.id = $1", hook_id)
        return None if row is None else _hook(row)


async def _bury(connection: Connection, hook_id: str, dead: Dead) -> None:
    """Writes down what is given up, and lets go of what is old."""
    place = (dead.sent.room, dead.sent.sequence)
    await connection.execute(_DEAD, hook_id, *place, dead.type, dead.last_error[:200], dead.tries)
    await connection.execute(_FORGET, hook_id)


def _hook(row: asyncpg.Record) -> Hook:
    return Hook(
        id=row["id"],
        project=row["project"],
        tenant=row["tenant"],
        url=row["url"],
        types=tuple(row["types"]),
        secret=bytes(row["secret"]),
        create_time=row["create_time"],
        event_after=row["event_after"],
        notice_after=row["notice_after"],
        failures=row["failures"],
        dead_count=row["dead_count"],
        last_error=row["last_error"],
        old_secret=None if row["old_secret"] is None else bytes(row["old_secret"]),
    )
