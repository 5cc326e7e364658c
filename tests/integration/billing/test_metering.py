"""Metering: ticks beside decisions, envelopes, and reports that are signed or not believed."""

import asyncio
import random
from dataclasses import replace

import pytest
from gridlease_billing.domain.grant_row import Phase
from gridlease_billing.settle import decide_together, settle
from gridlease_billing.ticks import Settler
from gridlease_kernel.clock import SystemClock
from gridlease_mesh import meter_report
from gridlease_mesh.credentials import new_user_key
from gridlease_mesh.signatures import Signer

from tests.integration.billing.world import NODE, SECOND_NS, TERMS, USD, ask, report

CENT = USD // 100


@pytest.fixture
async def settler(world):
    settler = Settler(world.books, TERMS, meter_report.holds, SystemClock())
    yield settler
    await settler.close()


class Pen:
    """A node's key, and its reports as it signs them."""

    def __init__(self):
        seed, self.public = new_user_key()
        self._signer = Signer(seed)

    def signed(self, told):
        counters = [(segment, meter, n) for (segment, meter), n in told.counters.items()]
        text = meter_report.text(
            told.lease_id, told.spool_id, int(told.phase), told.final, counters
        )
        return replace(told, text=text, signature=self._signer.sign(text.encode()))


def more(lease, ran_ns, **meters):
    told = report(lease, ran_ns)
    return replace(told, counters={**told.counters, **{(1, m): n for m, n in meters.items()}})


