"""Partners: each atom of a charge goes to the customer's bill once, and to one of three parts."""

import csv
import io
import json

import asyncpg
import pytest
from gridlease_billing.adapters import supplier_store
from gridlease_billing.credit import pay_in
from gridlease_billing.domain.grant_row import Cause, Phase
from gridlease_billing.domain.statement import render
from gridlease_billing.domain.supplier import PERMYRIAD, split, split_lines
from gridlease_billing.ports import Credit
from gridlease_billing.supplier_ports import NewContract, Payout
from gridlease_billing.suppliers import (
    assign_node,
    create_contract,
    create_supplier,
    list_suppliers,
    pay_out,
    release_held,
    statement,
    statement_page,
)
from gridlease_kernel.faults import Invalid, Missing, Precondition

from tests.integration.billing.test_documents import bill, refund
from tests.integration.billing.world import NODE, SECOND_NS, TENANT, USD, ask, report, together

NAME = "suppliers/acme"
# Of all lines and running leases (of one segment each) on partners' nodes, what SQL alone finds
# their parts to be, against what the books have posted.
_TRACED = """
WITH part AS (
    SELECT l.contract, l.charged_nano + m.rated_nano - m.base_nano AS amount
    FROM meter m JOIN lease l ON l.id = m.lease WHERE l.state <> 'FINAL' AND l.contract <> 0
    UNION ALL SELECT l.contract, n.amount_nano FROM line n JOIN lease l ON l.id = n.lease
    WHERE l.contract <> 0
)
SELECT coalesce(sum(floor(amount * c.share_permyriad / 10000.0)), 0)::int8 AS parts,
    (SELECT coalesce(sum(e.amount), 0)::int8 FROM entry e JOIN account a ON a.id = e.account
        JOIN journal j ON j.id = e.journal AND j.recorded_ms = e.recorded_ms
        WHERE a.supplier <> '' AND j.kind = 'charge') AS posted
FROM part JOIN supplier_contract c ON c.id = part.contract
"""
_ALL = """
SELECT a.kind, sum(e.amount)::int8 AS amount FROM entry e JOIN account a ON a.id = e.account
JOIN journal j ON j.id = e.journal AND j.recorded_ms = e.recorded_ms WHERE j.kind = 'charge'
GROUP BY a.kind
"""


@pytest.fixture
async def partner(world):
    """A partner with 70 %, a tenth of that kept back for 30 days, whose node is the test's."""
    await create_supplier(world.books, NAME, "Acme GmbH")
    await create_contract(world.books, NewContract(NAME, 7_000, 1_000, 30, "c1"))
    await assign_node(world.books, NODE, NAME, "n1")
    yield world
    assert await traced(world)


async def traced(world):
    """Every atom of every charge is the platform's or a partner's, and the lines say whose."""
    found = await world.pool.fetchrow(_TRACED)
    assert found["parts"] == found["posted"]
    sides = {it["kind"]: it["amount"] for it in await world.pool.fetch(_ALL)}
    assert sum(sides.values()) == 0
    return True


