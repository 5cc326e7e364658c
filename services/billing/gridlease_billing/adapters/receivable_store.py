"""What invoices ask for, payments and terms, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.domain.receivable import Ages, Overdue, Owed, Parts, Terms
from gridlease_billing.receivable_ports import Payment

_ROWS = """
SELECT r.*, i.number FROM receivable AS r JOIN invoice AS i ON i.id = r.invoice
"""
_GET = f"{_ROWS} WHERE r.tenant = $1 AND (r.invoice = $2 OR i.number = $3)"
_OF = f"{_ROWS} WHERE r.invoice = ANY($1)"
_PAGE = f"""
{_ROWS} WHERE r.paid_nano + r.credited_nano < r.asked_nano AND ($1 = '' OR r.tenant = $1)
    AND (r.due_ms, r.invoice) > ($2, $3) ORDER BY r.due_ms, r.invoice LIMIT $4
"""
_AGES = """
SELECT coalesce(tenant, '') AS tenant,
    coalesce(sum(nano) FILTER (WHERE late < 0), 0)::int8 AS current,
    coalesce(sum(nano) FILTER (WHERE late BETWEEN 0 AND 30), 0)::int8 AS d30,
    coalesce(sum(nano) FILTER (WHERE late BETWEEN 31 AND 60), 0)::int8 AS d60,
    coalesce(sum(nano) FILTER (WHERE late BETWEEN 61 AND 90), 0)::int8 AS d90,
    coalesce(sum(nano) FILTER (WHERE late > 90), 0)::int8 AS older
FROM (SELECT tenant, asked_nano - paid_nano - credited_nano AS nano,
        CASE WHEN due_ms > $2 THEN -1 ELSE ($2 - due_ms) / 86400000 END AS late
    FROM receivable WHERE paid_nano + credited_nano < asked_nano AND ($1 = '' OR tenant = $1)
) AS open
GROUP BY GROUPING SETS ((), (tenant)) ORDER BY grouping(tenant) DESC, sum(nano) DESC, 1 LIMIT $3
"""
_OVERDUE = """
SELECT t.tenant, i.number, r.asked_nano - r.paid_nano - r.credited_nano AS open, r.due_ms
FROM unnest($1::text[]) AS t (tenant)
CROSS JOIN LATERAL (SELECT grace_days FROM payment_terms AS p WHERE p.tenant IN ('', t.tenant)
    ORDER BY p.tenant = '', p.version DESC LIMIT 1) AS terms
CROSS JOIN LATERAL (SELECT * FROM receivable AS r WHERE r.tenant = t.tenant
    AND r.paid_nano + r.credited_nano < r.asked_nano
    AND r.due_ms <= $2 - terms.grace_days * 86400000::int8 ORDER BY r.due_ms LIMIT 1) AS r
JOIN invoice AS i ON i.id = r.invoice
"""
_SETTLE = "UPDATE receivable SET paid_nano = paid_nano + $2 WHERE invoice = $1"
_TAKE_OFF = """
WITH before AS (SELECT * FROM receivable WHERE invoice = $1 FOR UPDATE)
UPDATE receivable AS r SET credited_nano = r.credited_nano
    + least($2, b.asked_nano - b.paid_nano - b.credited_nano)
FROM before AS b WHERE r.invoice = b.invoice
RETURNING least($2, b.asked_nano - b.paid_nano - b.credited_nano)
"""
_FIND = "SELECT * FROM payment WHERE tenant = $1 AND request_id = $2"
_REFUNDS = """
SELECT coalesce(sum(applied_nano), 0)::int8 AS applied, coalesce(sum(prepaid_nano), 0)::int8
    AS prepaid FROM payment WHERE tenant = $1 AND refunds = $2
