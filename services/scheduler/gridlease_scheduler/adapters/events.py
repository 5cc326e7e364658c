"""The events in PostgreSQL, and how the mesh's event feed reads them: the table is its outbox."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

import asyncpg
from gridlease.type.v1 import fleet_pb2
from gridlease_mesh import trace
from gridlease_mesh.feed import Told
from gridlease_store.pool import Connection, Pool, transaction

from gridlease_scheduler.ports import Event, EventQuery

from . import jsonb

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_INSERT = """
INSERT INTO event (type, entity, project, reason, facts, headers) VALUES ($1, $2, $3, $4, $5, $6)
"""
_INSERT_ALL = """
INSERT INTO event (type, entity, project, reason, facts, headers)
SELECT type, entity, project, reason::jsonb, facts::jsonb, headers::jsonb
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
    AS n (type, entity, project, reason, facts, headers)
"""
# Rows of transactions older than every open one: none with a lower number can appear any more.
_AFTER = """
SELECT * FROM event WHERE sequence > $1 AND xact < pg_snapshot_xmin(pg_current_snapshot())
    AND ($2 = '' OR project = $2) AND ($3 = '' OR entity = $3)
ORDER BY sequence LIMIT $4
"""
# The later of two bounds: by age, and by count (sequences have gaps, so it may keep fewer).
_START = """
SELECT greatest(
    (SELECT COALESCE(max(sequence), 0) FROM event
        WHERE created_at < now() - make_interval(secs => $1)),
    (SELECT COALESCE(max(sequence), 0) - $2 FROM event), 0)
"""
_KNOWS = """
SELECT count(*) FROM event WHERE sequence = $1
    AND (extract(epoch FROM created_at) * 1000000)::bigint = $2
"""


class PostgresEvents:
    """``ports.Events`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tell(self, event: Event) -> None:
        why = jsonb.dump(event.reason)
        await self._connection.execute(
            _INSERT,
            event.type,
            event.entity,
            event.project,
            why,
            event.facts,
            dict(trace.outgoing()),
        )

    async def tell_all(self, events: Sequence[Event], traces: Sequence[str] = ()) -> None:
        if not events:
            return
        own = json.dumps(dict(trace.outgoing()))
        headers = [json.dumps({"traceparent": x}) if x else "{}" for x in traces]
        rows = [
            (
                event.type,
                event.entity,
                event.project,
                jsonb.reason_text(event.reason),
                json.dumps(event.facts),
                header,
            )
            for event, header in zip(events, headers or [own] * len(events), strict=True)
        ]
        await self._connection.execute(_INSERT_ALL, *map(list, zip(*rows, strict=True)))

    async def after(self, query: EventQuery) -> list[Event]:
        rows = await self._connection.fetch(
            _AFTER, query.after, query.project, query.entity, query.limit
        )
        return [
            Event(
                type=row["type"],
                entity=row["entity"],
                project=row["project"],
                reason=jsonb.reason(row["reason"]),
                facts=row["facts"],
                sequence=row["sequence"],
                time=row["created_at"],
            )
            for row in rows
        ]


class PostgresHistory:
    """``gridlease_mesh.feed.History`` on a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def after(self, sequence: int, limit: int) -> Sequence[Told]:
        async with transaction(self._pool, readonly=True) as connection:
            rows = await connection.fetch(_AFTER, sequence, "", "", limit)
        return [_told(row) for row in rows]

    async def start(self, keep_s: int, keep_messages: int) -> int:
        async with transaction(self._pool, readonly=True) as connection:
            found = await connection.fetchval(_START, float(keep_s), keep_messages)
        return int(found)

    async def knows(self, sequence: int, created_us: int) -> bool:
        async with transaction(self._pool, readonly=True) as connection:
            return bool(await connection.fetchval(_KNOWS, sequence, created_us))


def _told(row: asyncpg.Record) -> Told:
    return Told(
        sequence=row["sequence"],
        created_us=(row["created_at"] - _EPOCH) // datetime.timedelta(microseconds=1),
        topic=row["type"],
        entity=row["entity"],
        payload=_encode(row).SerializeToString(),
        headers=row["headers"],
    )


def _encode(row: asyncpg.Record) -> fleet_pb2.Event:
    facts: dict[str, Any] = row["facts"]
    reason = jsonb.reason(row["reason"])
    message = fleet_pb2.Event(
        sequence=row["sequence"],
        type=row["type"],
        entity=row["entity"],
        project=row["project"],
        facts=facts,
    )
    message.time.FromDatetime(row["created_at"])
    message.reason.code = reason.code
    message.reason.message = reason.message
    message.reason.hint = reason.hint
    message.reason.evidence.update(reason.evidence)
    return message
