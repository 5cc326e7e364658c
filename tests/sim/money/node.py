"""A node: it runs what it has a grant for, counts, stops at the grant's end, and says so."""

from __future__ import annotations

from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.grant_row import Phase, Report

_MS_NS = 1_000_000
_SITES = (
    ("", None),
    ("sites/a", SitePower(1_200, (400_000,), (250_000_000,))),
    ("sites/b", SitePower(1_000, (), tuple(range(0, 240_000_001, 10_000_000))[:24])),
)  # where its power comes from, and what it costs by the hour


class Task:
    """A lease on its node, with the true counters."""

    __slots__ = ("ask", "ends_ns", "exit_ns", "final", "heard_ns", "last", "more", "rates", "run",
                 "seen_ns", "segment", "spool", "told_last")  # fmt: skip

    def __init__(self, ask, now_ns, lasts_ns, *, more):
        self.ask = ask
        self.spool = f"s-{ask.lease_id}"
        self.more = more  # it counts more than its run time
        self.segment = 0  # 0 = not granted yet
        self.ends_ns = 0  # of the grant, on this node's clock
        self.exit_ns = now_ns + lasts_ns  # when it ends by itself
        self.seen_ns = self.heard_ns = now_ns
        self.run, self.rates = {}, {}
        self.last = self.final = self.told_last = False


class Node:
    """Everything it knows lies on its disk: a restart changes nothing, death ends all."""

    def __init__(self, town, name):
        self.town, self.name = town, name
        r = town.random
        self.drift_ppm = r.randint(-town.profile.drift_ppm, town.profile.drift_ppm)
        number = int(name[1:])
        self.site, self.power = _SITES[number % 3]
        self.key = town.pen.key(name) if r.random() < 0.5 else ""
        self.tasks = {}
        self.ended = {}  # those whose last word was acknowledged
        self.dead = False
        self.offline_until_ms = 0
        self._gave_up_ns = 200 * 60_000 * _MS_NS

    def now_ns(self):
        ns = self.town.clock.boottime_ns()
        return ns + ns * self.drift_ppm // 1_000_000

    async def order(self, ask):
        """The order to run; copies of it change nothing."""
        if self.dead or ask.lease_id in self.tasks or ask.lease_id in self.ended:
            return
        lasts_ns = self.town.random.choice([5, 45, 200, 900, 100_000]) * 1_000 * _MS_NS
        self.tasks[ask.lease_id] = Task(
            ask, self.now_ns(), lasts_ns, more=self.town.random.random() < 0.4
        )

    async def turn(self):
        """Counts, and reports unless it is cut off."""
        town, r = self.town, self.town.random
        if self.dead:
            return
        if town.fault("died", town.profile.die):
            self.dead = True
            town.new_node(0)
            return
        town.after(r.randrange(town.profile.turn_ms // 4, town.profile.turn_ms), self.turn)
        if town.clock.now_ms >= self.offline_until_ms and town.fault("cut off", town.profile.off):
            most_ms = r.choice([30_000, 300_000, 5 * 3_600_000])
            self.offline_until_ms = town.clock.now_ms + r.randrange(1, most_ms)
        if self.tasks and (town.quiet or town.clock.now_ms >= self.offline_until_ms):
            for it in self.tasks.values():
                self._count(it)
            reports = [self._report(it) for it in self.tasks.values()]
            r.shuffle(reports)
            town.send(town.settle, self, town.lying(reports), self.now_ns())

    def _count(self, task):
        now_ns = self.now_ns()
        if task.segment and not task.final:
            until_ns = min(now_ns, task.ends_ns, task.exit_ns)
            task.run[task.segment] += max(0, until_ns - task.seen_ns)
            task.final = now_ns >= min(task.ends_ns, task.exit_ns)
        elif not task.segment and now_ns - task.heard_ns > self._gave_up_ns:
            task.final = True
        task.seen_ns = now_ns

    def counters(self, task):
        """All that it has counted."""
        counters = {(segment, "run"): ns for segment, ns in task.run.items() if ns}
        if task.more:
            for segment, ns in task.run.items():
                counters[segment, "egress"] = ns // 1_000
                counters[segment, "storage"] = ns // 10
                counters[segment, "energy"] = ns * 7 // 10_000
                counters[segment, "lookups"] = ns // 1_000_000
            if task.run:
                counters[1, "provision"] = 5_000_000_000
        return counters

    def _report(self, task):
        phase = Phase.STARTING if task.segment else Phase.KNOWN
        if task.final:
            phase = Phase.CLEAN
        return self.town.pen.sign(
            Report(task.ask.lease_id, task.spool, phase, task.final, self.counters(task))
        )

    async def hear(self, answers, sent_ns):
        """Grants count from when they were asked for: a slow answer grants less, never more."""
        if self.dead:
            return
        for it in answers:
            task = self.tasks.get(it.lease_id)
            if task is None:
                continue
            self.town.oracle.answered(it)
            self._count(task)
            if it.final_acknowledged and task.final:
                self.ended[it.lease_id] = self.tasks.pop(it.lease_id)
                continue
            task.heard_ns = self.now_ns()
            if task.final:
                continue
            if it.last and not task.segment:
                task.final = True  # never to be started
            elif it.valid_for_ms:
                self._granted(task, it, sent_ns)

    def _granted(self, task, answer, sent_ns):
        ends_ns = sent_ns + answer.valid_for_ms * _MS_NS
        if not task.segment and ends_ns <= self.now_ns():
            return
        if answer.segment > task.segment:
            task.segment = answer.segment
            task.run.setdefault(answer.segment, 0)
            task.rates[answer.segment] = answer.rate_nano_per_hour
        task.ends_ns = max(task.ends_ns, ends_ns)
