"""Pass after pass on a clock: whatever is started around it, the head starts by its promise."""

from dataclasses import replace

from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.placing.vacancy import Vacancies
from gridlease_scheduler.domain.plan import Placed, Planner
from gridlease_scheduler.domain.ruling import rule
from gridlease_scheduler.domain.snapshot import Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.scheduler.test_backfill import DEVICES, WORK, World, real_ms
from tests.unit.scheduler.standing import CATALOGUE, MINUTE, node, runs, waits


def begin(world, index, task, members):
    """What the shell does with a placement."""
    for member in members:
        name = f"{task.job}/{member.index}"
        lease = runs(
            task.job, member.node_id, member.allocation.device_ids, lease_id=name, priority=99,
            started_ms=world.now, longest_ms=task.longest_ms, worked_ms=0,
        )  # fmt: skip
        percent = task.number * 37 % 101
        world.leases[name] = (lease, world.now + real_ms(task.longest_ms // MINUTE, percent))


def update(world, index):
    """Nodes whose leases ended are free and clean."""
    held = {name: set() for name in world.names}
    for lease, _ in world.leases.values():
        held[lease.node_id].update(lease.allocation.device_ids)
    for name in world.names:
        if index.hosts[name].view().held != held[name]:
            mine = [x for x, _ in world.leases.values()]
            index.replace(node(name, DEVICES, running=mine))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3),
    st.lists(WORK, max_size=8),
    st.integers(1, DEVICES),
    st.integers(1, 3),
    st.lists(st.tuples(WORK, st.integers(0, 30)), max_size=12),
)
def test_the_head_starts_by_its_promise(nodes, work, count, tasks, later):
    world = World(nodes)
    for at, (devices, longest, percent) in enumerate(work):
        for name in world.names:
            if len(world.free(name)) >= devices:
                world.start(f"r{at}", name, devices, longest, real_ms(longest, percent))
                break
    world.leases = {k: (replace(x, priority=99), end) for k, (x, end) in world.leases.items()}
    planner, vacancies = Planner(Index(world.views()[0], CATALOGUE)), Vacancies()
    head = waits("head", 1, count=count, tasks=tasks, priority=90)
    queue, promised, shadows, freed = [head], None, (), None
    for minute in range(120):
        queue += [
            waits(f"l{at}", 2 + at, count=each, longest_ms=longest * MINUTE)
            for at, ((each, longest, _), arrives) in enumerate(later)
            if arrives == minute
        ]
        update(world, planner.index)
        leases = tuple(
            replace(x, worked_ms=world.now - x.started_ms) for x, _ in world.leases.values()
        )
        snapshot = Snapshot((), tuple(queue), CATALOGUE, leases, now_ms=world.now)
        stand = shadows if planner.index.freed == freed else ()
        ruling = rule(snapshot, planner, promised=stand, vacancies=vacancies)
        freed, shadows = planner.index.freed, ruling.shadows
        assert not ruling.evictions
        for decision in ruling.decisions:
            if isinstance(decision, Placed):
                begin(world, planner.index, decision.task, decision.members)
                queue.remove(decision.task)
        assert promised is None or world.now <= promised
        if head not in queue:
            return
        starts = [x.start_ms for x in shadows if x.task.job == "head"]
        promised = min([x for x in (promised, *starts) if x is not None], default=None)
        world.step()
