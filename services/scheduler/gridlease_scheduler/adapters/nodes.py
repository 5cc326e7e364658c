"""Nodes, devices and tokens in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg

from gridlease_scheduler.ports import (
    DeviceRow,
    InventoryReport,
    NodeDetail,
    NodeRow,
    Silence,
    TokenRow,
)

from .fleet import PostgresFleet

_DETAIL = """
SELECT n.*, u.cpu, u.memory, u.disk, u.mbps,
    (extract(epoch FROM now() - n.seen_at) * 1000)::bigint AS silent_ms,
    (SELECT COALESCE(jsonb_agg(jsonb_build_array(d.id, d.chip, d.vendor, d.memory_bytes,
        d.emulated, d.clean, COALESCE(h.lease_id, ''), d.island, d.ailment, d.facts)
        ORDER BY length(d.id), d.id), '[]')
        FROM device d
        LEFT JOIN lease_device h ON h.node_id = d.node_id AND h.device_id = d.id AND NOT h.closed
        WHERE d.node_id = n.id AND d.present) AS devices
FROM node n
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(cpu_milli), 0)::bigint AS cpu,
        COALESCE(sum(memory_bytes), 0)::bigint AS memory,
        COALESCE(sum(disk_bytes), 0)::bigint AS disk,
        COALESCE(sum(network_mbps), 0)::bigint AS mbps
    FROM lease WHERE node_id = n.id AND state <> 'CLOSED'
) u
"""
_HEARD = """
UPDATE node n SET spool_id = $2, boot_id = $3, seen_at = now(), state = 'READY'
FROM (SELECT * FROM node WHERE id = $1 AND revoked_at IS NULL FOR UPDATE) o
WHERE n.id = o.id RETURNING o.*
"""
_REPORT = """
UPDATE node SET inventory = $2, cpu_milli = $3, memory_bytes = $4, disk_bytes = $5, emulated = $6
WHERE id = $1 AND revoked_at IS NULL RETURNING site
"""
_REPORT_DEVICE = """
INSERT INTO device (node_id, id, chip, vendor, memory_bytes, emulated, clean, island,
    ailment, facts)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (node_id, id) DO UPDATE SET chip = EXCLUDED.chip, vendor = EXCLUDED.vendor,
    island = EXCLUDED.island, ailment = EXCLUDED.ailment, facts = EXCLUDED.facts,
    memory_bytes = EXCLUDED.memory_bytes, emulated = EXCLUDED.emulated, clean = EXCLUDED.clean,
    present = true
"""
_SEEN_DEVICES = """
UPDATE device d SET clean = s.clean FROM unnest($2::text[], $3::boolean[]) AS s (id, clean)
WHERE d.node_id = $1 AND d.id = s.id AND d.clean <> s.clean
"""
_SILENCES = """
SELECT id, state, COALESCE(extract(epoch FROM now() - seen_at) * 1000, 0)::bigint AS silent_ms
FROM node WHERE state <> 'JOINING' AND ($2 = '' OR id = $2)
    AND ($1 <= 0 OR seen_at <= now() - $1 * interval '1 ms')
"""
_CORDON = """
UPDATE node SET cordoned = $2, draining = draining AND $2, cordon_note = $3,
    cordoned_until = CASE WHEN $4 > 0 THEN now() + $4 * interval '1 ms' END
