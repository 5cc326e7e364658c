"""Nodes as a plan sees them, in PostgreSQL: all of them once, then those that changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg
from gridlease.scheduler.v1 import sync_pb2
from gridlease_mesh import trace
from gridlease_store.pool import Connection

from gridlease_scheduler.domain.node import THREADS_UNKNOWN, Device, Node
from gridlease_scheduler.ports import FleetChanges, Instant

_VIEWS = """
WITH d AS (
    SELECT node_id, array_agg(id) AS ids, array_agg(chip) AS chips, array_agg(vendor) AS vendors,
        array_agg(memory_bytes) AS memories, array_agg(clean AND ailment = '') AS cleans,
        array_agg(emulated) AS emulateds, array_agg(island) AS islands,
        array_agg(ailment <> '' AND NOT EXISTS (SELECT FROM lease_device b
            WHERE b.node_id = each.node_id AND b.device_id = each.id AND NOT b.closed)) AS ailings
    FROM (SELECT * FROM device WHERE present
        AND ($1::text[] IS NULL OR node_id = ANY($1::text[])) ORDER BY node_id, id) AS each
    GROUP BY node_id
), l AS (
    SELECT node_id, sum(cpu_milli)::bigint AS cpu, sum(memory_bytes)::bigint AS memory,
        sum(disk_bytes)::bigint AS disk, sum(network_mbps)::bigint AS mbps
    FROM lease WHERE state <> 'CLOSED'
        AND ($1::text[] IS NULL OR node_id = ANY($1::text[]))
    GROUP BY node_id
), h AS (
    SELECT node_id, array_agg(device_id) AS held FROM lease_device WHERE NOT closed
        AND ($1::text[] IS NULL OR node_id = ANY($1::text[]))
    GROUP BY node_id
)
SELECT n.id, n.site, n.rack, n.rail, (n.inventory - 'hostname')::text AS facts, n.cpu_milli,
    n.memory_bytes, n.disk_bytes, n.emulated,
    n.cordoned OR COALESCE(n.inventory ->> 'ailment', '') <> '' AS cordoned,
    n.changed::text::bigint AS changed,
    COALESCE(n.seen_at > now() - $2 * interval '1 ms', false) AS connected,
    d.ids, d.chips, d.vendors, d.memories, d.cleans, d.emulateds, d.islands, d.ailings,
    COALESCE(l.cpu, 0) AS cpu, COALESCE(l.memory, 0) AS memory, COALESCE(l.disk, 0) AS disk,
    COALESCE(l.mbps, 0) AS mbps, h.held
FROM node n LEFT JOIN d ON d.node_id = n.id LEFT JOIN l ON l.node_id = n.id
LEFT JOIN h ON h.node_id = n.id
WHERE n.inventory IS NOT NULL AND n.revoked_at IS NULL
    AND ($1::text[] IS NULL OR n.id = ANY($1::text[]))
