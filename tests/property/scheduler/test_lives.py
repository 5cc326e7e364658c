"""Jobs on a clock through the whole ruling: they come, are put out, come back, and all of them end.

Whoever is put out loses what it did since its last checkpoint (here: half of it), so a planner that
goes round in circles, or serves some for ever, would not come to an end.
"""

from dataclasses import dataclass, field, replace

from gridlease_scheduler.domain.eviction.preempt import RULES as EVICT
from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.order.fair import FairRules
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.placing.vacancy import Vacancies
from gridlease_scheduler.domain.plan import Placed, Planner
from gridlease_scheduler.domain.ruling import RulingRules, rule
from gridlease_scheduler.domain.snapshot import Quota, Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scheduler.standing import A100, CATALOGUE, HOUR, MINUTE, node, runs, waits

DEVICES = 4
RULES = RulingRules(fair=FairRules(patience_ms=2 * HOUR))
COMING = st.lists(
    st.builds(
        dict,
        arrives=st.integers(0, 60),
        minutes=st.integers(1, 40),
        count=st.integers(1, DEVICES),
        tasks=st.integers(1, 2),
        tier=st.sampled_from(tuple(Tier)),
        priority=st.sampled_from((0, 50, 100)),
        tenant=st.sampled_from(("a", "b")),
        project=st.sampled_from(("p", "q")),
        says=st.booleans(),
    ),
    max_size=14,
)
QUOTAS = (Quota("p", "", A100, 4_000), Quota("q", "", A100, 2_000, 8_000))


@dataclass
class Life:
    """One job: what waits of it, what is left of its work, and its leases while it runs."""

    task: object
    left_ms: int
    leases: list = field(default_factory=list)
    began: int = 0
    ends: int = 0
    told: bool = False
    evictions: int = 0


class Pool:
    """Nodes, jobs and a clock, moved a minute at a time."""

    def __init__(self, names, quotas):
        self.now, self.names, self.quotas = 1_000 * HOUR, names, quotas
        nodes = [node(name, DEVICES) for name in names]
        self.planner, self.vacancies = Planner(Index(nodes, CATALOGUE)), Vacancies()
        self.waiting, self.running = {}, {}

    def submit(self, number, asked):
        fields = {k: v for k, v in asked.items() if k not in ("arrives", "minutes", "says")}
        span = asked["minutes"] * MINUTE
        longest = span if asked["says"] else 0
        task = waits(f"j{number}", number, submitted_ms=self.now, longest_ms=longest, **fields)
        self.waiting[task.job] = Life(task, span)

    def view(self):
        leases = []
        for life in self.running.values():
            worked = self.now - life.began
            leases += [
                replace(x, worked_ms=worked, saved_ms=worked // 2, closing=life.told)
                for x in life.leases
            ]
        return tuple(leases)

    def step(self):
        """What ended has ended; then a pass, and what it decides is done."""
        self.now += MINUTE
        for job, life in list(self.running.items()):
            if self.now >= life.ends:
                del self.running[job]
                if life.told and life.left_ms > 0:
                    again = replace(life.task, queued_ms=self.now, attempt=life.task.attempt + 1)
                    self.waiting[job] = Life(again, life.left_ms, evictions=life.evictions)
        held = [x for life in self.running.values() for x in life.leases]
        for name in self.names:
            mine = {d for x in held if x.node_id == name for d in x.allocation.device_ids}
            if self.planner.index.hosts[name].view().held != mine:
                self.planner.index.replace(node(name, DEVICES, running=held))
        snapshot = Snapshot(
            (), tuple(x.task for x in self.waiting.values()), CATALOGUE, self.view(),
            self.quotas, now_ms=self.now,
        )  # fmt: skip
        ruling = rule(snapshot, self.planner, RULES, vacancies=self.vacancies)
        for decision in ruling.decisions:
            if isinstance(decision, Placed):
                self.start(decision)
        for eviction in ruling.evictions:
            for victim in eviction.victims:
                self.tell(self.running[victim.job])
        return ruling

    def start(self, decision):
        life = self.waiting.pop(decision.task.job)
        task = life.task
        life.began, life.ends, life.told = self.now, self.now + life.left_ms, False
        life.leases = [
            runs(
                task.job, x.node_id, x.allocation.device_ids, lease_id=f"{task.job}/{x.index}",
                tier=task.needs.tier, priority=task.priority, tenant=task.tenant,
                project=task.project, number=task.number, started_ms=self.now,
                longest_ms=task.longest_ms, evictions=life.evictions,
            )
            for x in decision.members
        ]  # fmt: skip
        self.running[task.job] = life

    def tell(self, life):
        worked = self.now - life.began
        assert not life.told
        assert worked >= EVICT.min_runtime_ms
        assert life.evictions < EVICT.evictions_max
        assert life.task.needs.tier is not Tier.RESERVED
        life.told, life.evictions = True, life.evictions + 1
        life.left_ms -= worked // 2
        life.ends = min(life.ends, self.now + MINUTE)


@settings(max_examples=60, deadline=None)
@given(COMING, st.integers(1, 2), st.booleans())
def test_every_job_ends(coming, nodes, limited):
    coming = [x for x in coming if x["tasks"] <= nodes or x["count"] * x["tasks"] <= DEVICES]
    pool = Pool([f"n{at}" for at in range(nodes)], QUOTAS if limited else ())
    work = sum(x["minutes"] for x in coming)
    # one after another, each put out as often as may be, and the patience of the overdue
    bound = 60 + 3 * work + 10 * len(coming) + 240
    for minute in range(bound):
        for number, asked in enumerate(coming, 1):
            if asked["arrives"] == minute:
                pool.submit(number, asked)
        pool.step()
        devices = [
            d for x in pool.view() for d in ((x.node_id, y) for y in x.allocation.device_ids)
        ]
        assert len(devices) == len(set(devices))
        if minute > 60 and not pool.waiting and not pool.running:
            return
    raise AssertionError({x: life.task for x, life in pool.waiting.items()})


@settings(max_examples=40, deadline=None)
@given(COMING, st.integers(1, 2))
def test_the_job_for_which_others_went_is_next(coming, nodes):
    """It is placed once they are gone, unless one that comes before it took or was promised it."""
    pool = Pool([f"n{at}" for at in range(nodes)], ())
    for number, asked in enumerate(coming, 1):
        if asked["tasks"] * asked["count"] <= DEVICES:
            pool.submit(number, {**asked, "arrives": 0})
    owed = {}
    for _ in range(200):
        ruling = pool.step()
        order = [x.task.job for x in ruling.decisions]
        placed = {x.task.job for x in ruling.decisions if isinstance(x, Placed)}
        for job, due in list(owed.items()):
            if job in placed:
                del owed[job]
            elif pool.now >= due:
                promised = {x.task.job for x in ruling.shadows}
                before = (placed | promised).intersection(order[: order.index(job)])
                assert before or any(x.task.job == job for x in ruling.evictions), (job, order)
                del owed[job]
        for eviction in ruling.evictions:
            owed[eviction.task.job] = pool.now + MINUTE
