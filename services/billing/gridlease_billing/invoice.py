"""Bills what is final and not billed yet; an invoice is never edited."""

from __future__ import annotations

from collections.abc import Mapping

from gridlease_kernel.faults import Conflict, Missing, Precondition
from gridlease_kernel.ids import Ids

from gridlease_billing.credit import reused
from gridlease_billing.domain.invoice import Head, Invoice, compose, number, year_of
from gridlease_billing.domain.usage import Line, Stored, lines
from gridlease_billing.ports import Books, Scope, Work

MOST_LEASES = 10_000  # on one invoice; more wait for the next


async def create_invoice(books: Books, ids: Ids, scope: Scope, request_id: str) -> Invoice:
    """The invoice of all FINAL leases of a project (or job) that no invoice carries yet.

    Number, lines and marks are one commit. Idempotent by ``request_id``.

    Raises:
        Precondition: NOTHING_TO_BILL.
        Invalid: REQUEST_ID_REUSED for another project or job under the same id.
    """

    async def work(tx: Work) -> Invoice:
        before = await tx.invoices.find(scope.tenant, request_id)
        if before is not None:
            if (before.head.project, before.head.job) != (scope.project, scope.job):
                raise reused("another invoice")
            return before
        stored = await tx.leases.lock_billable(scope, MOST_LEASES)
        if not stored:
            raise _nothing(scope, await tx.leases.count_unfinished(scope))
        head = await _head(tx, f"invoices/{ids.new('iv')}", scope)
        invoice = compose(head, [line for it in stored.values() for line in _billable(it)])
        await _check(tx, invoice, stored)
        await tx.invoices.insert(invoice, request_id)
        return invoice

    return await books.run(work)


async def get_invoice(books: Books, tenant: str, name: str) -> Invoice:
    """One of a tenant's invoices, as it was issued.

    Raises:
        Missing: INVOICE_NOT_FOUND; another tenant's answers the same.
    """

    async def work(tx: Work) -> Invoice | None:
        return await tx.invoices.get(tenant, name)

    invoice = await books.run(work, tenant=tenant)
    if invoice is None:
        raise Missing(
            f"There is no invoice {name}.",
            reason="INVOICE_NOT_FOUND",
            field="name",
            remedy="List the invoices to see their names.",
        )
    again = compose(invoice.head, invoice.lines)
    assert again == invoice, f"{name} is not what was issued"
    return invoice


async def list_invoices(books: Books, scope: Scope, limit: int = 1_000) -> list[Invoice]:
    """A tenant's invoices, newest first, without their lines."""

    async def work(tx: Work) -> list[Invoice]:
        return await tx.invoices.newest(scope, limit)

    return await books.run(work, tenant=scope.tenant)


async def _head(tx: Work, name: str, scope: Scope) -> Head:
    """The next number, and the time read under its lock: numbers and times have one order."""
    year = year_of((await tx.now()).ms)
    count = await tx.invoices.next_count(year)
    issued_ms = (await tx.now()).ms
    if year_of(issued_ms) != year:
        raise Conflict(
            "The year ended while the number was taken.",
            reason="DATABASE_CONFLICT",
            remedy="Read again and retry.",
        )
    return Head(name, number(year, count), scope.tenant, scope.project, scope.job, issued_ms)


def _billable(stored: Stored) -> list[Line]:
    return [line for line in lines(stored) if line.charged_ns > 0]


async def _check(tx: Work, invoice: Invoice, stored: Mapping[str, Stored]) -> None:
    """I3, at run time: lines = charges = journal, or nothing is issued."""
    charged = sum(it.row.charged_nano for it in stored.values())
    posted = await tx.ledger.charged_nano(stored)
    assert invoice.total_nano == charged == posted, (invoice.head, charged, posted)


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