async def test_a_tick_charges_what_a_decision_would(world, settler):
    await world.authorize(ask("a"), ask("b"))
    await settler.settle(NODE, [report("a", phase=Phase.KNOWN), report("b", phase=Phase.KNOWN)])
    row = await world.row("a")
    for ms in (400, 800, 800, 300, 1_500):  # a copy and a straggler
        (told,) = await settler.settle(NODE, [more("a", ms * 1_000_000, egress=ms, storage=7)])
        assert 0 < told.valid_for_ms <= 60_000
        assert (told.segment, told.last, told.rate_nano_per_hour) == (1, False, 36 * USD)
        (other,) = await world.settle(more("b", ms * 1_000_000))
        assert abs(told.valid_for_ms - other.valid_for_ms) < 1_000
    assert dict(await world.row("a")) == dict(row)  # nothing was decided
    assert (await world.balance()).posted_nano == 100 * USD - 2 * CENT * 3 // 2
    meter = await world.pool.fetchrow("SELECT * FROM meter WHERE lease = 'a'")
    assert (meter["run"], meter["egress"], meter["storage"]) == (1_500_000_000, 1_500, 7)
    await world.check()
    await settler.settle(NODE, [report("a", 1_500_000_000, phase=Phase.EXITED, final=True)])
    assert (await world.row("a"))["charged_nano"] == CENT * 3 // 2
    lines = await world.pool.fetch("SELECT * FROM line WHERE lease = 'a'")
    assert [(it["charged"], it["amount_nano"]) for it in lines] == [(1_500_000_000, CENT * 3 // 2)]
    told = {
        it.meter: (it.counter_ns, it.amount_nano)
        for it, *_ in await world.usage()
        if it.lease == "a"
    }
    assert told == {"run": (1_500_000_000, CENT * 3 // 2), "egress": (1_500, 0), "storage": (7, 0)}


async def test_a_report_that_waits_beside_its_older_copy_is_not_lost(world, settler):
    await world.authorize(ask("a"))
    await settler.settle(NODE, [report("a", phase=Phase.KNOWN)])
    told = [more("a", n * SECOND_NS, egress=5 - n, storage=n) for n in (1, 4, 2)]
    await asyncio.gather(*(settler.settle(NODE, [it]) for it in told))
    meter = await world.pool.fetchrow("SELECT * FROM meter WHERE lease = 'a'")
    assert (meter["run"], meter["egress"], meter["storage"]) == (4 * SECOND_NS, 4, 4)
    assert (await world.balance()).posted_nano == 100 * USD - 4 * CENT


async def test_a_tick_is_never_more_than_a_closed_lease_allows(world, settler):
    await world.authorize(ask("a"))
    await settler.settle(NODE, [report("a", phase=Phase.KNOWN)])
    await settler.settle(NODE, [report("a", SECOND_NS)])
    await world.close("a")
    (told,) = await settler.settle(NODE, [report("a", 3 * SECOND_NS // 2)])
    assert told.last
    assert told.reason == "STOPPED"
    assert (await world.balance()).posted_nano == 100 * USD - CENT * 3 // 2


async def test_ticks_of_many_nodes_beside_closes_and_decisions_lose_nothing(world, settler):
    leases = [f"l{n:02d}" for n in range(48)]
    nodes = {lease: f"n{n % 6}" for n, lease in enumerate(leases)}
    for lease in leases:
        await world.authorize(ask(lease, node=nodes[lease]))
        await settler.settle(nodes[lease], [report(lease, phase=Phase.KNOWN)])
    dice = random.Random(7)
    for ms in range(100, 1_600, 300):
        calls = [
            way(node, [report(it, ms * 1_000_000) for it in mine])
            for node in sorted(set(nodes.values()))
            for mine in [[it for it in leases if nodes[it] == node]]
            for way in (settler.settle, lambda node, told: world.settle(*told, node=node))
        ]
        calls += [world.close(it) for it in dice.sample(leases, 3)]
        dice.shuffle(calls)
        failed = [
            it
            for it in await asyncio.gather(*calls, return_exceptions=True)
            if isinstance(it, BaseException)
        ]
        assert failed == []
    final = 1_300_000_000
    for lease in leases:
        await settler.settle(nodes[lease], [report(lease, final, phase=Phase.CLEAN, final=True)])
    wallet = await world.balance()
    assert wallet.held_nano == 0
    assert wallet.posted_nano == 100 * USD - 48 * CENT * 13 // 10


async def test_what_is_counted_is_the_furthest_that_was_told_on_any_meter(world):
    """Those of the catalogue, and a node's own; however often and in whatever order."""
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    for n in (3, 5, 5, 4, 6, 1):
        await world.settle(more("a", n * 100_000_000, egress=n, frames=n))
    found = {it.meter: it.counter_ns for it, *_ in await world.usage()}
    assert found == {"run": 600_000_000, "egress": 6}
    meter = await world.pool.fetchrow("SELECT * FROM meter")
    assert (meter["run"], meter["egress"], meter["rated_nano"]) == (600_000_000, 6, CENT * 6 // 10)
    assert await world.pool.fetchval("SELECT cumulative FROM counter") == 6


async def test_run_time_ahead_of_time_is_not_charged(world):
    terms = replace(TERMS, ahead_ms=2_000)
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await settle(world.books, NODE, [report("a", 50 * SECOND_NS)], terms)
    charged = 100 * USD - (await world.balance()).posted_nano
    assert 2 * CENT <= charged < 10 * CENT
    alarm = await world.pool.fetchrow("SELECT * FROM alarm")
    assert (alarm["kind"], alarm["lease"]) == ("RUN_AHEAD_OF_TIME", "a")
    assert 40 * SECOND_NS < (await world.row("a"))["suspense_ns"] < 48 * SECOND_NS
    await settle(world.books, NODE, [report("a", 50 * SECOND_NS)], terms)
    assert await world.pool.fetchval("SELECT count(*) FROM alarm") == 1  # told once


async def test_a_tick_ahead_of_time_is_left_to_a_decision(world, settler):
    await world.authorize(ask("a"))
    await settler.settle(NODE, [report("a", phase=Phase.KNOWN)])
    ids = await world.pool.fetch("SELECT id FROM meter")
    assert await world.pool.fetchval(
        "SELECT refused FROM tick($1, $2, '{}', '{}', '{}', '{}')", [ids[0]["id"]], [40 * SECOND_NS]
    ) == [ids[0]["id"]]
    assert await world.pool.fetchval("SELECT run FROM meter") == 0


async def test_what_a_node_with_a_key_did_not_sign_is_not_folded(world, settler):
    pen, thief = Pen(), Pen()
    await world.authorize(ask("a", node_key=pen.public))
    (told,) = await settler.settle(NODE, [report("a", phase=Phase.KNOWN)])
    assert (told.valid_for_ms, told.last, told.reason) == (0, False, "REPORT_NOT_SIGNED")
    assert (await world.row("a"))["state"] == "HELD"
    (told,) = await settler.settle(NODE, [pen.signed(report("a", phase=Phase.KNOWN))])
    assert told.valid_for_ms > 0
    edited = replace(pen.signed(report("a", SECOND_NS // 2)), counters={(1, "run"): SECOND_NS})
    edited = replace(edited, text=edited.text.replace("500000000", "1000000000"))
    for bad in (thief.signed(report("a", SECOND_NS)), edited):
        (told,) = await settler.settle(NODE, [bad])
        assert (told.valid_for_ms, told.reason) == (0, "REPORT_FORGED")
    assert (await world.balance()).posted_nano == 100 * USD
    kinds = {it["kind"] for it in await world.pool.fetch("SELECT kind FROM alarm")}
    assert kinds == {"REPORT_NOT_SIGNED", "REPORT_FORGED"}


async def test_the_last_signed_report_of_a_segment_is_kept(world, settler):
    pen = Pen()
    await world.authorize(ask("a", node_key=pen.public))
    await settler.settle(NODE, [pen.signed(report("a", phase=Phase.KNOWN))])
    for ms in (300, 900, 600):  # by decision, then by ticks; the last comes late
        await settler.settle(NODE, [pen.signed(report("a", ms * 1_000_000))])
    kept = await world.pool.fetchrow("SELECT * FROM signed_report")
    assert "counter 1 run 900000000\n" in kept["report"]
    assert meter_report.holds(kept["node_key"], kept["report"], kept["signature"])
    assert (kept["lease"], kept["segment"], kept["node_key"]) == ("a", 1, pen.public)


async def test_calls_of_many_nodes_are_decided_together_and_apart(world):
    for n in range(3):
        node = f"n{n}"
        await world.authorize(ask(f"a{n}", node=node), ask(f"b{n}", node=node))
    calls = [
        (f"n{n}", [report(it, phase=Phase.STARTING) for it in sorted({f"a{n}", f"b{n}", "a0"})])
        for n in range(3)
    ]
    found = await decide_together(world.books, calls, TERMS, meter_report.holds)
    for n, settled in enumerate(found):
        told = {it.lease_id: it for it in settled.answers}
        assert all(told[f"{it}{n}"].valid_for_ms > 0 for it in "ab")
        assert bool(told["a0"].reason) == (n > 0)  # another node's lease stays its own
        assert set(settled.known) == {f"a{n}", f"b{n}"}
    await world.check()
