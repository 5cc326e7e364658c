"""Gives back lines of an invoice: from what each was split into, never more than is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gridlease_kernel.faults import Invalid, Precondition
from gridlease_kernel.ids import Ids

from gridlease_billing.credit import reused
from gridlease_billing.domain.credit_note import Part, credit
from gridlease_billing.domain.invoice import (
    CREDIT_NOTE,
    DRAFT,
    INVOICE,
    MINOR_EXPONENT,
    Head,
    Invoice,
    compose,
)
from gridlease_billing.domain.issuer import DEFAULT_ENTITY, LegalEntity, LineSplit
from gridlease_billing.domain.supplier import against
from gridlease_billing.domain.usage import Line
from gridlease_billing.invoice import no_such, numbered
from gridlease_billing.ports import Books, Work


@dataclass(frozen=True, slots=True)
class Refund:
    """``position`` 0: every line, each what is left; ``amount_nano`` 0: what is left of it."""

    tenant: str
    invoice: str
    reason: str
    request_id: str
    position: int = 0
    amount_nano: int = 0


async def create_credit_note(books: Books, ids: Ids, refund: Refund) -> Invoice:
    """A numbered credit note, posted in the commit that takes its number. Idempotent.

    Raises:
        Missing: INVOICE_NOT_FOUND.
        Precondition: NOT_CREDITABLE, CREDIT_EXCEEDS_LINE, NOTHING_LEFT_TO_CREDIT.
        Invalid: NO_SUCH_LINE, AMOUNT_NOT_PAYABLE, REQUEST_ID_REUSED.
    """

    async def work(tx: Work) -> Invoice:
        original = await tx.invoices.get(refund.tenant, refund.invoice, lock=True)
        if original is None:
            raise no_such(refund.invoice)
        before = await tx.invoices.find(refund.tenant, refund.request_id)
        if before is not None:
            if before.head.cites != original.head.name:
                raise reused("another document")
            return before
        _creditable(original)
        await tx.invoices.split(original)  # of an invoice that is older than credit notes
        taken = _taken(original, await tx.invoices.lock_splits(original.head.name), refund)
        issuer = await tx.taxes.entity(original.parties.seller.entity or DEFAULT_ENTITY)
        assert issuer is not None, original.parties
        note = await _composed(tx, ids, original, taken, refund.reason, issuer)
        # The tax of what is paid already is no longer receivable: it is prepaid credit from now on.
        off_nano = await tx.receivables.take_off(original.head.name, -note.tax_nano)
        wallets = await tx.ledger.lock_wallets([refund.tenant])
        await tx.invoices.insert(note, refund.request_id)
        await tx.invoices.give_back(original.head.name, taken)
        sides = {
            **await _borne(tx, note),
            await tx.ledger.platform("tax_payable"): note.tax_nano,
            wallets[refund.tenant].account: -note.net_nano - note.tax_nano - off_nano,
            await tx.ledger.receivable(refund.tenant): off_nano,
        }
        head = note.head
        key = f"credit_note/{head.number}"
        await tx.ledger.journal("credit_note", key, head.name, sides, head.issued_ms)
        return note

    return await books.run(work)


async def _borne(tx: Work, note: Invoice) -> dict[int, int]:
    """Debits of what is given back: a node's owner bears its share of its lines, as it got it."""
    contracts = await tx.suppliers.of_leases({it.lease for it in note.lines})
    own = await tx.ledger.platform("credit_note")
    sides = {own: 0}
    for line in note.lines:
        debits = against(contracts.get(line.lease), -line.amount_nano, own)
        for account, nano in debits.items():
            sides[account] = sides.get(account, 0) + nano
    return sides


async def _composed(
    tx: Work,
    ids: Ids,
    original: Invoice,
    taken: Mapping[int, tuple[int, int]],
    reason: str,
    issuer: LegalEntity,
) -> Invoice:
    """The note; its issuer and tax are those of the invoice that it cites."""
    at = original.head
    name = f"invoices/{ids.new('cn')}"
    draft = Head(name, "", at.tenant, at.project, at.job, 0, CREDIT_NOTE, DRAFT, at.name)
    lines = [
        _line(original.lines[position - 1], at.name, name, position, parts, reason)
        for position, parts in sorted(taken.items())
    ]
    return compose(await numbered(tx, draft, issuer), lines, original.parties)


def _line(
    line: Line, cited: str, name: str, position: int, parts: tuple[int, int], reason: str
) -> Line:
    return replace(
        line,
        kind=CREDIT_NOTE,
        amount_nano=-parts[0],
        tax_nano=-parts[1],
        cites=f"{cited}#{position}",
        note=reason,
        source=f"note/{name}/{position}",
    )


def _creditable(original: Invoice) -> None:
    head = original.head
    if head.kind != INVOICE or head.state == DRAFT:
        raise Precondition(
            f"{head.name} is {'a credit note' if head.kind != INVOICE else 'a draft'}.",
            reason="NOT_CREDITABLE",
            field="name",
            remedy="Name an invoice that is final.",
        )


def _taken(
    original: Invoice, splits: Mapping[int, LineSplit], refund: Refund
) -> dict[int, tuple[int, int]]:
    """(net, tax) to give back, by position."""
    if refund.position == 0:
        if refund.amount_nano:
            raise Invalid(
                "An amount is of one line.",
                reason="AMOUNT_NEEDS_LINE",
                field="amount_nano",
                remedy="Name the line, or leave the amount out.",
            )
        every = {at: _parts(at, it, it.left_nano) for at, it in splits.items() if it.left_nano}
        if not every:
            raise _nothing_left(refund.invoice)
        return every
    split = splits.get(refund.position)
    if split is None:
        raise Invalid(
            f"{refund.invoice} has no line {refund.position}.",
            reason="NO_SUCH_LINE",
            field="position",
            remedy=f"Its lines are 1 to {len(original.lines)}.",
        )
    amount = refund.amount_nano or split.left_nano
    if amount == 0:
        raise _nothing_left(f"line {refund.position}")
    return {refund.position: _parts(refund.position, split, amount)}


def _parts(position: int, split: LineSplit, amount_nano: int) -> tuple[int, int]:
    step = 10 ** (9 - MINOR_EXPONENT["USD"])
    if amount_nano % step:
        raise Invalid(
            f"{amount_nano} nano-units cannot be paid.",
            reason="AMOUNT_NOT_PAYABLE",
            field="amount_nano",
            remedy="Give back whole cents.",
        )
    before = [
        Part("net", max(0, split.net_nano) // step, split.net_credited_nano // step),
        Part("tax", max(0, split.tax_nano) // step, split.tax_credited_nano // step),
    ]
    after = credit(before, amount_nano // step, f"line {position}")
    net, tax = (
        (new.credited_nano - old.credited_nano) * step
        for old, new in zip(before, after, strict=True)
    )
    return net, tax


def _nothing_left(what: str) -> Precondition:
    return Precondition(
        f"Nothing of {what} is left to give back.",
        reason="NOTHING_LEFT_TO_CREDIT",
        field="position",
        remedy="Earlier credit notes took all of it.",
    )
