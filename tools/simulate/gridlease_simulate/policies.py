"""What decides in a replay: the production planner, or a plain queue to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from gridlease_scheduler.domain.feasible import Fit, fits
from gridlease_scheduler.domain.job import Allocation, Reason
from gridlease_scheduler.domain.node import Node, with_held
from gridlease_scheduler.domain.plan import Placed, Waiting, plan
from gridlease_scheduler.domain.snapshot import Pending, Snapshot

Member: TypeAlias = tuple[str, Allocation]  # the node's id, and what is held of it


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision about all that waits. ``evicted``: jobs that must make room first."""

    placed: Mapping[str, tuple[Member, ...]] = field(default_factory=dict)
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    evicted: tuple[str, ...] = ()


Policy: TypeAlias = Callable[[Snapshot], Verdict]


def production(snapshot: Snapshot) -> Verdict:
    """What the scheduler's own ``plan`` says; a gang goes when all of its members have a place."""
    members = tuple(
        replace(task, index=index, tasks=1)
        for task in snapshot.pending
        for index in range(task.tasks)
    )
    placed: dict[str, list[Member]] = {}
    reasons: dict[str, Reason] = {}
    for decision in plan(replace(snapshot, pending=members)):
        job = decision.task.job
        match decision:
            case Placed():
                placed.setdefault(job, []).append((decision.node_id, decision.allocation))
            case Waiting():
                reasons[job] = decision.reason
    whole = {job: tuple(found) for job, found in placed.items() if job not in reasons}
    return Verdict(whole, reasons)


def fifo(snapshot: Snapshot) -> Verdict:
    """Strictly in the order of arrival, each on the first nodes with room; the head blocks all."""
    nodes = list(snapshot.nodes)
    placed: dict[str, tuple[Member, ...]] = {}
    for task in sorted(snapshot.pending, key=lambda each: each.number):
        members = _first_fit(task, nodes, snapshot)
        if members is None:
            reason = Reason("QUEUED", "The first of the queue has no room yet; all wait for it.")
            left = (each.job for each in snapshot.pending if each.job not in placed)
            return Verdict(placed, dict.fromkeys(left, reason))
        placed[task.job] = members
    return Verdict(placed)


def _first_fit(task: Pending, nodes: list[Node], snapshot: Snapshot) -> tuple[Member, ...] | None:
    """Places for all tasks of a job, which are then held in ``nodes``; None leaves them as is."""
    members: list[Member] = []
    before: dict[int, Node] = {}
    for at, node in enumerate(nodes):
        while len(members) < task.tasks and (fit := _fit(task, nodes[at], snapshot)) is not None:
            before.setdefault(at, node)
            members.append((node.node_id, fit.allocation))
            nodes[at] = with_held(nodes[at], fit.allocation)
        if len(members) == task.tasks:
            return tuple(members)
    for at, node in before.items():
        nodes[at] = node
    return None


def _fit(task: Pending, node: Node, snapshot: Snapshot) -> Fit | None:
    answer = fits(task.needs, node, snapshot.catalogue, emulated_ok=False)
    return answer[0] if isinstance(answer, tuple) else None


POLICIES: Mapping[str, Policy] = {"gridlease": production, "fifo": fifo}
