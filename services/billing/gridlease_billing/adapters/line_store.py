# ruff: noqa: S608 - statements are made of constants of this file
"""What invoices are made of: lines, corrections and credits of the books that no invoice has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.late import Correction, Written
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.domain.segment import RUN_METER
from gridlease_billing.domain.tariff_line import by_tariff
from gridlease_billing.domain.usage import Line, parted
from gridlease_billing.ports import Scope

_COLUMNS = """
line.lease, line.segment, line.meter, line.class, line.recorded_ms, line.job, line.node, line.site,
line.chip, line.tier, line.quantity_milli, line.rate_nano_per_hour, line.price_version,
line.starts_ms, line.ends_ms, line.counter, line.granted, line.charged, line.amount_nano,
line.currency, line.surcharge_nano_per_hour, line.priority_version, line.month, line.month_before,
tariff.above, tariff.price_nano, tariff.per, tariff.minimum_nano
"""
_TARIFF = """
LEFT JOIN tariff ON tariff.version = line.price_version AND tariff.meter = line.meter
    AND NOT tariff.pass_through AND line.month_before IS NOT NULL
"""
_USAGE = f"""
SELECT {_COLUMNS}, lease.opened_ms, 0::int8 AS before, '' AS cites, '' AS note
FROM line JOIN lease ON lease.id = line.lease {_TARIFF}
WHERE line.lease = ANY($1) AND line.class = 'usage'
"""
# What was counted and costs nothing: told all the same, where the books have no line of it.
_COUNTED = """
SELECT m.lease, m.segment, c.meter, 'usage' AS class, 0::int8 AS recorded_ms, l.job, l.node, l.site,
    l.chip, l.tier, l.quantity_milli, 0::int8 AS rate_nano_per_hour, 0::int8 AS price_version,
    s.starts_ms, s.ends_ms, c.count AS counter, c.count AS granted, c.count AS charged,
    0::int8 AS amount_nano, 'USD' AS currency, l.opened_ms, 0::int8 AS before, '' AS cites,
    'not priced' AS note, 0::int8 AS surcharge_nano_per_hour, 0::int8 AS priority_version,
    NULL::int AS month, NULL::int8 AS month_before, NULL::int8[] AS above
FROM meter AS m JOIN lease AS l ON l.id = m.lease
JOIN segment AS s ON s.lease = m.lease AND s.number = m.segment
CROSS JOIN LATERAL (VALUES ('egress', m.egress), ('storage', m.storage), ('energy', m.energy),
    ('provision', m.provision)) AS c (meter, count)
WHERE m.lease = ANY($1) AND c.count > 0 AND NOT EXISTS (SELECT FROM line
    WHERE line.lease = m.lease AND line.segment = m.segment AND line.meter = c.meter)
"""
_LATE = f"""
SELECT {_COLUMNS}, lease.opened_ms, 'late usage' AS note,
    coalesce((SELECT sum(b.charged) FROM line AS b WHERE b.lease = line.lease
        AND b.segment = line.segment AND b.meter = line.meter
        AND (b.class = 'usage' OR b.recorded_ms < line.recorded_ms)), 0)::int8 AS before,
    coalesce((SELECT concat(i.invoice, '#', i.position) FROM invoice_line AS i
        WHERE i.source = concat('line/', line.lease, '/', line.segment, '/', line.meter, '/usage')
    ), '') AS cites,
    coalesce((SELECT concat(i.invoice, '#', i.position) FROM invoice_line AS i
        WHERE i.source = concat('line/', line.lease, '/', line.segment, '/', line.meter,
            '/usage/priority')), '') AS cites_priority
FROM line JOIN lease ON lease.id = line.lease {_TARIFF}
WHERE line.class = 'correction' AND
"""
_CORRECTIONS = f"""{_LATE} line.tenant = $1 AND line.project = $2
    AND ($3 = '' OR line.job = $3) AND NOT EXISTS (SELECT FROM invoice_line AS i
        WHERE i.source = concat('line/', line.lease, '/', line.segment, '/', line.meter,
            '/correction/', line.recorded_ms))