"""
_PAYMENTS = "SELECT * FROM payment WHERE invoice = $1 ORDER BY journal LIMIT 1000"
_WRITE = """
INSERT INTO payment (tenant, request_id, invoice, amount_nano, applied_nano, prepaid_nano, refunds,
    note, journal, recorded_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_TERMS = "SELECT DISTINCT ON (tenant) * FROM payment_terms ORDER BY tenant, version DESC"
_SET_TERMS = """
INSERT INTO payment_terms (tenant, due_days, grace_days, recorded_ms) VALUES ($1, $2, $3, $4)
"""


class PostgresReceivables:
    """The tables of what is owed, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def get(self, tenant: str, name: str, *, lock: bool = False) -> Owed | None:
        statement = f"{_GET} FOR UPDATE OF r" if lock else _GET
        row = await self._db.fetchrow(statement, tenant, name, name.removeprefix("invoices/"))
        return None if row is None else _owed(row)

    async def of(self, invoices: Collection[str]) -> dict[str, Owed]:
        found = await self._db.fetch(_OF, list(invoices)) if invoices else []
        return {it["invoice"]: _owed(it) for it in found}

    async def page(self, tenant: str, after: tuple[int, str], limit: int) -> list[Owed]:
        return [_owed(it) for it in await self._db.fetch(_PAGE, tenant, *after, limit)]

    async def ages(self, tenant: str, now_ms: int, limit: int) -> list[Ages]:
        return [Ages(*it.values()) for it in await self._db.fetch(_AGES, tenant, now_ms, limit)]

    async def overdue(self, tenants: Collection[str], now_ms: int) -> dict[str, Overdue]:
        found = await self._db.fetch(_OVERDUE, sorted(tenants), now_ms)
        return {
            it["tenant"]: Overdue(it["number"], it["open"], now_ms - it["due_ms"]) for it in found
        }

    async def settle(self, invoice: str, paid_nano: int) -> None:
        await self._db.execute(_SETTLE, invoice, paid_nano)

    async def take_off(self, invoice: str, nano: int) -> int:
        return int(await self._db.fetchval(_TAKE_OFF, invoice, nano) or 0)

    async def find_payment(self, tenant: str, request_id: str) -> Payment | None:
        row = await self._db.fetchrow(_FIND, tenant, request_id)
        return None if row is None else _payment(row)

    async def refunds_of(self, tenant: str, payment: str) -> Parts:
        row = await self._db.fetchrow(_REFUNDS, tenant, payment)
        assert row is not None
        return Parts(row["applied"], row["prepaid"])

    async def payments(self, invoice: str) -> list[Payment]:
        return [_payment(it) for it in await self._db.fetch(_PAYMENTS, invoice)]

    async def write(self, payment: Payment, journal: int) -> None:
        parts = payment.parts
        await self._db.execute(
            _WRITE, payment.tenant, payment.request_id, payment.invoice, parts.amount_nano,
            parts.applied_nano, parts.prepaid_nano, payment.refunds or None, payment.note, journal,
            payment.recorded_ms,
        )  # fmt: skip

    async def terms(self) -> list[Terms]:
        return [
            Terms(it["tenant"], it["due_days"], it["grace_days"], it["recorded_ms"])
            for it in await self._db.fetch(_TERMS)
        ]

    async def set_terms(self, terms: Terms) -> None:
        await self._db.execute(
            _SET_TERMS, terms.tenant, terms.due_days, terms.grace_days, terms.recorded_ms
        )


def _owed(row: asyncpg.Record) -> Owed:
    return Owed(
        row["invoice"],
        row["number"],
        row["tenant"],
        row["issued_ms"],
        row["due_ms"],
        row["asked_nano"],
        row["paid_nano"],
        row["credited_nano"],
    )


def _payment(row: asyncpg.Record) -> Payment:
    return Payment(
        row["tenant"],
        row["request_id"],
        row["invoice"],
        Parts(row["applied_nano"], row["prepaid_nano"]),
        row["refunds"] or "",
        row["note"],
        row["recorded_ms"],
    )
