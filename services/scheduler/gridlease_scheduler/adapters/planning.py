"""What a plan reads of what runs and of what operators promise and limit, in PostgreSQL."""

from __future__ import annotations

import asyncpg
from gridlease_store.pool import Connection

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.eviction.preempt import EVICTION_WINDOW_MS
from gridlease_scheduler.domain.job import Allocation, Tier
from gridlease_scheduler.domain.links.network import Link, LinkKind
from gridlease_scheduler.domain.order.decay import HALF_LIFE_MS, used_lately
from gridlease_scheduler.domain.order.fair import decayed
from gridlease_scheduler.domain.sizing.flexible import Flexible
from gridlease_scheduler.domain.snapshot import Quota, Reservation, Running, Share, Site
from gridlease_scheduler.operators import Parts

from .flexible import flexible

_NOW = """
SELECT (extract(epoch FROM now()) * 1000)::bigint AS ms, EXISTS (SELECT FROM link) AS linked
"""
# A checkpoint keeps the work done until it was told of, of the attempt that it was told in.
_RUNNING = """
SELECT l.id, l.job, l.task_index, j.tenant, j.project, l.node_id, j.priority, l.cpu_milli,
    l.memory_bytes, l.disk_bytes, l.device_ids, l.chip, l.quantity_milli, l.state, l.reservation,
    j.needs ->> 'tier' AS tier, j.longest_ms, j.notice_ms, j.tasks_min, j.number,
    j.min_runtime_ms, l.network_mbps, l.network_path,
    (extract(epoch FROM l.created_at) * 1000)::bigint AS started_ms,
    COALESCE((extract(epoch FROM now() - l.ready_at) * 1000)::bigint, 0) AS worked_ms,
    COALESCE((extract(epoch FROM k.at - l.ready_at) * 1000)::bigint, 0) AS saved_ms,
    CASE WHEN j.last_evicted_at > now() - $1 * interval '1 ms' THEN j.evictions ELSE 0 END
        AS evictions
FROM lease l JOIN job j ON j.name = l.job
LEFT JOIN LATERAL (SELECT max(checkpoint_at) AS at FROM task WHERE job = l.job) k ON true
WHERE l.state <> 'CLOSED' ORDER BY l.id
"""
_SHARES = """
SELECT tenant, weight, used, (extract(epoch FROM now() - used_at) * 1000)::bigint AS age_ms
FROM share ORDER BY tenant
"""
_SPENT = """
INSERT INTO share (tenant, used) VALUES ($1, $2) ON CONFLICT (tenant) DO UPDATE SET
    used = EXCLUDED.used + (share.used * power(2.0::float8,
        -extract(epoch FROM now() - share.used_at)::float8 * 1000 / $3))::bigint,
    used_at = now()
"""
_RESERVATIONS = """
SELECT name, project, chip, site, quantity_milli,
    (extract(epoch FROM begins_at) * 1000)::bigint AS begins_ms,
    (extract(epoch FROM ends_at) * 1000)::bigint AS ends_ms
FROM reservation WHERE cancelled_at IS NULL AND ends_at > now() ORDER BY begins_at, name
"""


