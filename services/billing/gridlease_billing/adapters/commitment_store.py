"""Capacity bought ahead, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.contract_ports import Bought, Covered, Hour, Known, Using
from gridlease_billing.domain.commitment import HOUR_MS, Commitment, Use

_KNOWN = """
SELECT c.*, h.hours, h.size, h.used, h.fee, h.cover
FROM commitment AS c, LATERAL (
    SELECT count(*) AS hours, coalesce(sum(size_milli_ns), 0) AS size,
        coalesce(sum(used_milli_ns), 0) AS used, coalesce(sum(fee_nano), 0)::int8 AS fee,
        coalesce(sum(cover_nano), 0)::int8 AS cover
    FROM commitment_hour WHERE commitment = c.id) AS h
WHERE c.tenant = $1 AND ($2 = '' OR c.request_id = $2) ORDER BY c.recorded_ms DESC, c.id DESC
LIMIT 1000
"""
_INSERT = """
INSERT INTO commitment (id, tenant, project, chip, site, quantity_milli, starts_ms, ends_ms,
    rate_nano_per_hour, price_version, recorded_ms, request_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
# Hours are billed in their order, so the next of each commitment is known by how many there are.
_DUE = """
SELECT DISTINCT c.tenant, c.starts_ms + h.hours * 3600000::int8 AS hour_ms
FROM commitment AS c, LATERAL (
    SELECT count(*) AS hours FROM commitment_hour WHERE commitment = c.id) AS h
WHERE c.starts_ms + h.hours * 3600000::int8 <= $1
    AND c.starts_ms + h.hours * 3600000::int8 < c.ends_ms
ORDER BY hour_ms, c.tenant LIMIT $2
"""
_RUNNING = """
SELECT * FROM commitment AS c WHERE tenant = $1 AND starts_ms <= $2 AND ends_ms > $2
    AND NOT EXISTS (SELECT FROM commitment_hour WHERE commitment = c.id AND hour_ms = $2)
"""
# What a priority adds is not covered, and what it takes off was never charged.
_USES = """
SELECT l.id AS lease, s.number, l.tenant, l.chip, l.site, l.quantity_milli, s.starts_ms,
    s.rate_nano_per_hour - greatest(s.surcharge_nano_per_hour, 0) AS rate_nano_per_hour,
    least(m.run, (s.ends_ms - s.starts_ms) * 1000000, coalesce(s.frozen_ns, m.run)) AS span_ns,
    coalesce((SELECT sum(d.milli_ns) FROM commitment_draw AS d
        WHERE d.lease = l.id AND d.segment = s.number), 0)::int8 AS before_milli_ns
FROM lease AS l JOIN segment AS s ON s.lease = l.id
JOIN meter AS m ON m.lease = s.lease AND m.segment = s.number
WHERE l.tenant = $1 AND l.tier IN ('RESERVED', 'ON_DEMAND') AND s.starts_ms < $2::int8 + 3600000
    AND s.ends_ms > $2 AND l.opened_ms < $2::int8 + 3600000 AND m.run > 0
"""
_HOUR = "INSERT INTO commitment_hour VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
_DRAWS = """
INSERT INTO commitment_draw (commitment, hour_ms, tenant, lease, segment, milli_ns, cover_nano)
SELECT $1, $2, $3, * FROM unnest($4::text[], $5::int[], $6::int8[], $7::int8[])
"""


class PostgresCommitments:
    """The tables of commitments, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def find(self, tenant: str, request_id: str) -> Known | None:
        found = await self._db.fetch(_KNOWN, tenant, request_id)
        return _known(found[0]) if found else None

    async def known(self, tenant: str) -> list[Known]:
        return [_known(it) for it in await self._db.fetch(_KNOWN, tenant, "")]

    async def insert(self, bought: Bought, price_version: int, now_ms: int) -> None:
        pot = bought.pot
        await self._db.execute(
            _INSERT, pot.id, pot.tenant, bought.project, pot.chip, pot.site, pot.quantity_milli,
            pot.starts_ms, pot.ends_ms, pot.rate_nano_per_hour, price_version, now_ms,
            bought.request_id,
        )  # fmt: skip

    async def due(self, until_ms: int, limit: int) -> list[tuple[str, int]]:
        found = await self._db.fetch(_DUE, until_ms, limit)
        return [(it["tenant"], it["hour_ms"]) for it in found]

    async def running(self, tenant: str, hour_ms: int) -> list[Commitment]:
        return [_pot(it) for it in await self._db.fetch(_RUNNING, tenant, hour_ms)]

    async def uses(self, tenant: str, hour_ms: int) -> list[Using]:
        assert hour_ms % HOUR_MS == 0, hour_ms
        return [
            Using(
                Use(
                    it["lease"],
                    it["number"],
                    it["tenant"],
                    it["chip"],
                    it["site"],
                    it["quantity_milli"],
                    it["starts_ms"],
                    it["span_ns"],
                ),
                it["rate_nano_per_hour"],
                it["before_milli_ns"],
            )
            for it in await self._db.fetch(_USES, tenant, hour_ms)
        ]

    async def write(self, hour: Hour, covered: Sequence[Covered], now_ms: int) -> None:
        pot = hour.pot
        await self._db.execute(
            _HOUR, pot.commitment, pot.hour_ms, hour.tenant, pot.size_milli_ns, pot.used_milli_ns,
            hour.fee_nano, hour.cover_nano, now_ms,
        )  # fmt: skip
        rows = [
            (it.drawn.lease, it.drawn.segment, it.drawn.milli_ns, it.cover_nano) for it in covered
        ]
        if rows:
            columns = map(list, zip(*rows, strict=True))
            await self._db.execute(_DRAWS, pot.commitment, pot.hour_ms, hour.tenant, *columns)


def _pot(it: asyncpg.Record) -> Commitment:
    return Commitment(
        it["id"],
        it["tenant"],
        it["chip"],
        it["quantity_milli"],
        it["starts_ms"],
        it["ends_ms"],
        it["rate_nano_per_hour"],
        it["site"],
    )


def _known(it: asyncpg.Record) -> Known:
    return Known(
        Bought(_pot(it), it["project"], it["request_id"]),
        it["recorded_ms"],
        it["hours"],
        int(it["size"]),
        int(it["used"]),
        it["fee"],
        it["cover"],
    )
