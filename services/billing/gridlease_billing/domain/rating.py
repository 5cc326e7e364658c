"""What a quantity costs where the price depends on how much it is: tiers, minimums, multipliers.

All of it is of totals: what is posted is the price of the total now less that of the total before,
so that any slicing sums to the price of the whole, and each line is within one atom of its share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_PERMILLE = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """From ``above`` on, each ``per`` of the meter's unit costs ``price_nano``."""

    above: int
    price_nano: int

    def __post_init__(self) -> None:
        """Neither is negative."""
        assert min(self.above, self.price_nano) >= 0, self


@dataclass(frozen=True, slots=True)
class Tariff:
    """A meter's price by its total in a period. ``per``: meter units that a price is of.

    A free quota is a first step at no price; a minimum is what a period costs at the least.
    """

    steps: tuple[Step, ...]
    per: int
    minimum_nano: int = 0

    def __post_init__(self) -> None:
        """Steps begin at nothing and rise."""
        starts = [step.above for step in self.steps]
        assert starts[:1] == [0], self
        assert starts == sorted(set(starts)), self
        assert self.per > 0, self
        assert self.minimum_nano >= 0, self


def flat(price_nano: int, per: int) -> Tariff:
    """One price for all."""
    return Tariff((Step(0, price_nano),), per)


def price_of(tariff: Tariff, total: int) -> int:
    """What ``total`` costs, floor: never more than the exact sum of its steps.

    >>> price_of(Tariff((Step(0, 0), Step(100, 5)), 10), 130)
    15
    """
    assert total >= 0, total
    ends = [step.above for step in tariff.steps[1:]]
    exact = 0
    for step, end in zip(tariff.steps, [*ends, None], strict=True):
        within = (total if end is None else min(total, end)) - step.above
        exact += max(0, within) * step.price_nano
    return exact // tariff.per


def minimum_line(tariff: Tariff, total: int) -> int:
    """What a period's minimum adds to its usage: a line of its own at the period's end."""
    return max(0, tariff.minimum_nano - price_of(tariff, total))


def lines_of(tariff: Tariff, quantities: Iterable[int], before: int = 0) -> list[int]:
    """What each of the quantities adds, in their order; they sum to the price of all.

    ``before``: what the period had already.
    """
    amounts = []
    total = before
    for quantity in quantities:
        after = total + quantity
        amounts.append(price_of(tariff, after) - price_of(tariff, total))
        total = after
    return amounts


def surcharge_nano(base_before: int, base_after: int, permille: int) -> int:
    """What a multiplier adds to a base that grew: its own line; negative for a discount.

    Of totals, so that slices sum to the whole. ``permille``: 1,000 = nothing is added.

    >>> surcharge_nano(0, 1_000, 1_250)
    250
    """
    more = permille - _PERMILLE
    return base_after * more // _PERMILLE - base_before * more // _PERMILLE


def multiplier(table: Sequence[tuple[int, int]], priority: int) -> int:
    """The multiplier of a priority: of ``(from priority, permille)`` the last that it reaches.

    >>> multiplier([(0, 1_000), (80, 1_500)], 90)
    1500
    """
    return max((row for row in table if row[0] <= priority), default=(0, _PERMILLE))[1]
