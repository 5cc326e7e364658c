"""Leases and the devices that they hold, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from gridlease_store.pool import Connection

from gridlease_scheduler.domain.job import Allocation
from gridlease_scheduler.domain.lease import Cause, Exit, Lease, Phase, State
from gridlease_scheduler.ports import HeldLease, NewLease

_INSERT = """
INSERT INTO lease (id, job, task_index, attempt, node_id, notice_ms, lost_after_ms, cpu_milli,
    memory_bytes, disk_bytes, device_ids, chip, quantity_milli, rate_nano_per_hour, epoch)
VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""
_INSERT_DEVICE = """
INSERT INTO lease_device (lease_id, node_id, device_id) SELECT $1, $2, unnest($3::text[])
"""
_WRITE = """
UPDATE lease SET state = $2, cause = $3, notice_ms = $4, phase = $5, gone = $6,
    exit = COALESCE(exit, $7), spool_id = COALESCE(spool_id, $8),
    ready_at = COALESCE(ready_at, CASE WHEN $9 THEN now() END),
    closing_at = COALESCE(closing_at, CASE WHEN $2 = 'CLOSING' THEN now() END)
WHERE id = $1
"""


class PostgresLeases:
    """``ports.Leases`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def insert(self, leases: Sequence[NewLease], epoch: int) -> None:
        for new in leases:
            task, held, node = new.placed.task, new.placed.allocation, new.placed.node_id
            await self._connection.execute(
                _INSERT,
                new.lease_id,
                task.job,
                task.index,
                task.attempt,
                node,
                task.lost_after_ms,
                held.cpu_milli,
                held.memory_bytes,
                held.disk_bytes,
                list(held.device_ids),
                held.chip,
                held.quantity_milli,
                new.rate_nano_per_hour,
                epoch,
            )
            if held.device_ids:
                ids = list(held.device_ids)
                await self._connection.execute(_INSERT_DEVICE, new.lease_id, node, ids)

    async def unclosed_of_node(self, node_id: str) -> list[HeldLease]:
        return await self._held("node_id = $1 AND state <> 'CLOSED'", node_id)

    async def unclosed_of_job(self, job: str) -> HeldLease | None:
        found = await self._held("job = $1 AND state <> 'CLOSED'", job)
        return found[0] if found else None

    async def get(self, lease_id: str) -> HeldLease | None:
        found = await self._held("id = $1", lease_id)
        return found[0] if found else None

    async def closing(self) -> list[HeldLease]:
        return await self._held("state = 'CLOSING'")

    async def active(self) -> list[Lease]:
        return [held.lease for held in await self._held("state = 'ACTIVE'")]

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

    async def close(self, lease: Lease) -> None:
        await self._connection.execute(
            "UPDATE lease SET state = 'CLOSED', closed_at = now() WHERE id = $1", lease.lease_id
        )
        await self._connection.execute(
            "UPDATE lease_device SET closed = true WHERE lease_id = $1", lease.lease_id
        )

    async def _held(self, where: str, *values: object) -> list[HeldLease]:
        # where is a literal of this module
        rows = await self._connection.fetch(
            f"SELECT * FROM lease WHERE {where} ORDER BY id",  # noqa: S608
            *values,
        )
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
    )
