"""What a pass writes, and what it leaves alone: many jobs together, whole gangs, changed nodes."""

from gridlease_kernel.ids import RandomIds
from gridlease_scheduler.adapters.catalogue import load
from gridlease_scheduler.cycle import Cycle, CycleParts
from gridlease_scheduler.evict import Evict
from gridlease_scheduler.ports import Authorized, PriceList, Refused
from gridlease_testkit.waiting import eventually

CHIP = "A100-80GB"


class Billing:
    """Authorises all but the refused, and does something while it is asked."""

    def __init__(self):
        self.calls = []
        self.closed = []
        self.refused = set()
        self.meanwhile = None

    async def authorize(self, orders):
        self.calls.append([order.placed.task.job for order in orders])
        if self.meanwhile is not None:
            await self.meanwhile()
            self.meanwhile = None
        return [
            Refused("CREDIT_TOO_LOW", "Pay in.")
            if order.placed.task.job in self.refused
            else Authorized((5,) * len(order.lease_ids))
            for order in orders
        ]

    async def close(self, leases, cut_short_ms=None):
        self.closed += [lease.lease_id for lease in leases]
        return {lease.lease_id: 0 for lease in leases}


class Clock:
    def __init__(self):
        self.ms = 1_000

    def now_ms(self):
        return self.ms


async def _no_prices():
    return PriceList("", ())


def cycle(store, billing, clock=None):
    parts = CycleParts(
        store, billing, _no_prices, Evict(store), load(), RandomIds(), clock or Clock()
    )
    return Cycle(parts)


async def fleet(pool, count=4, devices=8):
    """Emulated nodes, all in one rack, as rows."""
    await pool.execute(
        "INSERT INTO node (id, site, public_key, state, inventory, cpu_milli, memory_bytes, "
        "disk_bytes, emulated, seen_at, rack) SELECT 'n' || n, 'local', 'k' || n, 'READY', "
        "'{\"cpuChip\": \"cpu-x86-64\"}', 64000, $2, $2, true, now(), 'r1' "
        "FROM generate_series(1, $1) AS n",
        count,
        2**40,
    )
    await pool.execute(
        "INSERT INTO device (node_id, id, chip, vendor, memory_bytes, emulated, clean) "
        "SELECT 'n' || n, 'gpu-' || d, $3, 'nvidia', $4, true, true "
        "FROM generate_series(1, $1) AS n, generate_series(0, $2 - 1) AS d",
        count,
        devices,
        CHIP,
        80 * 2**30,
    )


async def job(pool, name, *, tasks=1, count=1, priority=0):
    """A job as a row."""
    need = (
        '{"cpu_milli": 1000, "memory_bytes": 1000, "disk_bytes": 1000, "purpose": "BATCH", '
        '"tier": "ON_DEMAND", "runtime": "", "budget_nano": 0, "max_price_nano_per_hour": 0, '
        '"allow_emulated": true, "accelerator": {"chips": ["A100"], "vendor": "", '
        f'"memory_min_bytes": 0, "memory_max_bytes": 0, "count": {count}}}}}'
    )
    await pool.execute(
        "INSERT INTO job (name, project, tenant, request_id, spec, spec_hash, needs, priority, "
        "max_attempts, notice_ms, lost_after_ms, tasks, tasks_min, tasks_max) VALUES "
        "($1, 'projects/demo', 'tenants/demo', $1, '', '', $2::text::jsonb, $3, 3, 0, 0, $4, $4, "
        "$4)",
        name,
        need,
        priority,
        tasks,
    )
    await pool.execute(
        "INSERT INTO task (job, index) SELECT $1, generate_series(0, $2 - 1)", name, tasks
    )


async def leases(pool):
    rows = await pool.fetch("SELECT job, task_index, node_id FROM lease ORDER BY job, task_index")
    return [tuple(row) for row in rows]


async def states(pool):
    return dict(await pool.fetch("SELECT name, state FROM job ORDER BY name"))


async def test_many_jobs_are_asked_for_and_written_together(store, pool):
    await fleet(pool)
    for number in range(10):
        await job(pool, f"j{number}", tasks=1 + number % 3)
    billing = Billing()
    done = await cycle(store, billing)(0)
    assert (done.placed, done.stale) == (10, 0)
    assert len(billing.calls) == 1
    assert set((await states(pool)).values()) == {"RUNNING"}
    assert len(await leases(pool)) == sum(1 + number % 3 for number in range(10))
    transactions = await pool.fetchval("SELECT count(DISTINCT xmin::text) FROM lease")
    assert transactions == 1
    rows = await pool.fetch("SELECT t.attempt, l.job FROM task t JOIN lease l ON l.id = t.lease_id")
    assert {row["attempt"] for row in rows} == {1}
    used = {node for _, _, node in await leases(pool)}
    raised = await pool.fetch("SELECT id FROM node WHERE generation = 1")
    assert {row["id"] for row in raised} == used
    hints = await pool.fetch("SELECT subject FROM outbox")
    assert {row["subject"] for row in hints} == {f"hint.{node}" for node in used}
    events = await pool.fetch("SELECT facts FROM event WHERE type = 'job.placed'")
    assert len(events) == 10


