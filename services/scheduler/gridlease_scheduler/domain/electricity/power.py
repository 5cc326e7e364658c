"""Power as the planner asks for it: which placements caps forbid, which hour is worth waiting for,
and what a chip's energy costs at a site this hour.

Caps are hard limits of a site (at its meter, so with PUE) and of a rack (at its feed), held against
what everything that is given away may draw at most. Sites without figures are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Reason
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.plan import Placed
from gridlease_scheduler.domain.snapshot import Pending, Site

from . import energy
from .energy import HOUR_MS, MILLI, Capped, NodePower, Power, StartNow, WaitUntil

CAPPED = "POWER_CAPPED"
_DAY = 24
_FORECAST_HOURS = 24 * 31
_NOTHING = Power(0, 0)


def rates(sites: Iterable[Site], now_ms: int) -> dict[str, tuple[int, int]]:
    """What a watt-hour at each site's nodes costs this hour, PUE included: nano-units, and
    milligrams of CO2."""
    hour = now_ms // HOUR_MS % _DAY
    return {
        site.name: (
            _at(site.price_nano_per_kwh, hour) * site.pue_milli // MILLI // 1_000,
            _at(site.carbon_mg_per_kwh, hour) * site.pue_milli // MILLI // 1_000,
        )
        for site in sites
        if site.price_nano_per_kwh or site.carbon_mg_per_kwh
    }


def _at(by_hour: tuple[int, ...], hour: int) -> int:
    return by_hour[hour % len(by_hour)] if by_hour else 0


def deferred(task: Pending, site: Site | None, now_ms: int) -> Reason | None:
    """Why a job that could start now had better wait; None = it starts.

    Judged by the hours of the site where it would go; a job whose length is not known starts.
    """
    allowed = task.needs.deferrable_ms
    if not allowed or site is None or not task.longest_ms:
        return None
    clean = task.needs.low_carbon
    known = site.carbon_mg_per_kwh if clean else site.price_nano_per_kwh
    if not known:
        return None
    whole = _as_energy(site)
    deadline_ms = task.submitted_ms + allowed + task.longest_ms
    hours = min(_FORECAST_HOURS, (deadline_ms - now_ms) // HOUR_MS + 2)
    forecast = energy.forecast_of(whole, now_ms, max(1, hours))
    match energy.window(now_ms, task.longest_ms, deadline_ms, forecast, clean=clean):
        case StartNow():
            return None
        case WaitUntil(start_ms, saving, code, message):
            evidence = {
                "earliest_start_ms": str(start_ms),
                "saving_permille": str(saving),
                "site": site.name,
            }
            hint = "Leave deferrable out, or make it shorter, to start sooner."
            return Reason(code, message, hint, evidence)


def _as_energy(site: Site) -> energy.Site:
    """Milligrams stand where grams are asked for: only their proportions count here."""
    price = tuple(_at(site.price_nano_per_kwh, hour) for hour in range(_DAY))
    carbon = tuple(_at(site.carbon_mg_per_kwh, hour) for hour in range(_DAY))
    cap_mw = site.cap_watts * MILLI if site.cap_watts else None
    return energy.Site(site.name, max(MILLI, site.pue_milli), price, carbon, cap_mw)


@dataclass(slots=True)
class Book:
    """What sites and racks with caps may already draw, as leases leave the nodes and as placements
    are counted."""

    sites: Mapping[str, Site]
    nodes: Mapping[str, Node]
    catalogue: Catalogue
    _site_mw: dict[str, int] = field(default_factory=dict)
    _rack_mw: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.nodes.values():
            site = self.sites.get(node.site)
            if site is None or not capped(site):
                continue
            permille = min(1_000, node.used_cpu_milli * 1_000 // max(1, node.cpu_milli))
            held = node.held & {device.device_id for device in node.devices}
            draw = energy.committed_mw(power(node, self.catalogue), held, permille)
            self._site_mw[site.name] = self._site_mw.get(site.name, 0) + draw
            key = (site.name, node.rack)
            self._rack_mw[key] = self._rack_mw.get(key, 0) + draw

    def forbids(self, placed: Placed) -> Reason | None:
        """Which cap a placement would break, if it is not counted yet."""
        sites, racks = self._adding(placed)
        for name, adding in sites.items():
            site = self.sites[name]
            capped = energy.allows(_as_energy(site), self._site_mw.get(name, 0), adding)
            if capped is not None:
                return _reason(capped)
        for (name, rack), adding in racks.items():
            cap = dict(self.sites[name].rack_cap_watts).get(rack)
            would = self._rack_mw.get((name, rack), 0) + adding
            if cap is not None and would > cap * MILLI:
                return _reason(Capped("rack", rack, cap * MILLI, would))
        return None

    def count(self, placed: Placed) -> None:
        """It was given away."""
        sites, racks = self._adding(placed)
        for name, adding in sites.items():
            self._site_mw[name] = self._site_mw.get(name, 0) + adding
        for key, adding in racks.items():
            self._rack_mw[key] = self._rack_mw.get(key, 0) + adding

    def _adding(self, placed: Placed) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
        """What the members add at sites and racks with caps."""
        sites: dict[str, int] = {}
        racks: dict[tuple[str, str], int] = {}
        for member in placed.members:
            node = self.nodes[member.node_id]
            site = self.sites.get(node.site)
            if site is None or not capped(site):
                continue
            held = member.allocation
            permille = min(1_000, held.cpu_milli * 1_000 // max(1, node.cpu_milli))
            adding = energy.added_mw(power(node, self.catalogue), held.device_ids, permille)
            sites[site.name] = sites.get(site.name, 0) + adding
            racks[site.name, node.rack] = racks.get((site.name, node.rack), 0) + adding
        return sites, racks


def capped(site: Site) -> bool:
    """Has it a cap at all?"""
    return bool(site.cap_watts or site.rack_cap_watts)


def scope(reason: Reason, site: str) -> Callable[[Node], bool]:
    """Which nodes the cap of a reason is of.

    Args:
        site: Where the placement would have gone.
    """
    rack = reason.evidence["name"] if reason.evidence["scope"] == "rack" else None
    return lambda node: node.site == site and (rack is None or node.rack == rack)


def power(node: Node, catalogue: Catalogue) -> NodePower:
    """A node's power by the catalogue; a CPU's entry is of one core."""
    core = catalogue.find(node.cpu_chip)
    cores = -(-node.cpu_milli // 1_000)
    host = _NOTHING
    if core is not None:
        host = Power(cores * core.idle_watts * MILLI, cores * core.peak_watts * MILLI, core.source)
    devices = {}
    for device in node.devices:
        chip = catalogue.find(device.chip)
        devices[device.device_id] = _NOTHING if chip is None else energy.power_of(chip)
    return NodePower(node.node_id, node.rack, node.site, host, devices)


def _reason(capped: Capped) -> Reason:
    return Reason(
        CAPPED,
        f"There is a place for it, and no power: {capped.message}",
        "It is placed when other jobs end there; ask for fewer devices, or for a chip that "
        "draws less.",
        {"scope": capped.scope, "name": capped.name, "cap_watts": energy.watts(capped.cap_mw)},
    )
