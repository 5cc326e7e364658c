"""What the books must say: kept beside them from what was delivered, by other code than theirs."""

from __future__ import annotations

from collections import defaultdict, deque

from gridlease_billing.domain.grant_row import State
from gridlease_billing.domain.late import LONGEST_LATE_MS
from gridlease_billing.domain.price import in_force
from gridlease_billing.domain.segment import fold

from tests.sim.money.broken import insist
from tests.sim.money.meters import insist_on_books, insist_on_lease
from tests.sim.money.papers import insist_on_papers

_HOUR_NS = 3_600_000_000_000
_MS_NS = 1_000_000
_PAYEES = ("revenue", "supplier_payable", "supplier_holdback", "tax_payable")
_KEPT = 24  # reports of a lease, for the test that their order is of no matter


class Account:
    """One lease: the furthest counters that reached billing, and those of before it was FINAL."""

    __slots__ = ("billed", "frozen", "heard", "highest", "last_heard", "late_nano", "lied")

    def __init__(self):
        self.highest = {}
        self.frozen = {}
        self.billed = None  # as of when it became FINAL
        self.heard = deque(maxlen=_KEPT)
        self.last_heard = False  # its node's last word came in time
        self.lied = False
        self.late_nano = None  # what all of it costs, once some was told too late


def dues(segments, counters, frozen):
    """What run time costs: each segment up to what was granted, and all up to their whole span."""
    left = (segments[-1].ends_ms - segments[0].starts_ms) * _MS_NS if segments else 0
    for it in segments:
        most = frozen.get(it.number, (it.ends_ms - it.starts_ms) * _MS_NS)
        ns = min(counters.get((it.number, "run"), 0), most, left)
        left -= ns
        yield ns * it.rate_nano_per_hour // _HOUR_NS


def due_nano(segments, counters, frozen):
    """All of it."""
    return sum(dues(segments, counters, frozen))


def run_ns(counters):
    """All run time that was told."""
    return sum(ns for (_, meter), ns in counters.items() if meter == "run")


