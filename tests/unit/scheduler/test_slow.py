"""A pass of the slow path with scripted ports: what it reads, asks, writes, and leaves alone."""

import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from gridlease_kernel.faults import Conflict, Unreachable
from gridlease_scheduler.advise import Advise
from gridlease_scheduler.domain.electricity.idle import SleepPolicy
from gridlease_scheduler.domain.job import JobState, Purpose, Reason
from gridlease_scheduler.domain.slow.advice import Solution
from gridlease_scheduler.operators import Parts
from gridlease_scheduler.ports import FleetChanges, Instant, QueueChanges, Standing
from gridlease_scheduler.slow import Slow, SlowParts, SlowRules

from tests.unit.scheduler.flexing import NOW, leases, trains
from tests.unit.scheduler.standing import CATALOGUE, HOUR, node, runs, waits


@dataclass
class World:
    """All that the slow path could reach; it is the store, the transaction and its groups."""

    fleet_: tuple = ()
    running: tuple = ()
    waiting: tuple = ()
    flexible_: tuple = ()
    jobs_: dict = field(default_factory=dict)
    now_ms: int = NOW
    told: list = field(default_factory=list)
    wanted: list = field(default_factory=list)
    ended: list = field(default_factory=list)
    holds: bool = True
    deposed: bool = False
    away: bool = False

    async def read(self, work):
        if self.away:
            raise Unreachable("no database", reason="DATABASE_AWAY", remedy="Wait.")
        return await work(self)

    @contextlib.asynccontextmanager
    async def reading(self):
        yield self

    @contextlib.asynccontextmanager
    async def writing(self, epoch):
        if self.deposed:
            raise Conflict("another leads", reason="LEADER_DEPOSED", remedy="None.")
        yield self

    jobs = nodes = events = planning = property(lambda self: self)

    async def now(self):
        return Instant(1, self.now_ms, governed=False)

    async def fleet(self):
        return FleetChanges(self.fleet_, (), {x.node_id: 1 for x in self.fleet_})

    async def fleet_changes(self, since, known):
        return await self.fleet()

    async def queue(self, limit):
        return [Standing(x, Reason()) for x in self.waiting]

    async def queue_changes(self, since):
        return QueueChanges(tuple(await self.queue(0)), ())

    async def parts(self, catalogue):
        return Parts(self.now_ms, self.running, (), (), (), ())

    async def flexible(self):
        return self.flexible_

    async def get(self, name, *, lock=False):
        return self.jobs_.get(name)

    async def some(self, names):
        return {x: self.jobs_[x] for x in names if x in self.jobs_}

    async def want(self, name, tasks):
        self.wanted.append((name, tasks))

    async def tell(self, event):
        self.told.append(event)

    async def tell_all(self, events):
        self.told += events

    async def evict(self, endings, epoch):
        if self.holds:
            self.ended += endings
        return self.holds


class Solver:
    """Answers, or is silent."""

    def __init__(self):
        self.solution = Solution((), ())
        self.silent = False
        self.asked = 0

    async def solve(self, problem):
        self.asked += 1
        if self.silent:
            raise Unreachable("killed", reason="OPTIMISER_SILENT", remedy="Wait.")
        return self.solution


def job(name, state=JobState.PENDING, attempt=1, lease="", project="projects/p"):
    tasks = (SimpleNamespace(lease_id=lease, allocation=None, attempt=attempt),)
    return SimpleNamespace(name=name, state=state, attempt=attempt, project=project, tasks=tasks)


def slow(world, solver=None, **rules):
    clock = SimpleNamespace(now_ms=lambda: 0)
    parts = SlowParts(
        world, world, world.evict, Advise(solver or Solver()), CATALOGUE, clock, SlowRules(**rules)
    )
    return Slow(parts)


async def test_growth_is_told_as_an_end_with_the_next_number_of_tasks():
    running = tuple(leases("j", 1))
    world = World((node("n1", 4, running=running),), running, flexible_=(trains(),))
    done = await slow(world)(7)
    assert (done.resized, done.rest_ms) == (1, 15_000)
    [ending] = world.ended
    assert (ending.job, ending.tasks, ending.attempt, ending.cause) == ("j", 4, 1, "PREEMPTED")
    assert ending.reason.code == "RESIZED"


