"""Jobs that wait for a place, in PostgreSQL: what a plan reads of them and writes to them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import asyncpg
from gridlease_store.pool import Connection

from gridlease_scheduler.domain.job import Needs, Reason
from gridlease_scheduler.domain.snapshot import Pending
from gridlease_scheduler.ports import Granted, QueueChanges, Standing

from . import jsonb

# What a row says of its needs and its reason is parsed once for each distinct text.
_COLUMNS = """
SELECT j.name, j.tenant, j.project, j.priority, j.number, j.notice_ms, j.lost_after_ms,
    j.needs::text AS needs, j.tasks, j.tasks_max, j.longest_ms, j.reservation,
    j.reason::text AS reason, (extract(epoch FROM j.created_at) * 1000)::bigint AS submitted_ms,
    (extract(epoch FROM j.queued_at) * 1000)::bigint AS queued_ms,
    (SELECT attempt FROM task WHERE job = j.name AND index = 0) AS attempt
FROM job j
"""
_ALL = (
    _COLUMNS
    + "WHERE j.state = 'PENDING' AND NOT j.asleep ORDER BY j.priority DESC, j.number LIMIT $1"
)
_SOME = _COLUMNS + "WHERE j.name = ANY($1::text[])"
_CHANGED = """
SELECT name, state = 'PENDING' AND NOT asleep AS waits FROM job
WHERE changed >= $1::text::xid8
"""
_LOCK_PENDING = """
SELECT j.name, (SELECT attempt FROM task WHERE job = j.name AND index = 0) AS attempt FROM job j
WHERE j.name = ANY($1::text[]) AND j.state = 'PENDING' AND NOT j.asleep
ORDER BY j.name FOR UPDATE OF j
"""
_EXPLAIN = """
UPDATE job j SET reason = n.reason::jsonb, revision = revision + 1
FROM unnest($1::text[], $2::text[]) AS n (name, reason)
WHERE j.name = n.name AND j.state = 'PENDING'
"""
# Both in one statement: each costs a round trip, whatever it writes.
_PLACE = """
WITH tasks AS (
    UPDATE task t SET attempt = n.attempt, lease_id = n.lease_id, exit_code = NULL,
        reason = r.reason::jsonb
    FROM unnest($3::text[], $4::int[], $5::int[], $6::text[])
        AS n (job, index, attempt, lease_id)
    JOIN unnest($1::text[], $2::text[]) AS r (name, reason) ON r.name = n.job
    WHERE t.job = n.job AND t.index = n.index
)
UPDATE job j SET state = 'RUNNING', reason = n.reason::jsonb, placed_at = now(), ready_at = NULL,
    revision = revision + 1, changed = pg_current_xact_id()
FROM unnest($1::text[], $2::text[]) AS n (name, reason) WHERE j.name = n.name
"""
_MOST_TEXTS = 20_000


class Parsed:
    """Values by the text that a column holds: kept between readings, bounded."""

    def __init__(self) -> None:
        self._needs: dict[str, Needs] = {}
        self._reasons: dict[str, Reason] = {}

    def needs(self, text: str) -> Needs:
        """Equal texts give the same object."""
        found = self._needs.get(text)
        if found is None:
            if len(self._needs) >= _MOST_TEXTS:
                self._needs.clear()
            found = self._needs[text] = jsonb.needs(json.loads(text))
        return found

    def reason(self, text: str) -> Reason:
        """Equal texts give the same object."""
        found = self._reasons.get(text)
        if found is None:
            if len(self._reasons) >= _MOST_TEXTS:
                self._reasons.clear()
            found = self._reasons[text] = jsonb.reason(json.loads(text))
        return found


class PostgresQueue:
    """The part of ``ports.Jobs`` that a plan needs, on one connection."""

    def __init__(self, connection: Connection, parsed: Parsed | None = None) -> None:
        self._connection = connection
        self._parsed = parsed or Parsed()

    async def queue(self, limit: int) -> list[Standing]:
        rows = await self._connection.fetch(_ALL, limit)
        return [self._standing(row) for row in rows]

    async def queue_changes(self, since: int) -> QueueChanges:
        rows = await self._connection.fetch(_CHANGED, str(since))
        left = [row["name"] for row in rows if not row["waits"]]
        names = [row["name"] for row in rows if row["waits"]]
        found = await self._connection.fetch(_SOME, names) if names else []
        return QueueChanges(tuple(self._standing(row) for row in found), tuple(left))

    async def lock_pending(self, names: Sequence[str]) -> dict[str, int]:
        rows = await self._connection.fetch(_LOCK_PENDING, list(names))
        return {row["name"]: row["attempt"] + 1 for row in rows}

    async def explain(self, reasons: Sequence[tuple[str, Reason]]) -> None:
        names = [name for name, _ in reasons]
        texts = [jsonb.reason_text(why) for _, why in reasons]
        await self._connection.execute(_EXPLAIN, names, texts)

    async def place(self, granted: Sequence[Granted]) -> None:
        if not granted:
            return
        texts = [jsonb.reason_text(each.reason) for each in granted]
        names = [each.placed.task.job for each in granted]
        rows = [
            (each.placed.task.job, new.member.index, each.placed.task.attempt, new.lease_id)
            for each in granted
            for new in each.leases
        ]
        columns = map(list, zip(*rows, strict=True))
        await self._connection.execute(_PLACE, names, texts, *columns)

    def _standing(self, row: asyncpg.Record) -> Standing:
        pending = Pending(
            job=row["name"],
            tenant=row["tenant"],
            project=row["project"],
            attempt=row["attempt"] + 1,
            priority=row["priority"],
            number=row["number"],
            notice_ms=row["notice_ms"],
            lost_after_ms=row["lost_after_ms"],
            needs=self._parsed.needs(row["needs"]),
            tasks=row["tasks"],
            tasks_max=row["tasks_max"],
            submitted_ms=row["submitted_ms"],
            queued_ms=row["queued_ms"],
            longest_ms=row["longest_ms"],
            reservation=row["reservation"],
        )
        return Standing(pending, self._parsed.reason(row["reason"]))
