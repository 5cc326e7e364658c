"""Nodes, a scheduler, tenants and a bus that loses, doubles and reorders; all from one seed.

An event is one report of a lease delivered to billing, or one other call delivered to it, or one
fault: a message lost, a crash, a jump of the clock, a node that is cut off or dies.
"""

from __future__ import annotations

import heapq
import itertools
import random
import zlib
from dataclasses import dataclass, replace

from gridlease_billing.authorize import authorize
from gridlease_billing.close import Closure, close
from gridlease_billing.credit import pay_in
from gridlease_billing.domain.grant_row import Ask, Cause, Terms
from gridlease_billing.domain.price import NewPrice
from gridlease_billing.expire import expire
from gridlease_billing.ports import Credit
from gridlease_billing.prices import create_price
from gridlease_billing.ticks import Settler
from gridlease_kernel.faults import Fault

from tests.sim.money.node import Node

TERMS = Terms(grant_ms=60_000, hold_ttl_ms=30_000, late_after_ms=3_600_000)
_START_MS = 1_800_000_000_000
_CHIPS = ("H100", "L4")
_TIERS = ("ON_DEMAND", "SPOT")
_CAUSES = (Cause.STOPPED, Cause.PREEMPTED, Cause.DRAINED, Cause.NODE_LOST, Cause.EXITED)


@dataclass(frozen=True, slots=True)
class Profile:
    """What goes wrong, and how often: shares of one."""

    lose: float = 0.05
    double: float = 0.10
    slow: float = 0.02  # messages that come minutes or hours late
    crash: float = 0.02
    jump: float = 0.0
    off: float = 0.01  # a node's turn that begins a time offline
    die: float = 0.0005
    lie: float = 0.0
    drift_ppm: int = 0
    pay_nano: int = 400_000_000_000
    leases: int = 10
    turn_ms: int = 12_000
    nodes: int = 4
    tenants: int = 3
    batch: int = 1  # gangs that one Authorize asks for; what is closed together is one call then
    office_ms: int = 60_000  # the longest between two acts of an operator


PROFILES = {
    "calm": Profile(lose=0, double=0, slow=0, crash=0, off=0, die=0),
    "lossy": Profile(lose=0.3, double=0.3, slow=0.05),
    "crashing": Profile(crash=0.25),
    "offline": Profile(off=0.05, die=0.002, slow=0.05),
    "jumping": Profile(jump=0.02, drift_ppm=150),
    "poor": Profile(pay_nano=6_000_000_000),
    "liars": Profile(lie=0.05, drift_ppm=80),
    "crowded": Profile(leases=24, turn_ms=4_000),
}


def priority_of(job):
    """A job's, between 0 and 100."""
    return zlib.crc32(job.encode()) % 5 * 25


class Clock:
    """The world's time; each process's clock counts it, the database's may jump."""

    def __init__(self):
        self.now_ms = _START_MS
        self.jumped_ms = 0

    def database_ms(self):
        return self.now_ms + self.jumped_ms

    def boottime_ns(self):
        return (self.now_ms - _START_MS + 1_000) * 1_000_000