"""
_CORRECTED = f"{_LATE} line.lease = ANY($1)"
_CREDITED = """
SELECT j.id, j.kind, j.recorded_ms, e.amount, l.id AS lease, l.job, l.node, l.site, l.chip, l.tier,
    l.quantity_milli, l.opened_ms
FROM journal AS j JOIN lease AS l ON l.id = j.cause
JOIN entry AS e ON e.journal = j.id AND e.recorded_ms = j.recorded_ms
JOIN account AS a ON a.id = e.account AND a.kind = 'tenant_prepaid'
WHERE j.kind IN ('reclaim_credit', 'sla_credit', 'availability_credit', 'promo_credit')
"""
# A promotion for no lease stands on the tenant's next invoice of any project.
_PROMOTED = """
SELECT j.id, j.kind, j.recorded_ms, e.amount, '' AS lease, '' AS job, '' AS node, '' AS site,
    '' AS chip, '' AS tier, 0::int8 AS quantity_milli, j.recorded_ms AS opened_ms
FROM journal AS j JOIN entry AS e ON e.journal = j.id AND e.recorded_ms = j.recorded_ms
JOIN account AS a ON a.id = e.account AND a.kind = 'tenant_prepaid'
WHERE j.kind = 'promo_credit' AND NOT EXISTS (SELECT FROM lease AS l WHERE l.id = j.cause)
"""
_PROMOTIONS = f"""{_PROMOTED} AND a.tenant = $1
    AND NOT EXISTS (SELECT FROM invoice_line AS i WHERE i.source = concat('journal/', j.id))
ORDER BY j.id
"""
_PROMOTIONS_OF = f"{_PROMOTED} AND j.id = ANY($1)"
_CREDITS = f"""{_CREDITED} AND l.state = 'FINAL'
    AND l.tenant = $1 AND l.project = $2 AND ($3 = '' OR l.job = $3)
    AND NOT EXISTS (SELECT FROM invoice_line AS i WHERE i.source = concat('journal/', j.id))
ORDER BY j.id
"""
_CREDITS_OF = f"{_CREDITED} AND j.id = ANY($1)"
# Hours of capacity bought ahead that no invoice carries: their fees, or what they covered.
_HOURS = """
SELECT c.*, min(h.hour_ms) AS first_ms, max(h.hour_ms) AS last_ms,
    sum(h.size_milli_ns)::numeric AS size, sum(h.used_milli_ns)::numeric AS used,
    sum(h.fee_nano)::int8 AS fee, sum(h.cover_nano)::int8 AS cover
FROM commitment AS c JOIN commitment_hour AS h ON h.commitment = c.id
WHERE c.tenant = $1 AND c.project = $2 AND h.hour_ms >= coalesce((
    SELECT max((i.line->>'ends_ms')::int8) FROM invoice_line AS i
    WHERE i.lease = c.id AND i.segment = 0 AND i.meter = $3), 0)
GROUP BY c.id ORDER BY c.id
"""
_WRITTEN = """
SELECT lease, segment, sum(charged)::int8 AS charged,
    min(recorded_ms) FILTER (WHERE class = 'usage') AS cites_ms
FROM line WHERE lease = ANY($1) AND meter = $2 GROUP BY lease, segment
"""
_WRITE = """
INSERT INTO line (recorded_ms, lease, segment, meter, class, cites_ms, tenant, project, job, node,
    site, chip, tier, quantity_milli, rate_nano_per_hour, price_version, starts_ms, ends_ms,
    counter, granted, charged, amount_nano, currency, surcharge_nano_per_hour, priority_version)
