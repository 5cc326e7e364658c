"""What invoices ask for beyond prepaid credit: paid, overpaid, taken back, overdue."""

import pytest
from gridlease_billing.contract_ports import NewTariff
from gridlease_billing.domain.grant_row import Cause, Phase
from gridlease_billing.domain.rating import Step, Tariff
from gridlease_billing.domain.receivable import DAY_MS, Settling
from gridlease_billing.receivable_ports import NewPayment, NewRefund
from gridlease_billing.receivables import (
    get_receivable,
    list_receivables,
    list_terms,
    pay,
    refund,
    set_terms,
)
from gridlease_billing.tariffs import create_tariff
from gridlease_kernel.faults import Invalid, Missing, Precondition

from tests.integration.billing.test_documents import bill, german, ran, silent
from tests.integration.billing.test_documents import refund as credit_note
from tests.integration.billing.world import SECOND_NS, TENANT, TERMS, USD, ask, report

CENT = USD // 100
TAX = 19 * CENT  # of a net of one dollar
_ACCOUNT = """
SELECT coalesce(sum(account_sum(id)), 0)::int8 FROM account
WHERE kind = 'receivable' AND tenant = $1
"""


@pytest.fixture
async def billed(world):
    """An invoice of 1.00 USD with 0.19 USD of tax that nobody has paid."""
    await german(world)
    await ran(world, "a", 50 * SECOND_NS, quantity_milli=2_000)
    invoice = await bill(world, "1")
    assert (invoice.net_nano, invoice.tax_nano) == (USD, TAX)
    yield world, invoice.head.name
    assert await reconciled(world)


async def reconciled(world):
    """The tenant's account is what its invoices have open, and what rounding left of each."""
    owes = -await world.pool.fetchval(_ACCOUNT, TENANT)
    open_nano = await world.pool.fetchval(
        "SELECT coalesce(sum(asked_nano - paid_nano - credited_nano), 0)::int8 FROM receivable"
    )
    rounding = await world.pool.fetchval(
        "SELECT coalesce(sum(net_nano - total_nano), 0)::int8 FROM invoice"
        " WHERE state = 'FINAL' AND kind = 'INVOICE'"
    )
    unasked = await world.pool.fetchval(  # charged beyond prepaid credit, on no invoice yet
        "SELECT coalesce(-sum(e.amount), 0)::int8 FROM entry e JOIN journal j ON j.id = e.journal"
        " JOIN account a ON a.id = e.account WHERE a.kind = 'receivable' AND j.kind IN"
        " ('meter_charge', 'correction', 'commitment_fee')"
        " AND NOT EXISTS (SELECT FROM receivable_debt d WHERE d.journal = j.id)"
    )
    assert owes == open_nano + rounding + unasked
    return True


async def paid(world, name, nano, request_id):
    return await pay(world.books, NewPayment(TENANT, name, nano, "bank", request_id))


async def told(world, name):
    found = await get_receivable(world.books, TENANT, name)
    return found.owed.state(found.now_ms), found.owed.open_nano


async def grow_old(world, owner_dsn, days):
    """As if the invoices had been issued so many days earlier."""
    import asyncpg

    owner = await asyncpg.connect(owner_dsn, server_settings={"search_path": "billing"})
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("UPDATE receivable SET due_ms = due_ms - $1", days * DAY_MS)
    await owner.close()


async def test_it_is_due_by_its_terms_and_paid_in_parts_once_each(billed):
    world, name = billed
    found = await get_receivable(world.books, TENANT, name)
    assert found.owed.due_ms - found.owed.issued_ms == 14 * DAY_MS
    assert found.owed.state(found.now_ms) is Settling.OPEN
    before = await world.balance()
    for _ in range(2):
        made, left = await paid(world, name, 9 * CENT, "p1")
        assert (made.parts.applied_nano, made.parts.prepaid_nano) == (9 * CENT, 0)
        assert left.owed.state(left.now_ms) is Settling.PART_PAID
        assert left.owed.open_nano == 10 * CENT
    with pytest.raises(Invalid) as reused:
        await paid(world, name, 8 * CENT, "p1")
    assert reused.value.reason == "REQUEST_ID_REUSED"
    assert await world.balance() == before, "tax is not prepaid"
    number = found.owed.number
    made, left = await paid(world, number, 0, "p2")  # by its number: all that is open
    assert made.parts.applied_nano == 10 * CENT
    assert await told(world, name) == (Settling.PAID, 0)
    with pytest.raises(Precondition) as nothing:
        await paid(world, name, 0, "p3")
    assert nothing.value.reason == "NOTHING_OPEN"
    assert [it.request_id for it in left.payments] == ["p1", "p2"]
    kinds = await world.pool.fetch("SELECT kind FROM journal WHERE kind = 'payment'")
    assert len(kinds) == 2


