"""What use cases ask of the world about what invoices ask for, payments and terms."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gridlease_billing.domain.receivable import Ages, Overdue, Owed, Parts, Terms


@dataclass(frozen=True, slots=True)
class NewPayment:
    """Money for an invoice; ``amount_nano`` 0 = what is open."""

    tenant: str
    invoice: str
    amount_nano: int
    note: str
    request_id: str


@dataclass(frozen=True, slots=True)
class NewRefund:
    """Money that went back; ``payment``: its request id; ``amount_nano`` 0 = what is left."""

    tenant: str
    payment: str
    amount_nano: int
    note: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Payment:
    """As written. ``refunds``: the request id of the payment that this refunds; empty = it pays."""

    tenant: str
    request_id: str
    invoice: str
    parts: Parts
    refunds: str
    note: str
    recorded_ms: int


class ReceivableStore(Protocol):
    """One row for each final invoice, and the payments."""

    async def get(self, tenant: str, name: str, *, lock: bool = False) -> Owed | None:
        """By the invoice's name or number."""
        ...

    async def of(self, invoices: Collection[str]) -> dict[str, Owed]: ...

    async def page(self, tenant: str, after: tuple[int, str], limit: int) -> list[Owed]:
        """What is open, due first first, after a key of (due_ms, invoice)."""
        ...

    async def ages(self, tenant: str, now_ms: int, limit: int) -> list[Ages]:
        """All together first, then by tenant, who owes most first."""
        ...

    async def overdue(self, tenants: Collection[str], now_ms: int) -> dict[str, Overdue]:
        """Of those whose terms say so: the longest overdue invoice, where grace is over."""
        ...

    async def settle(self, invoice: str, paid_nano: int) -> None:
        """Moves what is paid of it by so much."""
        ...

    async def take_off(self, invoice: str, nano: int) -> int:
        """Takes a credit note's tax off what is open, as far as it goes; how much that was."""
        ...

    async def find_payment(self, tenant: str, request_id: str) -> Payment | None: ...

    async def refunds_of(self, tenant: str, payment: str) -> Parts:
        """All refunds of a payment, together."""
        ...

    async def payments(self, invoice: str) -> list[Payment]: ...

    async def write(self, payment: Payment, journal: int) -> None: ...

    async def terms(self) -> list[Terms]:
        """In force, everybody's first."""
        ...

    async def set_terms(self, terms: Terms) -> None: ...
