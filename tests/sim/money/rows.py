"""A transaction's rows of leases, lines, prices and evidence, as the adapters write them."""

from __future__ import annotations

from dataclasses import replace

from gridlease_billing.domain.grant_row import State
from gridlease_billing.domain.late import Written
from gridlease_billing.domain.price import Price, in_force
from gridlease_billing.domain.segment import chargeable
from gridlease_billing.domain.tick import Known, tracks
from gridlease_billing.domain.usage import Stored, lines

from tests.sim.money.broken import conflict, insist
from tests.sim.money.papers import billable, credits_of, late, unbilled, usage
from tests.sim.money.tables import Lease, Meter

_RANK = {State.HELD: 0, State.OPEN: 1, State.FENCED: 2, State.FINAL: 3}


class LeaseRows:
    def __init__(self, tx):
        self._tx, self._t = tx, tx.tables

    async def lock(self, leases):
        self._tx.step()
        found = self._t.leases
        return {it: found[it].read() for it in sorted(set(leases)) if it in found}

    async def lock_gangs(self, asked):
        self._tx.step()
        found, wanted = self._t.leases, set()
        for it, node in sorted(asked):
            lease = found.get(it)
            if lease is not None and lease.row.ask.node == node:
                wanted |= self._t.gangs[lease.row.ask.gang] if lease.row.ask.gang else {it}
        return {it: found[it].read() for it in sorted(wanted)}

    async def lock_due(self, now_ms, late_after_ms, limit):
        self._tx.step()
        due = [
            (it.row.ends_at_ms, name)
            for name, it in self._t.live.items()
            if it.row.ends_at_ms <= now_ms
            and (it.row.state is not State.FENCED or it.row.ends_at_ms <= now_ms - late_after_ms)
        ]
        return {it: self._t.leases[it].read() for it in sorted(n for _, n in sorted(due)[:limit])}

    async def spent_nano(self, jobs):
        self._tx.step()
        return {
            job: sum(it.row.charged_nano + it.row.held_nano for it in self._t.jobs.get(job, ()))
            for job in jobs
        }

    async def insert(self, changes, now_ms):
        self._tx.step()
        t = self._t
        for it in changes:
            ask = it.after.ask
            ask = replace(ask, contract=t.contract_of(ask.node))
            row = replace(it.after, ask=ask)
            if ask.lease_id in t.leases:
                raise conflict()
            insist(not row.segments, "a lease begins without a grant", row)
            lease = Lease(row, it.price_version, now_ms)
            t.leases[ask.lease_id] = lease
            if row.state is not State.FINAL:
                t.live[ask.lease_id] = lease
            t.jobs.setdefault(ask.job, []).append(lease)
            if ask.gang:
                t.gangs.setdefault(ask.gang, set()).add(ask.lease_id)
            self._tx.undo.append((self._forget, lease))
            self._tx.touched[ask.lease_id] = (None, lease)

    def _forget(self, lease):
        ask = lease.row.ask
        del self._t.leases[ask.lease_id]
        self._t.live.pop(ask.lease_id, None)
        self._t.jobs[ask.job].remove(lease)
        if ask.gang:
            self._t.gangs[ask.gang].discard(ask.lease_id)

    async def update(self, changes):
        changed = [it for it in changes if it.after != it.before]
        if not changed:
            return
        self._tx.step()
        for it in changed:
            self._update(it)
        self._tx.step()

    def _update(self, change):
        t, row = self._t, change.after
        lease = t.leases[row.lease_id]
        before = lease.read().row
        insist(before is change.before or before == change.before, "a lost update", before, row)
        self._tx.save(lease)
        self._tx.touched.setdefault(row.lease_id, (before, lease))
        _forward(before, row)
        lease.row = row
        lease.suspense_ns += change.effect.suspense_ns
        lease.late_ns += change.effect.late_ns
        lease.charged_ns = sum(chargeable(row.segments, row.counters))
        wallet = t.accounts.get(("tenant_prepaid", row.ask.tenant), 0)
        lease.meters = dict(lease.meters)
        for it in tracks(row):
            meter = lease.meters.get(it.segment)
            if meter is None:
                meter = Meter(len(t.meters) + 1, lease, it.segment)
                lease.meters[it.segment] = t.meters[meter.id] = meter
            self._tx.save(meter)
            meter.restore(
                (tuple(map(max, meter.counts, it.counts)), it.rate_nano_per_hour, it.cap_ns,
                 it.rated_nano, it.rated_nano, it.starts_ms, it.quick_until_ms, wallet)
            )  # fmt: skip
        lease.stored = None
        if row.state is State.FINAL and before.state is not State.FINAL:
            lease.ended_ms = self._tx.database_ms()
            lease.lines = tuple(lines(Stored(row, 0, lease.opened_ms)))
            self._t.live.pop(row.lease_id, None)
            self._tx.undo.append((self._revive, lease))

    def _revive(self, lease):
        self._t.live[lease.row.lease_id] = lease

    async def lock_billable(self, scope, limit):
        self._tx.step()
        found = sorted(billable(self._t, scope))[:limit]
        return {it: self._t.leases[it].read() for it in found}

    async def count_unfinished(self, scope):
        self._tx.step()
        return sum(it.row.ask.tenant == scope.tenant for it in self._t.live.values())

    async def quick(self, leases):
        self._tx.step()
        known = {}
        for name in leases:
            row = self._t.leases[name].row
            for it in self._t.leases[name].meters.values():
                if it.quick_until_ms > 0:
                    known[name] = Known(
                        it.id, row.ask.node, row.spool_id, row.ask.node_key, it.segment, it.rate,
                        row.ends_at_ms, it.quick_until_ms,
                    )  # fmt: skip
        return known