async def test_what_is_more_than_was_asked_is_prepaid_and_goes_back_first(billed):
    world, name = billed
    before = (await world.balance()).posted_nano
    made, _ = await paid(world, name, 30 * CENT, "p")
    assert (made.parts.applied_nano, made.parts.prepaid_nano) == (TAX, 11 * CENT)
    assert (await world.balance()).posted_nano == before + 11 * CENT
    for _ in range(2):
        back, left = await refund(world.books, NewRefund(TENANT, "p", 12 * CENT, "", "r1"))
        assert (back.parts.applied_nano, back.parts.prepaid_nano) == (-CENT, -11 * CENT)
        assert left.owed.open_nano == CENT
    assert (await world.balance()).posted_nano == before
    with pytest.raises(Precondition) as large:
        await refund(world.books, NewRefund(TENANT, "p", 19 * CENT, "", "r2"))
    assert large.value.reason == "REFUND_TOO_LARGE"
    await refund(world.books, NewRefund(TENANT, "p", 0, "", "r2"))
    assert await told(world, name) == (Settling.OPEN, TAX)
    for request_id, reason in (("p", "NOTHING_LEFT_TO_REFUND"), ("r1", "PAYMENT_NOT_FOUND")):
        with pytest.raises((Precondition, Missing)) as refused:
            await refund(world.books, NewRefund(TENANT, request_id, 0, "", "r3"))
        assert refused.value.reason == reason