class Oracle:
    """Checks each commit, and the whole book when asked."""

    def __init__(self, tables, terms, random):
        self.tables, self.terms, self.random = tables, terms, random
        self.accounts = defaultdict(Account)
        self.pending = {}  # reports of the call under way that deserve to be believed
        self.met = {}  # the rows that they met
        self.now_ms = lambda: 0
        self.holds = lambda key, text, signature: True
        self.commits = 0

    def lied(self, lease):
        """The node of this lease counts more than there was."""
        self.accounts[lease].lied = True

    def begin(self, node, reports):
        """A call of a node is delivered."""
        self.pending, self.met = {}, {}
        for it in reports:
            lease = self.tables.leases.get(it.lease_id)
            ask = lease and lease.row.ask
            if ask is None or ask.node != node:
                continue
            if not ask.node_key or self.holds(ask.node_key, it.text, it.signature):
                self.pending[it.lease_id] = it
                self.met[it.lease_id] = lease.read().row

    def end(self, answers):
        """It is answered, or has failed (None): what was answered is kept."""
        for name, told in self.pending.items() if answers is not None else ():
            if name in self.met:  # the books did not change by it
                self.hear(self.met[name], told, self.now_ms())
                lease = self.tables.leases[name]
                self._check(name, lease.read().row, lease)
        self.pending, self.met = {}, {}

    def answered(self, answer):
        """What a node heard."""
        insist(answer.reason != "PARKED", "a lease's books contradict themselves", answer)

    def commit(self, tx, now_ms):
        """Before a transaction's changes are kept."""
        self.commits += 1
        for name, (before, lease) in tx.touched.items():
            row = lease.read().row
            told = self.pending.get(name)
            if told is not None and before is not None:
                self.hear(before, told, now_ms)
                self.met.pop(name, None)
            if row.state is State.FINAL and self.accounts[name].billed is None:
                self._over(before, row, told, now_ms)
            self._check(name, before, lease)

    def hear(self, before, told, now_ms):
        """A report that billing has committed. ``before``: the row that it met."""
        own = self.accounts[before.lease_id]
        if before.spool_id is not None and before.spool_id != told.spool_id:
            return
        if before.state is not State.FINAL and self._by_time(before, now_ms):
            own.billed = dict(own.highest)
        ran_ns = run_ns(own.highest)
        starts = {it.number: it.starts_ms for it in before.segments}
        for key, count in told.counters.items():
            if key[0] not in starts:
                continue
            before_it, room = own.highest.get(key, 0), count
            if key[1] == "run" and own.billed is None and key[0] in own.frozen:
                continue  # a later segment has been used: this one is over
            if key[1] == "run":
                room = max(0, now_ms + self.terms.ahead_ms - starts[key[0]]) * _MS_NS
            own.highest[key] = max(before_it, min(count, room))
        own.heard.append(told.counters)
        if own.billed is not None:
            self._late(own, before, told, now_ms, grown=run_ns(own.highest) > ran_ns)
        used = max((n for (n, meter), ns in own.highest.items() if meter == "run" and ns),
                   default=0)  # fmt: skip
        if own.billed is None:
            for it in before.segments:
                if it.number < used and it.number not in own.frozen:
                    granted = (it.ends_ms - it.starts_ms) * _MS_NS
                    own.frozen[it.number] = min(own.highest.get((it.number, "run"), 0), granted)

    def _late(self, own, before, told, now_ms, *, grown):
        """Told after the end: still owed within its days, whatever the lease was charged then."""
        if now_ms > before.ends_at_ms + LONGEST_LATE_MS:
            return
        if told.final and before.spool_id == told.spool_id:
            own.last_heard = True
        if grown:
            own.late_nano = due_nano(before.segments, own.highest, {})

    def _by_time(self, row, now_ms):
        if not row.segments:
            return now_ms >= row.ends_at_ms
        return now_ms >= row.ends_at_ms + self.terms.late_after_ms

    def _over(self, before, row, told, now_ms):
        own = self.accounts[row.lease_id]
        own.billed = dict(own.highest)
        own.last_heard = (
            told is not None
            and told.final
            and before is not None
            and not self._by_time(before, now_ms)
            and before.spool_id in (None, told.spool_id)
        )

    def _check(self, name, before, lease):
        row, own = lease.read().row, self.accounts[name]
        insist({key: n for key, n in row.counters.items() if n}
               == {key: n for key, n in own.highest.items() if n},
               "counters are not the furthest told", row, own.highest)  # fmt: skip
        counters = own.highest if own.billed is None else own.billed
        due = due_nano(row.segments, counters, own.frozen)
        insist(row.charged_nano == due, "charged is not what is due", due, row)
        insist(row.held_nano >= 0, "a hold below zero", row)
        late = 0 if own.late_nano is None else own.late_nano - due
        corrected = sum(it.amount_nano for it in lease.corrections)
        insist(
            corrected == late, "late usage is not what is owed", corrected, late, row, own.highest
        )
        ask = row.ask
        for it in row.segments[len(before.segments) if before else 0 :]:
            price = self.tables.versions[it.period - 1]
            rate = (price.price_nano_per_hour * ask.quantity_milli + 500) // 1_000
            kind = (price.chip, price.tier) == (ask.chip, ask.tier)
            # What was authorised holds, also where the clock has gone back since.
            begun = price.effective_ms <= it.starts_ms or rate == row.rate_nano_per_hour
            insist(it.rate_nano_per_hour == rate and begun and kind, "a wrong rate", it, price)
        if before is None:
            insist(not row.charged_nano, "a charge before it ran", row)
            return
        if before.state is row.state is State.OPEN and row.ends_at_ms > before.ends_at_ms:
            now = in_force(self.tables.prices[ask.chip, ask.tier], self.now_ms())
            kept = ask.tier == "SPOT"  # a gang goes on where it would cost more than it accepts
            same = now is None or row.segments[-1].period == now.version
            insist(kept or same, "renewed at an old price", row)
        grown = row.charged_nano + row.held_nano - before.charged_nano - before.held_nano
        insist(grown <= 0 or (row.state is State.OPEN and row.ends_at_ms > before.ends_at_ms),
               "captured more than was held", before, row)  # fmt: skip
        if ask.budget_nano is not None:
            spent = sum(it.row.charged_nano + it.row.held_nano for it in self.tables.jobs[ask.job])
            insist(spent <= ask.budget_nano, "a job is over its budget", spent, row)
        if row.state is State.FINAL:
            total = sum(line.amount_nano for line in lease.lines)
            insist(total == row.charged_nano, "lines are not the charge", lease.lines, row)
            insist_on_lease(lease, row, own.highest)

    def whole(self):
        """The whole book: balances, holds, and where each charge went."""
        t = self.tables
        sums, charges = defaultdict(int), defaultdict(int)
        for journal, account, amount in t.entries:
            sums[account] += amount
            if t.journals[journal][0] == "charge":
                charges[account] += amount
        insist(sum(sums.values()) == 0, "the books do not sum to zero", dict(sums))
        held, charged, parts = defaultdict(int), defaultdict(int), defaultdict(int)
        for lease in t.leases.values():
            row = lease.read().row
            held[row.ask.tenant] += row.held_nano
            charged[row.ask.tenant] += row.charged_nano
            self._owner(row, self.accounts[row.lease_id], parts)
        for account, part in parts.items():
            insist(charges[account] == part, "an owner's part is not of its lines", account, part)
        for (kind, owner), account in t.accounts.items():
            if kind == "tenant_prepaid":
                posted, on_hold = t.balances[account]
                insist(posted == sums[account], "a balance is not its entries", owner)
                insist(on_hold == held[owner], "held is not the open holds", owner)
                insist(charges[account] == -charged[owner], "charges are not posted", owner)
        self._sides(charges)
        insist_on_books(t)
        insist_on_papers(t)
        self._suspense(sums)
        self._any_order()

    def _sides(self, charges):
        """What tenants were charged is what the platform, suppliers and the tax office got."""
        t = self.tables
        sides = defaultdict(int)
        for (kind, _), account in t.accounts.items():
            sides[kind] += charges[account]
        paid = sides.pop("tenant_prepaid", 0)
        got = sum(sides[kind] for kind in _PAYEES)
        insist(paid + got == 0, "debits are not revenue, suppliers and tax", paid, got)

    def _suspense(self, sums):
        """What lies in suspense is what its leases explain, each with an alarm."""
        t = self.tables
        open_nano = sum(it.open_nano for it in t.excess.values())
        insist(sums[t.account("suspense")] == open_nano, "suspense is not its causes", open_nano)
        insist(sums[t.account("unbilled")] == -open_nano, "suspense has no other side")
        for (lease, _), it in t.excess.items():
            insist(not it.open_nano or (it.cause, lease) in t.alarms, "suspense without alarm", it)

    def _owner(self, row, own, parts):
        """What the node's owner gets of each line, by its terms."""
        it = self.tables.contracts.get(row.ask.contract)
        if it is None:
            return
        for nano in dues(
            row.segments, own.highest if own.billed is None else own.billed, own.frozen
        ):
            part = nano * it.share_permyriad // 10_000
            back = part * it.holdback_permyriad // 10_000
            parts[it.payable_account] += part - back
            parts[it.holdback_account] += back

    def _any_order(self):
        """Of a lease or two: reports in another order, and twice, fold to the same."""
        for name in self.random.sample(sorted(self.accounts), min(2, len(self.accounts))):
            heard = list(self.accounts[name].heard)
            straight, shuffled = {}, {}
            for it in heard:
                straight = fold(straight, it)
            again = heard + self.random.choices(heard, k=len(heard)) if heard else []
            self.random.shuffle(again)
            for it in again:
                shuffled = fold(shuffled, it)
            insist(straight == shuffled, "the order of reports matters", name)
