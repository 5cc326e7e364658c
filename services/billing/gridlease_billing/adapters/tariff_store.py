"""Prices beyond run time, and what energy is at a site, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.contract_ports import NewTariff, Told
from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.meter_price import LEAST_METER, Entry, Priced
from gridlease_billing.domain.rating import Step, Tariff

_ENTRIES = "SELECT * FROM tariff ORDER BY version"
_FIND = "SELECT * FROM tariff WHERE request_id = $1"
_INSERT = """
INSERT INTO tariff (meter, site, above, price_nano, per, minimum_nano, pass_through, effective_ms,
    recorded_ms, request_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_ADD = """
INSERT INTO meter_total (tenant, meter, tariff, month, quantity) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, meter, tariff, month)
DO UPDATE SET quantity = meter_total.quantity + excluded.quantity
RETURNING quantity - $5 AS before
"""
_WRITE = """
INSERT INTO line (recorded_ms, lease, segment, meter, tenant, project, job, node, site, chip, tier,
    quantity_milli, rate_nano_per_hour, price_version, starts_ms, ends_ms, counter, granted,
    charged, amount_nano, currency, month, month_before)
SELECT $1, l.id, t.segment, t.meter, l.tenant, l.project, l.job, l.node, l.site, l.chip, l.tier,
    l.quantity_milli, 0, t.version, s.starts_ms, s.ends_ms, t.count, t.count, t.count, t.amount,
    'USD', nullif(t.month, 0), t.before
FROM unnest($2::text[], $3::int[], $4::text[], $5::int8[], $6::int8[], $7::int8[],
    $8::int[], $9::int8[])
    AS t (lease, segment, meter, version, count, amount, month, before)
JOIN lease AS l ON l.id = t.lease JOIN segment AS s ON s.lease = l.id AND s.number = t.segment
"""
_TOLD = """
SELECT segment, meter, sum(charged)::int8 AS charged, min(price_version) AS version,
    coalesce(min(cites_ms), min(recorded_ms)) AS recorded_ms
FROM line WHERE lease = $1 GROUP BY segment, meter
"""
# A meter that was told of too late only has no line of its own: its segment's run time is cited.
_CORRECT = """
INSERT INTO line (recorded_ms, lease, segment, meter, class, cites_ms, tenant, project, job, node,
    site, chip, tier, quantity_milli, rate_nano_per_hour, price_version, starts_ms, ends_ms,
    counter, granted, charged, amount_nano, currency, month, month_before)
SELECT $1, o.lease, o.segment, t.meter, 'correction', o.recorded_ms, o.tenant, o.project, o.job,
    o.node, o.site, o.chip, o.tier, o.quantity_milli, 0, t.version, o.starts_ms, o.ends_ms,
    o.count + t.count, o.count + t.count, t.count, t.amount, o.currency,
    nullif(t.month, 0), t.before
FROM unnest($2::text[], $3::int[], $4::text[], $5::int8[], $6::int8[], $7::int8[],
    $8::int[], $9::int8[])
    AS t (lease, segment, meter, version, count, amount, month, before)
CROSS JOIN LATERAL (SELECT l.*, (SELECT coalesce(sum(b.charged), 0)::int8 FROM line AS b
        WHERE b.lease = t.lease AND b.segment = t.segment AND b.meter = t.meter) AS count
    FROM line AS l WHERE l.lease = t.lease AND l.segment = t.segment
        AND l.meter IN (t.meter, 'run') AND l.class = 'usage'
    ORDER BY l.meter = 'run' LIMIT 1) AS o
"""
_LEAST = """
SELECT segment, price_version, sum(charged)::int8 AS charged, sum(amount_nano)::int8 AS amount
FROM line WHERE lease = $1 AND meter = $2 GROUP BY segment, price_version
"""
_POWER = "SELECT p.* FROM lease AS l JOIN site_power AS p ON p.id = l.power WHERE l.id = $1"


class PostgresTariffs:
    """The tables of tariffs, totals and power, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def entries(self) -> list[Entry]:
        return [_entry(it) for it in await self._db.fetch(_ENTRIES)]

    async def find(self, request_id: str) -> Entry | None:
        found = await self._db.fetchrow(_FIND, request_id)
        return None if found is None else _entry(found)

    async def insert(self, new: NewTariff, now_ms: int) -> None:
        steps = new.tariff.steps
        await self._db.execute(
            _INSERT, new.meter, new.site, [it.above for it in steps],
            [it.price_nano for it in steps], new.tariff.per, new.tariff.minimum_nano,
            new.pass_through, now_ms if new.effective_ms is None else new.effective_ms, now_ms,
            new.request_id,
        )  # fmt: skip

    async def add(self, tenant: str, entry: Entry, month: int, count: int) -> int:
        found = await self._db.fetchval(_ADD, tenant, entry.meter, entry.version, month, count)
        return int(found)

    async def write(self, priced: Sequence[Priced], now_ms: int) -> None:
        if priced:
            await self._db.execute(_WRITE, now_ms, *_columns(priced))

    async def told(self, lease: str) -> dict[tuple[int, str], Told]:
        return {
            (it["segment"], it["meter"]): Told(it["charged"], it["version"], it["recorded_ms"])
            for it in await self._db.fetch(_TOLD, lease)
        }

    async def correct(self, priced: Sequence[Priced], now_ms: int) -> None:
        await self._db.execute(_CORRECT, now_ms, *_columns(priced))

    async def least(self, lease: str) -> Priced | None:
        found = await self._db.fetchrow(_LEAST, lease, LEAST_METER)
        if found is None:
            return None
        version, count = found["price_version"], found["charged"]
        return Priced(lease, found["segment"], LEAST_METER, version, count, found["amount"], 0, 0)

    async def power(self, lease: str) -> SitePower | None:
        found = await self._db.fetchrow(_POWER, lease)
        return None if found is None else _site_power(found)


def _columns(priced: Sequence[Priced]) -> list[list[object]]:
    rows = [
        (
            it.lease, it.segment, it.meter, it.version, it.count, it.amount_nano, it.month,
            it.before,
        )
        for it in priced
    ]  # fmt: skip
    return list(map(list, zip(*rows, strict=True)))


def _entry(it: asyncpg.Record) -> Entry:
    steps = tuple(Step(*each) for each in zip(it["above"], it["price_nano"], strict=True))
    return Entry(
        it["version"],
        it["meter"],
        it["site"],
        Tariff(steps, it["per"], it["minimum_nano"]),
        it["pass_through"],
        it["effective_ms"],
        it["recorded_ms"],
    )


def _site_power(it: asyncpg.Record) -> SitePower | None:
    if it["pue_milli"] is None:
        return None
    return SitePower(
        it["pue_milli"], tuple(it["carbon_mg_per_kwh"]), tuple(it["price_nano_per_kwh"])
    )
