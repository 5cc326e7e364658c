"""Own or rent, as tables with the arithmetic shown, as values, and in a sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gridlease_simulate import catalogue, spot
from gridlease_simulate.cluster import resolve
from gridlease_simulate.fields import milli, wrong
from gridlease_simulate.owning import (
    HOURS_A_YEAR,
    USES_PERCENT,
    Flip,
    Owned,
    Purchase,
    Rental,
    flips,
    lost_ppm,
    owned,
    spot_useful_nano,
)
from gridlease_simulate.report import Section

_HOURS_A_MONTH = HOURS_A_YEAR // 12


def years_milli(text: str) -> int:
    """Thousandths of years.

    Raises:
        Invalid: BAD_NUMBER.
    """
    return milli(text, "--years", least=100, most=50_000)


def pue_milli(text: str) -> int:
    """Thousandths of facility watts for each watt of IT.

    Raises:
        Invalid: BAD_NUMBER.
    """
    return milli(text, "--pue", least=1_000, most=10_000)


def percent_milli(text: str, field: str) -> int:
    """Thousandths of a percent.

    Raises:
        Invalid: BAD_NUMBER.
    """
    return milli(text, field, most=1_000_000)


def mean_spot_nano(path: Path, zone: str, chip: str) -> int:
    """The mean price of a device-hour of a chip in a file of spot prices.

    Raises:
        Invalid: CHIP_MISSING, NO_PRICE, or a mistake in the file.
    """
    known = catalogue.load()
    if not chip:
        raise wrong(
            "Whose spot price?",
            reason="CHIP_MISSING",
            field="--chip",
            remedy="Name the chip that the file prices, such as --chip V100.",
        )
    name = resolve(known, chip, "--chip").name
    prices = spot.load(path, known, zone)
    found = prices.mean_nano(name)
    if found is None:
        raise wrong(
            f"{path.name} has no price of {name}.",
            reason="NO_PRICE",
            field="--chip",
            remedy=f"It prices: {', '.join(prices.by_family) or 'nothing'}.",
        )
    return found


def sections(purchase: Purchase, rental: Rental) -> list[Section]:
    """The cost of owning, item by item, and both ways side by side at several uses."""
    own = owned(purchase)
    items = [*own.fixed, own.busy]
    rows = [(item.name, _amount(item.nano), item.arithmetic) for item in items if item.nano]
    full = _amount(own.fixed_nano + own.busy.nano)
    rows.append(("an owned device-hour", full, "the sum, at full use"))
    heads = ["USE", "HOURS A MONTH", "OWNED"]
    rents = _rents(rental)
    heads += [name.upper() for name, _ in rents]
    table = []
    for use in USES_PERCENT:
        prices = [nano * 100 // use if name == "reserved" else nano for name, nano in rents]
        mine = own.useful_nano(use)
        best = min([mine, *prices])
        cells = [_amount(each) + ("*" if each == best else "") for each in (mine, *prices)]
        table.append((f"{use} %", str(_HOURS_A_MONTH * use // 100), *cells))
    return [
        Section("An hour of one device, owned", ("ITEM", "AN HOUR", "HOW"), tuple(rows)),
        Section("A useful hour of one device (* the cheapest)", tuple(heads), tuple(table)),
    ]


def verdicts(purchase: Purchase, rental: Rental) -> list[str]:
    """A sentence for each way of renting, with its arithmetic."""
    own = owned(purchase)
    lines = [_verdict(flip) for flip in flips(own, rental)]
    if rental.spot_nano:
        lost = lost_ppm(rental)
        lines.append(
            f"spot: {_amount(rental.spot_nano)} / (1 - {lost / 10_000:.2f} % lost work) = "
            f"{_amount(spot_useful_nano(rental))} a useful hour"
        )
    if rental.reserved_nano and rental.on_demand_nano:
        ratio = 100 * rental.reserved_nano / rental.on_demand_nano
        lines.append(f"reserved against on demand: reserved is cheaper above {ratio:.1f} % use")
    return lines


def figures(purchase: Purchase, rental: Rental) -> dict[str, Any]:
    """For programs: nano-units, uses in millionths."""
    own = owned(purchase)
    return {
        "items": [
            {"item": item.name, "nano_per_hour": item.nano, "how": item.arithmetic}
            for item in (*own.fixed, own.busy)
        ],
        "fixed_nano_per_hour": own.fixed_nano,
        "busy_nano_per_hour": own.busy.nano,
        "useful_hour_nano": {str(use): _useful(own, rental, use) for use in USES_PERCENT},
        "flips": [
            {
                "against": flip.against,
                "price_nano": flip.price_nano,
                "use_ppm": flip.use_ppm,
                "verdict": flip.verdict,
                "how": flip.arithmetic,
            }
            for flip in flips(own, rental)
        ],
        "spot_lost_ppm": lost_ppm(rental),
    }


def _useful(own: Owned, rental: Rental, use: int) -> dict[str, int]:
    prices = {
        name: nano * 100 // use if name == "reserved" else nano for name, nano in _rents(rental)
    }
    return {"owned": own.useful_nano(use)} | prices


def _rents(rental: Rental) -> list[tuple[str, int]]:
    """What is offered, by name; spot net of lost work."""
    found = [("on demand", rental.on_demand_nano), ("reserved", rental.reserved_nano)]
    if rental.spot_nano:
        found.append(("spot", spot_useful_nano(rental)))
    return [(name, nano) for name, nano in found if nano]


def _verdict(flip: Flip) -> str:
    head = f"{flip.against} at {_amount(flip.price_nano)}: "
    match flip.verdict:
        case "flips":
            hours = round(flip.use_ppm * HOURS_A_YEAR / 12 / 1_000_000)
            words = f"owning is cheaper above {flip.use_ppm / 10_000:.1f} % use ({hours} h a month)"
        case "own":
            words = "owning is cheaper at full use"
        case _:
            words = "renting is cheaper at any use"
    return f"{head}{words}; {flip.arithmetic}"


def _amount(nano: int) -> str:
    return f"{(nano + 50_000) // 100_000 / 10_000:,.4f}"
