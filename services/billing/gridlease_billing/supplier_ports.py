"""What use cases ask of the world about partners, their terms and what they are owed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from gridlease_billing.domain.statement import Earned, LineKey, Moved, Partner, Totals
from gridlease_billing.domain.supplier import Contract, split


@dataclass(frozen=True, slots=True)
class NewContract:
    """Terms to give a supplier."""

    supplier: str
    share_permyriad: int
    holdback_permyriad: int
    holdback_days: int
    request_id: str

    def made(self, contract: Contract) -> bool:
        """Was ``contract`` written for this?"""
        return (
            contract.supplier,
            contract.share_permyriad,
            contract.holdback_permyriad,
            contract.holdback_days,
        ) == (self.supplier, self.share_permyriad, self.holdback_permyriad, self.holdback_days)


@dataclass(frozen=True, slots=True)
class Held:
    """A line of which a part was kept back. ``line``: its key in the books."""

    line: tuple[str, int, str, str, int]
    amount_nano: int
    contract: Contract

    @property
    def held_nano(self) -> int:
        return split(self.contract, self.amount_nano).holdback_nano


@dataclass(frozen=True, slots=True)
class Payout:
    """Money to a supplier; ``amount_nano`` 0 = all that is payable."""

    supplier: str
    amount_nano: int
    note: str
    request_id: str


class SupplierStore(Protocol):
    """Partners, their terms and what they are owed."""

    async def create(self, name: str, display_name: str, now_ms: int) -> None: ...

    async def partners(self, name: str = "") -> list[Partner]: ...

    async def of_leases(self, leases: Collection[str]) -> dict[str, Contract]:
        """Terms of leases on partners' nodes."""
        ...

    async def lock(self, name: str) -> None:
        """Of one supplier's contracts and payouts, one at a time."""
        ...

    async def find_contract(self, request_id: str) -> Contract | None: ...

    async def add_contract(self, new: NewContract, now_ms: int) -> None: ...

    async def find_owner(self, request_id: str) -> tuple[str, str] | None:
        """(node, supplier) as assigned by that request."""
        ...

    async def assign(self, node: str, supplier: str, request_id: str, now_ms: int) -> None: ...

    async def held(self, now_ms: int, limit: int) -> list[Held]:
        """Lines whose part was kept back long enough and is not released, oldest first."""
        ...

    async def released(self, held: Collection[Held], journal: int, now_ms: int) -> None: ...

    async def paid(self, key: str) -> tuple[str, int] | None:
        """(supplier, amount) of the payout with that key."""
        ...

    async def lines(
        self, name: str, from_ms: int, until_ms: int, after: LineKey, limit: int
    ) -> Sequence[Earned]:
        """Of a period, in the order of their keys, after one."""
        ...

    async def totals(self, name: str, from_ms: int, until_ms: int) -> Totals:
        """Over all lines of a period."""
        ...

    async def moves(
        self, partner: Partner, from_ms: int, until_ms: int, after: tuple[int, int], limit: int
    ) -> Sequence[Moved]:
        """All journals besides charges, in the order of (recorded_ms, number), after one."""
        ...

    async def moved(self, partner: Partner, from_ms: int, until_ms: int) -> tuple[int, int]:
        """(payable, holdback): the sums of all of them."""
        ...

    async def sums(self, partner: Partner, before_ms: int) -> tuple[int, int]:
        """(payable, holdback) of all entries before a time."""
        ...
