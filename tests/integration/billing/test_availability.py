"""Months in which nodes were lost: credited once, on the bill, borne as each got its part."""

import asyncio

import pytest
from gridlease_billing.availability import credit_months
from gridlease_billing.domain.grant_row import Cause, Phase
from gridlease_billing.domain.invoice_rows import as_focus
from gridlease_billing.domain.invoice_text import as_text
from gridlease_billing.domain.supplier import split
from gridlease_billing.expire import expire
from gridlease_billing.invoice import replayed
from gridlease_billing.supplier_ports import NewContract
from gridlease_billing.suppliers import assign_node, create_contract, create_supplier

from tests.integration.billing.test_documents import bill
from tests.integration.billing.test_verify import check, evidence_of
from tests.integration.billing.world import NODE, SECOND_NS, TENANT, USD, ask, report

CENT = USD // 100
DAY_MS = 86_400_000


async def lived(world, lease, ran_ns, cause, days=70):
    """A lease that ended so many days ago."""
    await world.authorize(ask(lease, notice_ms=0))
    await world.settle(report(lease, phase=Phase.KNOWN))
    await world.settle(report(lease, ran_ns))
    await world.close(lease, cause=cause)
    await world.pass_time(lease, days * DAY_MS)
    while await expire(world.books, world.terms):
        pass


async def credited(world):
    return await world.pool.fetchval(
        "SELECT coalesce(sum(e.amount), 0)::int8 FROM entry AS e JOIN journal AS j"
        " ON j.id = e.journal JOIN account AS a ON a.id = e.account"
        " WHERE j.kind = 'availability_credit' AND a.kind = 'tenant_prepaid'"
    )


@pytest.fixture
async def partner(world):
    await create_supplier(world.books, "suppliers/acme", "Acme")
    await create_contract(world.books, NewContract("suppliers/acme", 7_000, 1_000, 30, "c1"))
    await assign_node(world.books, NODE, "suppliers/acme", "n1")
    return world


async def test_a_month_with_a_lost_node_is_credited_once_and_borne_by_its_owner(partner):
    world = partner
    await lived(world, "a", 30 * SECOND_NS, Cause.NODE_LOST)  # half of its minute
    await lived(world, "b", 20 * SECOND_NS, Cause.STOPPED)
    before = await world.pool.fetchrow("SELECT * FROM supplier")
    sums = [await world.pool.fetchval("SELECT account_sum($1)", before[name])
            for name in ("payable", "holdback")]  # fmt: skip
    await asyncio.gather(*(credit_months(world.books) for _ in range(3)))
    assert await credit_months(world.books) == 0
    assert await credited(world) == 15 * CENT  # half of what "a" had cost
    month = await world.pool.fetchrow("SELECT * FROM sla_month")
    assert (month["up_milli_ms"], month["down_milli_ms"]) == (50_000_000, 30_000_000)
    assert (month["credit_permille"], month["credit_nano"]) == (500, 15 * CENT)
    contract = await world.pool.fetchrow("SELECT * FROM supplier_contract")
    from gridlease_billing.adapters.ledger_store import contract_of

    part = split(contract_of(contract), 15 * CENT)
    after = [await world.pool.fetchval("SELECT account_sum($1)", before[name])
             for name in ("payable", "holdback")]  # fmt: skip
    assert (sums[0] - after[0], sums[1] - after[1]) == (part.payable_nano, part.holdback_nano)
    invoice = await bill(world)
    (line,) = [it for it in invoice.lines if it.note == "availability_credit"]
    assert (line.kind, line.lease, line.amount_nano) == ("CREDIT", "a", -15 * CENT)
    assert await replayed(world.books, TENANT, invoice.head.name) == invoice
    from gridlease_verify.bill import Trust

    evidence = await evidence_of(world, invoice)
    assert check(evidence, Trust(unsigned=True)) == []
    forged = next(it for it in evidence["invoice"]["lines"] if it["note"] == line.note)
    forged["amount_nano"] -= 1
    assert "no part of its lease's cost" in str(check(evidence, Trust(unsigned=True)))


async def test_a_month_that_is_not_settled_or_lost_nothing_waits(world):
    await lived(world, "a", 30 * SECOND_NS, Cause.STOPPED)
    await lived(world, "b", 30 * SECOND_NS, Cause.NODE_LOST, days=0)
    assert await credit_months(world.books) == 0
    assert await credited(world) == 0


async def test_a_promotion_for_no_lease_stands_on_the_next_invoice(world):
    async def promote(tx):
        wallet = await tx.ledger.open_wallet(TENANT)
        sides = {wallet.account: 7 * CENT, await tx.ledger.platform("promo_expense"): -7 * CENT}
        await tx.ledger.journal("promo_credit", "promo/1", "welcome", sides, 1)

    await world.books.run(promote)
    await lived(world, "a", 30 * SECOND_NS, Cause.STOPPED, days=1)
    invoice = await bill(world)
    (line,) = [it for it in invoice.lines if it.kind == "CREDIT"]
    assert (line.note, line.lease, line.amount_nano) == ("promo_credit", "", -7 * CENT)
    assert invoice.total_nano == 23 * CENT
    assert await replayed(world.books, TENANT, invoice.head.name) == invoice
    assert as_focus(invoice)
    assert as_text(invoice, "zh")
