"""How a credit is taken from what a line was split into: never more than is left of each part.

A line's amount went to several accounts (revenue, a supplier, a tax). A credit note gives back a
share of each, of what earlier notes have left; so no note can exceed its line, and the last one
takes the exact rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_kernel.faults import Precondition


@dataclass(frozen=True, slots=True)
class Part:
    """What of a line went to one account, and what of that notes have given back. Nano-units."""

    account: str
    amount_nano: int
    credited_nano: int = 0

    def __post_init__(self) -> None:
        """No part is negative, and none is given back twice."""
        assert 0 <= self.credited_nano <= self.amount_nano, self

    @property
    def left_nano(self) -> int:
        return self.amount_nano - self.credited_nano


def credit(parts: Sequence[Part], amount_nano: int, line: str = "the line") -> list[Part]:
    """The parts as they stand after a note of ``amount_nano``.

    Raises:
        Precondition: CREDIT_EXCEEDS_LINE, saying what is left.
    """
    assert amount_nano > 0, amount_nano
    left = [part.left_nano for part in parts]
    if amount_nano > sum(left):
        raise Precondition(
            f"Of {line} {sum(left)} nano-units are left to credit, not {amount_nano}.",
            reason="CREDIT_EXCEEDS_LINE",
            field="amount_nano",
            remedy="Credit at most what is left; earlier notes took the rest.",
            metadata={"left_nano": str(sum(left))},
        )
    shares = share(left, amount_nano)
    return [
        Part(part.account, part.amount_nano, part.credited_nano + taken)
        for part, taken in zip(parts, shares, strict=True)
    ]


def share(left: Sequence[int], amount: int) -> list[int]:
    """``amount`` in proportion to ``left``, in whole atoms, each at most what is left of its own.

    Source: the largest-remainder (Hamilton) method; ties go to the earlier part. None exceeds its
    own, for a share is rounded up only where it is not whole, and its ceiling is at most its all.

    >>> share([10, 5, 5], 7)
    [3, 2, 2]
    """
    total = sum(left)
    assert 0 <= amount <= total, (amount, total)
    if total == 0:
        return [0] * len(left)
    floors = [amount * part // total for part in left]
    order = sorted(range(len(left)), key=lambda i: (-(amount * left[i] % total), i))
    bumped = set(order[: amount - sum(floors)])
    return [floor + (i in bumped) for i, floor in enumerate(floors)]
