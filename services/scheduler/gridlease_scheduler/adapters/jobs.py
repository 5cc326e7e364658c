"""Jobs and tasks in PostgreSQL. What waits for a place is read and written in ``queue.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from gridlease_scheduler.domain.ends import Outcome, TaskEnd
from gridlease_scheduler.domain.job import (
    Allocation,
    Checkpoint,
    Extent,
    Job,
    JobState,
    NewJob,
    Reason,
    Task,
)
from gridlease_scheduler.domain.lease import State
from gridlease_scheduler.domain.preload import Recent
from gridlease_scheduler.wire.preload import use

from . import jsonb
from .queue import PostgresQueue

_TASKS = """
SELECT t.*, l.node_id, l.cpu_milli, l.memory_bytes, l.disk_bytes, l.device_ids, l.chip,
    l.quantity_milli, l.state AS lease_state, l.rate_nano_per_hour,
    n.inventory ->> 'hostname' AS hostname, l.wipe_receipt, n.public_key AS node_key
FROM task t JOIN job j ON j.name = t.job JOIN task z ON z.job = t.job AND z.index = 0
LEFT JOIN lease l ON l.id = t.lease_id LEFT JOIN node n ON n.id = l.node_id
WHERE t.job = ANY($1::text[])
    AND CASE WHEN z.attempt = 0 THEN t.index < j.tasks ELSE t.attempt = z.attempt END
ORDER BY t.job, t.index
"""
_ACCEPT = """
INSERT INTO job (name, project, tenant, request_id, spec, spec_hash, needs, priority,
    max_attempts, notice_ms, lost_after_ms, traceparent, tasks, tasks_min, tasks_max, longest_ms,
    expected_ms, reservation, min_runtime_ms, requeue, follows_load, secrets)
SELECT name, project, tenant, request_id, spec, spec_hash, needs::jsonb, priority, max_attempts,
    notice_ms, lost_after_ms, traceparent, tasks, tasks_min, tasks_max, longest_ms, expected_ms,
    reservation, min_runtime_ms, requeue, follows_load, NULLIF(secrets, '')
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::text[],
    $8::int[], $9::int[], $10::bigint[], $11::bigint[], $12::text[], $13::int[], $14::int[],
    $15::int[], $16::bigint[], $17::bigint[], $18::text[], $19::bigint[], $20::boolean[],
    $21::boolean[], $22::bytea[])
    AS n (name, project, tenant, request_id, spec, spec_hash, needs, priority, max_attempts,
        notice_ms, lost_after_ms, traceparent, tasks, tasks_min, tasks_max, longest_ms,
        expected_ms, reservation, min_runtime_ms, requeue, follows_load, secrets)
ON CONFLICT DO NOTHING RETURNING name, number, created_at, (SELECT ends_at FROM reservation r
    WHERE r.name = job.reservation) AS promised_until
"""
_ACCEPT_TASKS = """
INSERT INTO task (job, index) SELECT n.job, generate_series(0, n.tasks - 1)
FROM unnest($1::text[], $2::int[]) AS n (job, tasks)
"""
_READY = """
UPDATE job j SET revision = revision + 1, ready_at = now()
WHERE name = $1 AND ready_at IS NULL AND NOT EXISTS (
    SELECT 1 FROM lease l JOIN task t ON t.lease_id = l.id
    WHERE t.job = j.name AND l.ready_at IS NULL AND l.attempt =
        (SELECT attempt FROM task WHERE job = j.name AND index = 0))
RETURNING name
"""
_TOLD = """
UPDATE task SET checkpoint = $3, checkpoint_at = now()
WHERE job = $1 AND index = $2 AND checkpoint <> $3 AND $3 <> ''
"""
_PROGRESS = "UPDATE task SET progress = $3, progress_at = now() WHERE job = $1 AND index = $2"
# Evictions longer ago than the window are forgotten with the next one.
_EVICTED = """
UPDATE job SET tasks = $2, asleep = $4, evicted_in_all = evicted_in_all + 1,
    last_evicted_at = CASE WHEN $5 THEN now() ELSE last_evicted_at END,
    evictions = CASE WHEN last_evicted_at > now() - $3 * interval '1 ms'
        THEN evictions ELSE 0 END + CASE WHEN $5 THEN 1 ELSE 0 END
WHERE name = $1
"""
_WANT = "UPDATE job SET tasks = $2, revision = revision + 1 WHERE name = $1 AND state = 'PENDING'"
_WAKE = """
UPDATE job SET asleep = false, reason = $2, revision = revision + 1, queued_at = now(),
    changed = pg_current_xact_id()
