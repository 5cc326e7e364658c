"""Ports for what operators promise and limit, and for what a plan reads of it.

Part of ``ports.py``, which carries both protocols on its ``Tx``.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .domain.chips import Catalogue
from .domain.links.network import Link
from .domain.sizing.flexible import Flexible
from .domain.snapshot import Quota, Reservation, Running, Share, Site


@dataclass(frozen=True, slots=True)
class Parts:
    """What a plan's snapshot needs beside nodes and waiting jobs."""

    now_ms: int
    running: tuple[Running, ...]
    quotas: tuple[Quota, ...]
    shares: tuple[Share, ...]
    reservations: tuple[Reservation, ...]
    sites: tuple[Site, ...]
    links: tuple[Link, ...] = ()


class Planning(Protocol):
    """What operators promise and limit, and what runs, as the planner reads it."""

    async def parts(self, catalogue: Catalogue) -> Parts:
        """All of it, as of now. Shares are weighted by the catalogue's throughput."""
        ...

    async def flexible(self) -> tuple[Flexible, ...]:
        """Jobs that wait or run and whose number of tasks may change."""
        ...

    async def spent(self, tenant: str, used: int) -> None:
        """Add to a tenant's recent use (``Share.used``'s unit), decayed to now."""
        ...


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """A quota with what it holds now."""

    quota: Quota
    used_milli: int


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A site with how many nodes stand there."""

    site: Site
    nodes: int
    created_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link with what is promised of it now."""

    link: Link
    promised_mbit: int
    created_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class RoutedLease:
    """An unclosed lease with a path."""

    lease_id: str
    job: str
    project: str
    mbps: int
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReservationRow:
    """A reservation on record."""

    reservation: Reservation
    created_at: datetime.datetime
    cancelled_at: datetime.datetime | None


class Capacity(Protocol):
    """What operators write: quotas, weights, sites, links, reservations."""

    async def lock(self) -> None:
        """One operator's change at a time."""
        ...

    async def quotas(self, project: str) -> list[QuotaRow]:
        """Of one project; empty = all."""
        ...

    async def set_quota(self, quota: Quota) -> None:
        """Guarantee and limit of 0 take it away."""
        ...

    async def shares(self) -> list[Share]:
        """Those on record; ``used`` is decayed to now, without what runs now."""
        ...

    async def set_share(self, tenant: str, weight: int) -> None: ...

    async def sites(self) -> list[SiteRow]: ...

    async def set_site(self, site: Site) -> None: ...

    async def links(self) -> list[LinkRow]:
        """All, by name."""
        ...

    async def set_link(self, link: Link) -> None:
        """A capacity of 0 takes it away."""
        ...

    async def hold_links(self, link_ids: Sequence[str]) -> set[str]:
        """Those that are up; none of them changes before this transaction ends."""
        ...

    async def routed(self, link_id: str) -> list[RoutedLease]:
        """Unclosed leases whose path has this link."""
        ...

    async def reservations(self, project: str) -> list[ReservationRow]:
        """That have not ended or were given back; empty = of all projects."""
        ...

    async def reservation(self, name: str) -> ReservationRow | None: ...

    async def reservation_by_request(
        self, project: str, request_id: str
    ) -> ReservationRow | None: ...

    async def add_reservation(self, reservation: Reservation, request_id: str) -> None: ...

    async def cancel_reservation(self, name: str) -> None: ...