async def ran(world, lease, ns, final=True):
    await world.authorize(ask(lease))
    for phase, count in ((Phase.KNOWN, 0), (Phase.STARTING, ns // 3), (Phase.STARTING, ns)):
        await world.settle(report(lease, count, phase=phase))
    if final:
        await world.settle(report(lease, ns, phase=Phase.CLEAN, final=True))


async def test_a_charge_is_split_in_its_own_journal_and_at_every_instant(partner):
    await ran(partner, "a", 7 * SECOND_NS + 1, final=False)
    assert await traced(partner)
    (acme,) = await list_suppliers(partner.books)
    charged = (await partner.row("a"))["charged_nano"]
    part = split(acme.contract, charged)
    assert (acme.payable_nano, acme.holdback_nano) == (part.payable_nano, part.holdback_nano)
    assert part.payable_nano > 0
    assert part.holdback_nano > 0


async def test_ticks_split_as_decisions_do(partner, books):
    """The one statement that folds many leases gives each owner its part, to the atom."""
    for lease in ("a", "b", "c"):
        await ran(partner, lease, SECOND_NS, final=False)
    rows = await partner.pool.fetch("SELECT id, cap, contract FROM meter ORDER BY id")
    assert all(it["contract"] for it in rows)
    ids = [it["id"] for it in rows]
    for n in (1_034_567_891, 1_345_678_912, 1_876_543_219):
        columns = [[n + 7 * at for at in range(len(ids))], [], [], [], []]

        async def tick(tx, columns=columns):
            return await tx.ledger.tick(ids, columns)

        assert await books.run(tick) == set()
        assert await traced(partner)
    for at, lease in enumerate(("a", "b", "c")):
        last = 1_876_543_219 + 7 * at
        await partner.settle(report(lease, last, phase=Phase.CLEAN, final=True))
    (acme,) = await list_suppliers(partner.books)
    amounts = [line.amount_nano for line, _, _ in await partner.usage()]
    part = split_lines(acme.contract, amounts)
    assert (acme.payable_nano, acme.holdback_nano) == (part.payable_nano, part.holdback_nano)


async def test_terms_are_those_of_the_moment_of_authorisation(partner):
    await partner.authorize(ask("old"))
    await create_contract(partner.books, NewContract(NAME, 5_000, 0, 0, "c2"))
    await partner.authorize(ask("new"))
    await assign_node(partner.books, NODE, "", "n2")
    await partner.authorize(ask("own"))
    for lease in ("old", "new", "own"):
        for phase in (Phase.KNOWN, Phase.STARTING):
            await partner.settle(report(lease, SECOND_NS, phase=phase))
        await partner.settle(report(lease, SECOND_NS, phase=Phase.CLEAN, final=True))
    found = await statement(partner.books, NAME, 0, None)
    shares = {it.lease: it.contract.share_permyriad for it in found.lines}
    assert shares == {"old": 7_000, "new": 5_000}
    each = 10_000_000  # a second at 36 USD an hour
    assert {it.lease: each - it.parts.revenue_nano for it in found.lines} == {
        lease: each * share // PERMYRIAD for lease, share in shares.items()
    }


async def test_what_is_kept_back_is_released_once_when_its_days_have_passed(partner, dsn):
    await ran(partner, "a", 10 * SECOND_NS)
    assert await release_held(partner.books) == 0
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("UPDATE partner_line SET release_ms = 0")  # as if 30 days had passed
    await owner.close()
    (before,) = await list_suppliers(partner.books)
    assert await release_held(partner.books) == 1
    assert await release_held(partner.books) == 0
    (after,) = await list_suppliers(partner.books)
    assert after.holdback_nano == 0
    assert after.payable_nano == before.payable_nano + before.holdback_nano


async def test_a_payout_is_made_once_and_never_of_more_than_is_owed(partner):
    await ran(partner, "a", 10 * SECOND_NS)
    (acme,) = await list_suppliers(partner.books)
    with pytest.raises(Precondition, match="less than that") as refused:
        await pay_out(partner.books, Payout(NAME, acme.payable_nano + 1, "", "p0"))
    assert refused.value.reason == "PAYOUT_TOO_LARGE"
    for _ in range(2):
        paid, left = await pay_out(partner.books, Payout(NAME, 0, "bank 7", "p1"))
        assert (paid, left.payable_nano) == (acme.payable_nano, 0)
    with pytest.raises(Invalid) as reused:
        await pay_out(partner.books, Payout(NAME, 1, "", "p1"))
    assert reused.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(Precondition) as nothing:
        await pay_out(partner.books, Payout(NAME, 0, "", "p2"))
    assert nothing.value.reason == "NOTHING_OWED"
    found = await statement(partner.books, NAME, 0, None)
    assert [it.kind for it in found.moves] == ["payout"]


async def test_a_credit_for_a_lost_node_is_borne_in_the_stored_split(partner):
    await ran(partner, "a", 10 * SECOND_NS, final=False)
    (before,) = await list_suppliers(partner.books)
    await partner.close("a", cause=Cause.NODE_LOST)
    (after,) = await list_suppliers(partner.books)
    owed = await partner.pool.fetchval(
        "SELECT sum(e.amount)::int8 FROM entry e JOIN journal j ON j.id = e.journal"
        " JOIN account a ON a.id = e.account"
        " WHERE j.kind = 'sla_credit' AND a.kind = 'tenant_prepaid'"
    )
    part = split(before.contract, owed)
    assert before.payable_nano - after.payable_nano == part.payable_nano > 0
    assert before.holdback_nano - after.holdback_nano == part.holdback_nano > 0


async def test_a_refund_is_borne_in_the_split_of_its_lease_not_in_todays(partner):
    await ran(partner, "a", 10 * SECOND_NS)
    (before,) = await list_suppliers(partner.books)
    await create_contract(partner.books, NewContract(NAME, 2_000, 0, 0, "c2"))
    invoice = await bill(partner)
    note = await refund(partner, invoice)
    (after,) = await list_suppliers(partner.books)
    part = split(before.contract, -note.net_nano)
    assert before.payable_nano - after.payable_nano == part.payable_nano > 0
    assert before.holdback_nano - after.holdback_nano == part.holdback_nano > 0


async def test_what_is_released_by_many_at_once_is_released_once(partner, dsn):
    for lease in "abc":
        await ran(partner, lease, 10 * SECOND_NS)
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("UPDATE partner_line SET release_ms = 0")
    await owner.close()
    (before,) = await list_suppliers(partner.books)
    made = await together(*(release_held(partner.books) for _ in range(6)))
    assert sum(made) == 3, made
    (after,) = await list_suppliers(partner.books)
    assert (after.holdback_nano, after.payable_nano) == (
        0,
        before.payable_nano + before.holdback_nano,
    )


async def test_a_statement_mirrors_the_customers_lines_in_all_its_forms(partner):
    await pay_in(partner.books, Credit(TENANT, USD, "more", "x"))
    await ran(partner, "a", 3 * SECOND_NS + 7)
    await ran(partner, "b", 11 * SECOND_NS)
    found = await statement(partner.books, NAME, 0, None)
    usage = {line.lease: line.amount_nano for line, _, _ in await partner.usage()}
    assert {it.lease: it.amount_nano for it in found.lines} == usage
    assert all(it.parts.total_nano == it.amount_nano for it in found.lines)
    parts = split_lines(found.partner.contract, usage.values())
    assert found.closing == (parts.payable_nano, parts.holdback_nano) == found.charged
    told = json.loads(render(found, "json")[0])
    assert told["closing"]["payable_nano"] == parts.payable_nano
    rows = list(csv.DictReader(io.StringIO(render(found, "csv")[0].decode())))
    assert sum(int(row["payable_nano"]) for row in rows) == parts.payable_nano
    text, kind, name = render(found, "text")
    assert "Acme GmbH" in text.decode()
    assert kind.startswith("text/plain")
    assert name.startswith("suppliers-acme-")
    assert TENANT not in text.decode(), "who the customer is stays unsaid"


async def test_a_statement_comes_in_pages_that_are_the_whole_one(partner):
    for n in range(5):
        await ran(partner, f"l{n}", (n + 1) * SECOND_NS + n)
    await pay_out(partner.books, Payout(NAME, USD // 1_000, "one", "p1"))
    await pay_out(partner.books, Payout(NAME, USD // 1_000, "two", "p2"))
    whole = await statement(partner.books, NAME, 0, None)
    assert (len(whole.lines), len(whole.moves)) == (5, 2)
    for kind in ("csv", "text", "json"):
        pages, place = [], None
        while not pages or place is not None:
            page = await statement_page(partner.books, NAME, 0, whole.until_ms, place, 2)
            assert len(page.lines) + len(page.moves) <= 2
            assert page.totals == whole.totals, "totals are over all pages"
            pages.append(render(page, kind)[0])
            place = page.next_place
        assert len(pages) == 4
        if kind != "json":
            assert b"".join(pages) == render(whole, kind)[0]
            continue
        told = [json.loads(it) for it in pages]
        for name in ("lines", "moves"):
            rows = [row for page in told for row in page[name]]
            assert rows == json.loads(render(whole, "json")[0])[name]
    parts = [it.parts for it in whole.lines]
    assert whole.totals.parts == sum(parts[1:], parts[0])


_MANY = """
INSERT INTO partner_line
SELECT $1, n, 'many-' || n, 1, 'run', 'usage', (SELECT min(id) FROM supplier_contract), 'n1', 'X',
    1, 1000, 70, CASE WHEN n % 10 = 0 THEN n ELSE 9000000000000 + n END
FROM generate_series(1, 20000) AS n
"""


async def test_what_is_released_is_found_without_looking_at_all_lines(partner, dsn):
    """20,000 lines, of which a tenth are due: each batch reads its own rows by their index."""
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    await owner.execute("SELECT set_config('gridlease.tenant', '*', false)")
    await owner.execute(_MANY, NAME)
    await owner.execute("ANALYZE partner_line")
    for sql, arguments in (
        (supplier_store._HELD, (10**12, 1_000)),
        (supplier_store._LINES, (NAME, 0, 10**15, 10_000, "", 0, "", "", 1_000)),
    ):
        told = await owner.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments)
        read = [it for it in nodes(json.loads(told)[0]["Plan"]) if "partner_line" in str(
            it.get("Relation Name", ""))]  # fmt: skip
        assert [(it["Node Type"], it["Actual Rows"]) for it in read] == [("Index Scan", 1_000)]
    await owner.close()
    before = (await list_suppliers(partner.books))[0]
    assert [await release_held(partner.books, 800) for _ in range(4)] == [800, 800, 400, 0]
    after = (await list_suppliers(partner.books))[0]
    assert after.payable_nano - before.payable_nano == 2_000 * 70


def nodes(plan):
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


async def test_refusals_say_why(partner):
    with pytest.raises(Missing) as unknown:
        await assign_node(partner.books, NODE, "suppliers/nobody", "x")
    assert unknown.value.reason == "SUPPLIER_NOT_FOUND"
    await create_supplier(partner.books, "suppliers/bare", "")
    with pytest.raises(Precondition) as bare:
        await assign_node(partner.books, NODE, "suppliers/bare", "x")
    assert bare.value.reason == "NO_CONTRACT"
    with pytest.raises(Invalid) as reused:
        await create_contract(partner.books, NewContract(NAME, 1, 0, 0, "c1"))
    assert reused.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(Invalid) as reused:
        await assign_node(partner.books, "n9", NAME, "n1")
    assert reused.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(Invalid) as empty:
        await statement(partner.books, NAME, 10, 10)
    assert empty.value.reason == "PERIOD_EMPTY"
