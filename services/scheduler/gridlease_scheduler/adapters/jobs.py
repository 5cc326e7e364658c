"""Jobs and tasks in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
from gridlease_store.pool import Connection

from gridlease_scheduler.domain.job import Allocation, Job, JobState, NewJob, Outcome, Reason, Task
from gridlease_scheduler.domain.lease import Lease
from gridlease_scheduler.domain.plan import Pending
from gridlease_scheduler.ports import NewLease

from . import jsonb

_SELECT = """
SELECT j.*, t.attempt, t.lease_id, t.exit_code, t.ran_ns, t.reason AS task_reason,
    l.node_id, l.cpu_milli, l.memory_bytes, l.disk_bytes, l.device_ids, l.chip, l.quantity_milli
FROM job j JOIN task t ON t.job = j.name AND t.index = 0
LEFT JOIN lease l ON l.id = t.lease_id
"""
_INSERT = """
INSERT INTO job (name, project, tenant, request_id, spec, spec_hash, needs, priority,
    max_attempts, notice_ms, lost_after_ms, traceparent)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (project, request_id) DO NOTHING RETURNING name
"""
_PENDING = """
SELECT j.name, j.tenant, j.project, t.attempt, j.priority, j.number, j.notice_ms,
    j.lost_after_ms, j.needs, j.reason
FROM job j JOIN task t ON t.job = j.name AND t.index = 0
WHERE j.state = 'PENDING' ORDER BY j.priority DESC, j.number LIMIT $1
"""
_LOCK_PENDING = """
SELECT j.name, t.attempt FROM job j JOIN task t ON t.job = j.name AND t.index = 0
WHERE j.name = ANY($1::text[]) AND j.state = 'PENDING' ORDER BY j.name FOR UPDATE OF j
"""
_EXPLAIN = """
UPDATE job j SET reason = n.reason::jsonb, revision = revision + 1
FROM unnest($1::text[], $2::jsonb[]) AS n (name, reason)
WHERE j.name = n.name AND j.state = 'PENDING'
"""
_PLACE = """
UPDATE job SET state = 'RUNNING', reason = $2, placed_at = now(), ready_at = NULL,
    revision = revision + 1
WHERE name = $1
"""
_PLACE_TASK = """
UPDATE task SET attempt = $3, lease_id = $4, exit_code = NULL, reason = $5
WHERE job = $1 AND index = $2
"""
_FINISH = """
UPDATE job SET state = $2, reason = $3, revision = revision + 1,
    ended_at = CASE WHEN $2 = 'PENDING' THEN NULL
        ELSE COALESCE((SELECT CASE WHEN exit IS NOT NULL THEN closing_at END
            FROM lease WHERE id = $4), now()) END
