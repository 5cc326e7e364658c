"""The price book in the database: two times that never overlap, corrections, sites, priorities."""

import itertools
import json
import random

import asyncpg
import pytest
from gridlease_billing.contract_ports import NewTariff
from gridlease_billing.credit_note import Refund, create_credit_note
from gridlease_billing.domain import invoice as documents
from gridlease_billing.domain.book import Span, spans
from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.grant_row import Cause
from gridlease_billing.domain.invoice_rows import as_csv, as_focus
from gridlease_billing.domain.invoice_text import as_text
from gridlease_billing.domain.price import NewPrice, Tier
from gridlease_billing.domain.priority import Band, NewPriorityTable
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.domain.spot import ChipUse, SpotPolicy
from gridlease_billing.expire import expire
from gridlease_billing.invoice import create_invoice, replayed
from gridlease_billing.market import move_spot
from gridlease_billing.ports import Scope
from gridlease_billing.prices import (
    Look,
    create_price,
    create_priorities,
    list_prices,
    list_priorities,
)
from gridlease_billing.quote import Question, quote
from gridlease_billing.supplier_ports import NewContract
from gridlease_billing.suppliers import assign_node, create_contract, create_supplier
from gridlease_billing.tariffs import create_tariff
from gridlease_kernel.faults import Invalid
from gridlease_kernel.ids import RandomIds

from tests.integration.billing.test_suppliers import traced
from tests.integration.billing.test_verify import Pen, check, evidence_of, ran
from tests.integration.billing.world import (
    CHIP,
    NODE,
    PRICE,
    PROJECT,
    SECOND_NS,
    TENANT,
    TERMS,
    USD,
    Phase,
    ask,
    report,
    together,
)

A, B = "sites/a", "sites/b"
SPANS = """
SELECT s.version, s.valid_from, s.valid_to, s.recorded_from, s.recorded_to
FROM book_span s JOIN book_key k ON k.id = s.key WHERE k.book = 'price' AND k.name = $1
ORDER BY s.id
"""
# A partner's part of each line, rounded down, against what it was given.
_PARTS = """
SELECT (SELECT sum(floor(n.amount_nano * 3333 / 10000.0)) FROM line n)::int8 AS due,
    (SELECT sum(e.amount) FROM entry e JOIN account a ON a.id = e.account
        WHERE a.supplier <> '')::int8 AS posted
"""


async def now_ms(world):
    return await world.pool.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8")


async def table(world, *bands, request_id="t", **more):
    new = NewPriorityTable(tuple(Band(*it) for it in bands), None, request_id)
    return await create_priorities(world.books, new, **more)


async def test_the_databases_rectangles_are_the_models(world):
    """A hundred entries of three sites: of now, to come, and corrections of the past."""
    rng = random.Random(20)
    begin = await now_ms(world)
    for number in range(100):
        at = rng.choice([None, begin + 10_000 + rng.randrange(40), begin - 60 + rng.randrange(50)])
        past = at is not None and at < begin
        site, gone = rng.choice(["", A, B]), rng.random() < 0.2
        new = NewPrice("x", Tier.SPOT, 7, at, f"r{number}", site, gone, past)
        await create_price(world.books, new)
    entries = [it for it in await list_prices(world.books, history=True) if it.chip == "x"]
    edges = sorted({ms for it in entries for ms in (it.effective_ms, it.recorded_ms)})
    for site in ("", A, B):
        own = [it for it in entries if it.site == site]
        due = spans(own)
        found = await world.pool.fetch(SPANS, ["x", "SPOT", site])
        key = lambda it: (it.recorded_from_ms, it.version, it.valid_from_ms)  # noqa: E731 - a key
        assert sorted([Span(*it) for it in found], key=key) == sorted(due, key=key)
    some = rng.sample(list(itertools.product(edges, edges)), 40)
    for valid_ms, recorded_ms in some:
        seen = await list_prices(world.books, history=False, look=Look(valid_ms, recorded_ms))
        said = {it.site: it.version for it in seen if it.chip == "x"}
        for site in ("", A, B):
            (held,) = [
                it.version
                for it in spans([it for it in entries if it.site == site])
                if it.holds(valid_ms, recorded_ms)
            ] or [None]
            gone = held is not None and next(it for it in entries if it.version == held).withdrawn
            assert said.get(site) == (None if gone else held), (site, valid_ms, recorded_ms)


