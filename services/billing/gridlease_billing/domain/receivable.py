"""What invoices ask for beyond what was prepaid: how a payment settles it, and how old it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gridlease_kernel.faults import Precondition
from gridlease_kernel.money import Money

DAY_MS = 86_400_000


class Settling(enum.StrEnum):
    """Where an invoice stands between being asked for and being paid."""

    OPEN = "OPEN"
    PART_PAID = "PART_PAID"
    OVERDUE = "OVERDUE"
    PAID = "PAID"


@dataclass(frozen=True, slots=True)
class Owed:
    """What one final invoice asks for: its tax, and what of its lines credit did not cover."""

    invoice: str
    number: str
    tenant: str
    issued_ms: int
    due_ms: int
    asked_nano: int
    paid_nano: int = 0
    credited_nano: int = 0

    @property
    def open_nano(self) -> int:
        return self.asked_nano - self.paid_nano - self.credited_nano

    def state(self, now_ms: int) -> Settling:
        """What is open and late is OVERDUE, whether a part of it was paid or not."""
        if self.open_nano == 0:
            return Settling.PAID
        if now_ms >= self.due_ms:
            return Settling.OVERDUE
        return Settling.PART_PAID if self.paid_nano else Settling.OPEN

    def days_overdue(self, now_ms: int) -> int:
        """Whole days since it was due; 0 = it is not overdue."""
        return (now_ms - self.due_ms) // DAY_MS if self.state(now_ms) is Settling.OVERDUE else 0


@dataclass(frozen=True, slots=True)
class Parts:
    """Where a payment went, or, below zero, where a refund came from."""

    applied_nano: int
    prepaid_nano: int

    @property
    def amount_nano(self) -> int:
        return self.applied_nano + self.prepaid_nano


@dataclass(frozen=True, slots=True)
class Terms:
    """``tenant`` empty: of all that have none of their own; ``grace_days`` None: for ever."""

    tenant: str
    due_days: int
    grace_days: int | None
    recorded_ms: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """The invoice for which a tenant gets no new grants."""

    number: str
    open_nano: int
    late_ms: int

    @property
    def hint(self) -> str:
        """What would change it, in a sentence."""
        return (
            f"Invoice {self.number} is overdue for {self.late_ms // DAY_MS} days: pay the"
            f" {Money(self.open_nano)} that are open on it, or ask the operator for more time."
        )


@dataclass(frozen=True, slots=True)
class Ages:
    """What a tenant (empty: all) owes, by how long it is overdue."""

    tenant: str
    current_nano: int
    days_30_nano: int
    days_60_nano: int
    days_90_nano: int
    older_nano: int

    @property
    def total_nano(self) -> int:
        return (
            self.current_nano
            + self.days_30_nano
            + self.days_60_nano
            + self.days_90_nano
            + self.older_nano
        )


def settled_by(owed: Owed, amount_nano: int) -> Parts:
    """What of a payment settles the invoice, and what of it is more than was asked.

    ``amount_nano`` 0: what is open.

    Raises:
        Precondition: NOTHING_OPEN, where nothing is open and no amount is named.
    """
    assert amount_nano >= 0, amount_nano
    amount = amount_nano or owed.open_nano
    if amount == 0:
        raise Precondition(
            f"Nothing is open on {owed.number}.",
            reason="NOTHING_OPEN",
            field="amount_nano",
            remedy="Name an amount to pay it in as prepaid credit all the same.",
        )
    applied = min(amount, owed.open_nano)
    return Parts(applied, amount - applied)


def refunded(paid: Parts, before: Parts, amount_nano: int) -> Parts:
    """What of a payment goes back: first what was more than was asked, then what settled.

    Args:
        paid: The payment.
        before: Earlier refunds of it, all together; zero or below.
        amount_nano: 0 = what is left of it.

    Raises:
        Precondition: NOTHING_LEFT_TO_REFUND, REFUND_TOO_LARGE.
    """
    left = Parts(paid.applied_nano + before.applied_nano, paid.prepaid_nano + before.prepaid_nano)
    if left.amount_nano == 0:
        raise Precondition(
            "All of this payment went back already.",
            reason="NOTHING_LEFT_TO_REFUND",
            field="payment",
            remedy="Show the invoice's receivable to see its payments and refunds.",
        )
    amount = amount_nano or left.amount_nano
    if amount > left.amount_nano:
        raise Precondition(
            f"Of this payment, {Money(left.amount_nano)} are left.",
            reason="REFUND_TOO_LARGE",
            field="amount_nano",
            remedy="Refund at most what is left, or name no amount to refund all of it.",
            metadata={"left_nano": str(left.amount_nano)},
        )
    prepaid = min(amount, left.prepaid_nano)
    return Parts(prepaid - amount, -prepaid)
