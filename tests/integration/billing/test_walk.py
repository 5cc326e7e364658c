"""Random walks over the real books: whatever is asked in whatever order, the books stay right."""

import random

import pytest
from gridlease_billing.domain.grant_row import Phase
from gridlease_billing.expire import expire

from tests.integration.billing.world import PRICE, SECOND_NS, ask, report

_STEPS = 60
# The first few by default, the others in the slow suite.
_SEEDS = [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 12))]


class Walk:
    """What a scheduler, two nodes and time do to a handful of leases."""

    def __init__(self, world, seed):
        self.world = world
        self.random = random.Random(seed)
        self.leases = {}  # lease -> node
        self.ran_ns = {}
        self.told = []  # reports sent before, to be sent again
        self.segment = {}

    async def step(self):
        act = self.random.choice(
            [
                *(self.settle, self.settle, self.settle, self.again),
                *(self.authorize, self.close, self.later, self.later, self.dearer),
            ]
        )
        await act()

    async def authorize(self):
        number = len(self.leases)
        gang = self.random.choice(["", "", f"g{number}"])
        count = 2 if gang else 1
        asks = [
            ask(
                f"l{number + n}",
                node=self.random.choice(["n1", "n2"]),
                gang=gang,
                job=f"projects/demo/jobs/{self.random.randrange(3) if not gang else number}",
                quantity_milli=self.random.choice([1, 333, 1_000, 20_000]),
                budget_nano=self.random.choice([None, None, 40_000_000_000]),
                notice_ms=self.random.choice([0, 10_000, 61_000]),
            )
            for n in range(count)
        ]
        if all(it.ok for it in await self.world.authorize(*asks)):
            self.leases |= {it.lease_id: it.node for it in asks}

    async def settle(self):
        for node in ("n1", "n2"):
            mine = [lease for lease, its in self.leases.items() if its == node]
            reports = [self._report(it) for it in self.random.sample(mine, len(mine))]
            self.told += [(node, it) for it in reports]
            for answer in await self.world.settle(*reports, node=node):
                if answer.segment:
                    self.segment[answer.lease_id] = answer.segment

    def _report(self, lease):
        segment = self.segment.get(lease, 1)
        key = (lease, segment)
        self.ran_ns[key] = self.ran_ns.get(key, 0) + self.random.randrange(20 * SECOND_NS)
        final = self.random.random() < 0.08
        phase = Phase.CLEAN if final else self.random.choice([Phase.KNOWN, Phase.STARTING])
        return report(lease, self.ran_ns[key], segment=segment, phase=phase, final=final)

    async def again(self):
        for node, one in self.random.sample(self.told, min(3, len(self.told))):
            await self.world.settle(one, node=node)

    async def close(self):
        if self.leases:
            lease = self.random.choice(list(self.leases))
            await self.world.close(lease, notice_ms=self.random.choice([0, 5_000, 90_000]))

    async def later(self):
        ms = self.random.choice([1_000, 20_000, 45_000, 4_000_000])
        for lease in list(self.leases):
            await self.world.pass_time(lease, ms)
        await expire(self.world.books, self.world.terms)

    async def dearer(self):
        nano = self.random.randrange(PRICE // 2, 2 * PRICE)
        await self.world.price(nano, f"p{self.random.random()}")


@pytest.mark.parametrize("seed", _SEEDS)
async def test_the_books_stay_right(world, seed):
    walk = Walk(world, seed)
    for _ in range(_STEPS):
        await walk.step()
        wallet = await world.balance()
        assert 0 <= wallet.held_nano <= wallet.posted_nano
    await world.check()
    await walk.later()
    for lease in list(walk.leases):
        await world.close(lease)
        await world.pass_time(lease, 2 * world.terms.late_after_ms)
    while await expire(world.books, world.terms):
        pass
    assert (await world.balance()).held_nano == 0
