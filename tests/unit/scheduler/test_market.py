"""When billing is told how full chips are, of what, and when again."""

import contextlib

from gridlease_kernel.faults import Unreachable
from gridlease_scheduler.domain.job import Reason
from gridlease_scheduler.market import TellMarket
from gridlease_scheduler.ports import FleetChanges, Instant, Standing

from tests.unit.scheduler.standing import A100, CATALOGUE, node, runs, waits

MINUTE = 60_000


class World:
    """Store, reading and market at once."""

    def __init__(self, waiting=()):
        self.now_ms = 100 * MINUTE + 1_000
        self.told, self.readings, self.away = [], 0, False
        running = (runs("a", "n1", ("gpu-0",)),)
        self.nodes_ = (node("n1", 4, running=running),)
        self.waiting = waiting

    @contextlib.asynccontextmanager
    async def reading(self):
        yield self

    nodes = jobs = property(lambda self: self)

    async def now(self):
        return Instant(1, self.now_ms, governed=False)

    async def read(self, work):
        self.readings += 1
        return await work(self)

    async def fleet(self):
        return FleetChanges(self.nodes_, (), {})

    async def queue(self, limit):
        return self.waiting

    async def tell(self, end_ms, uses):
        if self.away:
            raise Unreachable("billing is away", reason="BILLING_UNREACHABLE", remedy="Wait.")
        self.told.append((end_ms, uses))
        return 1


def telling(world):
    return TellMarket(world, world, world, CATALOGUE, MINUTE)


async def test_each_window_is_told_once():
    world = World()
    tell = telling(world)
    assert await tell() == 59.0
    world.now_ms += 30_000
    assert await tell() == 29.0
    assert (len(world.told), world.readings) == (1, 1)
    world.now_ms += 30_000
    await tell()
    assert [end for end, _ in world.told] == [100 * MINUTE, 101 * MINUTE]


async def test_it_is_told_again_where_billing_was_away_but_not_at_once():
    world = World()
    tell, world.away = telling(world), True
    assert await tell() == 10.0
    world.away = False
    await tell()
    assert [end for end, _ in world.told] == [100 * MINUTE]


async def test_who_waits_for_money_or_quota_does_not_make_the_price_rise():
    waiting = [
        Standing(waits("a", count=2), Reason()),
        Standing(waits("b", count=3), Reason("NO_CAPACITY", "", "")),
        Standing(waits("c", count=64), Reason("PRICE_ABOVE_MAX", "", "")),
        Standing(waits("d", count=64), Reason("QUOTA_FULL", "", "")),
    ]
    world = World(waiting)
    await telling(world)()
    [(_, uses)] = world.told
    [use] = [x for x in uses if x.chip == A100]
    assert (use.total_milli, use.used_milli, use.waiting_milli) == (4_000, 1_000, 5_000)


async def test_an_empty_pool_has_nothing_to_tell():
    world = World()
    world.nodes_ = ()
    await telling(world)()
    assert (world.told, world.readings) == ([], 1)