def _forward(before, after):
    """The trigger lease_moves_forward."""
    insist(
        _RANK[after.state] >= _RANK[before.state]
        and after.charged_nano >= before.charged_nano
        and (_RANK[before.state] < 2 or after.ends_at_ms <= before.ends_at_ms)
        and (before.state is not State.FINAL or after.charged_nano == before.charged_nano)
        and (before.spool_id is None or after.spool_id == before.spool_id)
        and (after.state is not State.FINAL or after.held_nano == 0),
        "a lease moves backwards", before, after,
    )  # fmt: skip


class LineRows:
    def __init__(self, tx):
        self._tx, self._t = tx, tx.tables

    async def written(self, leases):
        self._tx.step()
        found = {}
        for name in leases:
            lease = self._t.leases[name]
            charged = {it.segment: it.charged_ns for it in lease.lines}
            for it in lease.corrections:
                charged[it.segment] += it.charged_ns
            found[name] = {segment: Written(ns, 1) for segment, ns in charged.items()}
        return found

    async def usage(self, leases):
        self._tx.step()
        return [line for it in leases for line in usage(self._t.leases[it])]

    async def corrections(self, scope):
        self._tx.step()
        return [
            replace(it, cites=self._t.sources.get(f"line/{it.lease}/{it.segment}/run/usage", ""))
            for it in unbilled(self._t, scope, late)
        ]

    async def credits(self, scope):
        self._tx.step()
        found = credits_of(self._t, scope.tenant)
        return [it for it in found if it.source not in self._t.sources]

    async def hours(self, _scope):
        self._tx.step()
        return []

    async def correct(self, lease, found, now_ms):
        self._tx.step()
        lease = self._t.leases[lease]
        self._tx.save(lease)
        lease.corrections += tuple(found)


class PriceRows:
    def __init__(self, tx):
        self._tx, self._t = tx, tx.tables

    async def in_force(self, wanted, now_ms):
        self._tx.step()
        found = {key: in_force(self._t.prices.get(key[:2], ()), now_ms) for key in wanted}
        return {key: it for key, it in found.items() if it is not None}

    async def priorities(self, now_ms):
        return None

    async def find(self, request_id):
        self._tx.step()
        return self._t.requests.get(request_id)

    async def insert(self, price, now_ms):
        self._tx.step()
        begins = now_ms if price.effective_ms is None else price.effective_ms
        number = len(self._t.versions) + 1
        found = Price(number, price.chip, price.tier, price.price_nano_per_hour, begins, now_ms)
        insist(price.request_id not in self._t.requests, "a price twice", price)
        self._t.versions.append(found)
        self._t.requests[price.request_id] = found
        self._t.prices.setdefault((price.chip, price.tier), []).append(found)
        self._tx.undo.append((self._forget, (price.request_id, found)))
        return found

    def _forget(self, pair):
        del self._t.requests[pair[0]]
        self._t.versions.remove(pair[1])
        self._t.prices[pair[1].chip, pair[1].tier].remove(pair[1])


class EvidenceRows:
    def __init__(self, tx):
        self._tx, self._t = tx, tx.tables

    async def keep_signed(self, reports, now_ms):
        if reports:
            self._tx.step()

    async def keep_proofs(self, proofs, now_ms):
        await self.keep_signed(proofs, now_ms)

    async def keep_doubted(self, doubted, now_ms):
        await self.keep_signed(doubted, now_ms)

    async def raise_alarms(self, alarms, now_ms):
        self._tx.step()
        fresh = {(it.kind, it.lease_id): it for it in alarms}
        fresh = {key: it for key, it in fresh.items() if key not in self._t.alarms}
        for key in fresh:
            self._t.alarms.add(key)
            self._tx.undo.append((self._t.alarms.discard, key))
        return list(fresh.values())

    async def excess(self, leases):
        self._tx.step()
        found = {}
        for (lease, segment), it in self._t.excess.items():
            if lease in leases:
                found.setdefault(lease, {})[segment] = it
        return found

    async def put_excess(self, changed, now_ms):
        self._tx.step()
        for it in changed:
            key = (it.lease_id, it.segment)
            self._tx.undo.append((self._put, (key, self._t.excess.get(key))))
            self._t.excess[key] = it
        for name in sorted({it.lease_id for it in changed}):
            lease = self._t.leases[name]
            self._tx.save(lease)
            lease.suspense_ns = sum(
                it.excess_ns for (of, _), it in self._t.excess.items() if of == name
            )
            lease.stored = None

    def _put(self, pair):
        key, before = pair
        if before is None:
            self._t.excess.pop(key, None)
        else:
            self._t.excess[key] = before
