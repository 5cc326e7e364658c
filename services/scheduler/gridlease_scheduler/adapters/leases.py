"""Leases and the devices that they hold, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from gridlease_store.pool import Connection

from gridlease_scheduler.domain.job import Allocation, Reason
from gridlease_scheduler.domain.lease import Cause, Exit, Lease, Phase, State
from gridlease_scheduler.domain.snapshot import Pending
from gridlease_scheduler.ports import Granted, HeldLease, NewLease

from . import jsonb

_INSERT = """
WITH devices AS (
    INSERT INTO lease_device (lease_id, node_id, device_id)
    SELECT * FROM unnest($18::text[], $19::text[], $20::text[])
)
INSERT INTO lease (id, job, task_index, attempt, node_id, lost_after_ms, cpu_milli, memory_bytes,
    disk_bytes, device_ids, chip, quantity_milli, rate_nano_per_hour, network_mbps, reservation,
    network_path, epoch)
SELECT id, job, task_index, attempt, node_id, lost_after_ms, cpu_milli, memory_bytes, disk_bytes,
    string_to_array(devices, E'\\n'), chip, quantity_milli, rate, mbps, reservation, path, $17
FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::text[], $6::bigint[], $7::bigint[],
    $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[], $13::bigint[],
    $14::bigint[], $15::text[], $16::text[])
    AS n (id, job, task_index, attempt, node_id, lost_after_ms, cpu_milli, memory_bytes,
        disk_bytes, devices, chip, quantity_milli, rate, mbps, reservation, path)
"""
# What a lease has run, and how much of its warning it was given, by this clock alone.
_HELD = """
SELECT *, closing_at + notice_ms * interval '1 ms' AS deadline,
    (extract(epoch FROM exited_at - closing_at) * 1000)::bigint AS given_ms,
    COALESCE((extract(epoch FROM COALESCE(exited_at, now()) - ready_at) * 1000)::bigint, 0)
        AS ran_ms
FROM lease WHERE """
_WRITE = """
UPDATE lease SET state = $2, cause = $3, notice_ms = $4, phase = $5, gone = $6,
    exit = COALESCE(exit, $7), spool_id = COALESCE(spool_id, $8),
    exited_at = COALESCE(exited_at, CASE WHEN $7::jsonb IS NOT NULL THEN now() END),
    ready_at = COALESCE(ready_at, CASE WHEN $9 THEN now() END),
    closing_at = COALESCE(closing_at, CASE WHEN $2 = 'CLOSING' THEN now() END)