SELECT $1, o.lease, o.segment, o.meter, 'correction', o.recorded_ms, o.tenant, o.project, o.job,
    o.node, o.site, o.chip, o.tier, o.quantity_milli, o.rate_nano_per_hour, o.price_version,
    o.starts_ms, o.ends_ms, m.run, o.granted, t.charged, t.amount, o.currency,
    o.surcharge_nano_per_hour, o.priority_version
FROM unnest($4::int[], $5::int8[], $6::int8[]) AS t (segment, charged, amount)
JOIN line AS o ON o.lease = $2 AND o.segment = t.segment AND o.meter = $3 AND o.class = 'usage'
JOIN meter AS m ON m.lease = o.lease AND m.segment = o.segment
"""


_HOUR_MS = 3_600_000


class PostgresLines:
    """The table line, and the journals that stand for credits, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def usage(self, leases: Collection[str]) -> list[Line]:
        """All that final leases used."""
        ids = list(leases)
        found = await self._db.fetch(_USAGE, ids) + await self._db.fetch(_COUNTED, ids)
        return [line for it in found for line in _lines(it)]

    async def corrections(self, scope: Scope) -> list[Line]:
        """Those that no invoice carries; ``cites`` empty where none carries the original."""
        found = await self._db.fetch(_CORRECTIONS, scope.tenant, scope.project, scope.job)
        return [line for it in found for line in _lines(it)]

    async def credits(self, scope: Scope) -> list[Line]:
        """Credits to leases that no invoice carries, oldest first; amounts below zero."""
        found = await self._db.fetch(_CREDITS, scope.tenant, scope.project, scope.job)
        if not scope.job:
            found += await self._db.fetch(_PROMOTIONS, scope.tenant)
        return [_credit(it) for it in found]

    async def hours(self, scope: Scope) -> list[Line]:
        """What pots cost, used and unused, and below zero what usage they covered."""
        if scope.job:
            return []
        lines: list[Line] = []
        for it in await self._db.fetch(_HOURS, scope.tenant, scope.project, "commitment"):
            used, size = int(it["used"]), int(it["size"])
            used_nano = it["fee"] * used // size
            lines.append(_pot(it, "commitment", "used", used, used_nano))
            lines.append(_pot(it, "commitment", "unused", size - used, it["fee"] - used_nano))
        for it in await self._db.fetch(_HOURS, scope.tenant, scope.project, "cover"):
            if it["cover"]:
                used = int(it["used"])
                lines.append(_pot(it, "cover", "commitment_cover", used, -it["cover"]))
        return lines

    async def behind(self, sources: Collection[str]) -> list[Line]:
        """The lines that some rows of the books make, whatever invoice carries them."""
        kinds = [it.partition("/") for it in sources]
        leases = sorted({it.partition("/")[0] for kind, _, it in kinds if kind == "line"})
        journals = [int(it) for kind, _, it in kinds if kind == "journal"]
        rows = await self._db.fetch(_USAGE, leases) + await self._db.fetch(_CORRECTED, leases)
        found = [line for it in rows for line in _lines(it)]
        found += [_credit(it) for it in await self._db.fetch(_CREDITS_OF, journals)]
        found += [_credit(it) for it in await self._db.fetch(_PROMOTIONS_OF, journals)]
        return [it for it in found if it.source in sources]

    async def written(self, leases: Collection[str]) -> dict[str, dict[int, Written]]:
        """What the lines of leases say of run time, by segment."""
        result: dict[str, dict[int, Written]] = {}
        for it in await self._db.fetch(_WRITTEN, list(leases), RUN_METER):
            known = Written(it["charged"], it["cites_ms"])
            result.setdefault(it["lease"], {})[it["segment"]] = known
        return result

    async def correct(self, lease: str, found: Sequence[Correction], now_ms: int) -> None:
        """Writes corrections of a lease's lines."""
        rows = [(it.segment, it.charged_ns, it.amount_nano) for it in found]
        await self._db.execute(
            _WRITE, now_ms, lease, RUN_METER, *map(list, zip(*rows, strict=True))
        )


