"""Backfill never delays the head: it starts no later than its shadow, whatever ran before it."""

from dataclasses import replace

from gridlease_scheduler.domain.job import Allocation
from gridlease_scheduler.domain.order.backfill import late, passed, shadow
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scheduler.standing import A100, CATALOGUE, GIB, MINUTE, node, runs, waits

DEVICES = 4
SPANS = st.integers(1, 40)


def spared(promise, name, holds, longest_ms, now_ms):
    """As the planner's limits have it: what ends before the shadow, or the shadow has to spare."""
    left = promise.spare.get(name)
    over = longest_ms and now_ms + late(longest_ms) <= promise.start_ms
    return left is None or over or left.covers(holds)


# (devices, longest in minutes, how much of it really runs in percent); longest 0 = not said
WORK = st.tuples(st.integers(1, DEVICES), st.one_of(st.just(0), SPANS), st.integers(0, 100))


class World:
    """Nodes on a clock; leases end when their real work is done, and devices are clean at once."""

    def __init__(self, nodes):
        self.now = 1_000 * MINUTE
        self.names = [f"n{at}" for at in range(nodes)]
        self.leases = {}

    def free(self, name):
        held = {d for x, _ in self.leases.values() if x.node_id == name
                for d in x.allocation.device_ids}  # fmt: skip
        return [d for d in (f"gpu-{k}" for k in range(DEVICES)) if d not in held]

    def start(self, job, name, count, longest, real):
        ids = tuple(self.free(name)[:count])
        lease = runs(job, name, ids, started_ms=self.now, longest_ms=longest * MINUTE)
        self.leases[job] = (lease, self.now + real)

    def views(self):
        leases = [replace(x, worked_ms=self.now - x.started_ms) for x, _ in self.leases.values()]
        return [node(name, DEVICES, running=leases) for name in self.names], leases

    def step(self, minutes=1):
        self.now += minutes * MINUTE
        self.leases = {k: (x, end) for k, (x, end) in self.leases.items() if end > self.now}


def real_ms(longest, percent):
    """What a job really runs: at most its max_duration; for ever, if it has none."""
    return longest * MINUTE * percent // 100 if longest else 10**9


def backfill(world, later, promise):
    """What the planner does with the rest of the queue while the head waits."""
    left = []
    for job, (count, longest, percent) in later:
        for name in world.names:
            ids = tuple(world.free(name)[:count])
            holds = Allocation(1_000, GIB, GIB, ids, A100, 1_000 * count)
            if len(ids) < count:
                continue
            if promise and not spared(promise, name, holds, longest * MINUTE, world.now):
                continue
            if promise:
                promise = passed(promise, name, holds, longest * MINUTE, world.now)
            world.start(job, name, count, longest, real_ms(longest, percent))
            break
        else:
            left.append((job, (count, longest, percent)))
    return left


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3),
    st.lists(WORK, max_size=8),
    st.integers(1, DEVICES),
    st.integers(1, 3),
    st.lists(WORK, max_size=10),
)
def test_the_head_starts_by_its_shadow(nodes, work, count, tasks, later):
    world = World(nodes)
    for at, (devices, longest, percent) in enumerate(work):
        for name in world.names:
            if len(world.free(name)) >= devices:
                world.start(f"r{at}", name, devices, longest, real_ms(longest, percent))
                break
    head = waits("head", count=count, tasks=tasks)
    queue = [(f"l{at}", each) for at, each in enumerate(later)]
    promised = None
    for _ in range(200):
        room = sum(len(world.free(name)) // count for name in world.names)
        if room >= tasks:
            assert promised is None or world.now <= promised
            return
        assert promised is None or world.now <= promised
        views, leases = world.views()
        promise = shadow(head, views, leases, CATALOGUE, world.now)
        assert promised is None or promise is not None
        if promise is not None:
            promised = min(promised or promise.start_ms, promise.start_ms)
            queue = backfill(world, queue, promise)
        world.step()
    assert promised is None
