"""A lease's life in the books: authorise, settle, renew, refuse, fence, final."""

from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.authorize import authorize
from gridlease_billing.close import Closure, close
from gridlease_billing.domain.grant_row import Cause, Phase
from gridlease_billing.expire import expire

from tests.integration.billing.world import SECOND_NS, TENANT, USD, World, ask, report


async def test_a_lease_is_held_granted_charged_and_final(world):
    (decision,) = await world.authorize(ask("a"))
    assert (decision.ok, decision.rate_nano_per_hour) == (True, 36 * USD)
    assert (await world.balance()).held_nano == 7 * USD // 10  # 60 s + 10 s
    (first,) = await world.settle(report("a", phase=Phase.KNOWN))
    assert 59_000 < first.valid_for_ms <= 60_000
    assert (first.segment, first.last, first.reason) == (1, False, "")
    await world.settle(report("a", 5 * SECOND_NS))
    wallet = await world.balance()
    assert wallet.posted_nano == 100 * USD - 5 * USD // 100
    assert wallet.held_nano == 65 * USD // 100
    (last,) = await world.settle(report("a", 7 * SECOND_NS, phase=Phase.CLEAN, final=True))
    assert last.final_acknowledged
    wallet = await world.balance()
    assert (wallet.posted_nano, wallet.held_nano) == (100 * USD - 7 * USD // 100, 0)
    assert await world.close("a") == 0


async def test_authorize_is_insert_only(world):
    await world.authorize(ask("a"))
    assert await world.close("a") == 0
    (again,) = await world.authorize(ask("a"))
    assert (again.ok, again.reason) == (False, "LEASE_FENCED")
    assert "new lease id" in again.hint


async def test_a_late_authorize_finds_a_closed_stranger(world):
    assert await world.close("never-seen") == 0
    (answer,) = await world.authorize(ask("never-seen"))
    assert answer.reason == "LEASE_FENCED"


async def test_a_second_authorize_returns_what_is_there(world):
    await world.authorize(ask("a"))
    (again,) = await world.authorize(ask("a", quantity_milli=8_000))
    assert (again.ok, again.rate_nano_per_hour) == (True, 36 * USD)
    assert (await world.balance()).held_nano == 7 * USD // 10


async def test_refusals_say_what_would_change_them(world):
    cases = [
        (ask("a", budget_nano=USD // 10), "BUDGET_TOO_SMALL", "raise the budget by 0.60 USD"),
        (ask("a", quantity_milli=1_000_000), "CREDIT_TOO_LOW", "pay in 600.00 USD"),
        (ask("a", max_rate_nano_per_hour=35 * USD), "PRICE_TOO_HIGH", "36.00 USD an hour"),
        (ask("a", chip="Z80"), "NO_PRICE", "Z80"),
        (ask("a", tenant="tenants/nobody"), "CREDIT_TOO_LOW", "pay in 0.70 USD"),
    ]
    for order, reason, words in cases:
        (answer,) = await world.authorize(order)
        assert (answer.ok, answer.reason) == (False, reason)
        assert words in answer.hint
    assert await world.row("a") is None


async def test_a_call_is_all_or_none(world):
    good, bad = await world.authorize(
        ask("a"), ask("b", chip="Z80", job="projects/demo/jobs/other")
    )
    assert (good.ok, good.reason) == (False, "CALL_REFUSED")
    assert bad.reason == "NO_PRICE"
    assert (await world.balance()).held_nano == 0


async def test_a_budget_counts_over_all_leases_of_a_job(world):
    order = {"budget_nano": USD}
    assert (await world.authorize(ask("a", **order)))[0].ok
    (second,) = await world.authorize(ask("b", **order))
    assert second.reason == "BUDGET_TOO_SMALL"
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", 10 * SECOND_NS, phase=Phase.CLEAN, final=True))
    assert (await world.authorize(ask("c", **order)))[0].ok  # 0.10 charged + 0.70 held <= 1


async def test_a_spent_budget_ends_with_a_last_grant_of_the_notice(world):
    await world.authorize(ask("a", budget_nano=USD))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.pass_time("a", 55_000)
    (answer,) = await world.settle(report("a", 55 * SECOND_NS))
    assert (answer.last, answer.reason) == (True, "BUDGET_EXHAUSTED")
    assert 9_000 < answer.valid_for_ms <= 10_000
    assert (await world.row("a"))["state"] == "FENCED"


async def test_spent_credit_ends_a_lease(world):
    await world.authorize(ask("a", quantity_milli=140_000))  # 98 USD held
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.pass_time("a", 40_000)
    (answer,) = await world.settle(report("a", 40 * SECOND_NS))
    assert (answer.last, answer.reason) == (True, "CREDIT_EXHAUSTED")


async def test_a_new_price_is_paid_from_the_next_renewal(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    second = await world.price(72 * USD, "second")
    (same,) = await world.settle(report("a", SECOND_NS))
    assert (same.segment, same.rate_nano_per_hour) == (1, 36 * USD)
    await world.pass_time("a", 30_000)
    (dearer,) = await world.settle(report("a", 30 * SECOND_NS))
    assert (dearer.segment, dearer.rate_nano_per_hour) == (2, 72 * USD)
    await world.settle(
        report("a", 30 * SECOND_NS),
        report("a", 10 * SECOND_NS, segment=2, phase=Phase.CLEAN, final=True),
    )
    lines = [line for line, _, _ in await world.usage()]
    assert [line.charged_ns for line in lines] == [30 * SECOND_NS, 10 * SECOND_NS]
    assert [line.price_version for line in lines] == [second.version - 1, second.version]
    assert sum(line.amount_nano for line in lines) == 30 * USD // 100 + 20 * USD // 100


async def test_a_price_above_the_jobs_own_maximum_ends_it(world):
    await world.authorize(ask("a", max_rate_nano_per_hour=40 * USD))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.price(72 * USD, "second")
    await world.pass_time("a", 30_000)
    (answer,) = await world.settle(report("a", 30 * SECOND_NS))
    assert (answer.last, answer.reason) == (True, "PRICE_TOO_HIGH")


async def test_a_promised_rate_stands_though_the_price_changed_before_the_first_grant(world):
    await world.authorize(ask("a"))
    await world.price(72 * USD, "second")
    (first,) = await world.settle(report("a", phase=Phase.KNOWN))
    assert first.rate_nano_per_hour == 36 * USD


async def test_what_is_beyond_the_grant_is_suspense_not_charge(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", 61 * SECOND_NS, phase=Phase.CLEAN, final=True))
    ((line, state, _),) = await world.usage()
    assert (line.counter_ns, line.charged_ns, state) == (61 * SECOND_NS, 60 * SECOND_NS, "FINAL")
    assert (await world.row("a"))["suspense_ns"] == SECOND_NS


async def test_late_counters_after_fencing_are_charged(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    wait_ms = await world.close("a", notice_ms=10_000)
    assert 59_000 < wait_ms <= 60_000
    (answer,) = await world.settle(report("a", 20 * SECOND_NS))
    assert (answer.last, answer.reason) == (True, "STOPPED")
    assert answer.valid_for_ms <= wait_ms
    await world.settle(report("a", 30 * SECOND_NS, phase=Phase.CLEAN, final=True))
    assert (await world.balance()).posted_nano == 100 * USD - 30 * USD // 100


async def test_usage_after_final_is_recorded_not_charged(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.pass_time("a", 60_000 + world.terms.late_after_ms)
    assert await expire(world.books, world.terms) == 1
    (answer,) = await world.settle(report("a", 9 * SECOND_NS, phase=Phase.CLEAN, final=True))
    assert answer.final_acknowledged
    row = await world.row("a")
    assert (row["state"], row["charged_nano"], row["late_ns"]) == ("FINAL", 0, 9 * SECOND_NS)
    assert (await world.balance()).posted_nano == 100 * USD


async def test_a_lease_is_pinned_to_its_spool(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    (answer,) = await world.settle(report("a", SECOND_NS, spool="s2"))
    assert (answer.valid_for_ms, answer.reason) == (0, "SPOOL_MISMATCH")
    assert (await world.balance()).posted_nano == 100 * USD


async def test_another_nodes_lease_answers_as_an_unknown_one(world):
    await world.authorize(ask("a"))
    (foreign,) = await world.settle(report("a", SECOND_NS), node="n2")
    (unknown,) = await world.settle(report("b", SECOND_NS), node="n2")
    assert (foreign.valid_for_ms, foreign.reason) == (0, "NOT_YOURS")
    assert foreign.__class__(**{**_fields(foreign), "lease_id": "b"}) == unknown
    assert (await world.row("a"))["state"] == "HELD"


def _fields(answer):
    return {name: getattr(answer, name) for name in answer.__slots__}


async def test_absurd_counters_do_no_harm(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", 2**63 - 1), report("a", 5, segment=99))
    assert (await world.row("a"))["charged_nano"] == 60 * USD // 100


class _Boot:
    """A process's clock that is moved by hand, as seen beside the database's."""

    def __init__(self):
        self.ns = 0

    def boottime_ns(self):
        return self.ns


async def test_after_a_jump_of_the_clock_a_close_waits_a_whole_grant(world):
    await world.authorize(ask("a"), ask("b"))
    await world.settle(report("a", phase=Phase.KNOWN), report("b", phase=Phase.KNOWN))
    for lease in ("a", "b"):
        await world.pass_time(lease, 55_000)
    boot = _Boot()
    sure = World(PostgresBooks(world.pool, boot, 100_000), world.pool)
    assert await sure.close("a") <= 5_000
    boot.ns += 100 * SECOND_NS  # in no time of the database's: its clock was set back
    assert await sure.close("b") == 70_000  # the grant and the notice
    assert await sure.close("a") == 70_000
    assert await expire(sure.books, sure.terms) == 0


async def test_sums_beyond_all_money_are_refused_not_broken(world):
    (answer,) = await world.authorize(ask("a", quantity_milli=2**62))
    assert answer.reason == "CREDIT_TOO_LOW"
    (answer,) = await world.authorize(
        ask("a", quantity_milli=2**62, max_rate_nano_per_hour=1, budget_nano=1)
    )
    assert answer.reason == "PRICE_TOO_HIGH"


async def test_an_orphan_hold_ends_by_time(world):
    await world.authorize(ask("a"), ask("b"))
    assert await expire(world.books, world.terms) == 0
    await world.pass_time("a", world.terms.hold_ttl_ms)
    assert await expire(world.books, world.terms) == 1
    assert (await world.row("a"))["state"] == "FINAL"
    assert (await world.balance()).held_nano == 7 * USD // 10
    assert await world.close("a") == 0


async def test_a_gang_is_renewed_or_refused_together(world):
    gang = [
        ask("a", gang="g", budget_nano=2_200_000_000),
        ask("b", gang="g", budget_nano=2_200_000_000, node="n2"),
    ]
    assert all(it.ok for it in await world.authorize(*gang))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("b", phase=Phase.KNOWN), node="n2")
    for lease in ("a", "b"):
        await world.pass_time(lease, 30_000)
    (renewed,) = await world.settle(report("a", 30 * SECOND_NS))
    assert renewed.valid_for_ms > 59_000
    assert (await world.row("a"))["ends_at_ms"] == (await world.row("b"))["ends_at_ms"]
    for lease in ("a", "b"):
        await world.pass_time(lease, 59_000)
    (refused,) = await world.settle(report("b", 80 * SECOND_NS), node="n2")
    assert (refused.last, refused.reason) == (True, "BUDGET_EXHAUSTED")
    assert {(await world.row(lease))["state"] for lease in ("a", "b")} == {"FENCED"}


async def test_a_duplicate_settle_changes_nothing(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", 5 * SECOND_NS))
    before = await world.pool.fetch("SELECT xmin, * FROM lease"), await world.balance()
    await world.settle(report("a", 5 * SECOND_NS))
    await world.settle(report("a", 3 * SECOND_NS))
    assert (await world.pool.fetch("SELECT xmin, * FROM lease"), await world.balance()) == before


async def test_only_whom_it_concerns_is_charged(world):
    await world.authorize(ask("a"))
    assert (await world.balance("tenants/nobody")).posted_nano == 0
    assert (await world.balance(TENANT)).available_nano == 100 * USD - 7 * USD // 10


async def test_a_lease_with_impossible_books_is_parked_and_harms_no_other(books, pool):
    world = World(books, pool)
    await world.begin()
    await world.authorize(ask("a"), ask("b"))
    await world.settle(report("a", phase=Phase.KNOWN), report("b", phase=Phase.KNOWN))
    await pool.execute("UPDATE lease SET charged_nano = 10000000000 WHERE id = 'a'")
    for lease in ("a", "b"):
        await world.pass_time(lease, 30_000)
    bad, good = await world.settle(report("a", SECOND_NS), report("b", SECOND_NS))
    assert (bad.valid_for_ms, bad.last, bad.reason) == (0, False, "PARKED")
    assert (good.valid_for_ms > 59_000, good.reason) == (True, "")
    assert (await world.row("a"))["charged_nano"] == 10_000_000_000
    assert (await world.balance()).posted_nano == 100 * USD - USD // 100
    for lease in ("a", "b"):
        await world.pass_time(lease, 120_000)
    assert await expire(books, world.terms) == 1
    assert (await world.row("b"))["state"] == "FENCED"
    both = [Closure(lease, 0, Cause.STOPPED) for lease in ("a", "b")]
    assert await close(books, both, world.terms) == {"b": 0}


async def test_gangs_of_one_call_stand_or_fall_alone(world):
    asks = [
        ask(f"{gang}-{n}", gang=gang, job=f"projects/demo/jobs/{gang}", quantity_milli=quantity)
        for gang, quantity in (("rich", 1_000), ("greedy", 200_000), ("small", 1_000))
        for n in range(2)
    ]
    told = await authorize(world.books, asks, world.terms, each_alone=True)
    assert [(it.lease_id, it.ok, it.reason) for it in told] == [
        ("rich-0", True, ""),
        ("rich-1", True, ""),
        ("greedy-0", False, "CREDIT_TOO_LOW"),
        ("greedy-1", False, "CREDIT_TOO_LOW"),
        ("small-0", True, ""),
        ("small-1", True, ""),
    ]
    assert (await world.balance()).held_nano == 4 * 700_000_000
    again = await authorize(world.books, asks[:2], world.terms, each_alone=True)
    assert again == told[:2]
    together = await authorize(world.books, asks[2:], world.terms)
    assert not any(it.ok for it in together)