def _lines(it: asyncpg.Record) -> list[Line]:
    """A row of the books as it is shown: its base, and what the priority makes of it; or what its
    tariff's steps make of it, what was free, and the month's minimum."""
    if it["above"] is not None:
        steps = tuple(Step(*each) for each in zip(it["above"], it["price_nano"], strict=True))
        tariff = Tariff(steps, it["per"], it["minimum_nano"])
        return by_tariff(_line(it), tariff, it["month_before"])
    base, *priority = parted(_line(it), it["surcharge_nano_per_hour"], it["priority_version"])
    if it["class"] == "correction":
        priority = [replace(each, cites=it["cites_priority"]) for each in priority]
    return [base, *priority]


def _line(it: asyncpg.Record) -> Line:
    late = it["class"] == "correction"
    where = f"{it['lease']}/{it['segment']}/{it['meter']}"
    if not it["recorded_ms"]:
        source = f"meter/{where}"
    else:
        source = f"line/{where}/" + (f"correction/{it['recorded_ms']}" if late else "usage")
    return Line(
        lease=it["lease"],
        job=it["job"],
        node=it["node"],
        segment=it["segment"],
        meter=it["meter"],
        chip=it["chip"],
        tier=it["tier"],
        quantity_milli=it["quantity_milli"],
        rate_nano_per_hour=it["rate_nano_per_hour"],
        price_version=it["price_version"],
        counter_ns=it["counter"],
        granted_ns=it["granted"],
        charged_ns=it["charged"],
        amount_nano=it["amount_nano"],
        opened_ms=it["opened_ms"],
        currency=it["currency"],
        kind="CORRECTION" if late else "USAGE",
        site=it["site"],
        starts_ms=it["starts_ms"],
        ends_ms=it["ends_ms"],
        before=it["before"] if late else 0,
        cites=it["cites"],
        note=", ".join(filter(None, (it["note"], _month(it)))),
        source=source,
    )


def _month(it: asyncpg.Record) -> str:
    """By which month's total a line is priced, and what of it came before; "" = by none."""
    if it["month"] is None:
        return ""
    year, month = divmod(it["month"], 12)
    return f"month {year:04d}-{month + 1:02d} after {it['month_before']}"


def _pot(it: asyncpg.Record, meter: str, note: str, milli_ns: int, amount_nano: int) -> Line:
    ns = milli_ns // it["quantity_milli"]
    return Line(
        lease=it["id"],
        job="",
        node="",
        segment=0,
        meter=meter,
        chip=it["chip"],
        tier="RESERVED",
        quantity_milli=it["quantity_milli"],
        rate_nano_per_hour=it["rate_nano_per_hour"],
        price_version=it["price_version"],
        counter_ns=ns,
        granted_ns=int(it["size"]) // it["quantity_milli"],
        charged_ns=ns,
        amount_nano=amount_nano,
        opened_ms=it["recorded_ms"],
        kind="PURCHASE" if meter == "commitment" else "CREDIT",
        site=it["site"],
        starts_ms=it["first_ms"],
        ends_ms=it["last_ms"] + _HOUR_MS,
        note=note,
        # Two documents that begin at the same hour cannot both be: the source is unique.
        source=f"hours/{it['id']}/{it['first_ms']}/{note}",
    )


def _credit(it: asyncpg.Record) -> Line:
    return Line(
        lease=it["lease"],
        job=it["job"],
        node=it["node"],
        segment=0,
        meter=RUN_METER,
        chip=it["chip"],
        tier=it["tier"],
        quantity_milli=it["quantity_milli"],
        rate_nano_per_hour=0,
        price_version=0,
        counter_ns=0,
        granted_ns=0,
        charged_ns=0,
        amount_nano=-it["amount"],
        opened_ms=it["opened_ms"],
        kind="CREDIT",
        site=it["site"],
        starts_ms=it["recorded_ms"],
        ends_ms=it["recorded_ms"],
        note=it["kind"],
        source=f"journal/{it['id']}",
    )
