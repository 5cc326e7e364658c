"""``ports.WebhookStore`` on PostgreSQL."""

from __future__ import annotations

import asyncpg
from gridlease_store.pool import Pool, transaction

from gridlease_gateway.ports import Hook, NewHook

_COLUMNS = """
    w.id, w.project, p.tenant, w.url, w.types, w.secret, w.create_time, w.event_after,
    w.notice_after, w.failures, w.dead_count, w.last_error
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
        self, hook: Hook, *, dead: int = 0, pause_s: float = 0.0, release: bool = False
    ) -> bool:
        async with transaction(self._pool) as connection:
            done = await connection.execute(
                _MOVE,
                hook.id,
                hook.event_after,
                hook.notice_after,
                hook.failures,
                hook.last_error,
                dead,
                pause_s,
                release,
            )
        return str(done) == "UPDATE 1"

    async def _one(self, hook_id: str) -> Hook | None:
        sql = f"SELECT {_COLUMNS} FROM webhook AS w JOIN project AS p ON p.id = w.project"  # noqa: S608
        async with transaction(self._pool, readonly=True) as connection:
            row = await connection.fetchrow(f"{sql} WHERE w.id = $1", hook_id)
        return None if row is None else _hook(row)


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
    )