async def test_a_refused_gang_holds_nothing_and_the_others_are_placed(store, pool):
    await fleet(pool, count=2)
    await job(pool, "poor", tasks=2, count=8, priority=9)
    await job(pool, "rich", tasks=2, count=8)
    billing, clock = Billing(), Clock()
    billing.refused = {"poor"}
    pass_ = cycle(store, billing, clock)
    first = await pass_(0)
    assert first.again_ms == 1_000
    assert await states(pool) == {"poor": "PENDING", "rich": "PENDING"}
    second = await pass_(0)  # its places are free again
    assert second.placed == 1
    assert await states(pool) == {"poor": "PENDING", "rich": "RUNNING"}
    reason = await pool.fetchval("SELECT reason ->> 'code' FROM job WHERE name = 'poor'")
    assert reason == "CREDIT_TOO_LOW"


async def test_a_node_that_changed_meanwhile_is_looked_at_again(store, pool):
    """The plan was made from memory; the write finds a cordon, and later another holder."""
    await fleet(pool, count=2)
    await job(pool, "gang", tasks=2, count=8)
    billing = Billing()

    async def cordon():
        await pool.execute("UPDATE node SET cordoned = true WHERE id = 'n2'")

    billing.meanwhile = cordon
    pass_ = cycle(store, billing)
    first = await pass_(0)
    assert (first.placed, first.stale) == (0, 1)
    assert await leases(pool) == []
    assert len(billing.closed) == 2  # the holds are given back
    assert (await pass_(0)).placed == 0
    await pool.execute("UPDATE node SET cordoned = false WHERE id = 'n2'")
    assert (await pass_(0)).placed == 1
    assert [(index, node) for _, index, node in await leases(pool)] == [(0, "n1"), (1, "n2")]


async def test_a_change_that_does_not_matter_does_not_stop_a_write(store, pool):
    await fleet(pool, count=1)
    await job(pool, "one", count=4)
    billing = Billing()

    async def touched():
        await pool.execute("UPDATE node SET generation = generation + 1")

    billing.meanwhile = touched
    done = await cycle(store, billing)(0)
    assert (done.placed, done.stale) == (1, 0)


async def test_a_job_that_is_cancelled_meanwhile_is_not_placed(store, pool):
    await fleet(pool, count=1)
    await job(pool, "gone")
    await job(pool, "stays")
    billing = Billing()

    async def cancel():
        await pool.execute("UPDATE job SET state = 'CANCELLED' WHERE name = 'gone'")

    billing.meanwhile = cancel
    pass_ = cycle(store, billing)
    done = await pass_(0)
    assert (done.placed, done.stale) == (1, 1)
    assert await states(pool) == {"gone": "CANCELLED", "stays": "RUNNING"}
    assert (await pass_(0)).placed == 0


async def test_memory_follows_what_others_write(store, pool):
    """Nodes come and are cleaned, jobs come back to the queue: each is seen once it is there."""
    pass_ = cycle(store, Billing())
    await job(pool, "waits", count=2)
    assert (await pass_(0)).placed == 0
    assert await pool.fetchval("SELECT reason ->> 'code' FROM job") == "NO_NODES"
    await fleet(pool, count=1, devices=2)
    await pool.execute("UPDATE device SET clean = false WHERE id = 'gpu-1'")
    assert (await pass_(0)).placed == 0
    await pool.execute("UPDATE device SET clean = true")
    assert (await pass_(0)).placed == 1
    # It ends and comes back for its second attempt.
    await pool.execute("UPDATE lease SET state = 'CLOSING', cause = 'DRAINED'")
    await pool.execute("UPDATE lease SET state = 'CLOSED'")
    await pool.execute("UPDATE lease_device SET closed = true")
    await pool.execute("UPDATE node SET generation = generation + 1")
    await pool.execute("UPDATE job SET state = 'PENDING'")
    assert (await pass_(0)).placed == 1
    assert await pool.fetchval("SELECT max(attempt) FROM lease") == 2


async def test_a_low_job_gives_way_to_a_high_one_with_notice(world, pool):
    """The victim is told, ends, and waits again; the other is placed once it is gone."""
    await world.start()
    agent = await world.agent(chips=[CHIP])
    low = await world.submit(chips=["A100"], priority=1, notice_ms=5_000)
    spec = await agent.given()
    await agent.run(spec.lease)
    await pool.execute("UPDATE lease SET ready_at = now() - interval '1 hour'")
    high = await world.submit(chips=["A100"], priority=80)

    async def told():
        return (await agent.sync()).stop

    (stop,) = await eventually(told, what="the word to end")
    assert stop.lease == spec.lease
    reason = await world.reason(high.name, "PREEMPTING")
    assert reason.message
    await agent.end(spec.lease, code=143, reason="STOPPED")
    await world.until(high.name, "RUNNING")
    waits = await world.get(low.name)
    assert waits.reason.code in ("PREEMPTED", "CHIP_BUSY", "KEPT_FOR_ANOTHER")
