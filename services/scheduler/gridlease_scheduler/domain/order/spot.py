"""What a spot job is promised, what it costs now, and how full the pool is.

Spot work is put out for capacity alone (``preempt``), never because the price moved: a job's
``max_price`` is looked at before it starts and not again. If it has to go, it gets the notice that
it was promised, or an automatic credit for what was missing (``close``). Billing moves the price
by how full a chip is; the scheduler only tells how full.

Source: posted prices that never evict had the fewest interruptions in a simulation of rules;
docs/policies.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Reason
from gridlease_scheduler.domain.snapshot import Offered, Pending
from gridlease_scheduler.domain.stock import Stock


@dataclass(frozen=True, slots=True)
class Affordable:
    """It may start, at this price by the hour for all of it; 0 = no price is known here, and
    billing has the word."""

    price_nano_per_hour: int


@dataclass(frozen=True, slots=True)
class TooDear:
    """The chip costs more now than the job is willing to pay."""

    price_nano_per_hour: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Utilization:
    """How full a chip is at a site, and how much waits for it; in thousandths of devices.

    ``watts``: of one at full load; 0 = not known.
    """

    chip: str
    site: str
    total_milli: int
    used_milli: int
    waiting_milli: int
    watts: int = 0

    @property
    def permille(self) -> int:
        """Used of all there is; 1,000 where there is nothing."""
        return self.used_milli * 1_000 // self.total_milli if self.total_milli else 1_000


def bid(task: Pending, chip: str, milli: int, offers: Iterable[Offered]) -> Affordable | TooDear:
    """May the job start at the price of now? Equal to its max price is not too dear."""
    rates = [x.price_nano_per_hour for x in offers if (x.chip, x.tier) == (chip, task.needs.tier)]
    if not rates:
        return Affordable(0)
    price = min(rates) * milli // 1_000
    most = task.needs.max_price_nano_per_hour
    if not most or price <= most:
        return Affordable(price)
    message = f"{chip} costs {_money(price)} an hour now; the job pays at most {_money(most)}."
    evidence = {
        "chip": chip,
        "price_nano_per_hour": str(price),
        "max_price_nano_per_hour": str(most),
        "tier": task.needs.tier.value,
    }
    hint = "It is placed when the price falls; or raise max_price, or name further chips."
    return TooDear(price, Reason("PRICE_ABOVE_MAX", message, hint, evidence))


def utilization(
    stocks: Iterable[Stock], pending: Iterable[Pending], catalogue: Catalogue
) -> tuple[Utilization, ...]:
    """What billing moves spot prices by. A waiting job counts at the first chip that it asks for,
    at each site: it would run at any one of them. Emulated devices are nobody's capacity."""
    real = sorted((x for x in stocks if not x.emulated), key=lambda x: (x.chip, x.site))
    known = {x.chip for x in real}
    waiting: dict[str, int] = {}
    for task in pending:
        need = task.needs.accelerator
        if need is None:
            continue
        names = [x.name for x in catalogue.matching(need) if x.name in known]
        if names:
            waiting[names[0]] = waiting.get(names[0], 0) + task.tasks * need.count * 1_000
    return tuple(
        Utilization(
            x.chip,
            x.site,
            x.total_milli,
            x.total_milli - x.free_milli,
            waiting.get(x.chip, 0),
            _watts(x.chip, catalogue),
        )
        for x in real
    )


def _watts(chip: str, catalogue: Catalogue) -> int:
    entry = catalogue.find(chip)
    return entry.peak_watts if entry is not None else 0


def _money(nano: int) -> str:
    return f"{nano / 1_000_000_000:.4f}".rstrip("0").rstrip(".")
