"""Invoices in PostgreSQL: a draft becomes final once, in the transaction that takes its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.invoice import (
    DRAFT,
    Head,
    Invoice,
    Parties,
    Party,
    asked_for,
    compose,
)
from gridlease_billing.domain.issuer import CoverDraw, LineSplit, SignedReport
from gridlease_billing.domain.tax import Tax, Treatment
from gridlease_billing.domain.usage import Line
from gridlease_billing.ports import Scope

# A counter row, not a sequence: an undone transaction gives its number back.
_NEXT = """
INSERT INTO invoice_counter (entity, series, year, last) VALUES ($1, $2, $3, 1)
ON CONFLICT (entity, series, year) DO UPDATE SET last = invoice_counter.last + 1 RETURNING last
"""
_FIND = "SELECT * FROM invoice WHERE tenant = $1 AND request_id = $2"
_GET = "SELECT * FROM invoice WHERE tenant = $1 AND (id = $2 OR number = $3)"
_NEWEST = """
SELECT * FROM invoice WHERE tenant = $1 AND ($2 = '' OR project = $2)
ORDER BY issued_ms DESC, number DESC NULLS FIRST LIMIT $3
"""
_LINES = "SELECT line FROM invoice_line WHERE invoice = $1 ORDER BY position"
_INSERT = """
INSERT INTO invoice (id, number, tenant, project, job, request_id, issued_ms, total_nano,
    payable_nano, currency, content_sha256, kind, state, format, cites, parties, net_nano, tax_nano)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
"""
_FINALIZE = """
UPDATE invoice SET number = $2, state = 'FINAL', issued_ms = $3, parties = $4, net_nano = $5,
    tax_nano = $6, payable_nano = $7, content_sha256 = $8 WHERE id = $1
"""
_INSERT_LINES = """
INSERT INTO invoice_line (invoice, position, lease, segment, meter, source, line)
SELECT $1, * FROM unnest($2::int[], $3::text[], $4::int[], $5::text[], $6::text[], $7::jsonb[])
"""
_MARK = "UPDATE lease SET invoice = $1 WHERE id = ANY($2) AND invoice IS NULL"
_SPLIT = """
INSERT INTO line_split (invoice, position, net_nano, tax_nano)
SELECT $1, * FROM unnest($2::int[], $3::int8[], $4::int8[]) ON CONFLICT DO NOTHING
"""
_SPLITS = "SELECT * FROM line_split WHERE invoice = $1 ORDER BY position FOR UPDATE"
_CREDIT = """
UPDATE line_split SET net_credited_nano = net_credited_nano + t.net,
    tax_credited_nano = tax_credited_nano + t.tax
FROM unnest($2::int[], $3::int8[], $4::int8[]) AS t (position, net, tax)
WHERE invoice = $1 AND line_split.position = t.position
"""
_REPORTS = """
SELECT r.*, l.node FROM signed_report AS r JOIN lease AS l ON l.id = r.lease
WHERE r.lease = ANY(SELECT lease FROM invoice_line WHERE invoice = $1)
ORDER BY r.lease, r.segment, r.part
"""
# Draws of a segment are priced of their total: by hour, then in the order of pots.
_DRAWS = """
SELECT d.commitment, d.hour_ms, d.lease, d.segment,
    s.rate_nano_per_hour - greatest(s.surcharge_nano_per_hour, 0) AS rate_nano_per_hour,
    l.quantity_milli,
    d.so_far - d.milli_ns AS before_milli_ns, d.milli_ns, d.cover_nano
FROM (SELECT d.*, sum(d.milli_ns) OVER (PARTITION BY d.lease, d.segment
        ORDER BY d.hour_ms, c.starts_ms, c.id)::int8 AS so_far
    FROM commitment_draw AS d JOIN commitment AS c ON c.id = d.commitment
    WHERE d.lease IN (SELECT e.lease FROM invoice_line AS i JOIN commitment_draw AS e
        ON e.commitment = i.lease WHERE i.invoice = $1 AND i.meter IN ('cover', 'commitment'))
) AS d
JOIN lease AS l ON l.id = d.lease
JOIN segment AS s ON s.lease = d.lease AND s.number = d.segment
WHERE EXISTS (SELECT FROM invoice_line AS i WHERE i.invoice = $1 AND i.lease = d.commitment
    AND i.meter IN ('cover', 'commitment') AND d.hour_ms >= (i.line->>'starts_ms')::int8
    AND d.hour_ms < (i.line->>'ends_ms')::int8)
