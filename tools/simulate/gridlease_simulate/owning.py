"""Own or rent: what an hour of one device costs each way, and the use at which the answer flips.

All amounts are nano-units; every item is rounded half up to a whole one, by exact fractions.

Source: the usual total cost of ownership: purchase less residual value over the lifetime, hosting
by the kilowatt, operations as a yearly part of the price, energy through the PUE.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

HOURS_A_YEAR: Final = 8_760
_MONTHS: Final = 12
USES_PERCENT: Final = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True, slots=True)
class Purchase:
    """One node bought. Watts are of the whole node; idle ones are drawn when nobody uses it."""

    price_nano: int
    devices: int
    years_milli: int
    residual_percent: int
    busy_watts: int
    idle_watts: int
    pue_milli: int
    energy_nano_per_kwh: int
    hosting_nano_per_kw_month: int
    operations_percent_milli: int  # of the price, a year
    admin_nano_per_year: int = 0


@dataclass(frozen=True, slots=True)
class Rental:
    """What a device-hour is offered for; 0 = not offered.

    ``reserved_nano`` is paid for every hour, used or not. ``interruptions_per_100h`` of spot each
    lose half a checkpoint interval and one restart.
    """

    on_demand_nano: int = 0
    reserved_nano: int = 0
    spot_nano: int = 0
    interruptions_per_100h: int = 5
    checkpoint_ms: int = 900_000
    restart_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class Item:
    """One addend of an hour of owning one device, with its arithmetic in words."""

    name: str
    nano: int
    arithmetic: str


@dataclass(frozen=True, slots=True)
class Owned:
    """An owned device-hour. ``fixed`` is paid used or not, ``busy_nano`` in used hours only."""

    fixed: tuple[Item, ...]
    busy: Item

    @property
    def fixed_nano(self) -> int:
        """What each hour costs even if nobody uses the device."""
        return sum(item.nano for item in self.fixed)

    def useful_nano(self, use_percent: int) -> int:
        """A useful hour at a use: the fixed cost falls on the used hours alone."""
        assert use_percent > 0, use_percent
        return _half_up(Fraction(self.fixed_nano * 100, use_percent)) + self.busy.nano


@dataclass(frozen=True, slots=True)
class Flip:
    """Where owning becomes the cheaper of two: from ``use_ppm`` (millionths of full use) on.

    ``verdict``: "flips", "rent" (renting is cheaper at any use) or "own".
    """

    against: str
    price_nano: int
    use_ppm: int
    verdict: str
    arithmetic: str


def owned(it: Purchase) -> Owned:
    """The cost of one hour of one device, item by item."""
    hours = Fraction(it.years_milli, 1_000) * HOURS_A_YEAR * it.devices
    lost = it.price_nano * (100 - it.residual_percent)
    yearly = HOURS_A_YEAR * it.devices
    operations = Fraction(it.price_nano * it.operations_percent_milli, 100_000)
    price, years = _plain(it.price_nano), f"{it.years_milli / 1_000:g}"
    per_kwh = Fraction(it.pue_milli * it.energy_nano_per_kwh, 1_000_000 * it.devices)
    pue, kwh = f"{it.pue_milli / 1_000:g}", _plain(it.energy_nano_per_kwh)
    swing = max(0, it.busy_watts - it.idle_watts)
    hosting = Fraction(it.busy_watts * it.hosting_nano_per_kw_month * _MONTHS, 1_000 * yearly)
    fixed = [
        Item(
            "purchase",
            _half_up(lost / hours / 100),
            f"{price} x (1 - {it.residual_percent} %) / "
            f"({years} years x {HOURS_A_YEAR} h x {it.devices})",
        ),
        Item(
            "operations",
            _half_up((operations + it.admin_nano_per_year) / yearly),
            f"({price} x {it.operations_percent_milli / 1_000:g} % + "
            f"{_plain(it.admin_nano_per_year)}) / ({HOURS_A_YEAR} h x {it.devices})",
        ),
        Item(
            "hosting",
            _half_up(hosting),
            f"{it.busy_watts / 1_000:g} kW x {_plain(it.hosting_nano_per_kw_month)} x {_MONTHS} / "
            f"({HOURS_A_YEAR} h x {it.devices})",
        ),
        Item(
            "energy, idle",
            _half_up(it.idle_watts * per_kwh),
            f"{it.idle_watts / 1_000:g} kW x {pue} x {kwh} / {it.devices}",
        ),
    ]
    busy = Item(
        "energy, more when used",
        _half_up(swing * per_kwh),
        f"{swing / 1_000:g} kW x {pue} x {kwh} / {it.devices}",
    )
    return Owned(tuple(fixed), busy)


def lost_ppm(rental: Rental) -> int:
    """Millionths of the time on spot that interruptions waste."""
    each_ms = Fraction(rental.checkpoint_ms, 2) + rental.restart_ms
    lost = rental.interruptions_per_100h * each_ms / (100 * 3_600_000)
    return min(999_999, _half_up(lost * 1_000_000))


def spot_useful_nano(rental: Rental) -> int:
    """A useful hour on spot: the wasted time is paid, too."""
    return _half_up(Fraction(rental.spot_nano * 1_000_000, 1_000_000 - lost_ppm(rental)))


def flips(own: Owned, rental: Rental) -> tuple[Flip, ...]:
    """For each way of renting: from which use on owning is cheaper."""
    found = []
    if rental.on_demand_nano:
        found.append(_flip("on demand", own, rental.on_demand_nano))
    if rental.spot_nano:
        found.append(_flip("spot, net of lost work", own, spot_useful_nano(rental)))
    if rental.reserved_nano:
        found.append(_against_reserved(own, rental.reserved_nano))
    return tuple(found)


def _flip(against: str, own: Owned, price_nano: int) -> Flip:
    """Owning at use u costs fixed + u x busy an hour, renting u x price: equal at one u."""
    margin = price_nano - own.busy.nano
    words = f"{_plain(own.fixed_nano)} / ({_plain(price_nano)} - {_plain(own.busy.nano)})"
    if margin <= 0:
        return Flip(against, price_nano, 0, "rent", f"{words}: renting costs less than the energy")
    use_ppm = _half_up(Fraction(own.fixed_nano * 1_000_000, margin))
    verdict = "flips" if use_ppm <= 1_000_000 else "rent"
    return Flip(against, price_nano, use_ppm, verdict, f"{words} = {use_ppm / 10_000:.1f} %")


def _against_reserved(own: Owned, price_nano: int) -> Flip:
    """Both are paid for every hour, so use changes nothing but the energy."""
    full_nano = own.fixed_nano + own.busy.nano
    words = f"{_plain(full_nano)} an hour at full use against {_plain(price_nano)}, used or not"
    verdict = "own" if full_nano <= price_nano else "rent"
    return Flip("reserved", price_nano, 0, verdict, words)


def _half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _plain(nano: int) -> str:
    """An amount without its currency, to at most four decimals."""
    tenths = (nano + 50_000) // 100_000
    whole, part = divmod(tenths, 10_000)
    return f"{whole:,}" + (f".{part:04d}".rstrip("0") if part else "")
