"""Documents: drafts, issuers and taxes, credits and late usage on lines, credit notes, exports."""

import asyncio
import csv
import io
import json

import asyncpg
import pytest
from gridlease_billing import taxes
from gridlease_billing.adapters.pdf import PdfPrinter
from gridlease_billing.credit_note import Refund, create_credit_note
from gridlease_billing.domain.grant_row import Cause, Phase
from gridlease_billing.domain.invoice import as_json
from gridlease_billing.domain.invoice_rows import as_csv, as_focus
from gridlease_billing.domain.invoice_text import as_text
from gridlease_billing.domain.issuer import LegalEntity, TaxProfile, TaxSource
from gridlease_billing.domain.tax import TaxRate
from gridlease_billing.invoice import (
    create_invoice,
    finalize_invoice,
    get_invoice,
    list_invoices,
    replayed,
)
from gridlease_billing.ports import Scope
from gridlease_kernel.faults import Conflict, Invalid, Precondition
from gridlease_kernel.ids import RandomIds

from tests.integration.billing.world import (
    NODE,
    PROJECT,
    SECOND_NS,
    TENANT,
    USD,
    ask,
    replace,
    report,
)

SCOPE = Scope(TENANT, PROJECT)
CENT = USD // 100
BERLIN = LegalEntity("berlin", "Gridlease GmbH", "Weg 1\nBerlin", "DE", "DE123456789", "GB")


async def ran(world, lease, ran_ns, **more):
    await world.authorize(ask(lease, **more))
    await world.settle(report(lease, phase=Phase.KNOWN))
    counters = {(1, "run"): ran_ns, (1, "egress"): 1_234, (1, "provision"): 5 * SECOND_NS}
    told = report(lease, ran_ns, phase=Phase.CLEAN, final=True)
    await world.settle(replace(told, counters=counters))


async def bill(world, request_id="r", **more):
    return await create_invoice(world.books, RandomIds(), SCOPE, request_id, **more)


async def refund(world, invoice, request_id="n", **more):
    asked = Refund(TENANT, invoice.head.name, "broken node", request_id, **more)
    return await create_credit_note(world.books, RandomIds(), asked)


async def german(world, **more):
    await taxes.set_entity(world.books, BERLIN)
    profile = TaxProfile(TENANT, "ACME", "Allee 2", "DE", "", "zh", "berlin")
    await taxes.set_profile(world.books, replace(profile, **more))


async def account(world, kind):
    return await world.pool.fetchval(
        "SELECT coalesce(sum(account_sum(id)), 0)::int8 FROM account WHERE kind = $1", kind
    )


async def test_a_draft_becomes_final_once_and_one_way(world, dsn):
    await ran(world, "a", SECOND_NS)
    draft = await bill(world, draft=True)
    assert (draft.head.state, draft.head.number, draft.content_sha256) == ("DRAFT", "", "")
    assert await get_invoice(world.books, TENANT, draft.head.name) == draft
    assert b"DRAFT" in as_text(draft)
    with pytest.raises(Precondition):
        await bill(world, "other")  # the draft has taken it
    made = await asyncio.gather(
        *(finalize_invoice(world.books, TENANT, draft.head.name) for _ in range(4))
    )
    assert all(it == made[0] for it in made)
    assert made[0].head.number.endswith("-000001")
    assert await get_invoice(world.books, TENANT, made[0].head.number) == made[0]
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    for change in ("number = 'X'", "state = 'DRAFT', number = NULL", "total_nano = 0"):
        with pytest.raises(asyncpg.PostgresError):
            await owner.execute(f"UPDATE invoice SET {change}")
    await owner.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.pool.execute("UPDATE invoice SET total_nano = 0")


async def test_all_meters_are_lines_those_without_price_too(world):
    await ran(world, "a", 3 * SECOND_NS)
    invoice = await bill(world)
    assert [(it.meter, it.charged_ns, it.amount_nano) for it in invoice.lines] == [
        ("egress", 1_234, 0),
        ("provision", 5 * SECOND_NS, 0),
        ("run", 3 * SECOND_NS, 3 * CENT),
    ]


async def test_tax_is_computed_once_on_the_total_and_posted(world):
    await german(world)
    for n in range(7):
        await ran(world, f"l{n}", 1_333_333_333)
    invoice = await bill(world)
    assert invoice.head.number.startswith("GB-")
    assert invoice.net_nano == 9 * CENT  # 7 x 0.0133
    assert invoice.tax_nano == 2 * CENT  # 19 % of 0.09, not 7 x 0
    assert sum(invoice.billed) == invoice.net_nano
    assert sum(invoice.taxes) == invoice.tax_nano
    assert invoice.payable_nano == 11 * CENT
    assert await account(world, "tax_payable") == 2 * CENT
    assert await account(world, "receivable") == -(invoice.payable_nano - invoice.total_nano)
    assert await account(world, "rounding") == invoice.net_nano - invoice.total_nano
    text = as_text(invoice).decode()
    assert "税额 (DE VAT 19 %)" in text
    assert "Gridlease GmbH, Weg 1, Berlin, DE, 税号 DE123456789" in text


