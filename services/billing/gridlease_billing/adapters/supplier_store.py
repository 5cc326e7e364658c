"""Partners, their terms and what they are owed, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg
from gridlease_store.pool import Connection

from gridlease_billing.adapters.ledger_store import contract_of
from gridlease_billing.domain.statement import Earned, LineKey, Moved, Partner, Totals
from gridlease_billing.domain.supplier import Contract, Split
from gridlease_billing.supplier_ports import Held, NewContract

_ACCOUNT = """
INSERT INTO account (kind, supplier) VALUES ($1, $2)
ON CONFLICT (kind, tenant, supplier, currency) DO NOTHING
"""
_INSERT = """
INSERT INTO supplier (id, display_name, payable, holdback, recorded_ms)
SELECT $1, $2, p.id, h.id, $3 FROM account AS p, account AS h
WHERE p.supplier = $1 AND p.kind = 'supplier_payable'
    AND h.supplier = $1 AND h.kind = 'supplier_holdback'
ON CONFLICT DO NOTHING
"""
_PARTNERS = """
SELECT s.id AS name, s.display_name, s.recorded_ms, s.payable AS payable_account,
    s.holdback AS holdback_account, account_sum(s.payable) AS payable_nano,
    account_sum(s.holdback) AS holdback_nano, ARRAY(
        SELECT node FROM (SELECT DISTINCT ON (node) node, supplier FROM node_owner
            ORDER BY node, id DESC) AS now
        WHERE now.supplier = s.id ORDER BY node) AS nodes
