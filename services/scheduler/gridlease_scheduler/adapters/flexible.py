"""Jobs whose number of tasks may change, with what their tasks last told, in PostgreSQL."""

from __future__ import annotations

from typing import Any

import asyncpg
from gridlease.type.v1 import job_pb2
from gridlease_store.pool import Connection

from gridlease_scheduler.domain.sizing.flexible import Flexible, LoadPolicy, Report

from . import jsonb

_MOST = 5_000  # looked at in one pass, the oldest first
_JOBS = """
SELECT j.name, j.tenant, j.project, j.state, z.attempt, j.tasks, j.tasks_min, j.tasks_max, j.needs,
    j.spec, j.follows_load, j.asleep, j.notice_ms, j.min_runtime_ms,
    COALESCE((extract(epoch FROM now() - j.ready_at) * 1000)::bigint, 0) AS ran_ms,
    COALESCE((extract(epoch FROM j.ready_at - j.placed_at) * 1000)::bigint, 0) AS start_ms,
    (extract(epoch FROM j.queued_at) * 1000)::bigint AS queued_ms
FROM job j JOIN task z ON z.job = j.name AND z.index = 0
WHERE j.state IN ('PENDING', 'RUNNING') AND (j.tasks_min < j.tasks_max OR j.follows_load)
ORDER BY j.number LIMIT $1
"""
# What was told in an earlier attempt says nothing of this one.
_REPORTS = """
SELECT t.job, t.index, t.progress,
    (extract(epoch FROM now() - t.progress_at) * 1000)::bigint AS age_ms
FROM task t JOIN job j ON j.name = t.job
WHERE t.job = ANY($1::text[]) AND j.state = 'RUNNING' AND t.progress_at > j.placed_at
ORDER BY t.job, t.index
"""


async def flexible(connection: Connection) -> tuple[Flexible, ...]:
    """All that wait or run."""
    rows = await connection.fetch(_JOBS, _MOST)
    reports: dict[str, list[Report]] = {row["name"]: [] for row in rows}
    for row in await connection.fetch(_REPORTS, list(reports)) if reports else ():
        reports[row["job"]].append(_report(row["index"], row["age_ms"], row["progress"]))
    return tuple(_job(row, tuple(reports[row["name"]])) for row in rows)


def _report(index: int, age_ms: int, told: dict[str, Any]) -> Report:
    return Report(
        index,
        max(0, age_ms),
        steps=told.get("steps", 0),
        steps_total=told.get("steps_total", 0),
        step_ns=told.get("step_ns", 0),
        batch=told.get("batch_size", 0),
        squared=told.get("gradient_sqr", 0.0),
        variance=told.get("gradient_var", 0.0),
        in_flight_milli=told.get("in_flight_milli", 0),
    )


def _job(row: asyncpg.Record, reports: tuple[Report, ...]) -> Flexible:
    spec = job_pb2.JobSpec.FromString(row["spec"])
    name = spec.display_name or row["name"]
    load = None
    if row["follows_load"]:
        given = spec.autoscale
        load = LoadPolicy(
            given.min_replicas, given.max_replicas, given.target_in_flight, given.idle_after_ms
        )
    return Flexible(
        job=row["name"],
        tenant=row["tenant"],
        project=row["project"],
        running=row["state"] == "RUNNING",
        attempt=row["attempt"],
        tasks=row["tasks"],
        tasks_min=row["tasks_min"],
        tasks_max=row["tasks_max"],
        needs=jsonb.needs(row["needs"]),
        app=f"{row['project']} {name} {spec.bundle_digest}",
        batches=(spec.batch_size.min, spec.batch_size.max),
        load=load,
        asleep=row["asleep"],
        ran_ms=max(0, row["ran_ms"]),
        start_ms=max(0, row["start_ms"]),
        queued_ms=row["queued_ms"],
        notice_ms=row["notice_ms"],
        min_runtime_ms=row["min_runtime_ms"],
        reports=reports,
    )