async def test_a_company_elsewhere_in_the_union_owes_the_tax_itself(world):
    await german(world, country="FR", tax_id="FR1", language="en")
    await ran(world, "a", 10 * SECOND_NS)
    invoice = await bill(world)
    assert (invoice.tax_nano, invoice.payable_nano) == (0, 10 * CENT)
    assert "Reverse charge: the tax is owed by the recipient" in as_text(invoice).decode()


async def test_the_tax_table_is_added_to_and_never_edited(world):
    await german(world, country="PL")
    await ran(world, "a", SECOND_NS)
    with pytest.raises(Precondition) as caught:
        await bill(world)
    assert caught.value.reason == "NO_TAX_RATE"
    new = TaxSource(TaxRate("PL", "VAT", 2_300, 1_293_840_000_000), "Ustawa o VAT, art. 146aa")
    assert await taxes.add_rate(world.books, new) == await taxes.add_rate(world.books, new)
    other = replace(new, rate=replace(new.rate, permyriad=2_400))
    with pytest.raises(Invalid) as caught:
        await taxes.add_rate(world.books, other)
    assert caught.value.reason == "TAX_RATE_EXISTS"
    invoice = await bill(world)
    assert invoice.parties.tax.permyriad == 2_300
    late = replace(other, rate=replace(other.rate, effective_ms=invoice.head.issued_ms - 1))
    with pytest.raises(Invalid) as caught:  # what was issued at the rate before would be wrong
        await taxes.add_rate(world.books, late)
    assert caught.value.reason == "TAX_RATE_IN_THE_PAST"
    to_come = replace(
        late, rate=replace(late.rate, effective_ms=invoice.head.issued_ms + 3_600_000)
    )
    assert await taxes.add_rate(world.books, to_come) == to_come


async def test_each_issuer_and_series_has_numbers_of_its_own(world):
    await ran(world, "a", SECOND_NS)
    first = await bill(world, "1")
    await german(world)
    await ran(world, "b", SECOND_NS)
    second = await bill(world, "2")
    note = await refund(world, second)
    year = first.head.number[3:7]
    assert [it.head.number for it in (first, second, note)] == [
        f"GL-{year}-000001",
        f"GB-{year}-000001",
        f"GB-CN-{year}-000001",
    ]
    with pytest.raises(Conflict) as caught:
        await taxes.set_entity(world.books, replace(BERLIN, entity="munich"))
    assert caught.value.reason == "PREFIX_TAKEN"


