"""Credits that nobody has to ask for: a lease ended, or lost, without its warning."""

import pytest
from gridlease_billing.domain.grant_row import Cause, Phase

from tests.integration.billing.world import SECOND_NS, USD, ask, report

CENT = USD // 100


@pytest.mark.parametrize(
    ("cause", "notice_ms", "kind", "cents"),
    [
        (Cause.PREEMPTED, 10_000, None, 0),
        (Cause.PREEMPTED, 4_000, "reclaim_credit", 6),
        (Cause.DRAINED, 0, "reclaim_credit", 10),
        (Cause.NODE_LOST, 10_000, "sla_credit", 10),
        (Cause.STOPPED, 0, None, 0),
        (Cause.EXITED, 0, None, 0),
    ],
)
async def test_a_warning_that_was_not_given_is_paid_back(world, cause, notice_ms, kind, cents):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", SECOND_NS))
    for _ in range(2):  # once, however often it is closed
        await world.close("a", notice_ms, cause)
    assert (await world.balance()).posted_nano == 100 * USD - CENT + cents * CENT
    found = await world.pool.fetch("SELECT kind, cause FROM journal WHERE kind LIKE '%_credit'")
    assert [(it["kind"], it["cause"]) for it in found] == ([(kind, "a")] if kind else [])


async def test_a_lease_that_never_ran_is_owed_nothing(world):
    await world.authorize(ask("a"))
    await world.close("a", 0, Cause.NODE_LOST)
    assert (await world.balance()).posted_nano == 100 * USD


@pytest.mark.parametrize(
    ("cause", "cut_short_ms", "cents"),
    [
        (Cause.PREEMPTED, 3_000, 6 + 3),
        (Cause.DRAINED, 60_000, 6 + 10),  # never more than the warning that was promised
        (Cause.STOPPED, 3_000, 0),
    ],
)
async def test_a_warning_that_was_cut_short_is_paid_back_once(world, cause, cut_short_ms, cents):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", SECOND_NS))
    await world.close("a", 4_000, cause)
    for _ in range(2):
        await world.close("a", 4_000, cause, cut_short_ms)
    assert (await world.balance()).posted_nano == 100 * USD - CENT + cents * CENT
