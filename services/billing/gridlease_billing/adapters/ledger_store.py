"""The double-entry books in PostgreSQL. amount > 0 is a credit, < 0 a debit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import asyncpg
from gridlease_kernel.faults import Conflict
from gridlease_store.pool import Connection

from gridlease_billing.domain.exchange import Exchanged
from gridlease_billing.domain.grant_row import GrantRow
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.supplier import Contract, Split, split_lines
from gridlease_billing.domain.usage import Stored, wholes
from gridlease_billing.ports import Change, Credit, JournalSummary, Wallet

_LOCK_WALLETS = """
SELECT a.tenant, b.account, b.posted, b.held
FROM account a JOIN balance b ON b.account = a.id
WHERE a.kind = 'tenant_prepaid' AND a.tenant = ANY($1)
ORDER BY b.account FOR UPDATE OF b
"""
_WALLET = """
SELECT b.account, b.posted, b.held FROM account a JOIN balance b ON b.account = a.id
WHERE a.kind = 'tenant_prepaid' AND a.tenant = $1
"""
_OPEN_ACCOUNT = """
WITH opened AS (
    INSERT INTO account (kind, tenant) VALUES ('tenant_prepaid', $1)
    ON CONFLICT DO NOTHING RETURNING id
)
INSERT INTO balance (account) SELECT id FROM opened
"""
_FIND_CREDIT = """
SELECT j.cause, e.amount FROM journal_key k
JOIN journal j ON j.id = k.journal AND j.recorded_ms = k.recorded_ms
JOIN entry e ON e.journal = j.id AND e.recorded_ms = j.recorded_ms
JOIN account a ON a.id = e.account AND a.kind = 'tenant_prepaid'
WHERE k.idem_key = $1
"""
_POST = "SELECT post($1, $2, $3, $4, $5, $6, $7)"
_PLATFORM = """
SELECT id FROM account WHERE kind = $1 AND currency = $2 AND tenant = '' AND supplier = ''
"""
_CONTRACTS = "SELECT * FROM supplier_contract WHERE id = ANY($1)"
_EXCHANGE = "INSERT INTO exchange VALUES ($1, $2, $3, $4, $5, $6, $7)"
_EXCHANGED = """
SELECT x.from_currency, x.rate_numerator, x.rate_denominator,
    (SELECT sum(e.amount) FROM entry AS e JOIN account AS a ON a.id = e.account
        WHERE e.journal = x.from_journal AND a.kind = 'fx')::int8 AS paid,
    (SELECT sum(e.amount) FROM entry AS e JOIN account AS a ON a.id = e.account
        WHERE e.journal = x.to_journal AND a.kind = 'tenant_prepaid')::int8 AS credited
FROM journal_key AS k JOIN exchange AS x ON x.to_journal = k.journal WHERE k.idem_key = $1
"""
_HOLD = """
UPDATE balance SET held = held + t.hold FROM unnest($1::int8[], $2::int8[]) AS t (account, hold)
WHERE balance.account = t.account
"""
_TICK = "SELECT refused FROM tick($1, $2, $3, $4, $5, $6)"
_WIDTH = 64  # of a grid
_USED = "SELECT idem_key FROM journal_key WHERE idem_key = ANY($1)"
_POSTED = """
SELECT j.cause, e.amount FROM journal_key AS k
JOIN journal AS j ON j.id = k.journal AND j.recorded_ms = k.recorded_ms
JOIN entry AS e ON e.journal = j.id AND e.recorded_ms = j.recorded_ms
JOIN account AS a ON a.id = e.account AND a.kind = $2 WHERE k.idem_key = $1
"""
_CHARGED = """
SELECT coalesce(sum(amount_nano), 0)::int8 FROM line WHERE lease = ANY($1) AND class = 'usage'
"""
_RECEIVABLE = """
WITH opened AS (
    INSERT INTO account (kind, tenant, currency) VALUES ('receivable', $1, $2)
    ON CONFLICT DO NOTHING RETURNING id
)
SELECT id FROM opened UNION ALL
SELECT id FROM account WHERE kind = 'receivable' AND tenant = $1 AND currency = $2
"""
# Every balance is the sum of its entries, less or more nothing; every hold the sum of its leases'.
_SUMMARY = """
SELECT (SELECT coalesce(sum(account_sum(id)), 0) FROM account)::int8 AS total,
    (SELECT count(*) FROM journal) AS journals,
    (SELECT count(*) FROM entry) AS entries,
    (SELECT coalesce(sum(greatest(0, told_ns - charged_ns)), 0)::int8 FROM excess) AS suspense_ns,
    (SELECT count(*) FROM balance b JOIN account a ON a.id = b.account
        WHERE b.posted <> account_sum(b.account)
        OR b.held <> coalesce((SELECT sum(held_nano) FROM lease WHERE tenant = a.tenant), 0)
            - coalesce((SELECT sum(m.rated_nano - m.base_nano) FROM meter m
                WHERE m.account = b.account AND m.rated_nano <> m.base_nano), 0)
    ) AS off_balance