async def test_what_does_not_hold_any_more_is_not_counted():
    running = tuple(leases("j", 1))
    world = World((node("n1", 4, running=running),), running, flexible_=(trains(),), holds=False)
    assert (await slow(world)(7)).resized == 0


async def test_a_job_that_waits_for_too_many_asks_for_fewer_if_it_still_waits():
    asks = trains(tasks=4, running=False)
    world = World(flexible_=(asks,), jobs_={"j": job("j")})
    slowly = slow(world)
    assert (await slowly(7)).resized == 0, "nobody has seen it wait yet"
    world.now_ms += 15_000
    assert (await slowly(7)).resized == 1
    assert world.wanted == [("j", 2)]
    assert [x.type for x in world.told] == ["job.resized"]
    world.now_ms += 15_000
    for gone in ({}, {"j": job("j", JobState.RUNNING)}, {"j": job("j", attempt=2)}):
        world.jobs_ = gone
        assert (await slowly(7)).resized == 0


async def test_moves_are_made_all_or_none_and_only_where_things_still_are():
    running = (
        runs("projects/p/jobs/a", "n1", ("gpu-0",), saved_ms=HOUR),
        runs("projects/p/jobs/b", "n2", ("gpu-0",), saved_ms=HOUR),
    )
    fleet = tuple(node(x, 2, running=running) for x in ("n1", "n2"))
    large = waits("large", count=2, submitted_ms=NOW - HOUR)
    a = "projects/p/jobs/a"
    there = {"large": job("large"), a: job(a, JobState.RUNNING, lease=f"{a}/n1")}
    world = World(fleet, running, (large,), jobs_=there)
    assert (await slow(world)(7)).moved == 1
    assert [(x.job, x.reason.code) for x in world.ended] == [(a, "DEFRAGMENTED")]
    for change in (
        {"large": job("large", JobState.RUNNING)},
        {a: job(a, JobState.RUNNING, lease="another")},
        {a: job(a)},
    ):
        world.ended.clear()
        world.jobs_ = there | change
        assert (await slow(world)(7)).moved == 0
        assert not world.ended


async def test_an_empty_host_is_proposed_once():
    world = World(tuple(node(x, 2) for x in ("n1", "n2")))
    slowly = slow(world, sleep=SleepPolicy(empty_ms=60_000, reserve=1))
    assert (await slowly(7)).proposed == 0
    world.now_ms += 60_000
    assert (await slowly(7)).proposed == 1
    assert [(x.type, x.entity) for x in world.told] == [("node.sleep_proposed", "nodes/n2")]
    assert (await slowly(7)).proposed == 0


async def test_a_silent_optimiser_changes_nothing():
    wish = {"purpose": Purpose.TRAINING}
    world = World((node("n1", 1),), waiting=(waits("w", count=2, need=wish),))
    solver = Solver()
    slowly = slow(world, solver)
    solver.silent = True
    await slowly(7)
    assert not slowly.lookup.prices
    solver.silent, solver.solution = False, Solution((), (("A100-80GB", 2.0),))
    await slowly(7)
    assert slowly.lookup.prices == {"A100-80GB": 2_000}
    solver.silent = True
    world.waiting = (*world.waiting, waits("v", 2, count=2, need=wish))
    await slowly(7)
    assert slowly.lookup.prices == {"A100-80GB": 2_000}
    assert solver.asked == 3


async def test_a_deposed_leader_stops_and_a_missing_database_is_waited_for():
    running = tuple(leases("j", 1))
    world = World((node("n1", 4, running=running),), running, flexible_=(trains(),))
    slowly = slow(world)
    world.away = True
    with pytest.raises(Unreachable):
        await slowly(7)
    world.away = False
    world.flexible_, world.deposed = (trains(tasks=4, running=False),), True
    world.jobs_ = {"j": job("j")}
    await slowly(7)
    world.now_ms += 15_000
    with pytest.raises(Conflict):
        await slowly(7)
