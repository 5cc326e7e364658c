"""Energy by site, in whole microjoules: idle and busy watts over time, apart by hour of the day."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gridlease_scheduler.domain.job import Allocation
from gridlease_scheduler.domain.snapshot import Site

from gridlease_simulate.cluster import Cluster

HOUR_MS: Final = 3_600_000
UJ_PER_KWH: Final = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class Used:
    """One site's energy: of the machines, of the whole facility, its price and its carbon."""

    site: str
    machines_uj: int
    facility_uj: int
    price_nano: int
    carbon_mg: int


class Meter:
    """Adds up power over virtual time; 1 mW for 1 ms is 1 uJ. The run begins at 00:00 UTC."""

    def __init__(self, cluster: Cluster) -> None:
        self._sites = {site.name: site for site in cluster.sites}
        self._milliwatts = dict.fromkeys(self._sites, 0)
        self._by_hour = {name: [0] * 24 for name in self._sites}
        self._now_ms = 0
        self._extra: dict[str, int] = {}  # mW that one device or core draws more when held
        self._hourly = any(
            len(each) > 1
            for site in cluster.sites
            for each in (site.price_nano_per_kwh, site.carbon_mg_per_kwh)
        )
        for group in cluster.groups:
            cpu = cluster.chip(group.cpu_chip)
            milliwatts = 1_000 * group.watts + cpu.idle_watts * group.cpu_milli
            if group.devices:
                milliwatts += 1_000 * cluster.chip(group.chip).idle_watts * group.devices
            self._milliwatts[group.site] += group.count * milliwatts
        for chip in cluster.catalogue.chips:
            swing = (chip.peak_watts - chip.idle_watts) * 1_000 * cluster.busy_percent // 100
            self._extra[chip.name] = swing
        self._cluster = cluster

    def hold(self, site: str, cpu_chip: str, held: Allocation, sign: int) -> None:
        """From now on this is held (``sign`` 1) or free again (-1)."""
        more = self._extra[cpu_chip] * held.cpu_milli // 1_000
        if held.device_ids:
            more += self._extra[held.chip] * len(held.device_ids) // self._cluster.slices
        self._milliwatts[site] += sign * more

    def advance(self, now_ms: int) -> None:
        """Nothing has changed until this instant."""
        while self._now_ms < now_ms:
            hour = self._now_ms // HOUR_MS
            until_ms = min(now_ms, (hour + 1) * HOUR_MS) if self._hourly else now_ms
            span_ms = until_ms - self._now_ms
            for name, milliwatts in self._milliwatts.items():
                self._by_hour[name][hour % 24] += milliwatts * span_ms
            self._now_ms = until_ms

    def used(self) -> tuple[Used, ...]:
        """What each site has used so far."""
        return tuple(_used(site, self._by_hour[site.name]) for site in self._sites.values())


def _used(site: Site, by_hour: list[int]) -> Used:
    facility = [each * site.pue_milli // 1_000 for each in by_hour]
    price = _weighted(facility, site.price_nano_per_kwh)
    carbon = _weighted(facility, site.carbon_mg_per_kwh)
    return Used(site.name, sum(by_hour), sum(facility), price, carbon)


def _weighted(by_hour: list[int], per_kwh: tuple[int, ...]) -> int:
    """Energy by the hour times a value a kWh: one for all hours, or 24, or none."""
    if not per_kwh:
        return 0
    total = sum(uj * per_kwh[hour % len(per_kwh)] for hour, uj in enumerate(by_hour))
    return total // UJ_PER_KWH


def total(parts: Iterable[Used]) -> Used:
    """All sites together."""
    found = list(parts)
    return Used(
        "all",
        sum(each.machines_uj for each in found),
        sum(each.facility_uj for each in found),
        sum(each.price_nano for each in found),
        sum(each.carbon_mg for each in found),
    )
