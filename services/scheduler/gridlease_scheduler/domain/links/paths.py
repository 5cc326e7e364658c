"""Paths as the planner asks for them: which way the traffic of each member goes, and whether what
it is promised may be promised on every link of that way.

Places are nodes, racks and sites: "nodes/N", "racks/S/R", "sites/S". Operators describe the links
between them; only what is narrow needs to be. From a place that no described link leads on from (a
link between two nodes leads nowhere), there is a way up that carries anything: from a node to its
rack, whose own guarantee the node's uplink already keeps, and from a rack to its site. Such ways
have no names; a lease's path is made of the described links alone.

Each member gets a path from its node to its node's site. Of a gang over several racks, the path
from each rack to the next is promised as well: what the members' own paths do not carry anyway is
written to the first member in the rack. A lease whose path was never chosen, because nothing was
described yet, counts on the way that it would have been given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from gridlease_scheduler.domain.job import NetworkClass, NetworkNeed, Reason
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.plan import Placed
from gridlease_scheduler.domain.snapshot import Running

from .network import Answer, Ask, Latency, Link, Refused, Trouble, choose

_ENDLESS = 1 << 50  # Mbit/s: nothing is known to be narrow there
_NAMELESS = "~"  # of the ways that nobody described


@dataclass(frozen=True, slots=True)
class Barrier:
    """Why a placement may not be, and which nodes are no better; no ``scope``: none is."""

    reason: Reason
    scope: Callable[[Node], bool] | None = None


def asks(need: NetworkNeed) -> bool:
    """Does it want anything that not every path can give?"""
    return bool(
        need.guaranteed_mbps or need.latency_us or need.network_class is NetworkClass.CRITICAL
    )


class Book:
    """What is promised of each link, as leases leave it and as placements are counted."""

    def __init__(
        self,
        links: Iterable[Link],
        running: Iterable[Running],
        node_of: Callable[[str], Node | None],
    ) -> None:
        self._free = {link.link_id: link.capacity_mbit for link in links}
        self._node_of = node_of
        self._near: dict[str, list[Link]] = {}  # links that end at a node
        self._core: list[Link] = []  # links between racks and sites
        self._led: set[str] = set()  # places that described links lead on from
        for link in links:
            self._enter(link)
        self._usual: dict[str, tuple[str, ...]] = {}
        for lease in running:
            if lease.network_mbps:
                self._take(lease.network_path or self._default(lease.node_id), lease.network_mbps)

    def route(self, placed: Placed) -> Placed | Barrier:
        """The placement with a path for each member, or why there is none. Nothing is counted."""
        need, free = placed.task.needs.network, dict(self._free)
        if not asks(need):
            return placed
        nodes = [self._node(member.node_id) for member in placed.members]
        paths: list[tuple[str, ...]] = []
        refused: dict[str, tuple[Node, Refused]] = {}
        last: dict[str, tuple[str, ...]] = {}
        for node in nodes:
            path = last.get(_rack(node))
            if path is None or not self._still(path, need, free, node):
                answer = self._answer(_node(node), _site(node), need, free, node)
                if isinstance(answer, Refused):
                    refused.setdefault(node.node_id, (node, answer))
                    continue
                path = last[_rack(node)] = _named(answer.link_ids)
            paths.append(path)
            for link_id in path:
                free[link_id] -= need.guaranteed_mbps
        if refused:
            return self._barred(need, refused)
        barrier = self._across(need, nodes, paths, free)
        if barrier is not None:
            return barrier
        members = zip(placed.members, paths, strict=True)
        return replace(placed, members=tuple(replace(x, path=path) for x, path in members))

    def count(self, placed: Placed) -> None:
        """It was given away."""
        for member in placed.members:
            self._take(member.path, placed.task.needs.network.guaranteed_mbps)

    @property
    def free_mbit(self) -> Mapping[str, int]:
        """What may still be promised on each described link."""
        return self._free

    def _still(
        self, path: tuple[str, ...], need: NetworkNeed, free: Mapping[str, int], node: Node
    ) -> bool:
        """Is the quickest path of a neighbour this one's too? Within a gang room only gets less,
        so it is, while there is room on it."""
        return (
            need.network_class is not NetworkClass.CRITICAL
            and _node(node) not in self._near
            and all(free[link_id] >= need.guaranteed_mbps for link_id in path)
        )

    def _across(
        self,
        need: NetworkNeed,
        nodes: list[Node],
        paths: list[tuple[str, ...]],
        free: dict[str, int],
    ) -> Barrier | None:
        """From each rack of a gang to the next; ``paths`` and ``free`` are brought up to date."""
        firsts: dict[str, int] = {}
        for at, node in enumerate(nodes):
            firsts.setdefault(_rack(node), at)
        for one, next_ in pairwise(firsts.values()):
            own = {*paths[one], *paths[next_]}
            here = free | {x: free[x] + need.guaranteed_mbps for x in own}
            answer = self._answer(_rack(nodes[one]), _rack(nodes[next_]), need, here)
            if isinstance(answer, Refused):
                return Barrier(_reason(answer), _same(_rack, nodes[next_]))
            more = tuple(x for x in _named(answer.link_ids) if x not in own)
            paths[one] += more
            for link_id in more:
                free[link_id] -= need.guaranteed_mbps
        return None

    def _barred(self, need: NetworkNeed, refused: dict[str, tuple[Node, Refused]]) -> Barrier:
        """A node that could not carry a single member speaks for all that go the same way."""
        node, answer = next(iter(refused.values()))
        alone = self._answer(_node(node), _site(node), need, self._free, node)
        if isinstance(alone, Refused) and not self._leads_on(_node(node)):
            return Barrier(_reason(answer), self._like(node))
        return Barrier(_reason(answer), lambda other: other.node_id in refused)

    def _like(self, node: Node) -> Callable[[Node], bool]:
        same = _same(_rack, node)
        return lambda other: same(other) and not self._leads_on(_node(other))

    def _answer(
        self,
        source: str,
        target: str,
        need: NetworkNeed,
        free: Mapping[str, int],
        node: Node | None = None,
    ) -> Answer:
        ask = Ask(
            source, target, need.guaranteed_mbps, Latency(need.network_class.value.lower()),
            need.latency_us,
        )  # fmt: skip
        ways = [*self._core, *self._near.get(source, ()), *self._ways_up(source, target, node)]
        return choose(ways, {x.link_id: free.get(x.link_id, _ENDLESS) for x in ways}, ask)

    def _ways_up(self, source: str, target: str, node: Node | None) -> Iterator[Link]:
        """What nobody described: from the ends, and from every rack that a link names."""
        racks = {x for link in self._core for x in (link.a, link.b) if x.startswith("racks/")}
        racks.update(x for x in (source, target) if x.startswith("racks/"))
        if node is not None:
            above = _rack(node) if node.rack else _site(node)
            if above.startswith("racks/"):
                racks.add(above)
            if not self._leads_on(source):
                yield _nameless(source, above)
        for link in self._near.get(source, ()):
            racks.update(x for x in (link.a, link.b) if x.startswith("racks/"))
        for rack in sorted(racks):
            if not self._leads_on(rack):
                yield _nameless(rack, f"sites/{rack.split('/')[1]}")

    def _leads_on(self, place: str) -> bool:
        return place in self._led

    def _enter(self, link: Link) -> None:
        ends = (link.a, link.b)
        nodes = [x for x in ends if x.startswith("nodes/")]
        for place in nodes:
            self._near.setdefault(place, []).append(link)
        if len(nodes) == 1:
            self._led.add(nodes[0])
        elif not nodes:
            self._core.append(link)
            self._led.update(ends)

    def _default(self, node_id: str) -> tuple[str, ...]:
        """The way of a lease that was given none, as if nothing were promised."""
        known = self._usual.get(node_id)
        if known is None:
            node = self._node_of(node_id)
            answer = (
                None if node is None
                else self._answer(_node(node), _site(node), NetworkNeed(), {}, node)
            )  # fmt: skip
            known = () if answer is None or isinstance(answer, Refused) else answer.link_ids
            known = self._usual[node_id] = _named(known)
        return known

    def _take(self, path: Iterable[str], mbit: int) -> None:
        for link_id in path:
            if link_id in self._free:  # a link that was taken away carries nothing any more
                self._free[link_id] -= mbit

    def _node(self, node_id: str) -> Node:
        node = self._node_of(node_id)
        assert node is not None, node_id
        return node


def _node(node: Node) -> str:
    return f"nodes/{node.node_id}"


def _rack(node: Node) -> str:
    """Where its way up leads: nodes of no known rack stand in none together."""
    return f"racks/{node.site}/{node.rack}" if node.rack else _site(node)


def _site(node: Node) -> str:
    return f"sites/{node.site}"


def _same(key: Callable[[Node], str], node: Node) -> Callable[[Node], bool]:
    mine = key(node)
    return lambda other: key(other) == mine


def _nameless(place: str, above: str) -> Link:
    return Link(f"{_NAMELESS}{place}", place, above, _ENDLESS, 0)


def _named(link_ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(x for x in link_ids if not x.startswith(_NAMELESS))


def _reason(refused: Refused) -> Reason:
    """Figures and places go into the evidence: the words stay the same from pass to pass."""
    what = {
        Trouble.NETWORK_UNREACHABLE: "no way from there is up or described.",
        Trouble.NETWORK_GUARANTEE: "no path from there has as many Mbit/s left to promise.",
        Trouble.NETWORK_LATENCY: "no path from there that can carry it is quick enough.",
    }[refused.code]
    message = f"There is a place for it, but {what}"
    return Reason(refused.code.value, message, refused.remedy, refused.evidence)