async def test_no_hand_writes_a_rectangle_and_none_overlaps_another(world, dsn):
    owner = await asyncpg.connect(
        dsn, server_settings={"search_path": "billing", "gridlease.tenant": "*"}
    )
    try:
        for verb in (
            "UPDATE book_span SET recorded_to = recorded_from + 1",
            "UPDATE book_span SET valid_to = valid_from + 1",
            "DELETE FROM book_span",
            "TRUNCATE book_span",
            "UPDATE book_key SET name = '{}'",
            "DELETE FROM price",
            "UPDATE priority_multiplier SET permille = '{1}'",
            "INSERT INTO book_span (key, version, valid_from, recorded_from)"
            " SELECT key, version, 10 * valid_from, recorded_from FROM book_span",
        ):
            for role in (owner, world.pool):
                with pytest.raises(asyncpg.PostgresError):
                    await role.execute(verb)
        await owner.execute("ALTER TABLE book_span DISABLE TRIGGER spans_are_the_entries")
        with pytest.raises(asyncpg.ExclusionViolationError):
            await owner.execute(
                "INSERT INTO book_span (key, version, valid_from, recorded_from)"
                " SELECT key, version, valid_from + 5, recorded_from + 5 FROM book_span"
            )
    finally:
        await owner.close()
    with pytest.raises(asyncpg.PostgresError):
        await world.pool.execute("SELECT enter_book('price', '{}', 1, 1, 1)")


async def test_sixteen_prices_at_once_leave_one_in_force(world):
    await together(*(world.price(PRICE + n, f"at once {n}") for n in range(16)))
    seen = await list_prices(world.books, history=False)
    assert len([it for it in seen if it.chip == CHIP]) == 1
    found = await world.pool.fetch(SPANS, [CHIP, "ON_DEMAND", ""])
    assert [it["version"] for it in found if it["recorded_to"] is None][-1] == max(
        it["version"] for it in found
    )


