"""What decides in a replay: the production planner, or a plain queue to compare it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.fair import level, order
from gridlease_scheduler.domain.feasible import fits
from gridlease_scheduler.domain.index import Index
from gridlease_scheduler.domain.job import Allocation, Reason
from gridlease_scheduler.domain.node import Node, with_held
from gridlease_scheduler.domain.plan import Placed, Planner, Waiting
from gridlease_scheduler.domain.preempt import RULES, Coming, Eviction, Spared, choose
from gridlease_scheduler.domain.snapshot import Pending, Running, Snapshot

Member: TypeAlias = tuple[str, Allocation]  # the node's id, and what is held of it
_ASKERS = 8  # jobs for which room may be made in one decision


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

    def released(self, job: str, node_id: str, held: Allocation) -> None:
        """A lease of a job has ended."""


class Production:
    """The scheduler's own decisions, on an index that it keeps as its leader does.

    The queue's order is ``fair.order``, places are ``Planner.decide``, and for jobs of a higher
    class or priority than some that run, ``preempt.choose`` says who gives way.
    """

    def __init__(self, nodes: tuple[Node, ...], catalogue: Catalogue) -> None:
        self._planner = Planner(Index(nodes, catalogue))
        self._catalogue = catalogue
        self._levels: Counter[int] = Counter()  # of running jobs
        self._level_of: dict[str, int] = {}

    def arrived(self, task: Pending) -> None:
        self._planner.arrive(task)

    def decide(self, snapshot: Snapshot, leases: Leases) -> Verdict:
        self._planner.set_prices({(x.chip, x.tier): x.price_nano_per_hour for x in snapshot.offers})
        placed: dict[str, tuple[Member, ...]] = {}
        waiting: list[Waiting] = []
        for task in self._order(snapshot, leases):
            decision = self._planner.decide(task, snapshot.now_ms)
            match decision:
                case Placed():
                    placed[task.job] = tuple((x.node_id, x.allocation) for x in decision.members)
                    self._level_of[task.job] = rank = _level(task)
                    self._levels[rank] += 1
                case Waiting():
                    waiting.append(decision)
        reasons = {each.task.job: each.reason for each in waiting}
        outranking = [x.task for x in waiting if self._outranks(x.task)][:_ASKERS]
        if not outranking:
            return Verdict(placed, reasons)
        return self._make_room(outranking, snapshot, leases(worked=True), Verdict(placed, reasons))

    def released(self, job: str, node_id: str, held: Allocation) -> None:
        self._planner.index.release(node_id, held)
        rank = self._level_of.pop(job, None)
        if rank is not None:
            self._levels[rank] -= 1
            if not self._levels[rank]:
                del self._levels[rank]

    def _order(self, snapshot: Snapshot, leases: Leases) -> Iterable[Pending]:
        """Whose turn it is; who runs matters only between tenants of one level."""
        kinds = {(x.tenant, _level(x)) for x in snapshot.pending}
        if len(kinds) < 2:
            return sorted(snapshot.pending, key=lambda x: x.number)
        return order(
            snapshot.pending,
            leases(worked=False),
            snapshot.shares,
            self._catalogue,
            snapshot.now_ms,
        )

    def _outranks(self, task: Pending) -> bool:
        return min(self._levels, default=_level(task)) < _level(task)

    def _make_room(
        self,
        asking: Iterable[Pending],
        snapshot: Snapshot,
        running: tuple[Running, ...],
        verdict: Verdict,
    ) -> Verdict:
        """Who gives way to those that found no place."""
        evicted: dict[str, None] = {}
        taken: set[str] = set()
        reasons = dict(verdict.reasons)
        again_ms = 0
        nodes = self._planner.index.views()
        for task in asking:
            left = tuple(x for x in running if x.job not in evicted)
            answer = choose(task, nodes, left, self._catalogue, taken=taken)
            match answer:
                case Eviction():
                    evicted |= dict.fromkeys(victim.job for victim in answer.victims)
                    reasons[task.job] = answer.reason
                    taken |= {name for name, _ in answer.places}
                case Coming():
                    taken |= {name for name, _ in answer.places}
                case Spared():
                    soon_ms = _ripens(task, left, snapshot.now_ms)
                    again_ms = min(again_ms or soon_ms, soon_ms or again_ms)
        return Verdict(verdict.placed, reasons, tuple(evicted), again_ms)


def _level(task: Pending) -> int:
    return level(task.needs.tier, task.priority)


def _ripens(task: Pending, running: Iterable[Running], now_ms: int) -> int:
    """When the next lease that ranks below a job has had its minimum runtime; 0 = none will."""
    mine = _level(task)
    instants = (
        lease.started_ms + RULES.min_runtime_ms
        for lease in running
        if level(lease.tier, lease.priority) < mine and not lease.closing
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

    def released(self, _job: str, node_id: str, held: Allocation) -> None:
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
