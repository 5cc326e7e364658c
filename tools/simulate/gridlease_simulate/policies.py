"""What decides in a replay: the production planner, or a plain queue to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.feasible import fits
from gridlease_scheduler.domain.index import Index
from gridlease_scheduler.domain.job import Allocation, Reason
from gridlease_scheduler.domain.node import Node, with_held
from gridlease_scheduler.domain.plan import Placed, Planner, Waiting, plan
from gridlease_scheduler.domain.snapshot import Pending, Snapshot

Member: TypeAlias = tuple[str, Allocation]  # the node's id, and what is held of it


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision about all that waits. ``evicted``: jobs that must make room first."""

    placed: Mapping[str, tuple[Member, ...]] = field(default_factory=dict)
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    evicted: tuple[str, ...] = ()


class Policy(Protocol):
    """Decides about snapshots, and may remember what it placed."""

    reads_running: bool  # are the running leases part of what it decides on?

    def arrived(self, task: Pending) -> None:
        """This job has come in."""

    def decide(self, snapshot: Snapshot) -> Verdict:
        """What to do now; what is placed is held from here on."""

    def released(self, node_id: str, held: Allocation) -> None:
        """A lease has ended."""


class Production:
    """The scheduler's own ``plan``, on an index that it keeps as its leader does."""

    reads_running = False

    def __init__(self, nodes: tuple[Node, ...], catalogue: Catalogue) -> None:
        self._planner = Planner(Index(nodes, catalogue))

    def arrived(self, task: Pending) -> None:
        self._planner.arrive(task)

    def decide(self, snapshot: Snapshot) -> Verdict:
        placed: dict[str, tuple[Member, ...]] = {}
        reasons: dict[str, Reason] = {}
        for decision in plan(snapshot, self._planner):
            job = decision.task.job
            match decision:
                case Placed():
                    placed[job] = tuple((x.node_id, x.allocation) for x in decision.members)
                case Waiting():
                    reasons[job] = decision.reason
        return Verdict(placed, reasons)

    def released(self, node_id: str, held: Allocation) -> None:
        self._planner.index.release(node_id, held)


_QUEUED = Reason("QUEUED", "The first of the queue has no room yet; all wait for it.")


class Fifo:
    """Strictly in the order of arrival, each on the first nodes with room; the head blocks all."""

    reads_running = False

    def __init__(self, nodes: tuple[Node, ...], catalogue: Catalogue) -> None:
        self._nodes = {node.node_id: node for node in nodes}
        self._catalogue = catalogue
        self._full = False  # the head has been tried since the last lease ended

    def arrived(self, task: Pending) -> None:
        """Nothing is learnt from it."""

    def decide(self, snapshot: Snapshot) -> Verdict:
        placed: dict[str, tuple[Member, ...]] = {}
        queue = sorted(snapshot.pending, key=lambda each: each.number)
        for task in [] if self._full else queue:
            members = self._first_fit(task)
            if members is None:
                self._full = True
                break
            placed[task.job] = members
        left = (each.job for each in queue if each.job not in placed)
        return Verdict(placed, dict.fromkeys(left, _QUEUED))

    def released(self, node_id: str, held: Allocation) -> None:
        node = self._nodes[node_id]
        self._nodes[node_id] = without(node, held)
        self._full = False

    def _first_fit(self, task: Pending) -> tuple[Member, ...] | None:
        """Places for all tasks of a job, held from here on; None changes nothing."""
        members: list[Member] = []
        after: dict[str, Node] = {}
        for node in self._nodes.values():
            now = node
            while len(members) < task.tasks:
                answer = fits(task.needs, now, self._catalogue, emulated_ok=False)
                if not isinstance(answer, tuple):
                    break
                members.append((now.node_id, answer[0].allocation))
                now = after[now.node_id] = with_held(now, answer[0].allocation)
            if len(members) == task.tasks:
                self._nodes |= after
                return tuple(members)
        return None


def without(node: Node, held: Allocation) -> Node:
    """The node once a lease holds this of it no more."""
    return replace(
        node,
        used_cpu_milli=node.used_cpu_milli - held.cpu_milli,
        used_memory_bytes=node.used_memory_bytes - held.memory_bytes,
        used_disk_bytes=node.used_disk_bytes - held.disk_bytes,
        held=node.held.difference(held.device_ids),
    )


MakePolicy: TypeAlias = Callable[[tuple[Node, ...], Catalogue], Policy]

POLICIES: Mapping[str, MakePolicy] = {
    "gridlease": Production,
    "fifo": Fifo,
}