ORDER BY n.id
"""
_NOW = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS transaction,
    (extract(epoch FROM now()) * 1000)::bigint AS ms,
    EXISTS (SELECT FROM quota) OR EXISTS (SELECT FROM reservation
        WHERE cancelled_at IS NULL AND ends_at > now())
        OR EXISTS (SELECT FROM site WHERE cap_watts > 0 OR rack_cap_watts <> '{}'
            OR price_nano_per_kwh <> '{}' OR carbon_mg_per_kwh <> '{}') AS governed,
    EXISTS (SELECT FROM link) AS linked
"""
_CHANGED = "SELECT id, changed::text::bigint AS changed FROM node WHERE changed >= $1::text::xid8"
_HOLD = """
SELECT id, changed::text::bigint AS changed FROM node
WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""
_BUMP = """
UPDATE node SET generation = generation + 1, changed = pg_current_xact_id()
WHERE id = ANY($1::text[]) RETURNING id, generation, changed::text::bigint AS changed
"""
_HINT = """
WITH hints AS (
    INSERT INTO outbox (subject, payload, headers)
    SELECT subject, payload, $3 FROM unnest($1::text[], $2::bytea[]) AS n (subject, payload)
)
SELECT pg_notify('outbox_' || current_schema(), '')
"""


class PostgresFleet:
    """The part of ``ports.Nodes`` that a plan needs, on one connection."""

    def __init__(self, connection: Connection, disconnected_ms: int) -> None:
        self._connection = connection
        self._disconnected_ms = disconnected_ms

    async def views(self, node_ids: Iterable[str] | None = None) -> list[Node]:
        return [node for node, _ in await self._views(node_ids)]

    async def now(self) -> Instant:
        row = await self._connection.fetchrow(_NOW)
        assert row is not None
        return Instant(row["transaction"], row["ms"], row["governed"], row["linked"])

    async def fleet(self) -> FleetChanges:
        return _changes(await self._views(None), ())

    async def fleet_changes(self, since: int, known: dict[str, int]) -> FleetChanges:
        rows = await self._connection.fetch(_CHANGED, str(since))
        ids = [row["id"] for row in rows if known.get(row["id"]) != row["changed"]]
        if not ids:
            return FleetChanges((), (), {})
        return _changes(await self._views(ids), ids)

    async def hold(self, node_ids: Iterable[str]) -> dict[str, int]:
        rows = await self._connection.fetch(_HOLD, list(node_ids))
        return {row["id"]: row["changed"] for row in rows}

    async def bump(self, node_ids: Iterable[str]) -> dict[str, int]:
        ids = list(node_ids)
        if not ids:
            return {}
        rows = await self._connection.fetch(_BUMP, ids)
        subjects = [f"hint.{row['id']}" for row in rows]
        hints = [
            sync_pb2.NodeHint(generation=row["generation"]).SerializeToString() for row in rows
        ]
        await self._connection.execute(_HINT, subjects, hints, dict(trace.outgoing()))
        return {row["id"]: row["changed"] for row in rows}

    async def _views(self, node_ids: Iterable[str] | None) -> list[tuple[Node, int]]:
        ids = None if node_ids is None else list(node_ids)
        rows = await self._connection.fetch(_VIEWS, ids, self._disconnected_ms)
        facts: dict[str, dict[str, Any]] = {}
        devices: dict[tuple[object, ...], Device] = {}
        return [(_view(row, facts, devices), row["changed"]) for row in rows]


def _changes(found: Sequence[tuple[Node, int]], asked: Sequence[str]) -> FleetChanges:
    there = {node.node_id for node, _ in found}
    return FleetChanges(
        tuple(node for node, _ in found),
        tuple(node_id for node_id in asked if node_id not in there),
        {node.node_id: changed for node, changed in found},
    )


def _view(
    row: asyncpg.Record,
    parsed: dict[str, dict[str, Any]],
    known: dict[tuple[object, ...], Device],
) -> Node:
    facts = parsed.get(row["facts"])
    if facts is None:
        facts = parsed[row["facts"]] = json.loads(row["facts"])
    return Node(
        node_id=row["id"],
        site=row["site"],
        cpu_chip=facts.get("cpuChip", ""),
        cpu_milli=row["cpu_milli"],
        memory_bytes=row["memory_bytes"],
        disk_bytes=row["disk_bytes"],
        devices=_devices(row, known, ailing=False),
        ailing=_devices(row, known, ailing=True),
        runtimes=frozenset(facts.get("runtimes", ())),
        images=frozenset(facts.get("images", ())),
        connected=row["connected"],
        cordoned=row["cordoned"],
        emulated=row["emulated"],
        used_cpu_milli=row["cpu"],
        used_memory_bytes=row["memory"],
        used_disk_bytes=row["disk"],
        held=frozenset(row["held"] or ()),
        rack=row["rack"] or facts.get("rack", ""),
        rail=row["rail"] or facts.get("rail", ""),
        drivers=tuple(sorted(facts.get("drivers", {}).items())),
        architecture=facts.get("architecture", ""),
        rdma=facts.get("rdma", ""),
        link_mbps=int(facts.get("uplinkMbps", 0)),
        threads_per_core=int(facts.get("threadsPerCore", 0)) or THREADS_UNKNOWN,
        reserved_mbps=row["mbps"],
    )


def _devices(
    row: asyncpg.Record, known: dict[tuple[object, ...], Device], *, ailing: bool
) -> tuple[Device, ...]:
    """Those that ail and that no lease holds, or all others."""
    if row["ids"] is None:
        return ()
    found = []
    for ails, *facts in zip(
        row["ailings"], row["ids"], row["chips"], row["vendors"], row["memories"], row["cleans"],
        row["emulateds"], row["islands"], strict=True,
    ):  # fmt: skip
        if ails is not ailing:
            continue
        each = tuple(facts)
        device = known.get(each)
        if device is None:
            device = known[each] = Device(*each)
        found.append(device)
    return tuple(found)
