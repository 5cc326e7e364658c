"""What operators say of the links between places, and what becomes of the leases on them."""

from __future__ import annotations

from collections.abc import Sequence

from .domain.job import Reason
from .domain.links.network import Latency, Link, Route, broken
from .operators import LinkRow, RoutedLease
from .ports import Event, Granted, Store, Tx


class Links:
    """The use cases about links."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[LinkRow]:
        """All, by name."""
        async with self._store.reading() as tx:
            return await tx.capacity.links()

    async def set(self, link: Link) -> LinkRow | None:
        """Write one, whole; one without capacity is taken away (None). Leases whose path it breaks
        keep running, and an event tells of each."""
        async with self._store.writing() as tx:
            await tx.capacity.lock()
            before = {row.link.link_id: row.link for row in await tx.capacity.links()}
            await tx.capacity.set_link(link)
            facts = {"a": link.a, "b": link.b, "capacity_mbps": str(link.capacity_mbit)}
            facts["up"] = str(link.up).lower()
            type_ = "link.set" if link.capacity_mbit else "link.removed"
            await tx.events.tell(Event(type_, f"links/{link.link_id}", "", Reason(), facts))
            after = {row.link.link_id: row for row in await tx.capacity.links()}
            if _carried(before.get(link.link_id)) and not _same(before[link.link_id], link):
                rest = [row.link for row in after.values() if row.link.link_id != link.link_id]
                leases = await tx.capacity.routed(link.link_id)
                await tx.events.tell_all(_broken(link, rest, leases))
        return after.get(link.link_id)


async def standing(tx: Tx, granted: Sequence[Granted]) -> list[Granted]:
    """Those of which every path is still up; what they rest on stays so for this transaction."""
    wanted = {link for each in granted for member in each.placed.members for link in member.path}
    if not wanted:
        return list(granted)
    up = await tx.capacity.hold_links(sorted(wanted))
    return [
        each
        for each in granted
        if all(up.issuperset(member.path) for member in each.placed.members)
    ]


def _carried(link: Link | None) -> bool:
    return link is not None and link.up


def _same(before: Link, now: Link) -> bool:
    """Does it still join the same places?"""
    return bool(now.up and now.capacity_mbit and {before.a, before.b} == {now.a, now.b})


def _broken(link: Link, rest: list[Link], leases: Sequence[RoutedLease]) -> list[Event]:
    routes = {x.lease_id: Route(x.path, Latency.STANDARD, x.mbps, 0) for x in leases}
    gone = set(broken(rest, routes))
    reason = Reason(
        "NETWORK_PATH_BROKEN",
        "A link of the path that was chosen for it is down or gone; it keeps running.",
        "What its network was promised is not kept until the link is back or it is placed anew.",
        {"link": link.link_id},
    )
    return [
        Event(
            "lease.path_broken",
            x.job,
            x.project,
            reason,
            {"lease": x.lease_id, "link": link.link_id, "path": ",".join(x.path)},
        )
        for x in leases
        if x.lease_id in gone
    ]
