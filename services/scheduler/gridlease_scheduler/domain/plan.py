"""The whole decision of one cycle: who is placed where, and why the others wait.

``Snapshot -> tuple[Placed | Waiting, ...]``, in the order of priority and then of age. A task that
does not fit does not hold up those after it. Within one plan nodes only fill up, so tasks with
equal needs share one answer once the first of them had to wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from . import explain
from .chips import Catalogue
from .feasible import Fit, Obstacle, fits
from .job import Allocation, Needs, Reason
from .node import Node, has_room, with_held
from .score import score
from .snapshot import Pending, Snapshot


@dataclass(frozen=True, slots=True)
class Placed:
    task: Pending
    node_id: str
    allocation: Allocation
    reason: Reason


@dataclass(frozen=True, slots=True)
class Waiting:
    task: Pending
    reason: Reason
    ruled_out: dict[str, int]


Decision: TypeAlias = Placed | Waiting

__all__ = ["Decision", "Pending", "Placed", "Snapshot", "Waiting", "decide", "plan", "still_valid"]


def plan(snapshot: Snapshot) -> tuple[Decision, ...]:
    """One decision for each waiting task."""
    nodes = {node.node_id: node for node in snapshot.nodes}
    refused: dict[Needs, tuple[Reason, dict[str, int]]] = {}
    decisions: list[Decision] = []
    for task in sorted(snapshot.pending, key=lambda x: (-x.priority, x.number)):
        if task.needs in refused:
            decisions.append(Waiting(task, *refused[task.needs]))
            continue
        decision = decide(task, nodes.values(), snapshot.catalogue)
        decisions.append(decision)
        match decision:
            case Placed(_, node_id, allocation, _):
                nodes[node_id] = with_held(nodes[node_id], allocation)
            case Waiting(_, reason, ruled_out):
                refused[task.needs] = (reason, ruled_out)
    return tuple(decisions)


def decide(task: Pending, nodes: Iterable[Node], catalogue: Catalogue) -> Decision:
    """Where one task goes, given what is free now."""
    candidates = tuple(nodes)
    emulated_ok = may_be_emulated(task.needs, candidates, catalogue)
    found: list[Fit] = []
    obstacles: dict[str, Obstacle] = {}
    for node in candidates:
        answer = fits(task.needs, node, catalogue, emulated_ok=emulated_ok)
        if isinstance(answer, Obstacle):
            obstacles[node.node_id] = answer
        else:
            found.extend(answer)
    if not found:
        reason = explain.waiting(task.needs, candidates, obstacles)
        return Waiting(task, reason, explain.ruled_out(obstacles))
    best = min(found, key=lambda fit: score(task.needs, fit, catalogue))
    reason = explain.placed(task.needs, best, catalogue, len(candidates), len(found))
    return Placed(task, best.node.node_id, best.allocation, reason)


def may_be_emulated(needs: Needs, nodes: Iterable[Node], catalogue: Catalogue) -> bool:
    """May the task go where nothing really runs? Only if it says so, or if it names a chip that no
    real node has."""
    if needs.allow_emulated:
        return True
    if needs.accelerator is None or not needs.accelerator.chips:
        return False
    real = (node for node in nodes if not node.emulated)
    wanted = {chip.name for chip in catalogue.matching(needs.accelerator)}
    return not any(device.chip in wanted for node in real for device in node.devices)


def still_valid(
    placements: Iterable[Placed], nodes: dict[str, Node], pending: dict[str, int]
) -> tuple[Placed, ...]:
    """Those placements that hold against rows just locked: the second, deciding check.

    Args:
        nodes: As they are now, by id.
        pending: Jobs that still wait, with the attempt of their next lease.
    """
    nodes = dict(nodes)
    valid: list[Placed] = []
    for placement in placements:
        node = nodes.get(placement.node_id)
        if node is None or node.cordoned or not node.connected:
            continue
        if pending.get(placement.task.job) != placement.task.attempt:
            continue
        if not has_room(node, placement.allocation):
            continue
        nodes[node.node_id] = with_held(node, placement.allocation)
        valid.append(placement)
    return tuple(valid)
