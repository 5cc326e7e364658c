"""Invoices in PostgreSQL: written once, in the transaction that takes their number."""

from __future__ import annotations

from dataclasses import asdict

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.invoice import Head, Invoice
from gridlease_billing.domain.usage import Line
from gridlease_billing.ports import Scope

# A counter row, not a sequence: an undone transaction gives its number back.
_NEXT = """
INSERT INTO invoice_counter (year, last) VALUES ($1, 1)
ON CONFLICT (year) DO UPDATE SET last = invoice_counter.last + 1 RETURNING last
"""
_FIND = "SELECT * FROM invoice WHERE tenant = $1 AND request_id = $2"
_GET = "SELECT * FROM invoice WHERE tenant = $1 AND id = $2"
_NEWEST = """
SELECT * FROM invoice WHERE tenant = $1 AND ($2 = '' OR project = $2)
ORDER BY issued_ms DESC, number DESC LIMIT $3
"""
_LINES = "SELECT line FROM invoice_line WHERE invoice = $1 ORDER BY position"
_INSERT = """
INSERT INTO invoice (id, number, tenant, project, job, request_id, issued_ms, total_nano,
    payable_nano, currency, content_sha256)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_INSERT_LINES = """
INSERT INTO invoice_line (invoice, position, lease, segment, meter, line)
SELECT $1, * FROM unnest($2::int[], $3::text[], $4::int[], $5::text[], $6::jsonb[])
"""
_MARK = "UPDATE lease SET invoice = $1 WHERE id = ANY($2)"


class PostgresInvoices:
    """The invoice tables, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def next_count(self, year: int) -> int:
        return int(await self._db.fetchval(_NEXT, year))

    async def find(self, tenant: str, request_id: str) -> Invoice | None:
        return await self._whole(await self._db.fetchrow(_FIND, tenant, request_id))

    async def get(self, tenant: str, name: str) -> Invoice | None:
        return await self._whole(await self._db.fetchrow(_GET, tenant, name))

    async def newest(self, scope: Scope, limit: int) -> list[Invoice]:
        found = await self._db.fetch(_NEWEST, scope.tenant, scope.project, limit)
        return [_invoice(it, ()) for it in found]

    async def insert(self, invoice: Invoice, request_id: str) -> None:
        head = invoice.head
        await self._db.execute(
            _INSERT, head.name, head.number, head.tenant, head.project, head.job, request_id,
            head.issued_ms, invoice.total_nano, invoice.payable_nano, invoice.currency,
            invoice.content_sha256,
        )  # fmt: skip
        rows = [
            (position, line.lease, line.segment, line.meter, asdict(line))
            for position, line in enumerate(invoice.lines, start=1)
        ]
        await self._db.execute(_INSERT_LINES, head.name, *map(list, zip(*rows, strict=True)))
        await self._db.execute(_MARK, head.name, sorted({line.lease for line in invoice.lines}))

    async def _whole(self, record: asyncpg.Record | None) -> Invoice | None:
        if record is None:
            return None
        lines = await self._db.fetch(_LINES, record["id"])
        return _invoice(record, tuple(Line(**it["line"]) for it in lines))


def _invoice(record: asyncpg.Record, lines: tuple[Line, ...]) -> Invoice:
    head = Head(
        record["id"],
        record["number"],
        record["tenant"],
        record["project"],
        record["job"],
        record["issued_ms"],
    )
    return Invoice(
        head,
        lines,
        record["total_nano"],
        record["payable_nano"],
        record["content_sha256"],
        record["currency"],
    )