FROM supplier AS s WHERE $1 = '' OR s.id = $1 ORDER BY s.id
"""
_TERMS = """
SELECT DISTINCT ON (supplier) * FROM supplier_contract WHERE supplier = ANY($1)
ORDER BY supplier, version DESC
"""
_OF = """
SELECT l.id AS lease, c.* FROM lease AS l JOIN supplier_contract AS c ON c.id = l.contract
WHERE l.id = ANY($1)
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('gridlease.supplier.' || $1, 0))"
_FIND_CONTRACT = "SELECT * FROM supplier_contract WHERE request_id = $1"
_NEW_CONTRACT = """
INSERT INTO supplier_contract (supplier, version, share_permyriad, holdback_permyriad,
    holdback_days, payable, holdback, recorded_ms, request_id)
SELECT id, 1 + coalesce((SELECT max(version) FROM supplier_contract WHERE supplier = $1), 0), $2,
    $3, $4, payable, holdback, $5, $6
FROM supplier WHERE id = $1
"""
_FIND_OWNER = (
    "SELECT node, coalesce(supplier, '') AS supplier FROM node_owner WHERE request_id = $1"
)
_ASSIGN = """
INSERT INTO node_owner (node, supplier, recorded_ms, request_id) VALUES ($1, nullif($2, ''), $3, $4)
"""
# A partner's part of a line, kept back long enough: by the index of when that is, so that what is
# released costs, and not what there is. Another process takes others.
_HELD = """
SELECT p.lease, p.segment, p.meter, p.class, p.recorded_ms AS line_ms, p.amount_nano, c.*
FROM (SELECT * FROM partner_line WHERE release_ms <= $1
    ORDER BY release_ms, recorded_ms, lease, segment LIMIT $2 FOR UPDATE SKIP LOCKED) AS p
JOIN supplier_contract AS c ON c.id = p.contract
ORDER BY p.recorded_ms, p.lease, p.segment, p.meter, p.class
"""
_RELEASE = """
INSERT INTO holdback_release (lease, segment, meter, class, line_ms, supplier, amount_nano,
    journal, recorded_ms)
SELECT *, $8, $9 FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::int8[],
    $6::text[], $7::int8[])
"""
_DONE = """
UPDATE partner_line AS p SET release_ms = NULL
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::int8[], $6::text[])
    AS t (lease, segment, meter, class, line_ms, supplier)
WHERE p.supplier = t.supplier AND p.recorded_ms = t.line_ms AND p.lease = t.lease
    AND p.segment = t.segment AND p.meter = t.meter AND p.class = t.class
"""
_LINES = """
SELECT p.recorded_ms AS line_ms, p.lease, p.segment, p.meter, p.class, p.node, p.chip, p.charged,
    p.amount_nano, c.*
FROM partner_line AS p JOIN supplier_contract AS c ON c.id = p.contract
WHERE p.supplier = $1 AND p.recorded_ms >= $2 AND p.recorded_ms < $3
    AND (p.recorded_ms, p.lease, p.segment, p.meter, p.class) > ($4, $5, $6, $7, $8)
ORDER BY p.recorded_ms, p.lease, p.segment, p.meter, p.class LIMIT $9
"""
_TOTALS = """
SELECT count(*) AS count, coalesce(sum(p.amount_nano), 0)::int8 AS amount,
    coalesce(sum(sign(p.amount_nano)::int8
        * share_of(abs(p.amount_nano), c.share_permyriad)), 0)::int8 AS part,
    coalesce(sum(p.holdback_nano), 0)::int8 AS held
FROM partner_line AS p JOIN supplier_contract AS c ON c.id = p.contract
WHERE p.supplier = $1 AND p.recorded_ms >= $2 AND p.recorded_ms < $3
"""
_ENTRIES = """
SELECT j.id, j.recorded_ms, j.kind, j.cause,
    coalesce(sum(e.amount) FILTER (WHERE e.account = $1), 0)::int8 AS payable,
    coalesce(sum(e.amount) FILTER (WHERE e.account = $2), 0)::int8 AS holdback
FROM entry AS e JOIN journal AS j ON j.id = e.journal AND j.recorded_ms = e.recorded_ms
WHERE e.account IN ($1, $2) AND e.recorded_ms >= $3 AND e.recorded_ms < $4 AND j.kind <> 'charge'
    AND (j.recorded_ms, j.id) > ($5, $6)
GROUP BY j.id, j.recorded_ms, j.kind, j.cause ORDER BY j.recorded_ms, j.id LIMIT $7
"""
_MOVED = """
SELECT coalesce(sum(e.amount) FILTER (WHERE e.account = $1), 0)::int8 AS payable,
    coalesce(sum(e.amount) FILTER (WHERE e.account = $2), 0)::int8 AS holdback
FROM entry AS e JOIN journal AS j ON j.id = e.journal AND j.recorded_ms = e.recorded_ms
WHERE e.account IN ($1, $2) AND e.recorded_ms >= $3 AND e.recorded_ms < $4 AND j.kind <> 'charge'
"""
_SUM = """
SELECT account_sum_before($1, $3) AS payable, account_sum_before($2, $3) AS holdback
"""
_PAID = """
SELECT e.amount, a.supplier FROM journal_key AS k
JOIN entry AS e ON e.journal = k.journal AND e.recorded_ms = k.recorded_ms
JOIN account AS a ON a.id = e.account AND a.kind = 'supplier_payable'
WHERE k.idem_key = $1
"""