ORDER BY d.commitment, d.hour_ms, d.lease, d.segment
"""


class PostgresInvoices:
    """The invoice tables, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def next_count(self, entity: str, kind: str, year: int) -> int:
        return int(await self._db.fetchval(_NEXT, entity, kind, year))

    async def find(self, tenant: str, request_id: str) -> Invoice | None:
        return await self._whole(await self._db.fetchrow(_FIND, tenant, request_id))

    async def get(self, tenant: str, name: str, *, lock: bool = False) -> Invoice | None:
        statement = f"{_GET} FOR UPDATE" if lock else _GET
        number = name.removeprefix("invoices/")
        return await self._whole(await self._db.fetchrow(statement, tenant, name, number))

    async def newest(self, scope: Scope, limit: int) -> list[Invoice]:
        found = await self._db.fetch(_NEWEST, scope.tenant, scope.project, limit)
        return [_invoice(it, ()) for it in found]

    async def insert(self, invoice: Invoice, request_id: str) -> None:
        head = invoice.head
        await self._db.execute(
            _INSERT, head.name, head.number or None, head.tenant, head.project, head.job,
            request_id, head.issued_ms, invoice.total_nano, invoice.payable_nano, invoice.currency,
            invoice.content_sha256, head.kind, head.state, head.format, head.cites or None,
            asdict(invoice.parties), invoice.net_nano, invoice.tax_nano,
        )  # fmt: skip
        rows = [
            (position, line.lease, line.segment, line.meter, line.source, asdict(line))
            for position, line in enumerate(invoice.lines, start=1)
        ]
        await self._db.execute(_INSERT_LINES, head.name, *map(list, zip(*rows, strict=True)))
        used = sorted({line.lease for line in invoice.lines if line.kind == "USAGE"})
        await self._db.execute(_MARK, head.name, used)

    async def finalize(self, invoice: Invoice) -> None:
        head = invoice.head
        await self._db.execute(
            _FINALIZE, head.name, head.number, head.issued_ms, asdict(invoice.parties),
            invoice.net_nano, invoice.tax_nano, invoice.payable_nano, invoice.content_sha256,
        )  # fmt: skip

    async def split(self, invoice: Invoice) -> None:
        """Writes down what each line asks for, once."""
        rows = [(at, *parts) for at, parts in asked_for(invoice).items()]
        await self._db.execute(_SPLIT, invoice.head.name, *map(list, zip(*rows, strict=True)))

    async def lock_splits(self, name: str) -> dict[int, LineSplit]:
        return {
            it["position"]: LineSplit(
                it["net_nano"],
                it["tax_nano"],
                it["net_credited_nano"],
                it["tax_credited_nano"],
            )
            for it in await self._db.fetch(_SPLITS, name)
        }

    async def give_back(self, name: str, taken: Mapping[int, tuple[int, int]]) -> None:
        """``taken``: (net, tax) by position."""
        rows = [(position, *taken[position]) for position in sorted(taken)]
        await self._db.execute(_CREDIT, name, *map(list, zip(*rows, strict=True)))

    async def reports(self, name: str) -> list[SignedReport]:
        """The last signed report of each segment of the leases on an invoice."""
        return [
            SignedReport(
                it["lease"],
                it["segment"],
                it["node"],
                it["node_key"],
                it["report"],
                it["signature"],
                it["recorded_ms"],
                it["part"],
            )
            for it in await self._db.fetch(_REPORTS, name)
        ]

    async def draws(self, name: str) -> list[CoverDraw]:
        """What stands behind an invoice's covers."""
        return [CoverDraw(*it.values()) for it in await self._db.fetch(_DRAWS, name)]

    async def _whole(self, record: asyncpg.Record | None) -> Invoice | None:
        if record is None:
            return None
        lines = await self._db.fetch(_LINES, record["id"])
        return _invoice(record, [Line(**it["line"]) for it in lines])


def _invoice(record: asyncpg.Record, lines: Sequence[Line]) -> Invoice:
    """As its row says it; with lines, they are allotted what the row asks for."""
    head = Head(
        record["id"],
        record["number"] or "",
        record["tenant"],
        record["project"],
        record["job"],
        record["issued_ms"],
        record["kind"],
        record["state"],
        record["cites"] or "",
        record["format"],
    )
    parties = _parties(record["parties"])
    made = compose(head, lines, parties)
    return Invoice(
        head,
        made.lines,
        parties,
        record["total_nano"],
        record["net_nano"] if head.format > 1 else record["payable_nano"],
        record["tax_nano"],
        record["payable_nano"],
        made.billed,
        made.taxes,
        "" if head.state == DRAFT else record["content_sha256"],
        record["currency"],
    )


def _parties(told: Mapping[str, Any]) -> Parties:
    if not told:
        return Parties()
    tax = {**told["tax"], "treatment": Treatment(told["tax"]["treatment"])}
    return Parties(Party(**told["seller"]), Party(**told["buyer"]), Tax(**tax), told["language"])
