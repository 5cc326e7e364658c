"""Which path a job's traffic takes, and whether its guaranteed Mbit/s may be promised.

Links join places: nodes, racks, sites, named by whoever describes the network. A link's capacity
is what may be promised in either direction. A request is answered by a path or a refusal:

- critical: of the paths that carry its guarantee within its latency bound (5 ms unless it says
  otherwise), the one whose narrowest link has the most free, then the quickest;
- standard: the quickest path that carries its guarantee, within its bound if it has one;
- bulk: as standard, but the slower kinds of links first, so that the fast ones stay free.

Guarantees are never oversubscribed: an admitted path has, on each of its links, at least its
guarantee free, so the sum of all guarantees on a link stays within its capacity. A refusal is
exact: there is no path that would do.

Source: widest path by thresholds, each tested by a shortest path: Wang and Crowcroft,
Quality-of-service routing for supporting multimedia applications, IEEE JSAC 14(7), 1996.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

CRITICAL_LATENCY_US = 5_000


class LinkKind(enum.StrEnum):
    ETHERNET = "ethernet"
    RDMA = "rdma"  # InfiniBand
    ROCE = "roce"  # RDMA over converged Ethernet
    WAN = "wan"


# What bulk traffic takes first.
_BULK = {LinkKind.ETHERNET: 0, LinkKind.WAN: 0, LinkKind.ROCE: 1, LinkKind.RDMA: 1}
RDMA_KINDS = frozenset({LinkKind.RDMA, LinkKind.ROCE})


class Latency(enum.StrEnum):
    """The class of a job's traffic: what the agent marks and queues it as."""

    CRITICAL = "critical"
    STANDARD = "standard"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two places, for both directions alike."""

    link_id: str
    a: str
    b: str
    capacity_mbit: int
    latency_us: int
    kind: LinkKind = LinkKind.ETHERNET
    up: bool = True


@dataclass(frozen=True, slots=True)
class Ask:
    """What a job asks of the network between two places.

    Attributes:
        mbit: Guaranteed, in either direction; 0 = none.
        latency_us: The bound; 0 = that of its class.
        kinds: Only links of these kinds will do, such as ``RDMA_KINDS``; empty = all.
    """

    source: str
    target: str
    mbit: int = 0
    latency: Latency = Latency.STANDARD
    latency_us: int = 0
    kinds: frozenset[LinkKind] = frozenset()

    @property
    def bound_us(self) -> int | None:
        """The latency that its path may have at most; None = any."""
        if self.latency_us:
            return self.latency_us
        return CRITICAL_LATENCY_US if self.latency is Latency.CRITICAL else None


@dataclass(frozen=True, slots=True)
class Route:
    """What travels in the lease: the path, the class and the guarantee, for the agent to keep."""

    link_ids: tuple[str, ...]
    latency: Latency
    mbit: int
    path_us: int


class Trouble(enum.StrEnum):
    """Why a request is refused. Stable."""

    NETWORK_UNREACHABLE = "NETWORK_UNREACHABLE"
    NETWORK_GUARANTEE = "NETWORK_GUARANTEE"
    NETWORK_LATENCY = "NETWORK_LATENCY"


@dataclass(frozen=True, slots=True)
class Refused:
    code: Trouble
    message: str
    remedy: str
    evidence: dict[str, str] = field(default_factory=dict)


Answer: TypeAlias = Route | Refused


@dataclass(frozen=True, slots=True)
class _Edge:
    link: Link
    to: str
    free_mbit: int


_Graph: TypeAlias = Mapping[str, list[_Edge]]


def free_mbit(links: Iterable[Link], routes: Iterable[Route]) -> dict[str, int]:
    """What may still be promised on each link, given the routes of all leases that live."""
    free = {link.link_id: link.capacity_mbit for link in links}
    for route in routes:
        for link_id in route.link_ids:
            if link_id in free:  # a link that was taken away carries nothing any more
                free[link_id] -= route.mbit
    return free


def admit(links: Iterable[Link], routes: Iterable[Route], ask: Ask) -> Answer:
    """The path that the request gets, or why there is none.

    Args:
        routes: Of all leases that live; they keep what they have.
    """
    known = tuple(links)
    return choose(known, free_mbit(known, routes), ask)


def choose(links: Iterable[Link], free: Mapping[str, int], ask: Ask) -> Answer:
    """As ``admit``, where the caller keeps what is free of each link (``free_mbit``)."""
    assert ask.mbit >= 0, ask
    assert ask.latency_us >= 0, ask
    if ask.source == ask.target:
        return Route((), ask.latency, ask.mbit, 0)
    graph = _graph(links, free, ask)
    wide = _narrowed(graph, ask.mbit)
    quickest = _quickest(wide, ask.source, ask.target)
    if quickest is None or not _within(quickest, ask):
        return _refused(graph, quickest, ask)
    match ask.latency:
        case Latency.CRITICAL:
            return _route(_widest(wide, ask, quickest), ask)
        case Latency.STANDARD:
            return _route(quickest, ask)
        case Latency.BULK:
            slow = _quickest(wide, ask.source, ask.target, _BULK)
            return _route(slow if slow is not None and _within(slow, ask) else quickest, ask)


def oversubscribed(links: Iterable[Link], routes: Iterable[Route]) -> tuple[str, ...]:
    """Links that cannot keep what was promised: a check, and what to move after a link shrinks."""
    known = tuple(links)
    free = free_mbit(known, routes)
    return tuple(it.link_id for it in known if free[it.link_id] < 0)


def broken(links: Iterable[Link], routes: Mapping[str, Route]) -> tuple[str, ...]:
    """The leases whose path has a link that is down or gone."""
    up = {link.link_id for link in links if link.up}
    return tuple(
        sorted(lease for lease, route in routes.items() if not up.issuperset(route.link_ids))
    )


def _graph(links: Iterable[Link], free: Mapping[str, int], ask: Ask) -> _Graph:
    graph: dict[str, list[_Edge]] = {}
    for link in sorted(links, key=lambda it: it.link_id):
        if link.up and (not ask.kinds or link.kind in ask.kinds):
            graph.setdefault(link.a, []).append(_Edge(link, link.b, free[link.link_id]))
            graph.setdefault(link.b, []).append(_Edge(link, link.a, free[link.link_id]))
    return graph


def _narrowed(graph: _Graph, mbit: int) -> _Graph:
    """Only what has so much free."""
    return {place: [it for it in edges if it.free_mbit >= mbit] for place, edges in graph.items()}


def _quickest(
    graph: _Graph, source: str, target: str, ranks: Mapping[LinkKind, int] | None = None
) -> tuple[_Edge, ...] | None:
    """The path of least rank, then latency, then links, always the same; None = there is none."""
    heap: list[tuple[int, int, int, tuple[str, ...], str]] = [(0, 0, 0, (), source)]
    paths: dict[tuple[str, ...], tuple[_Edge, ...]] = {(): ()}
    done: set[str] = set()
    while heap:
        rank, latency_us, count, ids, place = heapq.heappop(heap)
        if place in done:
            continue
        done.add(place)
        path = paths[ids]
        if place == target:
            return path
        for edge in graph.get(place, ()):
            if edge.to not in done:
                link = edge.link
                further = (*ids, link.link_id)
                paths[further] = (*path, edge)
                step = ranks[link.kind] if ranks else 0
                cost = (rank + step, latency_us + link.latency_us, count + 1)
                heapq.heappush(heap, (*cost, further, edge.to))
    return None


def _widest(graph: _Graph, ask: Ask, known: tuple[_Edge, ...]) -> tuple[_Edge, ...]:
    """Of the paths within the bound, the one whose narrowest link has the most free.

    A path with at least so much free everywhere exists if the quickest one among such links is
    within the bound; the more is asked, the fewer there are, so halving finds the most.
    """
    best = known
    levels = sorted({edge.free_mbit for edges in graph.values() for edge in edges})
    low, high = 0, len(levels) - 1
    while low <= high:
        middle = (low + high) // 2
        path = _quickest(_narrowed(graph, levels[middle]), ask.source, ask.target)
        if path is not None and _within(path, ask):
            best, low = path, middle + 1
        else:
            high = middle - 1
    return best


def _within(path: tuple[_Edge, ...], ask: Ask) -> bool:
    return ask.bound_us is None or _path_us(path) <= ask.bound_us


def _path_us(path: tuple[_Edge, ...]) -> int:
    return sum(edge.link.latency_us for edge in path)


def _route(path: tuple[_Edge, ...], ask: Ask) -> Route:
    ids = tuple(edge.link.link_id for edge in path)
    return Route(ids, ask.latency, ask.mbit, _path_us(path))


def _refused(graph: _Graph, quickest: tuple[_Edge, ...] | None, ask: Ask) -> Refused:
    """Why nothing will do: no path at all, none so free, or none so free and quick enough."""
    between = f"between {ask.source} and {ask.target}"
    evidence = {
        "source": ask.source,
        "target": ask.target,
        "mbit": str(ask.mbit),
        "latency_us": str(ask.bound_us or 0),
    }
    if quickest is not None:
        evidence["quickest_us"] = str(_path_us(quickest))
        return Refused(
            Trouble.NETWORK_LATENCY,
            f"The quickest path {between} with {ask.mbit} Mbit/s free takes "
            f"{_path_us(quickest)} us; {ask.bound_us} us are asked.",
            "Ask for fewer Mbit/s or more latency, or for nodes nearer to each other.",
            evidence,
        )
    anywhere = _quickest(graph, ask.source, ask.target)
    if anywhere is None:
        kinds = f" over {' or '.join(sorted(ask.kinds))}" if ask.kinds else ""
        return Refused(
            Trouble.NETWORK_UNREACHABLE,
            f"No path is up {between}{kinds}.",
            "Ask for other nodes, or see to the links.",
            evidence,
        )
    most = _widest(graph, Ask(ask.source, ask.target), anywhere)
    evidence["most_free_mbit"] = str(max(0, min(edge.free_mbit for edge in most)))
    return Refused(
        Trouble.NETWORK_GUARANTEE,
        f"No path {between} has {ask.mbit} Mbit/s left to promise; the most is "
        f"{evidence['most_free_mbit']}.",
        f"Ask for {evidence['most_free_mbit']} Mbit/s, or wait until others end.",
        evidence,
    )
