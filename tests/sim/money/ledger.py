"""A transaction's books: journals, balances and ticks, as the schema has them."""

from __future__ import annotations

from gridlease_billing.domain.supplier import split, split_lines
from gridlease_billing.domain.usage import Stored, lines
from gridlease_billing.ports import Credit, Wallet
from gridlease_kernel.money import amount_nano

from tests.sim.money.broken import conflict, insist

_MS_NS = 1_000_000


class LedgerRows:
    def __init__(self, tx):
        self._tx, self._t = tx, tx.tables

    async def lock_wallets(self, tenants):
        self._tx.step()
        found = {tenant: self._wallet(tenant) for tenant in tenants}
        return {tenant: it for tenant, it in found.items() if it is not None}

    async def wallet(self, tenant):
        self._tx.step()
        return self._wallet(tenant)

    def _wallet(self, tenant):
        account = self._t.accounts.get(("tenant_prepaid", tenant))
        if account is None or account not in self._t.balances:
            return None
        return Wallet(account, *self._t.balances[account])

    async def open_wallet(self, tenant):
        self._tx.step()
        account = self._t.account("tenant_prepaid", tenant)
        self._t.balances.setdefault(account, [0, 0])
        return self._wallet(tenant)

    async def find_credit(self, tenant, request_id):
        self._tx.step()
        known = self._t.keys.get(f"credit/{tenant}/{request_id}")
        return None if known is None else Credit(tenant, known[1], request_id, known[2])

    async def credit(self, credit, now_ms):
        self._tx.step()
        account = self._t.account("tenant_prepaid", credit.tenant)
        if account not in self._t.balances:
            self._t.balances[account] = [0, 0]
        sides = {account: credit.amount_nano, await self.platform("cash"): -credit.amount_nano}
        key = f"credit/{credit.tenant}/{credit.request_id}"
        await self.journal("credit", key, credit.note, sides, now_ms)

    async def platform(self, kind):
        return self._t.account(kind)

    async def journal(self, kind, key, cause, sides, now_ms, holds=None):
        self._tx.step()
        t = self._t
        sides = {account: amount for account, amount in sides.items() if amount}
        insist(sum(sides.values()) == 0, "a journal does not sum to zero", kind, cause, sides)
        if key is not None:
            if key in t.keys:
                raise conflict()
            t.keys[key] = (len(t.journals), max(sides.values()), cause)
            self._tx.undo.append((t.keys.pop, key))
        self._tx.undo.append((self._shorten, (len(t.journals), len(t.entries))))
        for account, amount in sides.items():
            t.entries.append((len(t.journals), account, amount))
            if account in t.balances:
                self._move(account, amount, (holds or {}).get(account, 0))
        t.journals.append((kind, key, cause))
        self._tx.journals += 1
        return len(t.journals)

    def _shorten(self, sizes):
        del self._t.journals[sizes[0] :]
        del self._t.entries[sizes[1] :]

    def _move(self, account, amount, hold):
        balance = self._t.balances[account]
        self._tx.undo.append((self._set, (account, list(balance))))
        balance[0] += amount
        balance[1] += hold
        self._tx.moved.add(account)
        insist(balance[1] >= 0, "held below zero", account, balance)
        insist(balance[0] - balance[1] >= 0, "overspend", account, balance, amount, hold)

    def _set(self, pair):
        self._t.balances[pair[0]] = pair[1]

    async def post(self, changes, wallets, now_ms):
        charges, holds, t = {}, {}, self._t
        for it in changes:
            if it.effect.charge_nano or it.effect.hold_nano:
                account = wallets[it.after.ask.tenant].account
                charges[account] = charges.get(account, 0) - it.effect.charge_nano
                holds[account] = holds.get(account, 0) + it.effect.hold_nano
        charged = -sum(charges.values())
        if charged:
            parts = self._parts(
                (t.contracts.get(it.after.ask.contract), it.before, it.after) for it in changes
            )
            revenue = charged - sum(parts.values())
            sides = {**charges, **parts, await self.platform("revenue"): revenue}
            await self.journal("charge", None, "settle", sides, now_ms, holds)
        for account, hold in holds.items():
            if hold and not charges[account]:
                self._move(account, 0, hold)
        if changes:
            self._tx.step()

    async def tick(self, ids, counts):
        """As the function tick() of the schema."""
        self._tx.step()
        insist(list(ids) == sorted(set(ids)), "ids out of order: a deadlock", ids)
        t, now_ms = self._t, self._tx._clock.database_ms()
        refused, charges, parts = set(), {}, {}
        columns = [list(it) or [0] * len(ids) for it in counts]
        for number, told in zip(ids, zip(*columns, strict=True), strict=True):
            it = t.meters[number]
            if not (
                it.quick_until_ms > now_ms
                and told[0] <= it.cap
                and told[0] <= (now_ms + 2_000 - it.starts_ms) * _MS_NS
            ):
                refused.add(number)
                continue
            self._tx.save(it)
            self._tx.save(it.lease)
            self._tx.touched.setdefault(it.lease.row.lease_id, (it.lease.read().row, it.lease))
            it.counts = tuple(map(max, it.counts, told))
            rated = amount_nano(it.rate, it.counts[0])
            charges[it.account] = charges.get(it.account, 0) - rated + it.rated
            contract = t.contracts.get(it.lease.row.ask.contract)
            if contract is not None:
                _share(parts, contract, split(contract, rated) - split(contract, it.rated))
            it.rated = rated
            it.lease.stored = None
        charges = {account: it for account, it in charges.items() if it}
        if charges:
            revenue = -sum(charges.values()) - sum(parts.values())
            sides = {**charges, **parts, self._t.account("revenue"): revenue}
            await self.journal("charge", None, "tick", sides, now_ms, charges)
        return refused

    def _parts(self, steps):
        """What nodes' owners get of charges."""
        parts = {}
        for contract, before, after in steps:
            if contract is not None:
                _share(parts, contract, _split(contract, after) - _split(contract, before))
        return parts

    async def contracts(self, wanted):
        self._tx.step()
        return {it: self._t.contracts[it] for it in wanted if it}

    async def used(self, keys):
        self._tx.step()
        return frozenset(it for it in keys if it in self._t.keys)

    async def receivable(self, tenant):
        self._tx.step()
        return self._t.account("receivable", tenant)

    async def charged_nano(self, leases):
        self._tx.step()
        return sum(line.amount_nano for it in leases for line in self._t.leases[it].lines)


def _split(contract, row):
    amounts = [] if row is None else [it.amount_nano for it in lines(Stored(row, 0, 0))]
    return split_lines(contract, amounts)


def _share(parts, contract, part):
    for account, nano in (
        (contract.payable_account, part.payable_nano),
        (contract.holdback_account, part.holdback_nano),
    ):
        parts[account] = parts.get(account, 0) + nano
