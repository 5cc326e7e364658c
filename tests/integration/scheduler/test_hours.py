"""A job that may wait for a cheap or clean hour starts when that hour comes, by itself."""

import contextlib
from dataclasses import replace

from tests.integration.scheduler.test_placement import Billing, Clock, cycle, fleet, job, states

HOUR_MS = 3_600_000
NEED = '{"deferrable_ms": 43200000, "low_carbon": true}'


class Planning:
    """The parts of a plan, as they will be after a while."""

    def __init__(self, planning, ahead_ms):
        self._planning = planning
        self._ahead_ms = ahead_ms

    async def parts(self, catalogue):
        parts = await self._planning.parts(catalogue)
        return replace(parts, now_ms=parts.now_ms + self._ahead_ms)


class Later:
    """A store whose clock goes ahead as far as it is told."""

    def __init__(self, store):
        self._store = store
        self.ahead_ms = 0

    def writing(self, epoch=None):
        return self._store.writing(epoch)

    @contextlib.asynccontextmanager
    async def reading(self):
        async with self._store.reading() as tx:
            tx.planning = Planning(tx.planning, self.ahead_ms)
            yield tx


async def test_a_deferrable_job_starts_when_its_hour_comes_and_nothing_else_happens(store, pool):
    await fleet(pool, count=1)
    await job(pool, "later")
    await job(pool, "now")
    await pool.execute(
        "UPDATE job SET longest_ms = $1, needs = needs || $2::text::jsonb WHERE name = 'later'",
        HOUR_MS,
        NEED,
    )
    now_ms = await pool.fetchval("SELECT (extract(epoch FROM now()) * 1000)::bigint")
    clean_ms = (now_ms // HOUR_MS + 3) * HOUR_MS
    hour = clean_ms // HOUR_MS % 24
    carbon = [50_000 if at == hour else 400_000 for at in range(24)]
    await pool.execute(
        "INSERT INTO site (id, carbon_mg_per_kwh) VALUES ('local', $1) "
        "ON CONFLICT (id) DO UPDATE SET carbon_mg_per_kwh = EXCLUDED.carbon_mg_per_kwh",
        carbon,
    )
    later, clock = Later(store), Clock()
    pass_ = cycle(later, Billing(), clock)
    for ahead_ms in (0, HOUR_MS, clean_ms - now_ms - 60_000):
        later.ahead_ms = ahead_ms
        clock.ms += 60_000
        await pass_(0)
        assert await states(pool) == {"later": "PENDING", "now": "RUNNING"}
    reason = await pool.fetchval("SELECT reason FROM job WHERE name = 'later'")
    assert reason["code"] == "WAITS_FOR_CLEAN_HOUR"
    assert int(reason["evidence"]["earliest_start_ms"]) == clean_ms
    later.ahead_ms = clean_ms - now_ms
    clock.ms += 60_000
    assert (await pass_(0)).placed == 1
    assert await states(pool) == {"later": "RUNNING", "now": "RUNNING"}
