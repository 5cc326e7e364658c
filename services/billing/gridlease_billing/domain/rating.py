"""What a quantity costs where the price depends on how much it is: tiers, and a minimum.

All of it is of totals: what is posted is the price of the total now less that of the total before,
so that any slicing sums to the price of the whole, and each line is within one atom of its share.
"""

from __future__ import annotations

from dataclasses import dataclass


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
