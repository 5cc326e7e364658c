"""What was believed proves each bill; what was not is kept apart, its money in suspense."""

import asyncio
import random
from dataclasses import replace as changed

import pytest
from gridlease_billing.adapters.report_store import PostgresReportBook
from gridlease_billing.domain.grant_row import Phase, Terms
from gridlease_billing.expire import expire
from gridlease_billing.invoice import create_invoice
from gridlease_billing.ports import Scope
from gridlease_billing.reports import check_books
from gridlease_billing.settle import settle
from gridlease_billing.suspense import list_suspense, write_off
from gridlease_kernel.faults import Invalid, Missing
from gridlease_kernel.ids import RandomIds
from gridlease_verify import bill as verifier
from gridlease_verify.bill import Trust

from tests.integration.billing.test_metering import Pen
from tests.integration.billing.test_verify import evidence_of
from tests.integration.billing.world import NODE, PROJECT, SECOND_NS, TENANT, USD, ask, report

CENT = USD // 100
DAY_MS = 86_400_000
# As operators have it: run time may be two seconds ahead of time.
TERMS = Terms(grant_ms=60_000, hold_ttl_ms=30_000, late_after_ms=3_600_000)


class Told:
    """A node with a key that tells what it likes, under real terms."""

    def __init__(self, world):
        self.world, self.pen = world, Pen()

    async def begin(self, *leases, **more):
        await self.world.authorize(*(ask(it, node_key=self.pen.public, **more) for it in leases))
        for it in leases:
            await self.say(it, phase=Phase.KNOWN)

    async def say(self, lease, ran_ns=0, spool="s1", meters=(), **more):
        told = report(lease, ran_ns, spool=spool, **more)
        counters = {**told.counters, **{(1, meter): n for meter, n in dict(meters).items()}}
        signed = self.pen.signed(changed(told, counters=counters))
        return await settle(self.world.books, NODE, [signed], TERMS)

    async def end(self, lease, ran_ns, **more):
        await self.say(lease, ran_ns, phase=Phase.CLEAN, final=True, **more)


@pytest.fixture
def node(world):
    return Told(world)


async def bill(world, request_id="bill"):
    return await create_invoice(world.books, RandomIds(), Scope(TENANT, PROJECT), request_id)


async def equal(world, invoice):
    """Does the verifier agree, with nothing of run time left unchecked?"""
    found = verifier.examine(await evidence_of(world, invoice), Trust())
    return [it for it in found if it.wrong or "counter" in it.what]


async def suspense(world):
    return await world.pool.fetchval(
        "SELECT coalesce(sum(account_sum(id)), 0)::int8 FROM account WHERE kind = 'suspense'"
    )


async def whole(world, service_pool):
    """Suspense is zero, or an alarm explains it."""
    found = await check_books(world.books, PostgresReportBook(service_pool))
    assert found.whole
    assert found.suspense_nano == await suspense(world)
    assert (found.suspense_nano == 0) or found.alarms
    return found


async def test_a_lie_ahead_of_time_leaves_a_bill_that_is_equal(world, node, service_pool):
    await node.begin("a", "b")
    await node.say("a", 50 * SECOND_NS)
    await world.pass_time("a", 8_000)
    await node.say("a", 9 * SECOND_NS, meters={"egress": 7})
    await node.end("a", 9 * SECOND_NS, meters={"egress": 7})
    await node.end("b", SECOND_NS)
    invoice = await bill(world)
    lines = {(it.lease, it.meter): it for it in invoice.lines}
    assert lines["a", "run"].charged_ns == 9 * SECOND_NS
    assert await equal(world, invoice) == []
    (row,) = await list_suspense(world.books)
    assert (row.excess.cause, row.excess.told_ns) == ("RUN_AHEAD_OF_TIME", 50 * SECOND_NS)
    assert row.excess.open_nano == 41 * CENT == await suspense(world)
    assert "counter 1 run 50000000000" in row.report  # as it was signed
    await whole(world, service_pool)


async def test_run_time_beyond_the_grant_is_shown_uncharged_and_equal(world, node):
    await node.begin("a")
    await world.pass_time("a", 70_000)
    await node.say("a", 65 * SECOND_NS)
    await node.end("a", 65 * SECOND_NS)
    invoice = await bill(world)
    line = next(it for it in invoice.lines if it.meter == "run")
    assert (line.counter_ns, line.granted_ns, line.charged_ns) == tuple(
        n * SECOND_NS for n in (65, 60, 60)
    )
    assert await equal(world, invoice) == []
    (row,) = await list_suspense(world.books)
    assert (row.excess.cause, row.excess.open_nano) == ("RUN_BEYOND_GRANT", 5 * CENT)
    forged = await evidence_of(world, invoice)
    it = forged["invoice"]["lines"][line.segment - 1]
    it["granted_ns"], it["charged_ns"] = 65 * SECOND_NS, 65 * SECOND_NS
    assert any("what was granted" in found.what for found in verifier.check(forged))


