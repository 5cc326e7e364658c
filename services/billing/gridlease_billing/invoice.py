"""Bills what is final and not billed yet; an invoice is never edited once it has its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gridlease_kernel.faults import Conflict, Missing, Precondition
from gridlease_kernel.ids import Ids

from gridlease_billing.credit import reused
from gridlease_billing.domain.invoice import (
    DRAFT,
    FINAL,
    INVOICE,
    Head,
    Invoice,
    Parties,
    Party,
    compose,
    in_order,
    number,
    year_of,
)
from gridlease_billing.domain.issuer import (
    DEFAULT_ENTITY,
    CoverDraw,
    LegalEntity,
    SignedReport,
    TaxProfile,
)
from gridlease_billing.domain.tax import Buyer, Seller, decide
from gridlease_billing.domain.usage import TIMED, Line, Stored
from gridlease_billing.footprints import tell, told_again
from gridlease_billing.ports import Books, Scope, Work

MOST_LEASES = 10_000  # on one invoice; more wait for the next


async def create_invoice(
    books: Books, ids: Ids, scope: Scope, request_id: str, *, draft: bool = False
) -> Invoice:
    """The invoice of all FINAL leases of a project (or job) that no invoice carries yet.

    Lines and marks are one commit, with the number where it is no draft. Idempotent by
    ``request_id``.

    Raises:
        Precondition: NOTHING_TO_BILL; NO_TAX_RATE, NO_LEGAL_ENTITY.
        Invalid: REQUEST_ID_REUSED for another project or job under the same id.
    """

    async def work(tx: Work) -> Invoice:
        before = await tx.invoices.find(scope.tenant, request_id)
        if before is not None:
            known = (before.head.project, before.head.job, before.head.kind)
            if known != (scope.project, scope.job, INVOICE):
                raise reused("another invoice")
            return before
        stored = await tx.leases.lock_billable(scope, MOST_LEASES)
        usage = await tx.lines.usage(stored)
        _check(usage, stored)
        name = f"invoices/{ids.new('iv')}"
        lines = await _lines(tx, scope, usage)
        if not lines:
            raise _nothing(scope, await tx.leases.count_unfinished(scope))
        lines = _cited(name, [*lines, *await tell(tx, name, lines)])
        now = await tx.now()
        head = Head(name, "", scope.tenant, scope.project, scope.job, now.ms, state=DRAFT)
        invoice = compose(head, lines, (await parties_of(tx, scope.tenant, now.ms))[0])
        await tx.invoices.insert(invoice, request_id)
        return invoice if draft else await _finalize(tx, invoice)

    return await books.run(work)


async def finalize_invoice(books: Books, tenant: str, name: str) -> Invoice:
    """A draft with its number, its taxes and its postings; a final one as it is.

    Raises:
        Missing: INVOICE_NOT_FOUND.
        Precondition: NO_TAX_RATE, NO_LEGAL_ENTITY.
    """

    async def work(tx: Work) -> Invoice:
        found = await tx.invoices.get(tenant, name, lock=True)
        if found is None:
            raise no_such(name)
        return found if found.head.state == FINAL else await _finalize(tx, found)

    return await books.run(work)


async def get_invoice(books: Books, tenant: str, name: str) -> Invoice:
    """One of a tenant's invoices, as it was issued; by its name or number.

    Raises:
        Missing: INVOICE_NOT_FOUND; another tenant's answers the same.
    """

    async def work(tx: Work) -> Invoice | None:
        return await tx.invoices.get(tenant, name)

    invoice = await books.run(work, tenant=tenant)
    if invoice is None:
        raise no_such(name)
    again = compose(invoice.head, invoice.lines, invoice.parties)
    assert again == invoice, f"{name} is not what was issued"
    return invoice


async def list_invoices(books: Books, scope: Scope, limit: int = 1_000) -> list[Invoice]:
    """A tenant's invoices, newest first, without their lines."""

    async def work(tx: Work) -> list[Invoice]:
        return await tx.invoices.newest(scope, limit)

    return await books.run(work, tenant=scope.tenant)


async def reports_of(books: Books, tenant: str, name: str) -> list[SignedReport]:
    """The last signed report of each segment of the leases on an invoice.

    Raises:
        Missing: INVOICE_NOT_FOUND.
    """

    async def work(tx: Work) -> list[SignedReport]:
        found = await tx.invoices.get(tenant, name)
        if found is None:
            raise no_such(name)
        return await tx.invoices.reports(found.head.name)

    return await books.run(work, tenant=tenant)


async def draws_of(books: Books, tenant: str, name: str) -> list[CoverDraw]:
    """What stands behind the covers of commitments on an invoice.

    Raises:
        Missing: INVOICE_NOT_FOUND.
    """

    async def work(tx: Work) -> list[CoverDraw]:
        found = await tx.invoices.get(tenant, name)
        if found is None:
            raise no_such(name)
        return await tx.invoices.draws(found.head.name)

    return await books.run(work, tenant=tenant)


