"""The double-entry books in PostgreSQL. amount > 0 is a credit, < 0 a debit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import asyncpg
from gridlease_store.pool import Connection

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
SELECT j.cause, e.amount FROM journal j JOIN entry e ON e.journal = j.id
JOIN account a ON a.id = e.account AND a.kind = 'tenant_prepaid'
WHERE j.idem_key = $1
"""
# The key, the entries and the balance: one statement, one commit.
_CREDIT = """
WITH written AS (
    INSERT INTO journal (idem_key, kind, cause, recorded_ms) VALUES ($1, 'credit', $2, $3)
    RETURNING id
), entries AS (
    INSERT INTO entry (journal, account, amount)
    SELECT written.id, side.account, side.amount
    FROM written, (
        SELECT id AS account, -$4::int8 AS amount FROM account WHERE kind = 'cash'
        UNION ALL SELECT $5::int8, $4::int8
    ) AS side
)
UPDATE balance SET posted = posted + $4 WHERE account = $5
"""
_CHARGE = """
WITH charge AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[])
        AS t (idem_key, lease, account, amount)
), written AS (
    INSERT INTO journal (idem_key, kind, cause, recorded_ms)
    SELECT idem_key, 'charge', lease, $5 FROM charge RETURNING id, idem_key
)
INSERT INTO entry (journal, account, amount)
SELECT written.id, charge.account, -charge.amount FROM written JOIN charge USING (idem_key)
UNION ALL
SELECT written.id, (SELECT id FROM account WHERE kind = 'revenue'), charge.amount
FROM written JOIN charge USING (idem_key)
"""
_MOVE = """
UPDATE balance SET posted = posted - t.charge, held = held + t.hold
FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS t (account, charge, hold)
WHERE balance.account = t.account
"""
_CHARGED = """
SELECT coalesce(-sum(e.amount), 0)::int8 FROM journal j
JOIN entry e ON e.journal = j.id JOIN account a ON a.id = e.account
WHERE j.kind = 'charge' AND j.cause = ANY($1) AND a.kind = 'tenant_prepaid'
"""
_SUMMARY = """
SELECT coalesce((SELECT sum(amount) FROM entry), 0)::int8 AS total,
    (SELECT count(*) FROM journal) AS journals,
    (SELECT count(*) FROM entry) AS entries,
    (SELECT coalesce(sum(suspense_ns + late_ns), 0)::int8 FROM lease) AS suspense_ns,
    (SELECT count(*) FROM balance b JOIN account a ON a.id = b.account
        WHERE b.posted <> coalesce((SELECT sum(amount) FROM entry WHERE account = b.account), 0)
        OR b.held <> coalesce((SELECT sum(held_nano) FROM lease WHERE tenant = a.tenant), 0)
    ) AS off_balance
"""


class PostgresLedger:
    """Accounts, journals, entries and balances, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

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
        await self._db.execute(
            _CREDIT, key, credit.note, now_ms, credit.amount_nano, wallet.account
        )

    async def post(
        self, changes: Sequence[Change], wallets: Mapping[str, Wallet], now_ms: int
    ) -> None:
        """Charges become journals, one a lease; charges and holds move the balances.

        A journal's key carries the lease's new total, so no total is ever reached twice.
        """
        charges = [
            (
                f"charge/{it.after.lease_id}/{it.after.charged_nano}",
                it.after.lease_id,
                wallets[it.after.ask.tenant].account,
                it.effect.charge_nano,
            )
            for it in changes
            if it.effect.charge_nano
        ]
        if charges:
            await self._db.execute(_CHARGE, *map(list, zip(*charges, strict=True)), now_ms)
        moves: dict[int, tuple[int, int]] = {}
        for it in changes:
            if it.effect.charge_nano or it.effect.hold_nano:
                account = wallets[it.after.ask.tenant].account
                charge, hold = moves.get(account, (0, 0))
                moves[account] = (charge + it.effect.charge_nano, hold + it.effect.hold_nano)
        if moves:
            rows = [(account, *moves[account]) for account in sorted(moves)]
            await self._db.execute(_MOVE, *map(list, zip(*rows, strict=True)))

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


def _credit_key(tenant: str, request_id: str) -> str:
    return f"credit/{tenant}/{request_id}"


def _wallet(record: asyncpg.Record) -> Wallet:
    return Wallet(record["account"], record["posted"], record["held"])
