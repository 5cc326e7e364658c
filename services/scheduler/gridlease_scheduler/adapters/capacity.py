"""What operators write in PostgreSQL: quotas, weights, sites, links and reservations."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import asyncpg
from gridlease_store.pool import Connection

from gridlease_scheduler.domain.links.network import Link
from gridlease_scheduler.domain.order.decay import HALF_LIFE_MS
from gridlease_scheduler.domain.order.fair import decayed
from gridlease_scheduler.domain.snapshot import Quota, Reservation, Share, Site
from gridlease_scheduler.operators import LinkRow, QuotaRow, ReservationRow, RoutedLease, SiteRow

from .planning import link, quota, site

_LOCK = 0x6CA9_AC17
# A folder holds what its projects hold. A chip's quota counts that chip, the empty one all devices.
_QUOTAS = """
WITH RECURSIVE within (top, project) AS (
    SELECT project, project FROM quota
    UNION
    SELECT w.top, q.project FROM within w JOIN quota q ON q.parent = w.project
)
SELECT q.*, COALESCE((
    SELECT sum(l.quantity_milli) FROM lease l JOIN job j ON j.name = l.job
    WHERE l.state <> 'CLOSED'
        AND j.project IN (SELECT w.project FROM within w WHERE w.top = q.project)
        AND CASE WHEN q.chip = '' THEN cardinality(l.device_ids) > 0 ELSE l.chip = q.chip END
), 0)::bigint AS used_milli
FROM quota q WHERE $1 = '' OR q.project = $1 ORDER BY q.project, q.chip
"""
_SET_QUOTA = """
INSERT INTO quota (project, chip, parent, guaranteed_milli, limit_milli)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT (project, chip) DO UPDATE SET parent = EXCLUDED.parent,
    guaranteed_milli = EXCLUDED.guaranteed_milli, limit_milli = EXCLUDED.limit_milli,
    changed_at = now()
"""
_SHARES = """
SELECT tenant, weight, used, (extract(epoch FROM now() - used_at) * 1000)::bigint AS age_ms
FROM share ORDER BY tenant
"""
_SET_SHARE = """
INSERT INTO share (tenant, weight) VALUES ($1, $2)
ON CONFLICT (tenant) DO UPDATE SET weight = EXCLUDED.weight
"""
_SITES = """
SELECT s.*, (SELECT count(*) FROM node n WHERE n.site = s.id AND n.revoked_at IS NULL)::int AS nodes
FROM site s ORDER BY s.id
"""
_SET_SITE = """
INSERT INTO site (id, pue_milli, cap_watts, rack_cap_watts, price_nano_per_kwh, carbon_mg_per_kwh)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET pue_milli = EXCLUDED.pue_milli,
    cap_watts = EXCLUDED.cap_watts, rack_cap_watts = EXCLUDED.rack_cap_watts,
    price_nano_per_kwh = EXCLUDED.price_nano_per_kwh, carbon_mg_per_kwh = EXCLUDED.carbon_mg_per_kwh
"""
_LINKS = """
SELECT k.*, COALESCE((
    SELECT sum(l.network_mbps) FROM lease l WHERE l.state <> 'CLOSED' AND l.network_path <> ''
        AND k.id = ANY(string_to_array(l.network_path, ','))
), 0)::bigint AS promised_mbps
FROM link k ORDER BY k.id
"""
_SET_LINK = """
INSERT INTO link (id, a, b, kind, capacity_mbps, latency_us, up)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a, b = EXCLUDED.b,
    kind = EXCLUDED.kind, capacity_mbps = EXCLUDED.capacity_mbps,
    latency_us = EXCLUDED.latency_us, up = EXCLUDED.up
"""
_ROUTED = """
SELECT l.id, l.job, j.project, l.network_mbps, l.network_path
FROM lease l JOIN job j ON j.name = l.job
WHERE l.state <> 'CLOSED' AND l.network_path <> ''
    AND $1 = ANY(string_to_array(l.network_path, ',')) ORDER BY l.id
"""
_RESERVATIONS = """
SELECT *, (extract(epoch FROM begins_at) * 1000)::bigint AS begins_ms,
    (extract(epoch FROM ends_at) * 1000)::bigint AS ends_ms