WHERE id = $1
"""
_WIPED = """
UPDATE lease SET wipe_receipt = w.record
FROM unnest($2::text[], $3::bytea[]) AS w (id, record)
WHERE lease.id = w.id AND lease.node_id = $1 AND wipe_receipt IS NULL
RETURNING lease.id, lease.job
"""


class PostgresLeases:
    """``ports.Leases`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def insert(self, granted: Sequence[Granted], epoch: int) -> None:
        rows = [_row(each.placed.task, new) for each in granted for new in each.leases]
        if not rows:
            return
        devices = [
            (new.lease_id, new.member.node_id, device)
            for each in granted
            for new in each.leases
            for device in new.member.allocation.device_ids
        ]
        held = [list(column) for column in zip(*devices, strict=True)] or [[], [], []]
        await self._connection.execute(_INSERT, *map(list, zip(*rows, strict=True)), epoch, *held)

    async def unclosed_of_node(self, node_id: str) -> list[HeldLease]:
        return await self._held("node_id = $1 AND state <> 'CLOSED'", node_id)

    async def unclosed_of_job(self, job: str) -> list[HeldLease]:
        return _by_index(await self._held("job = $1 AND state <> 'CLOSED'", job))

    async def of_attempt(self, job: str, attempt: int) -> list[HeldLease]:
        return _by_index(await self._held("job = $1 AND attempt = $2", job, attempt))

    async def split(self) -> list[str]:
        rows = await self._connection.fetch(
            "SELECT DISTINCT c.job FROM lease c JOIN lease a ON a.job = c.job "
            "AND a.state = 'ACTIVE' WHERE c.state = 'CLOSING' ORDER BY c.job"
        )
        return [row["job"] for row in rows]

    async def get(self, lease_id: str) -> HeldLease | None:
        found = await self._held("id = $1", lease_id)
        return found[0] if found else None

    async def closing(self) -> list[HeldLease]:
        return await self._held("state = 'CLOSING'")

    async def on_silent_nodes(self) -> list[Lease]:
        rows = await self._held(
            "state = 'ACTIVE' AND (SELECT seen_at FROM node WHERE id = lease.node_id) "
            "<= now() - lost_after_ms * interval '1 ms'"
        )
        return [held.lease for held in rows]

    async def write(
        self, lease: Lease, *, spool_id: str | None, ready: bool, exit_facts: dict[str, Any] | None
    ) -> None:
        await self._connection.execute(
            _WRITE,
            lease.lease_id,
            lease.state.value,
            lease.cause.value if lease.cause else None,
            lease.notice_ms,
            int(lease.phase),
            lease.gone,
            exit_facts,
            spool_id,
            ready,
        )

    async def wiped(self, node_id: str, records: Mapping[str, bytes]) -> list[tuple[str, str]]:
        rows = await self._connection.fetch(_WIPED, node_id, list(records), list(records.values()))
        return [(row["id"], row["job"]) for row in rows]

    async def stop(self, lease: Lease, reason: Reason) -> None:
        await self._connection.execute(
            "UPDATE lease SET state = 'CLOSING', cause = $2, notice_ms = $3, stop_reason = $4, "
            "closing_at = now() WHERE id = $1",
            lease.lease_id,
            lease.cause.value if lease.cause else None,
            lease.notice_ms,
            jsonb.dump(reason),
        )

    async def close(self, lease: Lease) -> None:
        await self._connection.execute(
            "UPDATE lease SET state = 'CLOSED', closed_at = now() WHERE id = $1", lease.lease_id
        )
        await self._connection.execute(
            "UPDATE lease_device SET closed = true WHERE lease_id = $1", lease.lease_id
        )

    async def _held(self, where: str, *values: object) -> list[HeldLease]:
        # where is a literal of this module
        rows = await self._connection.fetch(f"{_HELD} {where} ORDER BY id", *values)
        return [_held(row) for row in rows]


def _held(row: asyncpg.Record) -> HeldLease:
    end = row["exit"]
    lease = Lease(
        lease_id=row["id"],
        task_id=f"{row['job']}/tasks/{row['task_index']}",
        attempt=row["attempt"],
        node_id=row["node_id"],
        devices=tuple(row["device_ids"]),
        lost_after_ms=row["lost_after_ms"],
        state=State(row["state"]),
        cause=Cause(row["cause"]) if row["cause"] else None,
        notice_ms=row["notice_ms"],
        phase=Phase(row["phase"]),
        exit=Exit(end["code"], end["reason"], end["ran_ns"]) if end else None,
        gone=row["gone"],
    )
    allocation = Allocation(
        row["cpu_milli"],
        row["memory_bytes"],
        row["disk_bytes"],
        tuple(row["device_ids"]),
        row["chip"],
        row["quantity_milli"],
    )
    return HeldLease(
        lease=lease,
        job=row["job"],
        index=row["task_index"],
        spool_id=row["spool_id"],
        ready=row["ready_at"] is not None,
        exit_message=end.get("message", "") if end else "",
        allocation=allocation,
        stop=jsonb.reason(row["stop_reason"]),
        deadline=row["deadline"],
        given_ms=None if row["given_ms"] is None else max(0, row["given_ms"]),
        ran_ms=max(0, row["ran_ms"]),
        rate_nano_per_hour=row["rate_nano_per_hour"],
        network_mbps=row["network_mbps"],
        network_path=row["network_path"],
    )


def _by_index(found: list[HeldLease]) -> list[HeldLease]:
    return sorted(found, key=lambda held: held.index)


def _row(task: Pending, new: NewLease) -> tuple[object, ...]:
    """A lease as it is inserted. Device ids hold no line breaks: they are joined by them."""
    member = new.member
    held = member.allocation
    return (
        new.lease_id,
        task.job,
        member.index,
        task.attempt,
        member.node_id,
        task.lost_after_ms,
        held.cpu_milli,
        held.memory_bytes,
        held.disk_bytes,
        "\n".join(held.device_ids),
        held.chip,
        held.quantity_milli,
        new.rate_nano_per_hour,
        task.needs.network.guaranteed_mbps,
        task.reservation,
        ",".join(member.path),
    )
