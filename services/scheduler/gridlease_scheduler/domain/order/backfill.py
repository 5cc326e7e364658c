"""When will the job at the head of the queue start, and what may start before it without harm?

Conservative EASY: a job that cannot start now gets a *shadow*: the earliest instant by which
enough must have come free, and the places it will then take. Later jobs may start at once if they
are sure to end before that instant, or if what the head needs is still there with them running.

A lease ends at the latest when its ``max_duration`` is over; one without it never does, for this
purpose. Late ends are assumed throughout (a tenth and a minute on top of what is left), both for
what the head waits for and for what would run before it, so a shadow may only turn out too late.

Source: Lifka, The ANL/IBM SP scheduling system (1995); Mu'alem and Feitelson, Utilization,
predictability, workloads and user runtime estimates (2001).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Allocation
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.placing.vacancy import Slack, Vacancies, Way, members, place, ways
from gridlease_scheduler.domain.snapshot import Pending, Running

_CLEAN_MS = 60_000  # stopping, scrubbing and reporting, with room to spare


@dataclass(frozen=True, slots=True)
class Shadow:
    """The head's promise. ``places``: how many members go to which node. ``spare``: what of these
    nodes it will not need at ``start_ms``."""

    task: Pending
    start_ms: int
    chip: str
    places: tuple[tuple[str, int], ...]
    spare: Mapping[str, Slack]


def shadow(
    task: Pending,
    nodes: Iterable[Node],
    running: Iterable[Running],
    catalogue: Catalogue,
    now_ms: int,
    taken: Collection[str] = (),
    barred: Collection[str] = (),
    vacancies: Vacancies | None = None,
) -> Shadow | None:
    """The earliest start that is certain; None = it depends on something without a known end.

    Bounded work: only nodes that could ever take a member are looked at, and only until it fits.

    Args:
        taken: Nodes promised to others.
        barred: Chips that it may not have.
        vacancies: What is remembered of nodes.
    """
    vacancies = vacancies or Vacancies()
    by_id = {x.node_id: x for x in nodes if x.node_id not in taken}
    could = ways(task.needs, by_id.values(), catalogue, barred, vacancies)
    ends = [
        (end, lease.node_id, lease.lease_id, lease.allocation)
        for lease in running
        if lease.node_id in could and (end := ends_by(lease, now_ms)) is not None
    ]
    if not ends and all(x.clean for name in could for x in by_id[name].devices):
        return None
    hall = _Hall(task, {name: by_id[name] for name in could}, could)
    for node in hall.nodes.values():
        hall.change(node.node_id, vacancies.slack(node))
    heapq.heapify(ends)
    at_ms = now_ms + _CLEAN_MS  # if it fits already, only cleaning is missing
    while (found := hall.found) is None and ends:
        at_ms, name, _, allocation = heapq.heappop(ends)
        hall.change(name, hall.free[name].plus(allocation))
    return None if found is None else hall.shadow(at_ms, *found)


def ends_by(lease: Running, now_ms: int) -> int | None:
    """When what a lease holds is free and clean, at the latest; None = nobody knows."""
    if lease.closing:
        return now_ms + lease.notice_ms + _CLEAN_MS
    if not lease.longest_ms:
        return None
    return now_ms + late(max(0, lease.longest_ms - lease.worked_ms))


def late(span_ms: int) -> int:
    """A span, with what it may take longer: starting, stopping and cleaning included."""
    return span_ms + span_ms // 10 + _CLEAN_MS


def passed(
    promise: Shadow, node_id: str, allocation: Allocation, longest_ms: int, now_ms: int
) -> Shadow:
    """The promise once a later job that was permitted has started."""
    left = promise.spare.get(node_id)
    if left is None or (longest_ms and now_ms + late(longest_ms) <= promise.start_ms):
        return promise
    return replace(promise, spare={**promise.spare, node_id: left.minus(allocation)})


class _Hall:
    """The nodes that could take members, and how many each group of them holds now."""

    def __init__(
        self, task: Pending, nodes: dict[str, Node], could: dict[str, tuple[Way, ...]]
    ) -> None:
        self.task = task
        self.nodes = nodes
        self.free: dict[str, Slack] = {}
        self.found: tuple[Way, str] | None = None
        self._could = could
        self._group = {name: place(node, task.needs.span) for name, node in nodes.items()}
        self._fit: dict[tuple[str, Way], int] = {}
        self._total: dict[tuple[str, Way], int] = {}

    def change(self, name: str, free: Slack) -> None:
        """So much is free of a node now; notes the first group that holds all members."""
        self.free[name] = free
        group = self._group[name]
        for way in self._could[name]:
            now = members(way, free)
            before = self._fit.get((name, way), 0)
            self._fit[(name, way)] = now
            total = self._total.get((group, way), 0) + now - before
            self._total[(group, way)] = total
            if total >= self.task.tasks and self.found is None:
                self.found = (way, group)

    def shadow(self, at_ms: int, way: Way, group: str) -> Shadow:
        """The promise: as few nodes as can be, in a fixed order."""
        mine = [(name, self._fit.get((name, way), 0)) for name in self.nodes]
        order = sorted(
            ((-fit, name) for name, fit in mine if fit and self._group[name] == group),
        )
        left, places = self.task.tasks, []
        for fit, name in order:
            if left:
                places.append((name, min(left, -fit)))
                left -= places[-1][1]
        spare = {name: self.free[name].less(way, count) for name, count in places}
        return Shadow(self.task, at_ms, way.chip, tuple(places), spare)
