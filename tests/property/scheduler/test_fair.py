"""The order of queues: total, deterministic, monotone in priority, and fair over time."""

from dataclasses import replace

from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.order.fair import FairRules, decayed, effective, order
from gridlease_scheduler.domain.snapshot import Share
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scheduler.standing import A100, CATALOGUE, HOUR, MINUTE, runs, waits

NOW = 100 * HOUR
TENANTS = ("tenants/a", "tenants/b", "tenants/c")
JOBS = st.lists(
    st.builds(
        dict,
        tenant=st.sampled_from(TENANTS),
        tier=st.sampled_from(tuple(Tier)),
        priority=st.integers(0, 3).map(lambda x: x * 30),
        tasks=st.integers(1, 3),
        submitted_ms=st.integers(1, 10).map(lambda x: NOW - x * 2 * HOUR),
    ),
    min_size=1,
    max_size=20,
).map(lambda asked: [waits(f"j{at}", at, **fields) for at, fields in enumerate(asked)])
SHARES = st.lists(st.integers(0, 10**12), min_size=3, max_size=3).map(
    lambda used: [Share(x, 1 + at, y) for at, (x, y) in enumerate(zip(TENANTS, used, strict=True))]
)
RUNNING = st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(0, 20)), max_size=4).map(
    lambda given: [
        runs(f"r{at}", tenant=tenant, number=number, started_ms=NOW - number * HOUR)
        for at, (tenant, number) in enumerate(given)
    ]
)


def _order(jobs, running, shares):
    return [x.job for x in order(jobs, running, shares, CATALOGUE, NOW)]


@given(JOBS, RUNNING, SHARES, st.randoms(use_true_random=False))
def test_the_order_is_one_whatever_the_input_order(jobs, running, shares, random):
    first = _order(jobs, running, shares)
    assert sorted(first) == sorted(x.job for x in jobs)
    shuffled = jobs.copy()
    random.shuffle(shuffled)
    assert _order(shuffled, running, shares) == first


@given(JOBS, RUNNING, SHARES, st.data())
def test_raising_priority_never_delays_that_job(jobs, running, shares, data):
    at = data.draw(st.integers(0, len(jobs) - 1))
    raised = jobs.copy()
    raised[at] = replace(jobs[at], priority=data.draw(st.integers(jobs[at].priority, 100)))
    before, after = _order(jobs, running, shares), _order(raised, running, shares)
    assert after.index(jobs[at].job) <= before.index(jobs[at].job)


@given(st.integers(0, 2**70), st.integers(0, 10 * HOUR), st.integers(0, 10 * HOUR))
def test_decay_falls_and_is_the_same_in_parts(used, one, two):
    whole = decayed(used, one + two, HOUR)
    parts = decayed(decayed(used, one, HOUR), two, HOUR)
    assert whole <= decayed(used, one, HOUR) <= used
    assert abs(whole - parts) <= 50 + whole // 1_000
    exact = used * 2.0 ** (-(one + two) / HOUR)
    assert abs(whole - exact) <= 50 + exact / 1_000


class Pool:
    """Devices that serve a queue from its head; use is counted and decays."""

    def __init__(self, devices, rules, weights):
        self.devices, self.rules, self.weights = devices, rules, weights
        self.now, self.queue, self.running, self.got = HOUR, [], [], {}
        self.used = {}

    def step(self):
        """One minute."""
        self.now += MINUTE
        still = []
        for task, since, end in self.running:
            tenant = task.tenant
            self.got[tenant] = self.got.get(tenant, 0) + task.needs.accelerator.count
            more = effective(1_000 * task.needs.accelerator.count, MINUTE, 100)
            self.used[tenant] = self.used.get(tenant, 0) + more
            if end > self.now:
                still.append((task, since, end))
        self.running = still
        self.used = {k: decayed(v, MINUTE, self.rules.half_life_ms) for k, v in self.used.items()}
        shares = [Share(x, self.weights.get(x, 1), self.used.get(x, 0)) for x in self.weights]
        held = [
            runs(x.job, devices=("d",) * x.needs.accelerator.count, tenant=x.tenant,
                 number=x.number, started_ms=since)
            for x, since, _ in self.running
        ]  # fmt: skip
        started = []
        for task in order(self.queue, held, shares, CATALOGUE, self.now, self.rules):
            busy = sum(x.needs.accelerator.count for x, *_ in self.running)
            if busy + task.needs.accelerator.count > self.devices:
                break  # no backfill: the head waits, and all others behind it
            self.running.append((task, self.now, self.now + task.longest_ms))
            self.queue = [x for x in self.queue if x.job != task.job]
            started.append(task.job)
        return started


@given(
    st.dictionaries(st.sampled_from(TENANTS), st.integers(1, 3), min_size=2, max_size=3),
    st.integers(1, 3),
    st.integers(1, 20),
)
def test_every_tenant_with_work_gets_its_share(weights, devices, flood):
    """Sharing incentive: whoever always has work gets at least its weight's part, to within one
    job, however many more jobs another one sends."""
    rules = FairRules(half_life_ms=1_000 * HOUR, horizon_ms=10 * MINUTE, patience_ms=1_000 * HOUR)
    pool = Pool(devices, rules, weights)
    number = 0
    for minute in range(400):
        for at, tenant in enumerate(sorted(weights)):
            waiting = sum(x.tenant == tenant for x in pool.queue)
            want = (flood if at == 0 else 1) * 2 * devices
            for _ in range(want - waiting):
                number += 1
                length = (3 + (number * 7 + minute) % 5) * MINUTE
                pool.queue.append(
                    waits(f"j{number}", number, tenant=tenant, longest_ms=length,
                          submitted_ms=pool.now)
                )  # fmt: skip
        pool.step()
    total = sum(pool.got.values())
    for tenant, weight in weights.items():
        fair = total * weight / sum(weights.values())
        assert pool.got[tenant] >= 0.9 * fair - 2 * 8


def test_effective_use_is_normalised():
    assert effective(1_000, 10, 200) == 2 * effective(1_000, 10, 100)
    assert A100 in {x.name for x in CATALOGUE.chips}