async def test_what_was_prepaid_and_is_held_cannot_go_back(billed):
    world, name = billed
    await paid(world, name, TAX + USD, "p")
    rich = (await world.balance()).available_nano
    await world.authorize(ask("b", quantity_milli=1_000 * (rich // (70 * CENT))))
    assert (await world.balance()).available_nano < USD
    with pytest.raises(Precondition) as spent:
        await refund(world.books, NewRefund(TENANT, "p", 0, "", "r"))
    assert spent.value.reason == "PAYMENT_SPENT"


async def test_a_credit_note_takes_tax_off_what_is_open_and_gives_the_rest_back(billed):
    world, name = billed
    await paid(world, name, 9 * CENT, "p")
    invoice = (await world.pool.fetchrow("SELECT * FROM invoice WHERE id = $1", name))["id"]
    before = (await world.balance()).posted_nano
    original = await bill_of(world, invoice)
    await credit_note(world, original)  # all of it: a dollar and 19 cents, of which 10 are open
    assert await told(world, name) == (Settling.PAID, 0)
    assert (await world.balance()).posted_nano == before + USD + 9 * CENT


async def bill_of(world, name):
    from gridlease_billing.invoice import get_invoice

    return await get_invoice(world.books, TENANT, name)


async def test_debts_are_told_by_age_page_by_page(billed, dsn):
    world, _ = billed
    for n, devices in enumerate((4, 6)):
        await grow_old(world, dsn, 40)
        await ran(world, f"x{n}", 50 * SECOND_NS, quantity_milli=devices * 1_000)
        await bill(world, f"x{n}")
    first = await list_receivables(world.books, "", None, 2)
    assert [it.days_overdue(first.now_ms) for it in first.owed] == [66, 26]
    rest = await list_receivables(world.books, "", first.next_key, 2)
    assert [it.days_overdue(rest.now_ms) for it in rest.owed] == [0]
    assert rest.next_key is None
    every, own = first.ages
    assert (every.tenant, own.tenant) == ("", TENANT)
    assert (own.current_nano, own.days_30_nano, own.days_60_nano, own.days_90_nano) == (
        57 * CENT, 38 * CENT, 0, 19 * CENT)  # fmt: skip
    assert every.total_nano == own.total_nano == 114 * CENT
    assert not (await list_receivables(world.books, "tenants/other", None, 2)).owed


async def test_who_is_overdue_beyond_the_grace_gets_no_new_grants_where_terms_say_so(billed, dsn):
    world, name = billed
    await world.authorize(ask("running"))
    for phase in (Phase.KNOWN, Phase.STARTING):
        await world.settle(report("running", SECOND_NS, phase=phase))
    await grow_old(world, dsn, 14 + 8)
    assert (await world.authorize(ask("b")))[0].ok, "no policy, no refusal"
    await set_terms(world.books, "", 14, 9)
    assert (await world.authorize(ask("c")))[0].ok, "within the grace"
    await set_terms(world.books, "", 14, 7)
    (refused,) = await world.authorize(ask("d"))
    assert (refused.ok, refused.reason) == (False, "INVOICE_OVERDUE")
    assert "is overdue for 8 days: pay the 0.19 USD" in refused.hint
    (again,) = await world.authorize(ask("b"))
    assert again.ok, "what was authorised stays so"
    # What runs is told at its renewal, as with a budget, and stops when its notice is over.
    await world.pass_time("running", TERMS.grant_ms)
    await world.pass_time("running", -TERMS.grant_ms // 4)
    (answer,) = await world.settle(report("running", 2 * SECOND_NS))
    assert (answer.last, answer.reason) == (True, "INVOICE_OVERDUE")
    assert answer.valid_for_ms >= 10_000, "the notice that was prepaid"
    assert (await world.row("running"))["cause"] == Cause.INVOICE_OVERDUE
    await set_terms(world.books, TENANT, 30, None)
    assert (await world.authorize(ask("e")))[0].ok, "this tenant's own terms say otherwise"
    await set_terms(world.books, TENANT, 30, 7)
    assert not (await world.authorize(ask("f")))[0].ok
    await paid(world, name, 0, "p")
    assert (await world.authorize(ask("f")))[0].ok, "paid: admitted at once"
    terms = {it.tenant: (it.due_days, it.grace_days) for it in await list_terms(world.books)}
    assert terms == {"": (14, 7), TENANT: (30, 7)}


async def test_what_was_charged_beyond_prepaid_credit_is_asked_for_once(billed):
    """Late usage goes to the receivable account: the invoice that has its line asks for it."""
    world, first = billed
    await silent(world, "late", 10 * SECOND_NS)
    await bill(world, "2")
    await world.settle(report("late", 20 * SECOND_NS))
    correction = await bill(world, "3")
    assert [it.kind for it in correction.lines] == ["CORRECTION"]
    found = await get_receivable(world.books, TENANT, correction.head.name)
    late = correction.lines[0].amount_nano
    assert late == 10 * CENT
    assert found.owed.asked_nano == late + correction.tax_nano
    assert await told(world, first) == (Settling.OPEN, TAX), "no other invoice asks for it"
    await paid(world, correction.head.name, 0, "p")
    assert await told(world, correction.head.name) == (Settling.PAID, 0)


async def test_egress_that_credit_does_not_cover_is_asked_for(billed):
    world, _ = billed
    tariff = Tariff((Step(0, 50 * USD),), 1)
    await create_tariff(world.books, NewTariff("egress", "", tariff, False, None, "e"))
    before = (await world.balance()).available_nano
    await ran(world, "e", 10 * SECOND_NS)  # 1,234 bytes at 50 USD each: far beyond what is left
    invoice = await bill(world, "e")
    found = await get_receivable(world.books, TENANT, invoice.head.name)
    prepaid = before - (await world.balance()).available_nano
    assert found.owed.asked_nano == invoice.total_nano - prepaid + invoice.tax_nano
    assert found.owed.asked_nano > 60_000 * USD


async def test_another_tenants_invoice_is_a_missing_one(billed):
    world, name = billed
    with pytest.raises(Missing):
        await get_receivable(world.books, "tenants/other", name)
    with pytest.raises(Missing):
        await pay(world.books, NewPayment("tenants/other", name, 1, "", "p"))