"""


class PostgresLedger:
    """Accounts, journals, entries and balances, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection
        self._known: dict[tuple[str, str], int] = {}

    async def lock_wallets(self, tenants: Collection[str]) -> dict[str, Wallet]:
        found = await self._db.fetch(_LOCK_WALLETS, list(tenants))
        return {it["tenant"]: _wallet(it) for it in found}

    async def wallet(self, tenant: str) -> Wallet | None:
        found = await self._db.fetchrow(_WALLET, tenant)
        return None if found is None else _wallet(found)

    async def find_credit(self, tenant: str, request_id: str) -> Credit | None:
        found = await self._db.fetchrow(_FIND_CREDIT, _credit_key(tenant, request_id))
        if found is None:
            return None
        return Credit(tenant, found["amount"], request_id, found["cause"])

    async def credit(self, credit: Credit, now_ms: int) -> None:
        await self._db.execute(_OPEN_ACCOUNT, credit.tenant)
        wallet = await self.wallet(credit.tenant)
        assert wallet is not None, credit.tenant
        key = _credit_key(credit.tenant, credit.request_id)
        sides = {await self.platform("cash"): -credit.amount_nano}
        sides[wallet.account] = credit.amount_nano
        await self.journal("credit", key, credit.note, sides, now_ms)

    async def open_wallet(self, tenant: str) -> Wallet:
        """A tenant's prepaid account; made if there is none."""
        await self._db.execute(_OPEN_ACCOUNT, tenant)
        wallet = await self.wallet(tenant)
        assert wallet is not None, tenant
        return wallet

    async def exchanged(self, key: str) -> Exchanged | None:
        """The exchange whose second journal has that key."""
        found = await self._db.fetchrow(_EXCHANGED, key)
        if found is None:
            return None
        return Exchanged(
            found["from_currency"],
            found["paid"],
            found["rate_numerator"],
            found["rate_denominator"],
            found["credited"],
        )

    async def exchange(self, first: int, second: int, it: Exchanged, now_ms: int) -> None:
        """Ties two journals by the rate between their currencies."""
        await self._db.execute(
            _EXCHANGE, first, second, it.currency, CURRENCY, it.numerator, it.denominator, now_ms
        )

    async def create_months(self, from_ms: int, months: int) -> int:
        """Makes the partitions of a month and those after it; how many are new."""
        return int(await self._db.fetchval("SELECT create_months($1, $2)", from_ms, months))

    async def receivable(self, tenant: str) -> int:
        """A tenant's account of what it owes beyond what it prepaid; made if there is none."""
        found = await self._db.fetchval(_RECEIVABLE, tenant, CURRENCY)
        if found is None:
            raise Conflict(
                "Another call opened this account.",
                reason="DATABASE_CONFLICT",
                remedy="Read again and retry.",
            )
        return int(found)

    async def platform(self, kind: str, currency: str = CURRENCY) -> int:
        """The platform's own account of a kind; 0 = there is none in that currency."""
        key = (kind, currency)
        if key not in self._known:
            self._known[key] = int(await self._db.fetchval(_PLATFORM, *key) or 0)
        return self._known[key]

    async def journal(
        self,
        kind: str,
        key: str | None,
        cause: str,
        sides: Mapping[int, int],
        now_ms: int,
        holds: Mapping[int, int] | None = None,
    ) -> int:
        """Writes a balanced journal of amounts by account; its number.

        A key that was used before raises ``UniqueViolationError``.
        """
        accounts = sorted(account for account, amount in sides.items() if amount)
        held = None if holds is None else [holds.get(account, 0) for account in accounts]
        amounts = [sides[account] for account in accounts]
        number = await self._db.fetchval(_POST, kind, key, cause, now_ms, accounts, amounts, held)
        return int(number)

    async def post(
        self, changes: Sequence[Change], wallets: Mapping[str, Wallet], now_ms: int
    ) -> None:
        """All charges become one journal; charges and holds move the balances together."""
        charges: dict[int, int] = {}
        holds: dict[int, int] = {}
        for it in changes:
            if it.effect.charge_nano or it.effect.hold_nano:
                account = wallets[it.after.ask.tenant].account
                charges[account] = charges.get(account, 0) - it.effect.charge_nano
                holds[account] = holds.get(account, 0) + it.effect.hold_nano
        charged = -sum(charges.values())
        if charged:
            leases = {it.after.lease_id for it in changes if it.effect.charge_nano}
            cause = leases.pop() if len(leases) == 1 else "settle"
            parts = await self._owners_parts(changes)
            revenue = charged - sum(parts.values())
            sides = {**charges, **parts, await self.platform("revenue"): revenue}
            await self.journal("charge", None, cause, sides, now_ms, holds)
        rest = sorted(it for it in holds.items() if it[1] and not charges[it[0]])
        if rest:
            await self._db.execute(_HOLD, *map(list, zip(*rest, strict=True)))

    async def contracts(self, wanted: Collection[int]) -> dict[int, Contract]:
        """Owners' terms by the numbers that leases have of them; 0 is the platform's own."""
        if not set(wanted) - {0}:
            return {}
        return {it["id"]: contract_of(it) for it in await self._db.fetch(_CONTRACTS, list(wanted))}

    async def _owners_parts(self, changes: Sequence[Change]) -> dict[int, int]:
        """By account: what nodes' owners get of what is charged, line by line."""
        wanted = {it.after.ask.contract for it in changes if it.effect.charge_nano}
        contracts = await self.contracts(wanted)
        parts: dict[int, int] = {}
        for it in changes:
            contract = contracts.get(it.after.ask.contract)
            if contract is not None and it.effect.charge_nano:
                part = _split(contract, it.after) - _split(contract, it.before)
                for account, nano in (
                    (contract.payable_account, part.payable_nano),
                    (contract.holdback_account, part.holdback_nano),
                ):
                    parts[account] = parts.get(account, 0) + nano
        return parts

    async def tick(self, ids: Sequence[int], counts: Sequence[Sequence[int]]) -> set[int]:
        """Folds and charges counters; the ids of those that need a decision instead."""
        grids = map(_grid, counts)
        return set(await self._db.fetchval(_TICK, _grid(ids), *grids) or ())

    async def used(self, keys: Collection[str]) -> set[str]:
        """Those of ``keys`` under which a journal is written."""
        if not keys:
            return set()
        return {it["idem_key"] for it in await self._db.fetch(_USED, list(keys))}

    async def posted(self, key: str, kind: str) -> tuple[str, int] | None:
        """A journal's cause, and what it moved on the platform's account of a kind."""
        found = await self._db.fetchrow(_POSTED, key, kind)
        return None if found is None else (found["cause"], found["amount"])

    async def charged_nano(self, leases: Collection[str]) -> int:
        return int(await self._db.fetchval(_CHARGED, list(leases)))

    async def summary(self) -> JournalSummary:
        found = await self._db.fetchrow(_SUMMARY)
        assert found is not None
        return JournalSummary(
            found["total"],
            found["journals"],
            found["entries"],
            found["suspense_ns"],
            found["off_balance"],
        )


def _grid(numbers: Sequence[int]) -> list[list[int | None]]:
    """The same numbers in rows, the last one filled up with nothing.

    For the driver: of a flat list it asks each element whether that is a list, of lists only the
    first one's; that was most of what sending cost.
    """
    rows: list[list[int | None]] = [
        [*numbers[n : n + _WIDTH]] for n in range(0, len(numbers), _WIDTH)
    ]
    if rows:
        rows[-1] += [None] * (_WIDTH - len(rows[-1]))
    return rows


def _credit_key(tenant: str, request_id: str) -> str:
    return f"credit/{tenant}/{request_id}"


def _split(contract: Contract, row: GrantRow | None) -> Split:
    amounts = [line.amount_nano for line in wholes(Stored(row, 0, 0))] if row is not None else []
    return split_lines(contract, amounts)


def contract_of(record: asyncpg.Record) -> Contract:
    return Contract(
        record["supplier"],
        record["version"],
        record["share_permyriad"],
        record["holdback_permyriad"],
        record["holdback_days"],
        record["payable"],
        record["holdback"],
    )


def _wallet(record: asyncpg.Record) -> Wallet:
    return Wallet(record["account"], record["posted"], record["held"])