class Town:
    """One world. ``open_books(town)`` gives its books and its oracle."""

    def __init__(self, seed, profile, pen, open_books):
        self.seed = seed
        self.random = random.Random(f"{seed}")
        self.profile = profile
        self.pen = pen
        self.clock = Clock()
        self.events = self.calls = 0
        self.met = {}
        self.quiet = False  # no faults any more: what is under way comes to its end
        self._queue = []
        self._numbers = itertools.count()
        self.books, self.oracle = open_books(self)
        self.settlers = [self.new_settler() for _ in range(2)]
        self.nodes = {}
        self.owner = {}  # lease -> node
        self.asks = {}
        self.doubted = set()  # leases whose kept report is not their last
        self.keys = {}  # lease -> its node's key
        self.open = {}  # lease -> ask: those that the scheduler still wants
        self.tenants = [f"tenants/{n}" for n in range(profile.tenants)]
        for n in range(profile.nodes):
            self.new_node(n)

    def new_settler(self):
        return Settler(self.books, TERMS, self.pen.holds, self.clock)

    def new_node(self, turn):
        node = Node(self, f"n{len(self.nodes)}")
        self.nodes[node.name] = node
        self.after(self.random.randrange(1, self.profile.turn_ms) + turn, node.turn)

    # Time, and what goes wrong.
    def after(self, ms, act, *args):
        heapq.heappush(self._queue, (self.clock.now_ms + ms, next(self._numbers), act, args))

    def pop(self):
        at_ms, _, act, args = heapq.heappop(self._queue)
        self.clock.now_ms = max(self.clock.now_ms, at_ms)
        return act, args

    def pop_together(self, span_ms, most):
        """What happens within a span: all of it at its end."""
        first_ms = self._queue[0][0]
        acts = [self.pop()]
        while len(acts) < most and self._queue and self._queue[0][0] <= first_ms + span_ms:
            acts.append(self.pop())
        return acts

    def fault(self, kind, share):
        """Whether it happens now; counted where it does."""
        if self.quiet or self.random.random() >= share:
            return False
        self.meet(kind)
        self.events += 1
        return True

    def meet(self, kind, count=1):
        self.met[kind] = self.met.get(kind, 0) + count

    def crash(self):
        return self.fault("crash", self.profile.crash)

    def send(self, act, *args):
        """Over the bus: once, never, twice, soon or late."""
        if not self.fault("lost", self.profile.lose):
            self.after(self._delay(), act, *args)
        if not self.quiet and self.random.random() < self.profile.double:
            self.after(self._delay(), act, *args)

    def _delay(self):
        if not self.quiet and self.random.random() < self.profile.slow:
            return self.random.randrange(1_000, self.random.choice([60_000, 7_200_000]))
        return self.random.randrange(1, 400)

    async def call(self, kind, work, events=1):
        """A call delivered to billing; its answer, or None where it failed."""
        self.calls += 1
        self.events += events
        self.meet(kind, events)
        try:
            return await work
        except Fault as fault:
            self.meet(fault.reason)
            return None
        except ConnectionAbortedError:  # the process that had it is gone
            self.meet("process gone")
            return None

    # What is delivered.
    async def settle(self, node, reports, sent_ns):
        at = self.random.randrange(len(self.settlers))
        if self.fault("restart", self.profile.crash / 20):
            await self.settlers[at].close()
            self.settlers[at] = self.new_settler()
        self.oracle.begin(node.name, reports)
        answers = await self.call(
            "report", self.settlers[at].settle(node.name, reports), len(reports)
        )
        self.oracle.end(answers)
        if answers is not None:
            self.send(node.hear, answers, sent_ns)

    async def authorize(self, asks):
        for ask in asks:
            self.keys[ask.lease_id] = ask.node_key
            self.pen.owns(ask.lease_id, ask.node if ask.node_key else "")
        alone = self.profile.batch > 1
        told = await self.call("authorize", authorize(self.books, asks, TERMS, each_alone=alone))
        for ask, it in zip(asks, told or (), strict=bool(told)):
            if it.ok:
                self.meet("admitted")
                self.send(self.nodes[ask.node].order, ask)

    async def close(self, lease, notice_ms, cause):
        await self.close_all([Closure(lease, notice_ms, cause)])

    async def close_all(self, closures):
        await self.call("close", close(self.books, closures, TERMS))

    async def expire(self):
        await self.call("expire", expire(self.books, TERMS))

    async def pay(self, credit):
        await self.call("credit", pay_in(self.books, credit))

    async def price(self, new):
        await self.call("price", create_price(self.books, new))

    # What the scheduler, operators and time do.
    async def begin(self):
        for chip in _CHIPS:
            for tier in _TIERS:
                await create_price(self.books, self._new_price(chip, tier, None))
        for tenant in self.tenants:
            await pay_in(self.books, Credit(tenant, self.profile.pay_nano, "first", "sim"))
        for act in (self.schedule, self.sweep, self.operate):
            self.after(self.random.randrange(1, 1_000), act)

    def _new_price(self, chip, tier, effective_ms):
        nano = self.random.choice([
            self.random.randrange(1, 50_000_000_000), self.random.randrange(10**9, 40 * 10**9), 7,
        ])  # fmt: skip
        return NewPrice(chip, tier, nano, effective_ms, f"p{next(self._numbers)}")

    async def schedule(self):
        """The scheduler's turn: new leases, old orders again, evictions."""
        if self.quiet:
            return
        self.after(self.random.randrange(500, self.profile.turn_ms), self.schedule)
        r = self.random
        if len(self.open) < self.profile.leases:
            asks = [ask for _ in range(self.profile.batch) for ask in self._asks()]
            self.send(self.authorize, asks)
            for ask in asks:
                self.open[ask.lease_id] = self.asks[ask.lease_id] = ask
                self.owner[ask.lease_id] = ask.node
        if r.random() < 0.05 and self.asks:
            old = self.asks[r.choice(list(self.asks)[-200:])]
            self.send(self.authorize, [old])
        closures = []
        for lease in list(self.open):
            if r.random() < 0.02:
                cause = r.choice(_CAUSES)
                notice = r.choice([0, 5_000, self.open[lease].notice_ms, 90_000])
                closures.append(Closure(lease, notice, cause))
                del self.open[lease]
                if self.profile.batch == 1:
                    self.send(self.close_all, [closures.pop()])
        if closures:
            self.send(self.close_all, closures)
        if r.random() < 0.02:  # before its Authorize comes, if it ever does
            asks = self._asks()
            self.send(self.close, asks[0].lease_id, 0, Cause.STOPPED)
            self.after(r.randrange(1, 600), self.authorize, asks)

    def _asks(self):
        r, number = self.random, next(self._numbers)
        chip, tier, tenant = r.choice(_CHIPS), r.choice(_TIERS), r.choice(self.tenants)
        count = r.choice([1, 1, 1, 2, 3])
        job = f"projects/p/jobs/{number if r.random() < 0.5 else f'{tenant[-1]}-{number % 7}'}"
        budget = None
        if job.endswith(str(number)):
            budget = r.choice([None, r.randrange(10**9, 4 * 10**9), r.randrange(10**7, 10**9)])
        return [
            Ask(
                f"l{number:08d}-{n}",
                job=job,
                gang=f"g{number}" if count > 1 else "",
                tenant=tenant,
                project="projects/p",
                node=(node := self._node()).name,
                chip=chip,
                quantity_milli=r.choice([1, 125, 333, 1_000, 8_000]),
                tier=tier,
                budget_nano=budget,
                max_rate_nano_per_hour=r.choice([None, None, 200_000_000_000, 30_000_000_000]),
                notice_ms=r.choice([0, 7_001, 30_000, 61_000]),
                node_key=node.key,
                site=node.site,
                priority=priority_of(job),
                power=node.power,
            )
            for n in range(count)
        ]  # fmt: skip

    def _node(self):
        return self.random.choice([it for it in self.nodes.values() if not it.dead])

    async def sweep(self):
        """Time's turn."""
        self.after(self.random.randrange(2_000, 20_000), self.sweep)
        await self.expire()
        if self.fault("jump", self.profile.jump):
            self.clock.jumped_ms += self.random.choice([-30_000, -1_500, 2_000, 90_000, 5_000_000])

    async def operate(self):
        """An operator's turn: prices and payments, some of them twice."""
        if self.quiet:
            return
        self.after(self.random.randrange(5_000, self.profile.office_ms), self.operate)
        r = self.random
        if r.random() < 0.3:
            later = None if r.random() < 0.7 else self.clock.database_ms() + r.randrange(300_000)
            self.send(self.price, self._new_price(r.choice(_CHIPS), r.choice(_TIERS), later))
        if r.random() < 0.4:
            amount = r.randrange(1, self.profile.pay_nano // 4)
            credit = Credit(r.choice(self.tenants), amount, f"c{next(self._numbers)}", "sim")
            for _ in range(r.choice([1, 1, 2, 3])):
                self.send(self.pay, credit)

    def lying(self, reports):
        """A node that says what is not so."""
        r = self.random
        if not reports or not self.fault("lie", self.profile.lie):
            return reports
        at = r.randrange(len(reports))
        it = reports[at]
        way = r.choice(["ahead", "nowhere", "forged"])
        counters = dict(it.counters)
        if way == "nowhere":
            counters[99, "run"] = r.randrange(10**15)
            self.doubted.add(it.lease_id)  # such a report is kept as the one that counts furthest
        else:
            counters[1, "run"] = counters.get((1, "run"), 0) + r.randrange(1, 10**14)
        told = replace(it, counters=counters)
        told = (
            replace(told, signature=b"forged", text="") if way == "forged" else self.pen.sign(told)
        )
        if way == "ahead" or (way == "forged" and not self.keys[it.lease_id]):
            self.oracle.lied(it.lease_id)
        return [*reports[:at], told, *reports[at + 1 :]]