WHERE id = $1
"""
_CORDONS_OVER = "SELECT id FROM node WHERE cordoned_until <= now() ORDER BY id"
_ENROL = """
INSERT INTO node (id, site, public_key) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET public_key = EXCLUDED.public_key, revoked_at = NULL
"""


class PostgresNodes(PostgresFleet):
    """``ports.Nodes`` on one connection."""

    async def lock(self, node_ids: Iterable[str]) -> None:
        await self._connection.execute(
            "SELECT 1 FROM node WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE", list(node_ids)
        )

    async def detail(self, node_id: str) -> NodeDetail | None:
        row = await self._connection.fetchrow(_DETAIL + "WHERE n.id = $1", node_id)
        return None if row is None else _detail(row)

    async def chips(self) -> dict[str, frozenset[str]]:
        rows = await self._connection.fetch(
            "SELECT node_id, array_agg(DISTINCT chip) AS chips FROM device WHERE present "
            "GROUP BY node_id"
        )
        return {row["node_id"]: frozenset(row["chips"]) for row in rows}

    async def page(self, *, limit: int, after: str) -> list[NodeDetail]:
        where = "WHERE n.id > $1 ORDER BY n.id LIMIT $2"
        return [_detail(row) for row in await self._connection.fetch(_DETAIL + where, after, limit)]

    async def heard(self, node_id: str, spool_id: str, boot_id: str) -> NodeRow | None:
        row = await self._connection.fetchrow(_HEARD, node_id, spool_id, boot_id)
        return None if row is None else _row(row)

    async def devices_seen(self, node_id: str, clean: dict[str, bool]) -> None:
        if clean:
            await self._connection.execute(
                _SEEN_DEVICES, node_id, list(clean), list(clean.values())
            )

    async def report(self, node_id: str, inventory: InventoryReport) -> str | None:
        site: str | None = await self._connection.fetchval(
            _REPORT,
            node_id,
            inventory.facts,
            inventory.cpu_milli,
            inventory.memory_bytes,
            inventory.disk_bytes,
            inventory.emulated,
        )
        if site is None:
            return None
        await self._connection.execute(
            "UPDATE device SET present = false WHERE node_id = $1 AND id <> ALL($2::text[])",
            node_id,
            [device.device_id for device in inventory.devices],
        )
        await self._connection.executemany(
            _REPORT_DEVICE,
            [
                (
                    node_id,
                    x.device_id,
                    x.chip,
                    x.vendor,
                    x.memory_bytes,
                    x.emulated,
                    x.clean,
                    x.island,
                    x.ailment,
                    x.facts,
                )
                for x in inventory.devices
            ],
        )
        return site

    async def silences(self, least_ms: int, node_id: str = "") -> list[Silence]:
        rows = await self._connection.fetch(_SILENCES, least_ms, node_id)
        return [Silence(row["id"], row["state"], max(0, row["silent_ms"])) for row in rows]

    async def disconnect(self, node_id: str) -> None:
        await self._connection.execute(
            "UPDATE node SET state = 'DISCONNECTED' WHERE id = $1 AND state = 'READY'", node_id
        )

    async def cordon(self, node_id: str, *, cordoned: bool, note: str, for_ms: int) -> None:
        await self._connection.execute(_CORDON, node_id, cordoned, note, for_ms)

    async def cordons_over(self) -> list[str]:
        rows = await self._connection.fetch(_CORDONS_OVER)
        return [row["id"] for row in rows]

    async def drain(self, node_id: str) -> None:
        await self._connection.execute(
            "UPDATE node SET cordoned = true, draining = true WHERE id = $1", node_id
        )

    async def stand(self, node_id: str, rack: str, rail: str) -> None:
        await self._connection.execute(
            "UPDATE node SET rack = $2, rail = $3 WHERE id = $1", node_id, rack, rail
        )

    async def revoke(self, node_id: str) -> None:
        await self._connection.execute(
            "UPDATE node SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL", node_id
        )

    async def add_token(self, hash_: bytes, node_id: str, site: str, ttl_ms: int) -> None:
        await self._connection.execute(
            "INSERT INTO site (id) VALUES ($1) ON CONFLICT DO NOTHING", site
        )
        await self._connection.execute(
            "INSERT INTO node_token (hash, node_id, site, expires_at) "
            "VALUES ($1, $2, $3, now() + $4 * interval '1 ms')",
            hash_,
            node_id,
            site,
            ttl_ms,
        )

    async def token(self, hash_: bytes) -> TokenRow | None:
        row = await self._connection.fetchrow(
            "SELECT *, expires_at < now() AS expired FROM node_token WHERE hash = $1 FOR UPDATE",
            hash_,
        )
        if row is None:
            return None
        return TokenRow(row["node_id"], row["site"], row["expired"], row["used_key"])

    async def enrol(self, hash_: bytes, token: TokenRow, public_key: str) -> None:
        await self._connection.execute(_ENROL, token.node_id, token.site, public_key)
        await self._connection.execute(
            "UPDATE node_token SET used_key = $2 WHERE hash = $1", hash_, public_key
        )


def _row(row: asyncpg.Record) -> NodeRow:
    return NodeRow(
        node_id=row["id"],
        site=row["site"],
        public_key=row["public_key"],
        state=row["state"],
        cordoned=row["cordoned"],
        generation=row["generation"],
        spool_id=row["spool_id"],
        inventory=row["inventory"],
        seen_at=row["seen_at"],
        created_at=row["created_at"],
        revoked=row["revoked_at"] is not None,
        draining=row["draining"],
        silent_ms=max(0, row.get("silent_ms") or 0),
        rack=row["rack"],
        rail=row["rail"],
        cordon_note=row["cordon_note"],
        cordoned_until=row["cordoned_until"],
    )


def _detail(row: asyncpg.Record) -> NodeDetail:
    return NodeDetail(
        row=_row(row),
        devices=tuple(DeviceRow(*each) for each in row["devices"]),
        used_cpu_milli=row["cpu"],
        used_memory_bytes=row["memory"],
        used_disk_bytes=row["disk"],
        promised_mbps=row["mbps"],
    )