class PostgresPlanning:
    """``operators.Planning`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def parts(self, catalogue: Catalogue) -> Parts:
        now = await self._connection.fetchrow(_NOW)
        assert now is not None
        running = await self._running()
        return Parts(
            now_ms=now["ms"],
            running=running,
            quotas=await self._quotas(),
            shares=await self._shares(running, catalogue),
            reservations=await self._reservations(),
            sites=await self._sites(),
            links=await self._links() if now["linked"] else (),
        )

    async def flexible(self) -> tuple[Flexible, ...]:
        return await flexible(self._connection)

    async def spent(self, tenant: str, used: int) -> None:
        await self._connection.execute(_SPENT, tenant, used, float(HALF_LIFE_MS))

    async def _running(self) -> tuple[Running, ...]:
        rows = await self._connection.fetch(_RUNNING, EVICTION_WINDOW_MS)
        return tuple(_run(row) for row in rows)

    async def _quotas(self) -> tuple[Quota, ...]:
        rows = await self._connection.fetch("SELECT * FROM quota ORDER BY project, chip")
        return tuple(quota(row) for row in rows)

    async def _shares(
        self, running: tuple[Running, ...], catalogue: Catalogue
    ) -> tuple[Share, ...]:
        """Every tenant that has a weight, used something lately or runs something now."""
        weights: dict[str, int] = {}
        used: dict[str, int] = {}
        for row in await self._connection.fetch(_SHARES):
            weights[row["tenant"]] = row["weight"]
            used[row["tenant"]] = decayed(row["used"], row["age_ms"], HALF_LIFE_MS)
        speeds = {chip.name: chip.throughput for chip in catalogue.chips}
        for lease in running:
            held = lease.allocation
            now = used_lately(held.quantity_milli, speeds.get(held.chip, 0), lease.worked_ms)
            used[lease.tenant] = used.get(lease.tenant, 0) + now
        return tuple(Share(tenant, weights.get(tenant, 1), used[tenant]) for tenant in sorted(used))

    async def _reservations(self) -> tuple[Reservation, ...]:
        rows = await self._connection.fetch(_RESERVATIONS)
        return tuple(Reservation(**dict(row)) for row in rows)

    async def _sites(self) -> tuple[Site, ...]:
        rows = await self._connection.fetch("SELECT * FROM site ORDER BY id")
        return tuple(site(row) for row in rows)

    async def _links(self) -> tuple[Link, ...]:
        rows = await self._connection.fetch("SELECT * FROM link ORDER BY id")
        return tuple(link(row) for row in rows)


def _run(row: asyncpg.Record) -> Running:
    worked_ms = max(0, row["worked_ms"])
    return Running(
        lease_id=row["id"],
        job=row["job"],
        index=row["task_index"],
        tenant=row["tenant"],
        project=row["project"],
        node_id=row["node_id"],
        priority=row["priority"],
        tier=Tier(row["tier"]),
        allocation=Allocation(
            row["cpu_milli"],
            row["memory_bytes"],
            row["disk_bytes"],
            tuple(row["device_ids"]),
            row["chip"],
            row["quantity_milli"],
        ),
        started_ms=row["started_ms"],
        worked_ms=worked_ms,
        saved_ms=min(worked_ms, max(0, row["saved_ms"])),
        longest_ms=row["longest_ms"],
        notice_ms=row["notice_ms"],
        evictions=row["evictions"],
        tasks_min=row["tasks_min"],
        closing=row["state"] == "CLOSING",
        reservation=row["reservation"],
        number=row["number"],
        min_runtime_ms=row["min_runtime_ms"],
        network_mbps=row["network_mbps"],
        network_path=tuple(row["network_path"].split(",")) if row["network_path"] else (),
    )


def quota(row: asyncpg.Record) -> Quota:
    """A quota's row."""
    return Quota(
        row["project"], row["parent"], row["chip"], row["guaranteed_milli"], row["limit_milli"]
    )


def site(row: asyncpg.Record) -> Site:
    """A site's row."""
    return Site(
        name=row["id"],
        pue_milli=row["pue_milli"],
        cap_watts=row["cap_watts"],
        rack_cap_watts=tuple(sorted(row["rack_cap_watts"].items())),
        price_nano_per_kwh=tuple(row["price_nano_per_kwh"]),
        carbon_mg_per_kwh=tuple(row["carbon_mg_per_kwh"]),
    )


def link(row: asyncpg.Record) -> Link:
    """A link's row."""
    return Link(
        link_id=row["id"],
        a=row["a"],
        b=row["b"],
        capacity_mbit=row["capacity_mbps"],
        latency_us=row["latency_us"],
        kind=LinkKind(row["kind"]),
        up=row["up"],
    )
