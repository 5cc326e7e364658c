"""Spot prices over time, from a CSV, and what a lease costs at them.

Two shapes are read: ``chip,time_s,price_per_hour`` (of one device), and AWS's history
``zone,instance_type,time_utc,usd_per_h``, whose instances' prices are divided by their devices.
"""

from __future__ import annotations

import datetime
import itertools
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridlease_kernel.faults import Missing
from gridlease_kernel.money import amount_nano, rate_nano_per_hour
from gridlease_kernel.units import parse_money
from gridlease_scheduler.domain.chips import Catalogue

from gridlease_simulate.cluster import resolve
from gridlease_simulate.csvfile import File, need, read
from gridlease_simulate.fields import nearest, seconds_ms, wrong

_OWN: Final = ("chip", "time_s", "price_per_hour")
_AWS: Final = ("zone", "instance_type", "time_utc", "usd_per_h")
# Source: AWS's pages of the P2 and P3 instance types.
_INSTANCES: Final = {
    "p2.xlarge": ("K80", 1),
    "p2.8xlarge": ("K80", 8),
    "p2.16xlarge": ("K80", 16),
    "p3.2xlarge": ("V100", 1),
    "p3.8xlarge": ("V100", 4),
    "p3.16xlarge": ("V100", 8),
}

Series = tuple[tuple[int, int], ...]  # (from this ms on, nano-units an hour), in order


@dataclass(frozen=True, slots=True)
class SpotPrices:
    """One step function a chip family; before its first step its first price holds."""

    by_family: Mapping[str, Series]
    catalogue: Catalogue

    def series(self, chip: str) -> Series | None:
        """The steps of a chip's family; None where the file says nothing of it."""
        return self.by_family.get(self.catalogue.family_of(chip).lower())

    def cost_nano(self, chip: str, quantity_milli: int, from_ms: int, until_ms: int) -> int | None:
        """What a lease over this span costs; None where there is no price for the chip."""
        steps = self.series(chip)
        if steps is None:
            return None
        total, now_ms = 0, from_ms
        at = max(0, bisect_right(steps, now_ms, key=lambda step: step[0]) - 1)
        while now_ms < until_ms:
            end_ms = min(until_ms, steps[at + 1][0]) if at + 1 < len(steps) else until_ms
            rate = rate_nano_per_hour(steps[at][1], quantity_milli)
            total += amount_nano(rate, max(0, end_ms - now_ms) * 1_000_000)
            now_ms, at = max(now_ms, end_ms), at + 1
        return total

    def mean_nano(self, chip: str) -> int | None:
        """The mean price of a device-hour over the file's own time."""
        steps = self.series(chip)
        if steps is None:
            return None
        span_ms = steps[-1][0] - steps[0][0]
        if not span_ms:
            return steps[-1][1]
        pairs = itertools.pairwise(steps)
        return sum(price * (b[0] - at) for (at, price), b in pairs) // span_ms


def load(path: Path, catalogue: Catalogue, zone: str = "") -> SpotPrices:
    """The prices in a file; the earliest line is the instant at which a replay begins.

    Of several zones and instance sizes the cheapest at each instant counts, as one who may choose
    would have it; ``zone`` keeps to one.

    Raises:
        Missing: NO_SUCH_FILE.
        Invalid: UNKNOWN_ZONE, or a mistake in a line.
    """
    if not path.is_file():
        raise Missing(
            f"There is no file {path}.",
            reason="NO_SUCH_FILE",
            field="--spot-prices",
            remedy=f"Give a CSV with {', '.join(_OWN)}.",
        )
    file = read(path)
    if set(_AWS) <= set(file.columns):
        return SpotPrices(_merged(_aws(file, zone)), catalogue)
    need(file, _OWN, "--spot-prices")
    found: dict[tuple[str, str], dict[int, int]] = {}
    for row in file.rows:
        chip = resolve(catalogue, row.values["chip"], row.field("chip"))
        at_ms = seconds_ms(row.values["time_s"], row.field("time_s"))
        price = parse_money(row.values["price_per_hour"], row.field("price_per_hour"))
        found.setdefault((chip.family.lower(), ""), {})[at_ms] = price
    return SpotPrices(_merged(found), catalogue)


def _aws(file: File, zone: str) -> dict[tuple[str, str], dict[int, int]]:
    """Steps by (family, zone and instance type)."""
    zones = {row.values["zone"] for row in file.rows}
    if zone and zone not in zones:
        raise wrong(
            f"{file.name} has no zone {zone!r}.",
            reason="UNKNOWN_ZONE",
            field="--spot-zone",
            remedy=nearest(zone, zones),
        )
    found: dict[tuple[str, str], dict[int, int]] = {}
    for row in file.rows:
        family, devices = _INSTANCES.get(row.values["instance_type"], ("", 1))
        if not family or (zone and row.values["zone"] != zone):
            continue
        try:
            moment = datetime.datetime.fromisoformat(row.values["time_utc"])
        except ValueError as error:
            raise wrong(
                f"{row.values['time_utc']!r} is not a time.",
                reason="BAD_TIME",
                field=row.field("time_utc"),
                remedy="Write it as 2019-12-22T08:40:33.",
            ) from error
        at_ms = int(moment.replace(tzinfo=datetime.UTC).timestamp()) * 1_000
        price = parse_money(row.values["usd_per_h"], row.field("usd_per_h"))
        source = f"{row.values['zone']} {row.values['instance_type']}"
        found.setdefault((family.lower(), source), {})[at_ms] = price // devices
    return found


def _merged(found: Mapping[tuple[str, str], Mapping[int, int]]) -> dict[str, Series]:
    """The cheapest of a family's sources from instant to instant, the file's first being 0."""
    first_ms = min((at for steps in found.values() for at in steps), default=0)
    merged: dict[str, Series] = {}
    for family in sorted({key[0] for key in found}):
        changes = sorted(
            (at, source, price)
            for (name, source), steps in found.items()
            if name == family
            for at, price in steps.items()
        )
        asked: dict[str, int] = {}
        steps: list[tuple[int, int]] = []
        for at, source, price in changes:
            asked[source] = price
            lowest = min(asked.values())
            if steps and steps[-1][0] == at - first_ms:
                steps[-1] = (at - first_ms, lowest)
            elif not steps or steps[-1][1] != lowest:
                steps.append((at - first_ms, lowest))
        merged[family] = tuple(steps)
    return merged
