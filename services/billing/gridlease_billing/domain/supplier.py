"""What a node's owner gets of a charge: decided when the lease opens, posted with each charge.

Of totals, as all money here: the supplier's part of what was charged so far, less its part before.
So slices sum to the whole, the parts to the charge, and a refund gives back what was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PERMYRIAD = 10_000


@dataclass(frozen=True, slots=True)
class Contract:
    """A supplier's terms, as one version of them. Shares: in ten thousandths.

    ``holdback_permyriad``: of its part, what is kept back for ``holdback_days``.
    """

    supplier: str
    version: int
    share_permyriad: int
    holdback_permyriad: int = 0
    holdback_days: int = 0
    payable_account: int = 0
    holdback_account: int = 0

    def __post_init__(self) -> None:
        """Shares lie between nothing and everything."""
        assert 0 <= self.share_permyriad <= PERMYRIAD, self
        assert 0 <= self.holdback_permyriad <= PERMYRIAD, self
        assert self.holdback_days >= 0, self


@dataclass(frozen=True, slots=True)
class Split:
    """Where a charge goes. Nano-units; they sum to it."""

    revenue_nano: int
    payable_nano: int
    holdback_nano: int

    def __sub__(self, other: Split) -> Split:
        return Split(
            self.revenue_nano - other.revenue_nano,
            self.payable_nano - other.payable_nano,
            self.holdback_nano - other.holdback_nano,
        )

    def __add__(self, other: Split) -> Split:
        return Split(
            self.revenue_nano + other.revenue_nano,
            self.payable_nano + other.payable_nano,
            self.holdback_nano + other.holdback_nano,
        )

    @property
    def total_nano(self) -> int:
        return self.revenue_nano + self.payable_nano + self.holdback_nano


def split(contract: Contract | None, charged_nano: int) -> Split:
    """Of all that a lease was charged so far. No contract: the node is the platform's own.

    >>> split(Contract("s", 1, 7_000, 1_000), 1_001)
    Split(revenue_nano=301, payable_nano=630, holdback_nano=70)
    """
    if charged_nano < 0:  # a correction takes back from each as much as it would have given
        return Split(0, 0, 0) - split(contract, -charged_nano)
    if contract is None:
        return Split(charged_nano, 0, 0)
    part = charged_nano * contract.share_permyriad // PERMYRIAD
    held = part * contract.holdback_permyriad // PERMYRIAD
    return Split(charged_nano - part, part - held, held)


def split_lines(contract: Contract | None, amounts: Iterable[int]) -> Split:
    """Of a lease's lines, each split by itself: so a statement mirrors the customer's lines."""
    return sum((split(contract, amount) for amount in amounts), Split(0, 0, 0))


def posted(contract: Contract | None, before_nano: int, after_nano: int) -> Split:
    """What a charge that grew from ``before_nano`` to ``after_nano`` adds to each."""
    return split(contract, after_nano) - split(contract, before_nano)


def against(contract: Contract | None, amount_nano: int, own_account: int) -> dict[int, int]:
    """Debits by account that give ``amount_nano`` back: from each as it got its part.

    ``own_account``: of the platform's part.
    """
    part = split(contract, amount_nano)
    sides = {own_account: -part.revenue_nano}
    if contract is not None:
        sides[contract.payable_account] = -part.payable_nano
        sides[contract.holdback_account] = -part.holdback_nano
    return sides