WHERE name = $1 AND asleep RETURNING pg_notify('scheduler_work', '')
"""
_FINISH = """
UPDATE job j SET state = $2, reason = $3, revision = revision + 1,
    ended_at = CASE WHEN $2 <> 'PENDING' THEN COALESCE((SELECT max(closing_at) FROM lease
        WHERE job = j.name AND attempt = $4 AND exit IS NOT NULL), now()) END,
    queued_at = CASE WHEN $2 = 'PENDING' THEN now() ELSE queued_at END,
    resume_from = CASE WHEN $2 <> 'PENDING' THEN resume_from ELSE COALESCE((SELECT checkpoint
        FROM task WHERE job = j.name AND checkpoint <> ''
        ORDER BY index > 0, checkpoint_at DESC LIMIT 1), '') END
WHERE name = $1
"""
_END_TASK = """
UPDATE task SET exit_code = $3, ran_ns = ran_ns + $4, reason = $5 WHERE job = $1 AND index = $2
"""


_RECENT = """
SELECT tenant, spec, needs -> 'accelerator' -> 'chips' ->> 0 AS chip,
    (needs ->> 'accelerator') IS NOT NULL AS accelerated, follows_load,
    (extract(epoch FROM ended_at - ready_at) * 1000)::bigint AS ran_ms
