"""The feed of events in PostgreSQL; each event also goes to the outbox, in the same transaction."""

from __future__ import annotations

import datetime

from gridlease.type.v1 import fleet_pb2
from gridlease_store import outbox
from gridlease_store.pool import Connection

from gridlease_scheduler.ports import Event, EventQuery

from . import jsonb

_INSERT = """
INSERT INTO event (type, entity, project, reason, facts) VALUES ($1, $2, $3, $4, $5)
RETURNING sequence, created_at
"""
# Rows of transactions older than every open one: none with a lower number can appear any more.
_AFTER = """
SELECT * FROM event WHERE sequence > $1 AND xact < pg_snapshot_xmin(pg_current_snapshot())
    AND ($2 = '' OR project = $2) AND ($3 = '' OR entity = $3)
ORDER BY sequence LIMIT $4
"""


class PostgresEvents:
    """``ports.Events`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tell(self, event: Event) -> None:
        why = jsonb.dump(event.reason)
        row = await self._connection.fetchrow(
            _INSERT, event.type, event.entity, event.project, why, event.facts
        )
        assert row is not None
        message = _encode(event, row["sequence"], row["created_at"])
        await outbox.emit(self._connection, f"events.{event.type}", message.SerializeToString())

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


def _encode(event: Event, sequence: int, time: datetime.datetime) -> fleet_pb2.Event:
    message = fleet_pb2.Event(
        sequence=sequence,
        type=event.type,
        entity=event.entity,
        project=event.project,
        facts=event.facts,
    )
    message.time.FromDatetime(time)
    message.reason.code = event.reason.code
    message.reason.message = event.reason.message
    message.reason.hint = event.reason.hint
    message.reason.evidence.update(event.reason.evidence)
    return message
