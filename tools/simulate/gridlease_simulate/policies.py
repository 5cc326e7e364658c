"""What decides in a replay: the production planner, or a plain queue to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.eviction.preempt import RULES, Eviction
from gridlease_scheduler.domain.job import Allocation, Reason
from gridlease_scheduler.domain.node import Node, with_held
from gridlease_scheduler.domain.order.backfill import Shadow
from gridlease_scheduler.domain.order.fair import level
from gridlease_scheduler.domain.placing.feasible import fits
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.placing.vacancy import Vacancies
from gridlease_scheduler.domain.plan import Decision, Placed, Planner, Waiting, plan
from gridlease_scheduler.domain.ruling import rule
from gridlease_scheduler.domain.snapshot import Pending, Running, Site, Snapshot

Member: TypeAlias = tuple[str, Allocation]  # the node's id, and what is held of it


class Leases(Protocol):
    """Says which leases run."""

    def __call__(self, *, worked: bool) -> tuple[Running, ...]:
        """All of them; how long they have worked is only told where ``worked`` asks for it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision about all that waits.

    Attributes:
        evicted: Jobs that must make room first.
        again_ms: An instant at which to decide once more even if nothing happens; 0 = none.
    """

    placed: Mapping[str, tuple[Member, ...]] = field(default_factory=dict)
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    evicted: tuple[str, ...] = ()
    again_ms: int = 0


class Policy(Protocol):
    """Decides about snapshots, and may remember what it placed."""

    def arrived(self, task: Pending) -> None:
        """This job has come in."""

    def decide(self, snapshot: Snapshot, leases: Leases) -> Verdict:
        """What to do now; what is placed is held from here on.

        Args:
            leases: Asked only where it matters who runs, for the answer takes a while.
        """

    def released(self, node_id: str, held: Allocation) -> None:
        """A lease has ended."""


class Production:
    """The scheduler's own decisions, on an index that it keeps, as its leader makes them.

    Jobs that are in nobody's way, ``plan`` places where they fit; about the rest ``rule`` decides,
    with every policy in it: fair order, shadow starts, power caps, and who gives way to whom.
    """

    def __init__(self, nodes: tuple[Node, ...], catalogue: Catalogue) -> None:
        self._planner = Planner(Index(nodes, catalogue))
        self._vacancies = Vacancies()
        self._shadows: tuple[Shadow, ...] = ()
        self._contested: set[str] = set()  # chips for which some job waits
        self._freed = -1  # what had come free at the last ruling

    def arrived(self, task: Pending) -> None:
        self._planner.arrive(task)

    def decide(self, snapshot: Snapshot, leases: Leases) -> Verdict:
        freed = self._planner.index.freed
        plain = self._plain(snapshot)
        first = {x.task.job for x in plain}
        rest = tuple(task for task in snapshot.pending if task.job not in first)
        if not rest:
            return _verdict(plain, ())
        running = leases(worked=False)
        if _outranked(rest, running):
            running = leases(worked=True)
        ruling = rule(
            replace(snapshot, pending=rest, running=running),
            self._planner,
            promised=self._shadows if freed == self._freed else (),
            vacancies=self._vacancies,
        )
        waiting = [x.task for x in ruling.decisions if isinstance(x, Waiting)]
        self._contested = {chip for x in waiting for chip, _ in self._planner.chips(x.needs)}
        self._shadows, self._freed = ruling.shadows, self._planner.index.freed
        again_ms = _ripens(waiting, running, snapshot.now_ms)
        return _verdict((*plain, *ruling.decisions), ruling.evictions, again_ms)

    def released(self, node_id: str, held: Allocation) -> None:
        self._planner.index.release(node_id, held)

    def _plain(self, snapshot: Snapshot) -> tuple[Decision, ...]:
        """Decisions about jobs in nobody's way; none where one could run but for others."""
        if any(map(_governs, snapshot.sites)):
            return ()
        chips = self._planner.chips
        alone = tuple(
            task
            for task in snapshot.pending
            if not self._contested
            or (
                task.needs.accelerator is not None
                and self._contested.isdisjoint(chip for chip, _ in chips(task.needs))
            )
        )
        decisions = plan(replace(snapshot, pending=alone), self._planner)
        if not any(isinstance(x, Waiting) and chips(x.task.needs) for x in decisions):
            return decisions
        for each in decisions:
            if isinstance(each, Placed):
                self._planner.release(each)
        return ()


def _verdict(
    decisions: Iterable[Decision], evictions: Iterable[Eviction], again_ms: int = 0
) -> Verdict:
    """What the scheduler has decided, as a replay carries it out."""
    placed: dict[str, tuple[Member, ...]] = {}
    reasons: dict[str, Reason] = {}
    for decision in decisions:
        match decision:
            case Placed(task, members):
                placed[task.job] = tuple((x.node_id, x.allocation) for x in members)
            case Waiting(task, reason):
                reasons[task.job] = reason
    evicted = dict.fromkeys(x.job for each in evictions for x in each.victims)
    return Verdict(placed, reasons, tuple(evicted), again_ms)


def _governs(site: Site) -> bool:
    """Do the rules have a word on every job that might go there?"""
    return bool(
        site.cap_watts or site.rack_cap_watts or site.price_nano_per_kwh or site.carbon_mg_per_kwh
    )


def _outranked(tasks: Iterable[Pending], running: Iterable[Running]) -> bool:
    """Could anybody have to give way? Only then does it matter how long leases have worked."""
    highest = max(level(x.needs.tier, x.priority) for x in tasks)
    kinds = {(x.tier, x.priority) for x in running}
    return any(level(tier, priority) < highest for tier, priority in kinds)


def _ripens(tasks: list[Pending], running: Iterable[Running], now_ms: int) -> int:
    """When the next lease that ranks below some job has had its minimum runtime; 0 = none will.

    The leader looks again every second; a replay looks again when there is something to see.
    """
    highest = max((level(x.needs.tier, x.priority) for x in tasks), default=0)
    instants = (
        lease.started_ms + RULES.min_runtime_ms
        for lease in running
        if level(lease.tier, lease.priority) < highest and not lease.closing
    )
    return min((at for at in instants if at > now_ms), default=0)


_QUEUED = Reason("QUEUED", "The first of the queue has no room yet; all wait for it.")


class Fifo:
    """Strictly in the order of arrival, each on the first nodes with room; the head blocks all."""

    def __init__(self, nodes: tuple[Node, ...], catalogue: Catalogue) -> None:
        self._nodes = {node.node_id: node for node in nodes}
        self._catalogue = catalogue
        self._full = False  # the head has been tried since the last lease ended

    def arrived(self, task: Pending) -> None:
        """Nothing is learnt from it."""

    def decide(self, snapshot: Snapshot, _leases: Leases) -> Verdict:
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