FROM job ORDER BY number DESC LIMIT $1
"""


class PostgresJobs(PostgresQueue):
    """``ports.Jobs`` on one connection."""

    async def recent(self, limit: int) -> list[Recent]:
        rows = await self._connection.fetch(_RECENT, limit)
        return [
            Recent(
                use(row["tenant"], row["spec"], row["chip"] or "", row["accelerated"]),
                row["follows_load"],
                row["ran_ms"],
            )
            for row in rows
        ]

    async def accept(self, jobs: Sequence[NewJob]) -> dict[str, Job]:
        columns = map(list, zip(*map(_columns, jobs), strict=True))
        rows = await self._connection.fetch(_ACCEPT, *columns)
        by_name = {job.name: job for job in jobs}
        new = {row["name"]: _accepted(by_name[row["name"]], row) for row in rows}
        most = [by_name[name].extent.tasks_max for name in new]
        if new:
            await self._connection.execute(_ACCEPT_TASKS, list(new), most)
        return new

    async def by_request(self, project: str, request_id: str) -> Job | None:
        return await self._one("WHERE j.project = $1 AND j.request_id = $2", project, request_id)

    async def get(self, name: str, *, lock: bool = False) -> Job | None:
        where = "WHERE j.name = $1" + (" FOR UPDATE OF j" if lock else "")
        return await self._one(where, name)

    async def some(self, names: Sequence[str]) -> dict[str, Job]:
        found = await self._fetch("WHERE j.name = ANY($1::text[])", list(names))
        return {job.name: job for job in found}

    async def page(
        self, project: str, *, limit: int, before: int | None, active_only: bool
    ) -> list[Job]:
        where = """WHERE j.project = $1 AND ($2::bigint IS NULL OR j.number < $2)
            AND (NOT $3 OR j.state IN ('PENDING', 'RUNNING', 'STOPPING'))
            ORDER BY j.number DESC LIMIT $4"""
        return await self._fetch(where, project, before, active_only, limit)

    async def ready(self, name: str) -> bool:
        # Two nodes may tell at the same time: the one that comes second sees the first's word.
        await self._connection.execute("SELECT 1 FROM job WHERE name = $1 FOR UPDATE", name)
        return await self._connection.fetchval(_READY, name) is not None

    async def told(
        self, name: str, index: int, checkpoint: str, progress: dict[str, Any] | None
    ) -> None:
        await self._connection.execute(_TOLD, name, index, checkpoint)
        if progress is not None:
            await self._connection.execute(_PROGRESS, name, index, progress)

    async def evicted(
        self, name: str, tasks: int, window_ms: int, *, asleep: bool, counted: bool
    ) -> None:
        await self._connection.execute(_EVICTED, name, tasks, window_ms, asleep, counted)

    async def want(self, name: str, tasks: int) -> None:
        await self._connection.execute(_WANT, name, tasks)

    async def wake(self, name: str, reason: Reason) -> bool:
        return await self._connection.fetchval(_WAKE, name, jsonb.dump(reason)) is not None

    async def move(self, name: str, state: JobState, reason: Reason) -> None:
        await self._connection.execute(
            "UPDATE job SET state = $2, reason = $3, revision = revision + 1, "
            "ended_at = CASE WHEN $4 THEN now() END WHERE name = $1",
            name,
            state.value,
            jsonb.dump(reason),
            state.ended,
        )

    async def end_task(self, name: str, index: int, end: TaskEnd) -> None:
        why = jsonb.dump(end.reason)
        await self._connection.execute(_END_TASK, name, index, end.exit_code, end.ran_ns, why)

    async def finish(self, name: str, attempt: int, end: Outcome) -> None:
        why = jsonb.dump(end.reason)
        await self._connection.execute(_FINISH, name, end.state.value, why, attempt)

    async def _one(self, where: str, *values: object) -> Job | None:
        found = await self._fetch(where, *values)
        return found[0] if found else None

    async def _fetch(self, where: str, *values: object) -> list[Job]:
        # where is a literal of this module
        rows = await self._connection.fetch(
            "SELECT j.*, (SELECT ends_at FROM reservation WHERE name = j.reservation) "  # noqa: S608
            f"AS promised_until FROM job j {where}",
            *values,
        )
        names = [row["name"] for row in rows]
        tasks: dict[str, list[Task]] = {name: [] for name in names}
        for row in await self._connection.fetch(_TASKS, names) if names else ():
            tasks[row["job"]].append(_task(row))
        return [_job(row, tuple(tasks[row["name"]])) for row in rows]


def _columns(job: NewJob) -> tuple[object, ...]:
    """A job as it is inserted."""
    extent = job.extent
    return (
        job.name, job.project, job.tenant, job.request_id, job.spec, job.spec_hash,
        jsonb.text(job.needs), job.priority, job.max_attempts, job.notice_ms, job.lost_after_ms,
        job.traceparent, extent.tasks, extent.tasks_min, extent.tasks_max, extent.longest_ms,
        extent.expected_ms, extent.reservation, extent.min_runtime_ms, extent.requeue,
        extent.follows_load, job.secrets,
    )  # fmt: skip


def _accepted(job: NewJob, row: asyncpg.Record) -> Job:
    """A job that was just inserted, as it would be read."""
    return Job(
        name=job.name,
        project=job.project,
        tenant=job.tenant,
        spec=job.spec,
        spec_hash=job.spec_hash,
        needs=job.needs,
        priority=job.priority,
        number=row["number"],
        max_attempts=job.max_attempts,
        notice_ms=job.notice_ms,
        lost_after_ms=job.lost_after_ms,
        traceparent=job.traceparent,
        state=JobState.PENDING,
        reason=Reason(),
        revision=1,
        created_at=row["created_at"],
        placed_at=None,
        ready_at=None,
        ended_at=None,
        tasks=tuple(Task(at, 0, "", 0, 0, Reason()) for at in range(job.extent.tasks)),
        extent=job.extent,
        promised_until=row["promised_until"],
        secrets=job.secrets,
    )


def _job(row: asyncpg.Record, tasks: tuple[Task, ...]) -> Job:
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
        tasks=tasks,
        extent=_extent(row),
        evicted=row["evicted_in_all"],
        evictions=row["evictions"],
        last_evicted_at=row["last_evicted_at"],
        resume_from=row["resume_from"],
        promised_until=row["promised_until"],
        secrets=row["secrets"] or b"",
    )


def _extent(row: asyncpg.Record) -> Extent:
    return Extent(
        tasks=row["tasks"],
        tasks_min=row["tasks_min"],
        tasks_max=row["tasks_max"],
        longest_ms=row["longest_ms"],
        expected_ms=row["expected_ms"],
        min_runtime_ms=row["min_runtime_ms"],
        requeue=row["requeue"],
        reservation=row["reservation"],
        follows_load=row["follows_load"],
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
    checkpoint = None
    if row["checkpoint"]:
        checkpoint = Checkpoint(row["checkpoint"], row["checkpoint_at"])
    return Task(
        index=row["index"],
        attempt=row["attempt"],
        lease_id=row["lease_id"] or "",
        exit_code=row["exit_code"] or 0,
        ran_ns=row["ran_ns"],
        reason=jsonb.reason(row["reason"]),
        node_id=row["node_id"] or "",
        hostname=row["hostname"] or "",
        allocation=allocation,
        lease_state=State(row["lease_state"]) if row["lease_state"] else None,
        rate_nano_per_hour=row["rate_nano_per_hour"] or 0,
        checkpoint=checkpoint,
        receipt=row["wipe_receipt"] or b"",
        node_key=row["node_key"] or "",
    )