class PostgresSuppliers:
    """The tables of partners, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def create(self, name: str, display_name: str, now_ms: int) -> None:
        for kind in ("supplier_payable", "supplier_holdback"):
            await self._db.execute(_ACCOUNT, kind, name)
        await self._db.execute(_INSERT, name, display_name, now_ms)

    async def partners(self, name: str = "") -> list[Partner]:
        found = await self._db.fetch(_PARTNERS, name)
        terms = await self._db.fetch(_TERMS, [it["name"] for it in found])
        latest = {it["supplier"]: contract_of(it) for it in terms}
        return [_partner(it, latest.get(it["name"])) for it in found]

    async def of_leases(self, leases: Collection[str]) -> dict[str, Contract]:
        return {it["lease"]: contract_of(it) for it in await self._db.fetch(_OF, list(leases))}

    async def lock(self, name: str) -> None:
        await self._db.execute(_LOCK, name)

    async def find_contract(self, request_id: str) -> Contract | None:
        found = await self._db.fetchrow(_FIND_CONTRACT, request_id)
        return None if found is None else contract_of(found)

    async def add_contract(self, new: NewContract, now_ms: int) -> None:
        await self._db.execute(
            _NEW_CONTRACT, new.supplier, new.share_permyriad, new.holdback_permyriad,
            new.holdback_days, now_ms, new.request_id,
        )  # fmt: skip

    async def find_owner(self, request_id: str) -> tuple[str, str] | None:
        found = await self._db.fetchrow(_FIND_OWNER, request_id)
        return None if found is None else (found["node"], found["supplier"])

    async def assign(self, node: str, supplier: str, request_id: str, now_ms: int) -> None:
        await self._db.execute(_ASSIGN, node, supplier, now_ms, request_id)

    async def held(self, now_ms: int, limit: int) -> list[Held]:
        return [
            Held(
                (it["lease"], it["segment"], it["meter"], it["class"], it["line_ms"]),
                it["amount_nano"],
                contract_of(it),
            )
            for it in await self._db.fetch(_HELD, now_ms, limit)
        ]

    async def released(self, held: Collection[Held], journal: int, now_ms: int) -> None:
        rows = [(*it.line, it.contract.supplier, it.held_nano) for it in held]
        *keys, amounts = map(list, zip(*rows, strict=True))
        await self._db.execute(_RELEASE, *keys, amounts, journal, now_ms)
        await self._db.execute(_DONE, *keys)

    async def paid(self, key: str) -> tuple[str, int] | None:
        found = await self._db.fetchrow(_PAID, key)
        return None if found is None else (found["supplier"], -found["amount"])

    async def lines(
        self, name: str, from_ms: int, until_ms: int, after: LineKey, limit: int
    ) -> list[Earned]:
        found = await self._db.fetch(_LINES, name, from_ms, until_ms, *after, limit)
        return [
            Earned(
                it["line_ms"], it["lease"], it["segment"], it["meter"], it["class"], it["node"],
                it["chip"], it["charged"], it["amount_nano"], contract_of(it),
            )
            for it in found
        ]  # fmt: skip

    async def totals(self, name: str, from_ms: int, until_ms: int) -> Totals:
        it = await self._db.fetchrow(_TOTALS, name, from_ms, until_ms)
        assert it is not None
        revenue = it["amount"] - it["part"]
        return Totals(it["count"], Split(revenue, it["part"] - it["held"], it["held"]))

    async def moves(
        self, partner: Partner, from_ms: int, until_ms: int, after: tuple[int, int], limit: int
    ) -> list[Moved]:
        accounts = (partner.payable_account, partner.holdback_account)
        found = await self._db.fetch(_ENTRIES, *accounts, from_ms, until_ms, *after, limit)
        return [
            Moved(
                it["recorded_ms"], it["kind"], it["cause"], it["payable"], it["holdback"], it["id"]
            )
            for it in found
        ]

    async def moved(self, partner: Partner, from_ms: int, until_ms: int) -> tuple[int, int]:
        accounts = (partner.payable_account, partner.holdback_account)
        it = await self._db.fetchrow(_MOVED, *accounts, from_ms, until_ms)
        assert it is not None
        return it["payable"], it["holdback"]

    async def sums(self, partner: Partner, before_ms: int) -> tuple[int, int]:
        accounts = (partner.payable_account, partner.holdback_account)
        found = await self._db.fetchrow(_SUM, *accounts, before_ms)
        assert found is not None
        return found["payable"], found["holdback"]


def _partner(record: asyncpg.Record, contract: Contract | None) -> Partner:
    return Partner(
        record["name"],
        record["display_name"],
        contract,
        tuple(record["nodes"]),
        record["payable_nano"],
        record["holdback_nano"],
        record["recorded_ms"],
        record["payable_account"],
        record["holdback_account"],
    )
