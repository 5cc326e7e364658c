"""Spot prices move in the books: once a window, never for a lease that runs dearer than it may."""

import asyncpg
import pytest
from gridlease_billing.domain.price import Tier
from gridlease_billing.domain.spot import ChipUse, SpotPolicy
from gridlease_billing.market import move_spot
from gridlease_billing.prices import list_prices
from gridlease_kernel.faults import Invalid

from tests.integration.billing.world import (
    CHIP,
    PRICE,
    SECOND_NS,
    USD,
    Phase,
    ask,
    report,
    together,
)

POLICY = SpotPolicy()
SPOT = 10 * USD


@pytest.fixture
async def market(world):
    await world.price(SPOT, "spot", tier="SPOT")
    return world


def full(permille, chip=CHIP, waiting=0):
    return ChipUse(chip, 8_000, 8 * permille, waiting)


async def now_ms(world):
    return await world.pool.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8")


async def tell(world, *uses, policy=POLICY, windows_ago=0):
    end_ms = await now_ms(world) - windows_ago * policy.window_ms
    return await move_spot(world.books, end_ms - end_ms % policy.window_ms, uses, policy)


async def spot_price(world, chip=CHIP):
    (found,) = [
        it for it in await list_prices(world.books, history=False)
        if (it.chip, it.tier) == (chip, Tier.SPOT)
    ]  # fmt: skip
    return found.price_nano_per_hour


async def test_a_full_chip_gets_dearer_and_an_empty_one_cheaper(market):
    (dearer,) = await tell(market, full(1_000, waiting=8_000))
    assert (dearer.tier, dearer.price_nano_per_hour) == ("SPOT", SPOT * 102 // 100)
    assert await spot_price(market) == SPOT * 102 // 100
    (on_demand,) = [
        it for it in await list_prices(market.books, history=False) if it.tier != "SPOT"
    ]
    assert on_demand.price_nano_per_hour == PRICE, "no other tier moves"
    kept = await market.pool.fetchrow("SELECT * FROM spot_move")
    assert (kept["used_milli"], kept["waiting_milli"]) == (8_000, 8_000)
    assert kept["before_version"] == dearer.version - 1


async def test_a_window_moves_a_price_once_whoever_tells_and_however_often(market):
    told = await together(*(tell(market, full(1_000, waiting=8_000)) for _ in range(8)))
    assert [len(it) for it in told if it] == [1], told
    assert await tell(market, full(0)) == []
    assert await tell(market, full(0), windows_ago=1) == []
    history = await list_prices(market.books, history=True)
    assert len([it for it in history if it.tier == "SPOT"]) == 2


async def test_every_interval_stays_as_it_was(market):
    await tell(market, full(0))
    for table in ("price", "spot_move"):
        for verb in (f"DELETE FROM {table}", f"UPDATE {table} SET recorded_ms = 0"):
            with pytest.raises(asyncpg.PostgresError):
                await market.pool.execute(verb)


async def test_what_an_operator_fixed_stays_fixed(market):
    for fixed in ({CHIP}, {"*"}):
        assert await tell(market, full(0), policy=SpotPolicy(fixed=frozenset(fixed))) == []
    assert await spot_price(market) == SPOT


async def test_a_chip_without_both_prices_and_an_old_or_early_window_move_nothing(market):
    await market.price(SPOT, "lonely", chip="lonely", tier="SPOT")
    assert await tell(market, full(0, chip="lonely"), full(0, chip="unknown")) == []
    assert await tell(market, full(0), windows_ago=2) == []
    with pytest.raises(Invalid) as caught:
        await tell(market, full(0), windows_ago=-2)
    assert caught.value.reason == "WINDOW_TO_COME"


async def test_a_lease_keeps_its_rate_until_its_next_segment(market):
    await market.authorize(ask("a", tier="SPOT"))
    await market.settle(report("a", phase=Phase.KNOWN))
    (dearer,) = await tell(market, full(2_000))
    (same,) = await market.settle(report("a", SECOND_NS))
    assert (same.segment, same.rate_nano_per_hour) == (1, SPOT)
    await market.pass_time("a", 30_000)
    (renewed,) = await market.settle(report("a", 30 * SECOND_NS))
    assert (renewed.segment, renewed.rate_nano_per_hour) == (2, dearer.price_nano_per_hour)


async def test_no_price_ends_a_spot_lease_and_none_above_its_maximum_is_charged(market):
    await market.authorize(ask("a", tier="SPOT", max_rate_nano_per_hour=SPOT))
    await market.settle(report("a", phase=Phase.KNOWN))
    await tell(market, full(2_000))
    for turn in (1, 2):
        await market.pass_time("a", 30_000)
        (kept,) = await market.settle(report("a", turn * 30 * SECOND_NS))
        assert (kept.last, kept.segment, kept.rate_nano_per_hour) == (False, 1, SPOT)
        assert kept.valid_for_ms > 50_000
    (refused,) = await market.authorize(ask("b", tier="SPOT", max_rate_nano_per_hour=SPOT))
    assert refused.reason == "PRICE_TOO_HIGH", "only what starts is asked for today's price"
    await market.price(SPOT // 2, "cheaper", tier="SPOT")
    await market.pass_time("a", 30_000)
    (follows,) = await market.settle(report("a", 90 * SECOND_NS))
    assert (follows.segment, follows.rate_nano_per_hour) == (2, SPOT // 2)


async def test_the_maximum_is_for_the_whole_gang(market):
    most = 2 * SPOT + SPOT // 100
    members = [ask(x, tier="SPOT", gang="g", max_rate_nano_per_hour=most) for x in ("a", "b")]
    await market.authorize(*members)
    await market.settle(*(report(x, phase=Phase.KNOWN) for x in ("a", "b")))
    (dearer,) = await tell(market, full(2_000))
    assert dearer.price_nano_per_hour < most < 2 * dearer.price_nano_per_hour
    for lease in ("a", "b"):
        await market.pass_time(lease, 30_000)
    kept = await market.settle(*(report(x, 30 * SECOND_NS) for x in ("a", "b")))
    assert [(it.last, it.segment, it.rate_nano_per_hour) for it in kept] == 2 * [(False, 1, SPOT)]