async def test_a_price_to_come_and_a_correction_change_nothing_that_runs_or_is_charged(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", 10 * SECOND_NS))
    await world.settle(report("a", 10 * SECOND_NS, phase=Phase.CLEAN, final=True))
    await world.authorize(ask("b"))
    await world.settle(report("b", phase=Phase.KNOWN))
    before = await now_ms(world)
    with pytest.raises(Invalid) as caught:
        await world.price(1, "past", effective_ms=before - 3_600_000)
    assert caught.value.reason == "PRICE_IN_THE_PAST"
    (first,) = [it for it in await list_prices(world.books, history=True) if it.chip == CHIP]
    new = NewPrice(CHIP, Tier.ON_DEMAND, PRICE // 2, first.effective_ms, "put right",
                   correction=True)  # fmt: skip
    right = await create_price(world.books, new)
    later = await world.price(PRICE * 2, "later", effective_ms=right.recorded_ms + 3_600_000)
    look = lambda v, r: list_prices(world.books, history=False, look=Look(v, r))  # noqa: E731
    assert [it.version for it in await look(first.effective_ms, right.recorded_ms - 1)] == [
        first.version
    ]
    (now,) = await look(first.effective_ms, None)
    assert (now.version, now.correction) == (right.version, True)
    assert now.span.valid_to_ms == later.effective_ms
    (then,) = await look(later.effective_ms, None)
    assert (then.version, then.span.valid_to_ms) == (later.version, None)
    # What ran keeps what it was charged and its rate; the next segment is at the price of now.
    (done,) = [it for it, state, _ in await world.usage() if state == "FINAL"]
    assert (done.price_version, done.amount_nano) == (first.version, USD // 10)
    (same,) = await world.settle(report("b", SECOND_NS))
    assert (same.segment, same.rate_nano_per_hour) == (1, PRICE)
    await world.pass_time("b", 30_000)
    (renewed,) = await world.settle(report("b", 30 * SECOND_NS))
    assert (renewed.segment, renewed.rate_nano_per_hour) == (2, PRICE // 2)


async def test_a_priority_is_held_charged_and_shown_as_a_line_of_its_own(world):
    await create_supplier(world.books, "suppliers/acme", "Acme GmbH")
    await create_contract(world.books, NewContract("suppliers/acme", 7_000, 1_000, 30, "c1"))
    await assign_node(world.books, NODE, "suppliers/acme", "n1")
    await table(world, (0, 1_000), (50, 1_333))
    extra = PRICE * 333 // 1_000
    asked = Question(CHIP, "ON_DEMAND", 1_000, 7_000, 10_000, priority=60)
    told = await quote(world.books, asked, TERMS)
    assert (told.rate_nano_per_hour, told.rate.surcharge_nano_per_hour) == (PRICE + extra, extra)
    (dear, plain) = await world.authorize(ask("a", priority=60), ask("b", priority=49))
    assert (dear.rate_nano_per_hour, plain.rate_nano_per_hour) == (PRICE + extra, PRICE)
    assert (await world.row("a"))["held_nano"] == told.hold_nano
    await world.settle(*(report(it, phase=Phase.KNOWN) for it in "ab"))
    await table(world, (0, 500), request_id="half")
    for span in (3, 5, 7):
        await world.settle(*(report(it, span * SECOND_NS + 1) for it in "ab"))
    await world.pass_time("a", 40_000)
    (renewed,) = await world.settle(report("a", 40 * SECOND_NS))
    assert (renewed.segment, renewed.rate_nano_per_hour) == (2, PRICE // 2), "a new table: halved"
    for lease in "ab":
        counters = {"a": report("a", 9 * SECOND_NS + 7, segment=2, phase=Phase.CLEAN, final=True)}
        await world.settle(counters.get(lease) or report("b", 41 * SECOND_NS, phase=Phase.CLEAN,
                                                         final=True))  # fmt: skip
        await world.close(lease, cause=Cause.EXITED)
    made = await create_invoice(world.books, RandomIds(), Scope(TENANT, PROJECT), "i")
    shown = {(it.lease, it.segment, it.meter): it for it in made.lines}
    for segment, used, whole in (
        (1, 40 * SECOND_NS, PRICE + extra),
        (2, 9 * SECOND_NS + 7, PRICE // 2),
    ):
        base, part = shown["a", segment, "run"], shown["a", segment, "run_priority"]
        assert (base.rate_nano_per_hour, base.charged_ns) == (PRICE, used)
        assert part.rate_nano_per_hour == whole - PRICE
        assert base.amount_nano + part.amount_nano == whole * used // (3_600 * SECOND_NS)
        assert (part.amount_nano < 0) == (segment == 2)
    assert ("b", 1, "run_priority") not in shown
    charged = sum([(await world.row(it))["charged_nano"] for it in "ab"])
    assert made.total_nano == charged
    assert await replayed(world.books, TENANT, made.head.name) == made
    read(made)
    assert await traced(world)


async def test_all_parts_of_a_bill_can_be_computed_again(world):
    pen = Pen()
    steps = (Step(0, 0), Step(100, USD))
    new = NewTariff("egress", "", Tariff(steps, 100, USD), False, None, "e")
    await create_tariff(world.books, new)
    await table(world, (0, 700), (50, 1_500))
    await ran(world, pen, "a", 3 * SECOND_NS, 4 * SECOND_NS, priority=60)
    await ran(world, pen, "b", 5 * SECOND_NS)
    made = await create_invoice(world.books, RandomIds(), Scope(TENANT, PROJECT), "i")
    meters = [it.meter for it in made.lines]
    assert meters.count("run_priority") == 3
    assert meters.count("egress_free") == 3
    assert meters.count("egress_minimum") == 1
    evidence = await evidence_of(world, made)
    assert [it for it in check(evidence) if it.wrong] == []
    for line in evidence["invoice"]["lines"]:
        line["amount_nano"] += line["meter"] in ("run_priority", "egress_minimum")
    wrong = {it.line for it in check(evidence) if it.wrong and "amount" in it.what}
    assert len(wrong) == 4
    assert "Egress, free quota" in as_text(made, "en").decode().replace("Network egress", "Egress")
    assert "免费额度" in as_text(made, "zh").decode()
    assert as_focus(made).count(b",Adjustment,") == 1


async def test_a_lease_that_ran_costs_its_minimum_at_the_least(world):
    """A line of its own at the lease's end; run time that is told late is set off against it."""
    await create_supplier(world.books, "suppliers/acme", "Acme GmbH")
    await create_contract(world.books, NewContract("suppliers/acme", 3_333, 1_000, 30, "c1"))
    await assign_node(world.books, NODE, "suppliers/acme", "n1")
    new = NewTariff("run", "", Tariff((Step(0, 0),), 1, USD // 20), False, None, "least")
    await create_tariff(world.books, new)
    wrong = NewTariff("run", "", Tariff((Step(0, 1),), 1), False, None, "priced")
    with pytest.raises(Invalid) as caught:
        await create_tariff(world.books, wrong)
    assert caught.value.reason == "RUN_IS_PRICED"
    pen = Pen()
    await ran(world, pen, "short", SECOND_NS)
    await ran(world, pen, "long", 7 * SECOND_NS)
    await world.authorize(ask("never", node_key=pen.public), ask("late", node_key=pen.public))
    await world.settle(*(pen.signed(report(it, phase=Phase.KNOWN)) for it in ("never", "late")))
    await world.settle(pen.signed(report("never", phase=Phase.CLEAN, final=True)))
    await world.settle(pen.signed(report("late", 2 * SECOND_NS)))
    await world.pass_time("late", world.terms.late_after_ms + 61_000)
    await expire(world.books, world.terms)
    first = await create_invoice(world.books, RandomIds(), Scope(TENANT, PROJECT), "1")
    told = {it.lease: it.amount_nano for it in first.lines if it.meter == "run_minimum"}
    assert told == {"short": USD // 25, "late": 3 * USD // 100}, "0.05 in all; what never ran: 0"
    assert not [it for it in check(await evidence_of(world, first)) if it.wrong]
    await world.settle(pen.signed(report("late", 4 * SECOND_NS)))
    await world.settle(pen.signed(report("late", 9 * SECOND_NS)))
    second = await create_invoice(world.books, RandomIds(), Scope(TENANT, PROJECT), "2")
    amounts = [it.amount_nano for it in second.lines if it.meter == "run_minimum"]
    assert sorted(amounts) == [-2 * USD // 100, -USD // 100]
    both = [it for it in (*first.lines, *second.lines) if it.lease == "late"]
    assert sum(it.amount_nano for it in both) == 9 * USD // 100
    found = [it for it in check(await evidence_of(world, second, first)) if it.wrong]
    assert not found, found
    assert b"Run time, minimum" in as_text(first, "en")
    parts = await world.pool.fetchrow(_PARTS)
    assert parts["due"] == parts["posted"] > 0


def read(made):
    """All files have both lines."""
    told = json.loads(documents.as_json(made))
    assert {it["meter"] for it in told["lines"]} == {"run", "run_priority"}
    assert b"  Priority  " in as_text(made, "en")
    assert "优先级".encode() in as_text(made, "zh")
    assert as_csv(made).count(b"run_priority") == 2
    rows = as_focus(made).decode().splitlines()
    assert len([it for it in rows if "Gridlease Priority" in it]) == 2
    assert len([it for it in rows if "run_priority" in it and ",Credit," in it]) == 1


async def test_a_discount_is_not_given_back_twice(world):
    await table(world, (0, 500))
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", 20 * SECOND_NS))
    await world.settle(report("a", 20 * SECOND_NS, phase=Phase.CLEAN, final=True))
    before = await world.balance()
    assert before.posted_nano == 100 * USD - USD // 10
    made = await create_invoice(world.books, RandomIds(), Scope(TENANT, PROJECT), "i")
    assert [it.amount_nano for it in made.lines] == [USD // 5, -USD // 10]
    refund = Refund(TENANT, made.head.name, "sorry", "n")
    note = await create_credit_note(world.books, RandomIds(), refund)
    assert note.payable_nano == -made.payable_nano
    assert (await world.balance()).posted_nano == 100 * USD


async def test_tables_of_priorities_have_two_times_as_prices_have(world):
    assert await list_priorities(world.books, history=False) == []
    first = await table(world, (0, 1_000), (80, 2_000))
    assert await table(world, (0, 1_000), (80, 2_000)) == first, "once for each request id"
    with pytest.raises(Invalid) as caught:
        await table(world, (1, 1_000), request_id="bad")
    assert caught.value.reason == "BAD_BANDS"
    new = NewPriorityTable((Band(0, 900),), first.effective_ms, "right", correction=True)
    right = await create_priorities(world.books, new)
    look = Look(first.effective_ms, None)
    (now,) = await list_priorities(world.books, history=False, look=look)
    assert (now.version, now.bands) == (right.version, (Band(0, 900),))
    assert len(await list_priorities(world.books, history=True)) == 2


async def test_a_sites_price_goes_before_that_of_everywhere_until_it_is_withdrawn(world):
    await create_price(world.books, NewPrice(CHIP, Tier.ON_DEMAND, 7, None, "at a", A))
    orders = [ask("a", site=A), ask("b", site=B), ask("c")]
    told = await world.authorize(*orders)
    assert [it.rate_nano_per_hour for it in told] == [7, PRICE, PRICE]
    await create_price(world.books, NewPrice(CHIP, Tier.ON_DEMAND, 0, None, "gone", A, True))
    (again,) = await world.authorize(ask("d", site=A))
    assert again.rate_nano_per_hour == PRICE
    seen = await list_prices(world.books, history=False)
    assert [it.site for it in seen if it.chip == CHIP] == [""]


async def test_a_spot_price_moves_at_each_site_by_its_own_use_down_to_its_own_power(world):
    await world.price(10 * USD, "spot", tier="SPOT")
    policy = SpotPolicy(wear_permille=0)
    power = SitePower(1_500, (), (USD * 66 // 10,))  # 0.7 kW x 1.5 x 6.6 = 6.93 an hour
    uses = [
        ChipUse(CHIP, 8_000, 8_000, 8_000, A, 700, power),
        ChipUse(CHIP, 8_000, 0, 0, B, 700, power),
        ChipUse(CHIP, 8_000, 7_200, 0),
    ]
    end = await now_ms(world)
    moved = await move_spot(world.books, end - end % policy.window_ms, uses, policy)
    found = {it.site: it.price_nano_per_hour for it in moved}
    assert found == {A: 10 * USD * 102 // 100, B: 10 * USD * 98 // 100}, "everywhere it stays"
    again = await move_spot(world.books, end - end % policy.window_ms, uses, policy)
    assert again == [], "once a window"
    kept = await world.pool.fetch("SELECT site, floor_nano FROM spot_move ORDER BY site")
    assert [tuple(it) for it in kept] == [(A, 6_930_000_000), (B, 6_930_000_000)]
    dear, cheap = await world.authorize(*(ask(s[-1], tier="SPOT", site=s) for s in (A, B)))
    assert (dear.rate_nano_per_hour, cheap.rate_nano_per_hour) == (found[A], found[B])