async def replayed(books: Books, tenant: str, name: str) -> Invoice:
    """An invoice made again from the books alone: its lines and credits as they stand there.

    Raises:
        Missing: INVOICE_NOT_FOUND.
    """
    invoice = await get_invoice(books, tenant, name)

    async def work(tx: Work) -> Sequence[Line]:
        sources = {it.source for it in invoice.lines}
        return [*await tx.lines.behind(sources), *await told_again(tx, sources)]

    found = {it.source: it for it in await books.run(work)}
    # Counters that cost nothing are no part of the books, hours of pots are summed up from many
    # rows, and what cites what is the documents'.
    lines = [
        it
        if it.source.startswith(("meter/", "hours/"))
        else replace(found[it.source], cites=it.cites)
        for it in invoice.lines
    ]
    return compose(invoice.head, lines, invoice.parties)


async def parties_of(tx: Work, tenant: str, now_ms: int) -> tuple[Parties, LegalEntity]:
    """Who bills a tenant now, and at which tax."""
    profile = await tx.taxes.profile(tenant) or TaxProfile(tenant)
    entity = await tx.taxes.entity(profile.entity or DEFAULT_ENTITY)
    if entity is None:
        raise Precondition(
            f"There is no legal entity {profile.entity}.",
            reason="NO_LEGAL_ENTITY",
            field="entity",
            remedy="Write it, or name another in the tenant's tax profile.",
        )
    table = [it.rate for it in await tx.taxes.rates()]
    seller, buyer = Seller(entity.country, entity.tax_id), Buyer(profile.country, profile.tax_id)
    parties = Parties(
        Party(entity.entity, entity.name, entity.address, entity.country, entity.tax_id),
        Party("", profile.name, profile.address, profile.country, profile.tax_id),
        decide(seller, buyer, table, now_ms),
        profile.language,
    )
    return parties, entity


async def numbered(tx: Work, head: Head, entity: LegalEntity) -> Head:
    """The next number, and the time read under its lock: numbers and times have one order."""
    year = year_of((await tx.now()).ms)
    count = await tx.invoices.next_count(entity.entity, head.kind, year)
    issued_ms = (await tx.now()).ms
    if year_of(issued_ms) != year:
        raise Conflict(
            "The year ended while the number was taken.",
            reason="DATABASE_CONFLICT",
            remedy="Read again and retry.",
        )
    told = number(entity.prefix, head.kind, year, count)
    return replace(head, number=told, issued_ms=issued_ms, state=FINAL)


def no_such(name: str) -> Missing:
    """The same whether it never was, or is another tenant's."""
    return Missing(
        f"There is no invoice {name}.",
        reason="INVOICE_NOT_FOUND",
        field="name",
        remedy="List the invoices to see their names.",
    )


async def _finalize(tx: Work, draft: Invoice) -> Invoice:
    parties, entity = await parties_of(tx, draft.head.tenant, (await tx.now()).ms)
    invoice = compose(await numbered(tx, draft.head, entity), draft.lines, parties)
    await tx.invoices.finalize(invoice)
    await tx.invoices.split(invoice)
    owed_nano = invoice.payable_nano - invoice.total_nano
    sides = {
        await tx.ledger.receivable(invoice.head.tenant): -owed_nano,
        await tx.ledger.platform("tax_payable"): invoice.tax_nano,
        await tx.ledger.platform("rounding"): invoice.net_nano - invoice.total_nano,
    }
    if any(sides.values()):
        head = invoice.head
        await tx.ledger.journal(
            "invoice", f"invoice/{head.number}", head.name, sides, head.issued_ms
        )
    return invoice


async def _lines(tx: Work, scope: Scope, usage: Sequence[Line]) -> list[Line]:
    """What goes on the invoice: usage, corrections of what is billed, and credits as far as they
    leave the total at zero or more; the rest waits for the next."""
    pots = await tx.lines.hours(scope)
    lines = [*usage, *await tx.lines.corrections(scope)]
    lines += [it for it in pots if it.kind != "CREDIT"]
    left_nano = sum(it.amount_nano for it in lines)
    covers = [it for it in pots if it.kind == "CREDIT"]
    for credit in [*covers, *await tx.lines.credits(scope)] if lines else ():
        if left_nano + credit.amount_nano >= 0:
            left_nano += credit.amount_nano
            lines.append(credit)
    return lines


def _cited(name: str, lines: Sequence[Line]) -> list[Line]:
    """Corrections of what stands on the same document cite its place there."""
    order = in_order(lines)
    places = {
        (it.lease, it.segment, it.meter): f"{name}#{at}"
        for at, it in enumerate(order, start=1)
        if it.kind == "USAGE"
    }
    return [
        it
        if it.kind != "CORRECTION" or it.cites
        else replace(it, cites=places.get((it.lease, it.segment, it.meter), ""))
        for it in order
    ]


def _check(usage: Sequence[Line], stored: Mapping[str, Stored]) -> None:
    """I3, at run time: lines = charges, or nothing is issued."""
    charged = sum(it.row.charged_nano for it in stored.values())
    told = sum(it.amount_nano for it in usage if it.meter in TIMED)
    assert told == charged, (charged, told)


def _nothing(scope: Scope, unfinished: int) -> Precondition:
    what = f"{scope.job or scope.project} has nothing that is final and not billed."
    if unfinished:
        remedy = (
            f"{unfinished} of its leases are not final yet: bill again once they have ended"
            " and their nodes have reported."
        )
    else:
        remedy = "Everything that ran is billed: list the invoices to see them."
    return Precondition(
        what,
        reason="NOTHING_TO_BILL",
        field="job" if scope.job else "project",
        remedy=remedy,
        metadata={"unfinished_leases": str(unfinished)},
    )
