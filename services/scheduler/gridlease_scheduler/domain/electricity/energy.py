"""What a placement draws, costs and emits, whether power caps allow it, and when it had better run.

Power is in milliwatts, money in nano-units, carbon in milligrams of CO2, time in milliseconds. A
power cap is a hard limit, so it is held against what devices may draw at most, not against what
they happen to draw now: a job that is idle at its placement may be at its peak a second later.

Source: power linear in utilisation between idle and peak: Fan, Weber and Barroso, Power
provisioning for a warehouse-sized computer, ISCA 2007.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gridlease_scheduler.domain.chips import Chip

MILLI = 1_000
HOUR_MS = 3_600_000
_MW_PER_KW = 1_000_000


@dataclass(frozen=True, slots=True)
class Power:
    """What one thing draws. ``source`` says where the figures come from: measured, or a page."""

    idle_mw: int
    peak_mw: int
    source: str = ""

    def __post_init__(self) -> None:
        assert 0 <= self.idle_mw <= self.peak_mw, self

    def at(self, utilisation_permille: int) -> int:
        """The draw at a utilisation, rounded up."""
        assert 0 <= utilisation_permille <= 1_000, utilisation_permille
        span = self.peak_mw - self.idle_mw
        return self.idle_mw - (-span * utilisation_permille // 1_000)


def power_of(chip: Chip) -> Power:
    """A chip's power by its catalogue entry."""
    return Power(chip.idle_watts * MILLI, chip.peak_watts * MILLI, chip.source)


@dataclass(frozen=True, slots=True)
class NodePower:
    """A node: its host alone, each of its devices, and what its meter says if it has one.

    Attributes:
        measured_mw: What the whole node draws now; None = it has no meter.
        asleep: It draws nothing now, and a placement wakes it.
    """

    node_id: str
    rack: str
    site: str
    host: Power
    devices: Mapping[str, Power]
    measured_mw: int | None = None
    asleep: bool = False

    def now_mw(self, utilisation_permille: int = 0) -> int:
        """The draw now: measured, else by the model at this utilisation."""
        if self.measured_mw is not None:
            return self.measured_mw
        if self.asleep:
            return 0
        parts = (self.host, *self.devices.values())
        return sum(part.at(utilisation_permille) for part in parts)


@dataclass(frozen=True, slots=True)
class Site:
    """A site's power. Prices and carbon by the hour of the day, UTC, 24 of each.

    Attributes:
        pue_milli: Power of the whole site over that of its nodes, in thousandths.
        cap_mw: What the site may draw at its meter, so with PUE; None = no limit.
    """

    name: str
    pue_milli: int
    price_nano_per_kwh: tuple[int, ...]
    grams_per_kwh: tuple[int, ...]
    cap_mw: int | None = None

    def __post_init__(self) -> None:
        assert self.pue_milli >= MILLI, self
        assert len(self.price_nano_per_kwh) == len(self.grams_per_kwh) == 24, self


@dataclass(frozen=True, slots=True)
class Added:
    """What a placement adds, by the hour at its peak."""

    power_mw: int
    cost_nano_per_hour: int
    milligrams_per_hour: int


@dataclass(frozen=True, slots=True)
class Capped:
    """A cap forbids it. ``scope``: site or rack."""

    scope: str
    name: str
    cap_mw: int
    would_mw: int

    @property
    def message(self) -> str:
        """What stands in the way, in words."""
        return (
            f"The {self.scope} {self.name} may draw {watts(self.cap_mw)} W and would have to be "
            f"able to draw {watts(self.would_mw)} W."
        )