FROM reservation
"""
_ADD_RESERVATION = """
INSERT INTO reservation (name, project, request_id, chip, site, quantity_milli, begins_at, ends_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""


class PostgresCapacity:
    """``operators.Capacity`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self) -> None:
        await self._connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)

    async def quotas(self, project: str) -> list[QuotaRow]:
        rows = await self._connection.fetch(_QUOTAS, project)
        return [QuotaRow(quota(row), row["used_milli"]) for row in rows]

    async def set_quota(self, quota: Quota) -> None:
        if quota.guaranteed_milli == 0 and quota.limit_milli == 0:
            await self._connection.execute(
                "DELETE FROM quota WHERE project = $1 AND chip = $2", quota.project, quota.chip
            )
            return
        await self._connection.execute(
            _SET_QUOTA,
            quota.project,
            quota.chip,
            quota.parent,
            quota.guaranteed_milli,
            quota.limit_milli,
        )

    async def shares(self) -> list[Share]:
        rows = await self._connection.fetch(_SHARES)
        return [
            Share(row["tenant"], row["weight"], decayed(row["used"], row["age_ms"], HALF_LIFE_MS))
            for row in rows
        ]

    async def set_share(self, tenant: str, weight: int) -> None:
        await self._connection.execute(_SET_SHARE, tenant, weight)

    async def sites(self) -> list[SiteRow]:
        rows = await self._connection.fetch(_SITES)
        return [SiteRow(site(row), row["nodes"], row["created_at"]) for row in rows]

    async def set_site(self, site: Site) -> None:
        await self._connection.execute(
            _SET_SITE,
            site.name,
            site.pue_milli,
            site.cap_watts,
            dict(site.rack_cap_watts),
            list(site.price_nano_per_kwh),
            list(site.carbon_mg_per_kwh),
        )

    async def links(self) -> list[LinkRow]:
        rows = await self._connection.fetch(_LINKS)
        return [LinkRow(link(row), row["promised_mbps"], row["created_at"]) for row in rows]

    async def set_link(self, link: Link) -> None:
        if not link.capacity_mbit:
            await self._connection.execute("DELETE FROM link WHERE id = $1", link.link_id)
            return
        await self._connection.execute(
            _SET_LINK,
            link.link_id,
            link.a,
            link.b,
            link.kind.value,
            link.capacity_mbit,
            link.latency_us,
            link.up,
        )

    async def hold_links(self, link_ids: Sequence[str]) -> set[str]:
        rows = await self._connection.fetch(
            "SELECT id FROM link WHERE id = ANY($1::text[]) AND up ORDER BY id FOR SHARE",
            list(link_ids),
        )
        return {row["id"] for row in rows}

    async def routed(self, link_id: str) -> list[RoutedLease]:
        rows = await self._connection.fetch(_ROUTED, link_id)
        return [
            RoutedLease(
                row["id"],
                row["job"],
                row["project"],
                row["network_mbps"],
                tuple(row["network_path"].split(",")),
            )
            for row in rows
        ]

    async def reservations(self, project: str) -> list[ReservationRow]:
        where = """WHERE ends_at > now() AND cancelled_at IS NULL AND ($1 = '' OR project = $1)
            ORDER BY begins_at, name"""
        rows = await self._connection.fetch(_RESERVATIONS + where, project)
        return [_reservation(row) for row in rows]

    async def reservation(self, name: str) -> ReservationRow | None:
        row = await self._connection.fetchrow(_RESERVATIONS + "WHERE name = $1", name)
        return None if row is None else _reservation(row)

    async def reservation_by_request(self, project: str, request_id: str) -> ReservationRow | None:
        where = "WHERE project = $1 AND request_id = $2"
        row = await self._connection.fetchrow(_RESERVATIONS + where, project, request_id)
        return None if row is None else _reservation(row)

    async def add_reservation(self, reservation: Reservation, request_id: str) -> None:
        await self._connection.execute(
            _ADD_RESERVATION,
            reservation.name,
            reservation.project,
            request_id,
            reservation.chip,
            reservation.site,
            reservation.quantity_milli,
            _instant(reservation.begins_ms),
            _instant(reservation.ends_ms),
        )

    async def cancel_reservation(self, name: str) -> None:
        await self._connection.execute(
            "UPDATE reservation SET cancelled_at = now() WHERE name = $1 AND cancelled_at IS NULL",
            name,
        )


def _instant(at_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(milliseconds=at_ms)


def _reservation(row: asyncpg.Record) -> ReservationRow:
    return ReservationRow(
        Reservation(
            name=row["name"],
            project=row["project"],
            chip=row["chip"],
            site=row["site"],
            quantity_milli=row["quantity_milli"],
            begins_ms=row["begins_ms"],
            ends_ms=row["ends_ms"],
        ),
        row["created_at"],
        row["cancelled_at"],
    )
