"""Billing's tables in memory, with what the schema enforces; transactions that crash at any await.

The use cases and the domain are the real ones: this stands for PostgreSQL and its adapters only.
A transaction writes in place and is undone from its log, so a crash anywhere leaves nothing.
"""

from __future__ import annotations

from gridlease_billing.domain.clock_jump import Reading, Watch
from gridlease_billing.ports import Now
from gridlease_kernel.faults import Conflict

from tests.sim.money.broken import conflict, crashed
from tests.sim.money.ledger import LedgerRows
from tests.sim.money.meters import TariffRows
from tests.sim.money.papers import InvoiceRows, Nothing, Owners, TaxRows
from tests.sim.money.rows import EvidenceRows, LeaseRows, LineRows, PriceRows

_ATTEMPTS = 8


class Work:
    """One transaction. ``fuse``: at which await it crashes, or meets another; 0 = at none."""

    def __init__(self, tables, clock, watch, fuse, blow):
        self.tables, self._clock, self._watch = tables, clock, watch
        self._fuse, self._blow = fuse, blow
        self.undo = []
        self.touched = {}  # lease -> (row before, grown)
        self.moved = set()  # accounts
        self.journals = 0
        self.leases = LeaseRows(self)
        self.lines = LineRows(self)
        self.tariffs = TariffRows(self)
        self.ledger = LedgerRows(self)
        self.prices = PriceRows(self)
        self.evidence = EvidenceRows(self)
        self.invoices, self.taxes, self.suppliers = InvoiceRows(self), TaxRows(self), Owners(self)
        self.receivables = self.footprints = Nothing(self)

    def step(self):
        if self._fuse:
            self._fuse -= 1
            if not self._fuse:
                raise self._blow()

    def database_ms(self):
        return self._clock.database_ms()

    async def now(self):
        self.step()
        ms, ns = self._clock.database_ms(), self._clock.boottime_ns()
        self._watch.seen(Reading(ms, ns, ns))
        return Now(ms, self._watch.suspect(ns))

    def save(self, thing):
        self.undo.append((thing.restore, thing.state()))

    def roll_back(self):
        for restore, state in reversed(self.undo):
            restore(state)


class Watcher:
    def __init__(self):
        self._watch = Watch()

    def seen(self, reading):
        self._watch = self._watch.seen(reading, 600_000)

    def suspect(self, ns):
        return self._watch.suspect(ns)


class MemoryBooks:
    """As ``PostgresBooks``: all of a work is committed, or none, again if another was first."""

    def __init__(self, tables, clock, random, oracle, faults):
        self.tables, self._clock, self._random = tables, clock, random
        self._oracle, self._faults = oracle, faults
        self._watch = Watcher()
        self.reach = 14  # the await at which a work may crash comes before this

    async def run(self, work, *, tenant="*"):
        for _ in range(_ATTEMPTS):
            fuse = self._random.randrange(1, self.reach) if self._faults.crash() else 0
            other = fuse and self._random.random() < 0.3
            tx = Work(self.tables, self._clock, self._watch, fuse, conflict if other else crashed)
            try:
                result = await work(tx)
                self._oracle.commit(tx, self._clock.database_ms())
            except BaseException as error:
                tx.roll_back()
                if isinstance(error, Conflict) and error.reason == "DATABASE_CONFLICT":
                    continue
                raise
            if self._faults.crash():  # between the commit and the answer
                raise crashed()
            return result
        raise crashed()