def added_mw(
    node: NodePower, device_ids: Iterable[str], host_permille: int = 0, use_permille: int = 1_000
) -> int:
    """What a placement adds to the draw of its node.

    Devices already draw their idle power, so only the rest is new; a node that sleeps adds all.

    Args:
        host_permille: The part of the host (its CPUs) that the placement holds.
        use_permille: How busy what it holds will be.
    """
    assert 0 <= host_permille <= 1_000, host_permille
    wanted = set(device_ids)
    assert wanted <= set(node.devices), wanted
    busy = sum(node.devices[it].at(use_permille) - node.devices[it].idle_mw for it in wanted)
    host_span = node.host.peak_mw - node.host.idle_mw
    busy += -(-host_span * host_permille * use_permille // 1_000_000)
    if not node.asleep:
        return busy
    return busy + node.host.idle_mw + sum(it.idle_mw for it in node.devices.values())


def hourly(site: Site, power_mw: int, hour_utc: int) -> Added:
    """What a draw costs and emits in an hour, PUE included, rounded up.

    >>> home = Site("home", 1_200, (100_000_000,) * 24, (400,) * 24)
    >>> hourly(home, 700_000, 0)
    Added(power_mw=700000, cost_nano_per_hour=84000000, milligrams_per_hour=336000)
    """
    assert power_mw >= 0, power_mw
    scale = _MW_PER_KW * MILLI
    metered = power_mw * site.pue_milli
    price, grams = site.price_nano_per_kwh[hour_utc], site.grams_per_kwh[hour_utc]
    return Added(power_mw, -(-metered * price // scale), -(-metered * grams * 1_000 // scale))


def allows(
    site: Site,
    site_mw: int,
    adding_mw: int,
    rack: str = "",
    rack_mw: int = 0,
    rack_cap_mw: int | None = None,
) -> Capped | None:
    """Which cap forbids a placement; None = it may be.

    Args:
        site_mw: What the site's nodes may already draw at most, without PUE.
        adding_mw: What the placement adds at its peak.
        rack_mw: What the rack's nodes may already draw at most.
        rack_cap_mw: At the rack's own feed, so without PUE; None = no limit.
    """
    if rack_cap_mw is not None and rack_mw + adding_mw > rack_cap_mw:
        return Capped("rack", rack, rack_cap_mw, rack_mw + adding_mw)
    would = -(-(site_mw + adding_mw) * site.pue_milli // MILLI)
    if site.cap_mw is not None and would > site.cap_mw:
        return Capped("site", site.name, site.cap_mw, would)
    return None


def committed_mw(node: NodePower, held: Iterable[str], host_permille: int = 0) -> int:
    """What a node may draw at most, given what its leases hold: the figure that caps limit."""
    if node.asleep:
        return 0
    idle = node.host.idle_mw + sum(it.idle_mw for it in node.devices.values())
    return idle + added_mw(node, held, host_permille)


def watts(power_mw: int) -> str:
    """Milliwatts as watts, for a reader.

    >>> watts(1_500), watts(700_000)
    ('1.5', '700')
    """
    whole, part = divmod(power_mw, MILLI)
    return f"{whole}.{part:03d}".rstrip("0").rstrip(".")


# -- when a deferrable job runs --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of the forecast, from ``start_ms`` on."""

    start_ms: int
    price_nano_per_kwh: int
    grams_per_kwh: int


@dataclass(frozen=True, slots=True)
class StartNow:
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """``saving_permille``: of what it would cost, or emit, if it started now."""

    start_ms: int
    saving_permille: int
    reason: str
    message: str


Window: TypeAlias = StartNow | WaitUntil


def window(
    now_ms: int,
    run_ms: int,
    deadline_ms: int,
    forecast: tuple[Hour, ...],
    *,
    clean: bool,
    gain_permille: int = 50,
) -> Window:
    """When a deferrable job had better start.

    It waits for the earliest of the best starts that ends by the deadline, if that saves at least
    ``gain_permille``; a start is judged only where the forecast covers the whole run.

    Args:
        run_ms: How long it runs at most; the caller adds its margin of error.
        forecast: Hours without gaps, in order.
        clean: By carbon; otherwise by price.
    """
    assert run_ms > 0, run_ms
    if now_ms + run_ms >= deadline_ms:
        return StartNow("DEADLINE", "It must start now to end by its deadline.")
    now = _sum(now_ms, run_ms, forecast, clean)
    if now is None:
        return StartNow("NO_FORECAST", "The forecast does not cover its run.")
    latest = deadline_ms - run_ms
    starts = [it.start_ms for it in forecast if now_ms < it.start_ms <= latest]
    # A sum is linear between the turns of the hours at either end: the best start is at a turn.
    starts += [end for it in forecast if now_ms < (end := it.start_ms + HOUR_MS - run_ms) <= latest]
    sums = [
        (total, at)
        for at in {*starts, latest}
        if (total := _sum(at, run_ms, forecast, clean)) is not None
    ]
    best, start_ms = min(sums, default=(now, now_ms))
    saving = (now - best) * 1_000 // now if now > 0 else 0
    what = "clean" if clean else "cheap"
    if saving < max(1, gain_permille):
        return StartNow(
            f"{what.upper()}_ENOUGH", f"No {what}er hour before its deadline is worth waiting for."
        )
    return WaitUntil(
        start_ms,
        saving,
        f"WAITS_FOR_{what.upper()}_HOUR",
        f"It waits for a {what}er hour: {saving // 10}.{saving % 10} % less than now.",
    )


def _sum(start_ms: int, run_ms: int, forecast: tuple[Hour, ...], clean: bool) -> int | None:
    """Price or grams times milliseconds over a run; None where the forecast has a gap."""
    total = covered = 0
    for hour in forecast:
        overlap = min(start_ms + run_ms, hour.start_ms + HOUR_MS) - max(start_ms, hour.start_ms)
        if overlap > 0:
            covered += overlap
            total += overlap * (hour.grams_per_kwh if clean else hour.price_nano_per_kwh)
    return total if covered == run_ms else None


def forecast_of(site: Site, from_ms: int, hours: int) -> tuple[Hour, ...]:
    """The forecast that a site's hours of the day make, from the hour of ``from_ms`` (Unix) on."""
    first = from_ms // HOUR_MS
    return tuple(
        Hour(
            (first + step) * HOUR_MS,
            site.price_nano_per_kwh[(first + step) % 24],
            site.grams_per_kwh[(first + step) % 24],
        )
        for step in range(hours)
    )