async def test_a_credit_for_a_warning_not_given_is_a_line(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", 30 * SECOND_NS))
    await world.close("a", 0, Cause.PREEMPTED)
    await world.settle(report("a", 30 * SECOND_NS, phase=Phase.CLEAN, final=True))
    invoice = await bill(world)
    [credit] = [it for it in invoice.lines if it.kind == "CREDIT"]
    assert (credit.note, credit.amount_nano) == ("reclaim_credit", -10 * CENT)
    assert invoice.total_nano == 20 * CENT
    assert invoice.total_nano == 100 * USD - (await world.balance()).posted_nano


async def test_a_credit_above_its_invoice_waits_for_the_next(world):
    await world.authorize(ask("a"))
    await world.settle(report("a", phase=Phase.KNOWN))
    await world.settle(report("a", SECOND_NS))
    await world.close("a", 0, Cause.NODE_LOST)
    await world.settle(report("a", SECOND_NS, phase=Phase.CLEAN, final=True))
    assert (await bill(world, "1")).total_nano == CENT
    await ran(world, "b", 15 * SECOND_NS)
    second = await bill(world, "2")
    assert (second.total_nano, second.lines[0].note) == (5 * CENT, "sla_credit")


async def silent(world, lease, ran_ns):
    """A lease whose node falls silent until it is final by time."""
    await world.authorize(ask(lease))
    await world.settle(report(lease, phase=Phase.KNOWN))
    await world.settle(report(lease, ran_ns))
    await world.close(lease)
    await world.pass_time(lease, world.terms.late_after_ms + 120_000)
    from gridlease_billing.expire import expire

    await expire(world.books, world.terms)
    assert (await world.row(lease))["state"] == "FINAL"


async def test_late_usage_is_a_correction_that_cites_its_line(world):
    await silent(world, "a", 7 * SECOND_NS)
    first = await bill(world, "1")
    for ran_ns in (9_500_000_001, 9_000_000_000, 11_300_000_007):  # in any order, once
        await world.settle(report("a", ran_ns))
    await world.settle(report("a", 11_300_000_007, phase=Phase.CLEAN, final=True))
    second = await bill(world, "2")
    assert [(it.kind, it.before, it.charged_ns) for it in second.lines] == [
        ("CORRECTION", 7_000_000_000, 2_500_000_001),
        ("CORRECTION", 9_500_000_001, 1_800_000_006),
    ]
    assert {it.cites for it in second.lines} == {f"{first.head.name}#1"}
    whole = 36 * USD * 11_300_000_007 // (3_600 * SECOND_NS)
    assert first.total_nano + second.total_nano == whole
    assert -(await account(world, "receivable")) == (
        first.payable_nano - first.total_nano + second.payable_nano
    )
    assert await replayed(world.books, TENANT, second.head.name) == second
    assert (await world.pool.fetchval("SELECT count(*) FROM broken_links()")) == 0


async def test_late_usage_before_its_invoice_stands_on_it(world):
    await silent(world, "a", 7 * SECOND_NS)
    await world.settle(report("a", 9 * SECOND_NS))
    invoice = await bill(world)
    late, usage = invoice.lines
    assert (usage.kind, late.kind, late.cites) == (
        "USAGE",
        "CORRECTION",
        f"{invoice.head.name}#2",
    )
    assert invoice.total_nano == 9 * CENT
    assert as_focus(invoice)


async def test_credit_notes_never_give_back_more_than_their_line(world, dsn):
    await german(world)
    await ran(world, "a", 60 * SECOND_NS)
    await ran(world, "b", 50 * SECOND_NS)
    invoice = await bill(world)
    at = {it.lease: n for n, it in enumerate(invoice.lines, 1) if it.meter == "run"}
    assert invoice.payable_nano == 131 * CENT  # 20.9 cents of tax, half up
    before = await world.balance()
    first = await refund(world, invoice, "1", position=at["a"], amount_nano=70 * CENT)
    assert first == await refund(world, invoice, "1", position=at["a"], amount_nano=70 * CENT)
    assert first.payable_nano == -70 * CENT
    assert (await world.balance()).posted_nano == before.posted_nano - first.net_nano
    with pytest.raises(Precondition) as caught:
        await refund(world, invoice, "2", position=at["a"], amount_nano=60 * CENT)
    assert caught.value.reason == "CREDIT_EXCEEDS_LINE"
    rest = await refund(world, invoice, "3")
    assert first.payable_nano + rest.payable_nano == -invoice.payable_nano
    assert first.tax_nano + rest.tax_nano == -invoice.tax_nano
    with pytest.raises(Precondition) as caught:
        await refund(world, invoice, "4")
    assert caught.value.reason == "NOTHING_LEFT_TO_CREDIT"
    for bad, reason in (
        ({"position": 99}, "NO_SUCH_LINE"),
        ({"position": 1, "amount_nano": 1}, "AMOUNT_NOT_PAYABLE"),
        ({"amount_nano": CENT}, "AMOUNT_NEEDS_LINE"),
    ):
        with pytest.raises(Invalid) as wrong:
            await refund(world, invoice, "5", **bad)
        assert wrong.value.reason == reason
    with pytest.raises(Precondition) as caught:
        await refund(world, rest, "6")
    assert caught.value.reason == "NOT_CREDITABLE"
    assert await account(world, "tax_payable") == 0
    owner = await asyncpg.connect(dsn, server_settings={"search_path": "billing"})
    with pytest.raises(asyncpg.CheckViolationError, match="credit_within_line"):
        await owner.execute("UPDATE line_split SET net_credited_nano = net_nano + 1")
    with pytest.raises(asyncpg.CheckViolationError, match="backwards"):
        await owner.execute("UPDATE line_split SET net_credited_nano = 0")
    await owner.close()
    kinds = [it.head.kind for it in await list_invoices(world.books, SCOPE)]
    assert sorted(kinds) == ["CREDIT_NOTE", "CREDIT_NOTE", "INVOICE"]


async def test_many_notes_at_once_give_back_the_line_and_no_more(world):
    await ran(world, "a", 10 * SECOND_NS)
    invoice = await bill(world)
    at = [it.meter for it in invoice.lines].index("run") + 1
    made = await asyncio.gather(
        *(refund(world, invoice, f"n{n}", position=at, amount_nano=3 * CENT) for n in range(8)),
        return_exceptions=True,
    )
    assert [isinstance(it, Precondition) for it in made].count(False) == 3
    assert (await world.balance()).posted_nano == 100 * USD - CENT


async def test_every_export_says_what_is_asked_for(world):
    await german(world, language="en")
    await ran(world, "a", 12_345_678_901, quantity_milli=333)
    await ran(world, "b", 77 * SECOND_NS)
    invoice = await bill(world)
    note = await refund(world, invoice, position=3)
    for it in (invoice, note):
        rows = list(csv.DictReader(io.StringIO(as_csv(it).decode())))
        assert sum(int(row["billed_nano"]) for row in rows) == it.net_nano
        assert sum(int(row["tax_nano"]) for row in rows) == it.tax_nano
        told = json.loads(as_json(it))
        assert told["payable_nano"] == it.payable_nano
        focus = list(csv.DictReader(io.StringIO(as_focus(it).decode())))
        assert {row["InvoiceId"] for row in focus} == {it.head.number}
        assert {row["ChargeCategory"] for row in focus} >= {"Tax"}
        assert it.head.number in as_text(it).decode()
        assert PdfPrinter().print(it) == PdfPrinter().print(it)
    assert await replayed(world.books, TENANT, invoice.head.name) == invoice


async def test_an_invoice_from_before_taxes_still_stands(world, dsn):
    """Of format 1: its digest is over what it said then."""
    import hashlib

    from gridlease_billing.domain.invoice import canonical, compose

    await ran(world, "a", SECOND_NS)
    made = await bill(world)
    lines = [it for it in made.lines if it.meter == "run"]
    old = compose(replace(made.head, name="invoices/old", number="GL-2000-1", format=1), lines)
    assert old.content_sha256 == hashlib.sha256(canonical(old)).hexdigest()
    assert b'"seller"' not in canonical(old)
    assert b'"before"' not in canonical(old)
    assert b'"net_nano"' not in canonical(old)
    assert NODE in canonical(old).decode()


async def test_capacity_bought_ahead_is_on_the_invoice_used_and_unused(world):
    from gridlease_billing.commitments import HOUR_MS, bill_hours
    from gridlease_billing.contract_ports import Bought
    from gridlease_billing.domain.commitment import Commitment
    from gridlease_verify.bill import Trust

    from tests.integration.billing.test_verify import check, evidence_of

    await world.price(4 * USD, "reserved", tier="RESERVED")
    reserved = await world.pool.fetchval("SELECT version FROM price WHERE tier = 'RESERVED'")
    now_ms = await world.pool.fetchval("SELECT (extract(epoch FROM now()) * 1000)::int8")
    starts_ms = now_ms // HOUR_MS * HOUR_MS - 4 * HOUR_MS
    pot = Commitment(
        "commitments/c1", TENANT, "H100-80GB", 1_500, starts_ms, starts_ms + 3 * HOUR_MS, 6 * USD
    )

    async def insert(tx):
        await tx.commitments.insert(Bought(pot, PROJECT, "past"), reserved, starts_ms)

    await world.books.run(insert)
    await ran(world, "a", 50 * SECOND_NS)
    await world.pass_time("a", now_ms - starts_ms)
    await world.pool.execute("UPDATE lease SET opened_ms = $1", starts_ms)
    while await bill_hours(world.books):
        pass
    invoice = await bill(world)
    told = {(it.meter, it.note): it.amount_nano for it in invoice.lines if it.meter != "egress"}
    assert told["commitment", "used"] + told["commitment", "unused"] == 3 * 6 * USD
    assert told["commitment", "used"] == 18 * USD * 50_000 // (1_500 * 3_600 * 3)
    assert told["cover", "commitment_cover"] == -told["run", ""] == -50 * CENT
    assert invoice.total_nano == 18 * USD
    rows = list(csv.DictReader(io.StringIO(as_focus(invoice).decode())))
    status = {row["CommitmentDiscountStatus"]: row["BilledCost"] for row in rows}
    assert set(status) == {"Used", "Unused", ""}
    assert as_text(invoice, "zh")
    evidence = await evidence_of(world, invoice)
    assert check(evidence, Trust(unsigned=True)) == []
    line = next(it for it in evidence["invoice"]["lines"] if it["kind"] == "PURCHASE")
    line["ends_ms"] += HOUR_MS
    assert "by hours and draws" in str(check(evidence, Trust(unsigned=True)))
    assert await replayed(world.books, TENANT, invoice.head.name) == invoice
    with pytest.raises(Precondition) as caught:
        await bill(world, "again")
    assert caught.value.reason == "NOTHING_TO_BILL"
