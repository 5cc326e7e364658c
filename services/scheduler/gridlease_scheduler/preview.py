"""A dry run: what would become of a job if it were submitted now. Nothing is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gridlease_kernel.faults import Unreachable

from .domain.chips import Catalogue
from .domain.forecast import Forecast, forecast
from .domain.node import Node
from .domain.snapshot import Pending, Snapshot
from .ports import PriceList, Prices, Store, Tx
from .submit import Asked, check, check_reservation


@dataclass(frozen=True, slots=True)
class Previewed:
    """``currency``: of all amounts; empty = prices are not known now. ``makes_room``: jobs that
    would be told to end for it, of its own project; others are counted only."""

    forecast: Forecast
    sites: dict[str, str]
    currency: str
    makes_room: tuple[str, ...] = ()


class Preview:
    """The use case."""

    def __init__(self, store: Store, catalogue: Catalogue, prices: Prices) -> None:
        self._store = store
        self._catalogue = catalogue
        self._prices = prices

    async def __call__(self, asked: Asked) -> Previewed:
        """Raises:
        Invalid: as a submit would.
        """
        check(asked, self._catalogue)
        priced = await price_list(self._prices)
        async with self._store.reading() as tx:
            await check_reservation(tx, asked)
            snapshot = await read(tx, self._catalogue, priced)
        task = pending(asked, snapshot.now_ms)
        # A large fleet takes a while to look at: the leader's own work goes on beside it.
        found = await asyncio.to_thread(forecast, task, expected_ms(asked), snapshot)
        room = _makes_room(asked.project, found)
        return Previewed(found, _sites(snapshot.nodes), priced.currency, room)


async def price_list(prices: Prices) -> PriceList:
    """What chips cost now; nothing at all while billing is away."""
    try:
        return await prices()
    except Unreachable:
        return PriceList("", ())


async def read(tx: Tx, catalogue: Catalogue, priced: PriceList) -> Snapshot:
    """The fleet and what runs on it; nothing that waits."""
    parts = await tx.planning.parts(catalogue)
    return Snapshot(
        nodes=tuple(await tx.nodes.views()),
        pending=(),
        catalogue=catalogue,
        running=parts.running,
        quotas=parts.quotas,
        shares=parts.shares,
        reservations=parts.reservations,
        sites=parts.sites,
        links=parts.links,
        offers=priced.offers,
        now_ms=parts.now_ms,
    )


def pending(asked: Asked, now_ms: int) -> Pending:
    """The job as a plan would see it."""
    return Pending(
        job=f"{asked.project}/jobs/preview",
        tenant=asked.tenant,
        project=asked.project,
        attempt=1,
        priority=asked.priority,
        number=0,
        notice_ms=asked.notice_ms,
        lost_after_ms=0,
        needs=asked.needs,
        tasks=asked.extent.tasks,
        tasks_max=asked.extent.tasks_max,
        submitted_ms=now_ms,
        longest_ms=asked.extent.longest_ms,
        reservation=asked.extent.reservation,
    )


def expected_ms(asked: Asked) -> int:
    """The time that is priced; 0 = only the hour is."""
    return asked.extent.expected_ms or asked.extent.longest_ms


def _sites(nodes: tuple[Node, ...]) -> dict[str, str]:
    return {node.node_id: node.site for node in nodes}


def _makes_room(project: str, found: Forecast) -> tuple[str, ...]:
    """Who would give way: named where it is the project's own."""
    own = f"{project}/jobs/"
    return tuple(x if x.startswith(own) else "another project's job" for x in found.victims)
