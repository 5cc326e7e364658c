"""Everything that a plan depends on, as immutable values: what waits, what runs, who may have what.

The shell reads it in one transaction; the planner never asks for more. Instants are milliseconds
of the database's clock, in UTC (``now_ms``); they order and space things, and nothing that the
lease protocol decides rests on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from .chips import Catalogue
from .job import Allocation, Needs, Tier
from .links.network import Link
from .node import Node


@dataclass(frozen=True, slots=True)
class Pending:
    """A job that waits for a place; ``attempt`` is the one that its next leases will be.

    ``tasks`` members are placed all or none. An elastic job may be given up to ``tasks_max``;
    ``tasks`` is then what the slow path wants for it now.
    """

    job: str
    tenant: str
    project: str
    attempt: int
    priority: int
    number: int
    notice_ms: int
    lost_after_ms: int
    needs: Needs
    index: int = 0
    tasks: int = 1
    tasks_max: int = 1
    submitted_ms: int = 0
    longest_ms: int = 0  # its max_duration; 0 = unknown, never backfilled past a shadow start
    reservation: str = ""
    queued_ms: int = 0  # when it last came back to the queue, as after an eviction; 0 = never did


@dataclass(frozen=True, slots=True)
class Running:
    """One unclosed lease, as preemption, backfill and fair shares see it.

    ``worked_ms``: since it started. ``saved_ms``: how much of that its newest checkpoint keeps.
    ``closing``: it has been told to end; what it holds comes free by itself.
    """

    lease_id: str
    job: str
    index: int
    tenant: str
    project: str
    node_id: str
    priority: int
    tier: Tier
    allocation: Allocation
    started_ms: int = 0
    worked_ms: int = 0
    saved_ms: int = 0
    longest_ms: int = 0
    notice_ms: int = 0
    evictions: int = 0  # how often its job was evicted within the window of the rate limit
    tasks_min: int = 1
    closing: bool = False
    reservation: str = ""
    number: int = 0  # its job's place in the order of submission; 0 = unknown, counts as old
    min_runtime_ms: int = 0  # what its job asked for: its place is not taken sooner
    network_mbps: int = 0  # promised on each link of its path
    network_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """What a project may hold of a chip at once, in thousandths of devices (or of CPU cores).

    ``chip`` empty = of all accelerators together. ``guaranteed_milli`` is its own; between that
    and ``limit_milli`` it borrows what its siblings leave idle. ``parent``: limits nest, a
    child's holding counts in every ancestor.
    """

    project: str
    parent: str = ""
    chip: str = ""
    guaranteed_milli: int = 0
    limit_milli: int = 0  # 0 = no limit of its own


@dataclass(frozen=True, slots=True)
class Share:
    """A tenant's claim in fair sharing. ``used``: decayed device-milliseconds, in thousandths,
    weighted by each chip's throughput, as of ``Snapshot.now_ms``."""

    tenant: str
    weight: int = 1
    used: int = 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """Capacity promised to a project for a time. It is held back only while its window nears."""

    name: str
    project: str
    chip: str
    site: str  # empty = anywhere
    quantity_milli: int
    begins_ms: int
    ends_ms: int


@dataclass(frozen=True, slots=True)
class Site:
    """Where nodes stand: power, its price and its carbon by hour of the day (UTC).

    ``pue_milli``: 1,000 = no overhead. Lists have 24 entries, or one for all hours, or none.
    """

    name: str
    pue_milli: int = 1_000
    cap_watts: int = 0  # 0 = none
    rack_cap_watts: tuple[tuple[str, int], ...] = ()
    price_nano_per_kwh: tuple[int, ...] = ()
    carbon_mg_per_kwh: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Offered:
    """What billing asks for a chip now, by the hour and whole device or core.

    ``site`` empty = at every site that has no price of its own.
    """

    chip: str
    tier: Tier
    price_nano_per_hour: int
    site: str = ""


Prices: TypeAlias = Mapping[tuple[str, Tier, str], int]  # nano-units an hour; site "" = everywhere


def prices_of(offers: Iterable[Offered]) -> Prices:
    """What chips cost, by chip, tier and site."""
    return {(x.chip, x.tier, x.site): x.price_nano_per_hour for x in offers}


def price_at(prices: Prices, chip: str, tier: Tier, site: str) -> int | None:
    """A chip's price at a site: its own, or else that of everywhere; None = not known."""
    own = prices.get((chip, tier, site))
    return prices.get((chip, tier, "")) if own is None else own


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole input of one decision."""

    nodes: tuple[Node, ...]
    pending: tuple[Pending, ...]
    catalogue: Catalogue
    running: tuple[Running, ...] = ()
    quotas: tuple[Quota, ...] = ()
    shares: tuple[Share, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    sites: tuple[Site, ...] = ()
    offers: tuple[Offered, ...] = field(default=())
    links: tuple[Link, ...] = ()
    now_ms: int = 0
