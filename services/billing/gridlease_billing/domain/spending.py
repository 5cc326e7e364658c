"""What a tenant spends: how long its money lasts, which thresholds it has crossed, what is odd."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_HOUR_MS = 3_600_000
_PERMILLE = 1_000


@dataclass(frozen=True, slots=True)
class BurnDown:
    """What is left and what runs. ``lasts_ms``: None where nothing runs."""

    available_nano: int
    rate_nano_per_hour: int
    lasts_ms: int | None


def burn_down(available_nano: int, rates_nano_per_hour: Iterable[int]) -> BurnDown:
    """How long ``available_nano`` lasts for all that runs now, at its rates of now.

    >>> burn_down(10, [2, 3]).lasts_ms
    7200000
    """
    rate = sum(rates_nano_per_hour)
    lasts = None if rate == 0 else max(0, available_nano) * _HOUR_MS // rate
    return BurnDown(available_nano, rate, lasts)


def crossed(
    thresholds_permille: Iterable[int], budget_nano: int, before_nano: int, after_nano: int
) -> list[int]:
    """The thresholds that spending passed on its way from before to after, the lowest first.

    Each is crossed once: a threshold is passed when spending reaches it.

    >>> crossed([500, 900, 1_000], 1_000, 400, 950)
    [500, 900]
    """
    assert budget_nano > 0, budget_nano
    return sorted(
        each
        for each in set(thresholds_permille)
        if before_nano * _PERMILLE < each * budget_nano <= after_nano * _PERMILLE
    )


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A day that costs unlike the days before it. Nano-units."""

    amount_nano: int
    usual_nano: int
    spread_nano: int


def anomaly(
    earlier_nano: Sequence[int],
    amount_nano: int,
    *,
    factor: int = 5,
    least_nano: int = 1_000_000_000,
) -> Anomaly | None:
    """Whether a day's cost stands out: further above the median than ``factor`` usual deviations.

    Fewer than seven days before it, or a difference below ``least_nano``, say nothing. Only what
    is above counts: an idle day is no alarm. The median, not the mean: one odd day must not hide
    the next. Source: Leys et al. 2013, outliers by the median absolute deviation.
    """
    if len(earlier_nano) < 7:
        return None
    usual = statistics.median_low(earlier_nano)
    spread = statistics.median_low([abs(each - usual) for each in earlier_nano])
    # A tenant whose days are all alike has no spread: a twentieth of its day stands in for it.
    margin = factor * max(spread, usual // 20)
    if amount_nano - usual <= max(margin, least_nano):
        return None
    return Anomaly(amount_nano, usual, spread)