async def test_suspense_is_told_once_grows_and_shrinks(world, node, service_pool):
    await node.begin("a")
    for ns in (50, 50, 30, 55):
        await node.say("a", ns * SECOND_NS)
        found = (await list_suspense(world.books))[0].excess
        told = 55 if ns == 55 else 50
        assert found.told_ns == told * SECOND_NS
        assert 40 * CENT < found.open_nano == await suspense(world) < 54 * CENT
        nano = found.open_nano
    posted = await world.pool.fetchval("SELECT count(*) FROM journal WHERE kind = 'suspense'")
    await asyncio.gather(*(node.say("a", 55 * SECOND_NS) for _ in range(4)))
    assert await suspense(world) <= nano  # time goes on, so more of it is believed
    assert posted >= 2
    await world.pass_time("a", 58_000)
    await node.say("a", 56 * SECOND_NS)
    assert await suspense(world) == 0  # all of it is charged by now
    assert (await world.row("a"))["charged_nano"] == 56 * CENT
    assert await world.pool.fetchval("SELECT count(*) FROM alarm WHERE lease = 'a'") == 1
    assert [it.excess.open_nano for it in await list_suspense(world.books, closed=True)] == [0]
    await whole(world, service_pool)


async def test_what_is_written_off_is_written_off_once(world, node, service_pool):
    await node.begin("a")
    await world.pass_time("a", 70_000)
    await node.end("a", 65 * SECOND_NS)
    for _ in range(2):
        assert await write_off(world.books, "a", "a slow kill", "w1") == 5 * CENT
    assert await suspense(world) == 0
    with pytest.raises(Invalid, match="request_id"):
        await write_off(world.books, "a", "something else", "w1")
    with pytest.raises(Missing, match="nothing in suspense"):
        await write_off(world.books, "a", "again", "w2")
    await node.say("a", 66 * SECOND_NS)  # beyond what was written off
    assert await suspense(world) == CENT
    assert await write_off(world.books, "a", "again", "w2") == CENT
    kinds = await world.pool.fetch("SELECT kind, count(*) AS n FROM journal GROUP BY kind")
    assert dict(map(tuple, kinds))["write_off"] == 2
    await whole(world, service_pool)


async def test_suspense_without_its_alarm_is_found(world, node, service_pool, dsn):
    import asyncpg

    await node.begin("a")
    await world.pass_time("a", 70_000)
    await node.end("a", 65 * SECOND_NS)
    await whole(world, service_pool)
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    await owner.execute("SELECT set_config('gridlease.tenant', '*', false)")
    await owner.execute("DELETE FROM alarm")
    found = await check_books(world.books, PostgresReportBook(service_pool))
    assert (found.whole, found.unexplained) == (False, 1)
    await owner.execute("UPDATE excess SET told_ns = told_ns + 1, amount_nano = amount_nano + 1")
    assert (await check_books(world.books, PostgresReportBook(service_pool))).unexplained == 2
    await owner.close()


async def test_another_spool_and_what_is_told_too_late_prove_nothing(world, node):
    await node.begin("a", "b")
    await world.pass_time("a", 20_000)
    await node.say("a", 9 * SECOND_NS)
    await node.say("a", 5 * SECOND_NS, spool="other", meters={"egress": 10**9})
    await node.end("a", 10 * SECOND_NS)
    await world.pass_time("b", 30_000)
    await node.say("b", 7 * SECOND_NS)
    await world.close("b")
    await world.pass_time("b", TERMS.late_after_ms + 120_000)
    await expire(world.books, TERMS)
    await node.say("b", 8 * SECOND_NS)  # late: a correction
    await world.pass_time("b", 36 * DAY_MS)
    await node.say("b", 9 * SECOND_NS)  # too late for one
    invoice = await bill(world)
    assert {it.charged_ns for it in invoice.lines} == {n * SECOND_NS for n in (10, 7, 1)}
    assert await equal(world, invoice) == []
    kept = await world.pool.fetch("SELECT lease, kind FROM doubted_report ORDER BY lease, kind")
    assert [tuple(it) for it in kept] == [("a", "SPOOL_MISMATCH"), ("b", "RUN_TOO_LATE")]
    assert await suspense(world) == CENT


async def test_reports_that_contradict_each_other_prove_a_meter_each(world, node):
    await node.begin("a")
    await world.pass_time("a", 40_000)
    await node.say("a", 20 * SECOND_NS, meters={"egress": 5})
    await node.say("a", 3 * SECOND_NS, meters={"egress": 900, "storage": 3})
    await node.end("a", 19 * SECOND_NS, meters={"egress": 1})
    invoice = await bill(world)
    told = {it.meter: it.counter_ns for it in invoice.lines}
    assert told == {"run": 20 * SECOND_NS, "egress": 900, "storage": 3}
    assert await equal(world, invoice) == []


async def test_bills_of_nodes_that_lie_any_how_are_equal(world, node, service_pool):
    dice = random.Random(5)
    leases = [f"l{n}" for n in range(5)]
    await node.begin(*leases)
    for _ in range(40):
        lease, spool = dice.choice(leases), dice.choice(["s1", "s1", "s1", "other"])
        ns = dice.choice([dice.randrange(10**10), dice.randrange(10**11), 2**60])
        meters = {meter: dice.randrange(10**6) for meter in ("egress", "storage", "energy")}
        await node.say(lease, ns, spool=spool, meters=meters)
        if dice.random() < 0.3:
            ms = dice.randrange(9_000)
            await world.pass_time(lease, ms)
            await world.pool.execute(
                "UPDATE signed_report SET recorded_ms = recorded_ms - $2 WHERE lease = $1",
                lease,
                ms,
            )
    for lease in leases:
        await node.end(lease, dice.randrange(10**10))
    assert await equal(world, await bill(world)) == []
    found = await whole(world, service_pool)
    assert found.suspense_nano > 0