WHERE name = $1
"""
_FINISH_TASK = """
UPDATE task SET exit_code = $3, ran_ns = ran_ns + $4, reason = $5 WHERE job = $1 AND index = $2
"""


class PostgresJobs:
    """``ports.Jobs`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def insert(self, job: NewJob) -> bool:
        name = await self._connection.fetchval(
            _INSERT,
            job.name,
            job.project,
            job.tenant,
            job.request_id,
            job.spec,
            job.spec_hash,
            jsonb.dump(job.needs),
            job.priority,
            job.max_attempts,
            job.notice_ms,
            job.lost_after_ms,
            job.traceparent,
        )
        if name is None:
            return False
        await self._connection.execute("INSERT INTO task (job, index) VALUES ($1, 0)", job.name)
        return True

    async def by_request(self, project: str, request_id: str) -> Job | None:
        where = "WHERE j.project = $1 AND j.request_id = $2"
        return _maybe(await self._connection.fetchrow(_SELECT + where, project, request_id))

    async def get(self, name: str, *, lock: bool = False) -> Job | None:
        where = "WHERE j.name = $1" + (" FOR UPDATE OF j" if lock else "")
        return _maybe(await self._connection.fetchrow(_SELECT + where, name))

    async def page(
        self, project: str, *, limit: int, before: int | None, active_only: bool
    ) -> list[Job]:
        where = """WHERE j.project = $1 AND ($2::bigint IS NULL OR j.number < $2)
            AND (NOT $3 OR j.state IN ('PENDING', 'RUNNING', 'STOPPING'))
            ORDER BY j.number DESC LIMIT $4"""
        rows = await self._connection.fetch(_SELECT + where, project, before, active_only, limit)
        return [_job(row) for row in rows]

    async def pending(self, limit: int) -> list[tuple[Pending, Reason]]:
        rows = await self._connection.fetch(_PENDING, limit)
        return [(_pending(row), jsonb.reason(row["reason"])) for row in rows]

    async def lock_pending(self, names: Sequence[str]) -> dict[str, int]:
        rows = await self._connection.fetch(_LOCK_PENDING, list(names))
        return {row["name"]: row["attempt"] + 1 for row in rows}

    async def explain(self, reasons: Sequence[tuple[str, Reason]]) -> None:
        names = [name for name, _ in reasons]
        await self._connection.execute(_EXPLAIN, names, [jsonb.dump(why) for _, why in reasons])

    async def place(self, leases: Sequence[NewLease]) -> None:
        for new in leases:
            task, why = new.placed.task, jsonb.dump(new.placed.reason)
            await self._connection.execute(_PLACE, task.job, why)
            await self._connection.execute(
                _PLACE_TASK, task.job, task.index, task.attempt, new.lease_id, why
            )

    async def ready(self, name: str) -> None:
        await self._connection.execute(
            "UPDATE job SET ready_at = now(), revision = revision + 1 "
            "WHERE name = $1 AND ready_at IS NULL",
            name,
        )

    async def move(self, name: str, state: JobState, reason: Reason) -> None:
        await self._connection.execute(
            "UPDATE job SET state = $2, reason = $3, revision = revision + 1, "
            "ended_at = CASE WHEN $4 THEN now() END WHERE name = $1",
            name,
            state.value,
            jsonb.dump(reason),
            state.ended,
        )

    async def finish(self, name: str, index: int, end: Outcome, lease: Lease) -> None:
        why = jsonb.dump(end.reason)
        await self._connection.execute(_FINISH, name, end.state.value, why, lease.lease_id)
        await self._connection.execute(_FINISH_TASK, name, index, end.exit_code, end.ran_ns, why)


def _pending(row: asyncpg.Record) -> Pending:
    return Pending(
        job=row["name"],
        tenant=row["tenant"],
        project=row["project"],
        attempt=row["attempt"] + 1,
        priority=row["priority"],
        number=row["number"],
        notice_ms=row["notice_ms"],
        lost_after_ms=row["lost_after_ms"],
        needs=jsonb.needs(row["needs"]),
    )


def _maybe(row: asyncpg.Record | None) -> Job | None:
    return None if row is None else _job(row)


def _job(row: asyncpg.Record) -> Job:
    return Job(
        name=row["name"],
        project=row["project"],
        tenant=row["tenant"],
        spec=row["spec"],
        spec_hash=row["spec_hash"],
        needs=jsonb.needs(row["needs"]),
        priority=row["priority"],
        number=row["number"],
        max_attempts=row["max_attempts"],
        notice_ms=row["notice_ms"],
        lost_after_ms=row["lost_after_ms"],
        traceparent=row["traceparent"],
        state=JobState(row["state"]),
        reason=jsonb.reason(row["reason"]),
        revision=row["revision"],
        created_at=row["created_at"],
        placed_at=row["placed_at"],
        ready_at=row["ready_at"],
        ended_at=row["ended_at"],
        task=_task(row),
    )


def _task(row: asyncpg.Record) -> Task:
    allocation = None
    if row["node_id"] is not None:
        allocation = Allocation(
            row["cpu_milli"],
            row["memory_bytes"],
            row["disk_bytes"],
            tuple(row["device_ids"]),
            row["chip"],
            row["quantity_milli"],
        )
    return Task(
        index=0,
        attempt=row["attempt"],
        lease_id=row["lease_id"] or "",
        exit_code=row["exit_code"] or 0,
        ran_ns=row["ran_ns"],
        reason=jsonb.reason(row["task_reason"]),
        node_id=row["node_id"] or "",
        allocation=allocation,
    )
