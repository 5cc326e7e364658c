"""For whom should jobs be moved, and are the moves safe? (``defragment`` says which moves.)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.ends import DEFRAGMENTED
from gridlease_scheduler.domain.job import Reason, Span
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.plan import Placed, Planner
from gridlease_scheduler.domain.snapshot import Pending, Running
from gridlease_scheduler.domain.software.suitable import suits

from .defragment import Defragmentation, Move, defragment

HOUR_MS = 3_600_000
_LOOKED_AT = 32
_NEAR = 32  # nodes to empty, and nodes to move to, that are looked at for each chip


@dataclass(frozen=True, slots=True)
class MovingRules:
    """``moves_per_hour``: of each chip. ``heads``: waiting jobs for which moves are looked for in a
    pass. ``waited_ms``: nobody is moved for a job that came more lately."""

    moves_per_hour: int = 12
    heads: int = 2
    waited_ms: int = 30_000


def made_room(
    waiting: Iterable[Pending],
    running: Sequence[Running],
    planner: Planner,
    made: Mapping[str, Sequence[int]],
    now_ms: int,
    rules: MovingRules,
) -> tuple[Defragmentation, ...]:
    """The moves to make now, for the first jobs that wait though enough devices are free.

    Args:
        planner: Over the fleet as it is; it is left as it was.
        made: When moves were made lately, by chip.
    """
    longest = [x for x in waiting if _may_wait_for_moves(x, now_ms, rules)]
    if not longest or not rules.moves_per_hour:
        return ()
    longest.sort(key=lambda x: (-x.priority, x.number))
    catalogue, nodes = planner.index.catalogue, planner.index.views()
    by_id = {x.node_id: x for x in nodes}
    vain: set[tuple[int, int]] = set()  # what helps nobody alike
    found: list[Defragmentation] = []
    for task in longest[:_LOOKED_AT]:
        kind = id(task.needs), task.tasks
        if len(found) >= rules.heads or kind in vain:
            continue
        decision = planner.decide(task)
        if isinstance(decision, Placed):
            planner.release(decision)
            continue
        chips = {chip for chip, _ in planner.chips(task.needs)}
        budget = min((_left(made.get(x, ()), now_ms, rules) for x in chips), default=0)
        budget -= sum(len(x.moves) for x in found)
        fit = _near(task, nodes, chips, catalogue)
        answer = defragment(task, fit, running, catalogue, now_ms=now_ms, budget=budget)
        taken = {x.job for each in found for x in each.moves}
        if (
            answer is not None
            and all(_alike(by_id[x.from_node], by_id[x.to_node]) for x in answer.moves)
            and not taken & {x.job for x in answer.moves}
            and not _touched(found) & _places(answer)
        ):
            found.append(answer)
        else:
            vain.add(kind)
    return tuple(found)


def _near(
    task: Pending, nodes: Iterable[Node], chips: set[str], catalogue: Catalogue
) -> list[Node]:
    """Nodes that lack the least, and the tightest of those that could take what is moved."""
    found: dict[str, Node] = {}
    for chip in sorted(chips):
        free = [(len(x.free_devices(chip)), x.node_id, x) for x in nodes]
        free = [x for x in free if x[0] and suits(task.needs, x[2], chip, catalogue)]
        free.sort(key=lambda x: (-x[0], x[1]))
        near = free[: max(_NEAR, 2 * task.tasks)] + free[-_NEAR:]
        found |= {node_id: node for _, node_id, node in near}
    return [found[x] for x in sorted(found)]


def _may_wait_for_moves(task: Pending, now_ms: int, rules: MovingRules) -> bool:
    since_ms = max(task.submitted_ms, task.queued_ms)
    near = task.needs.span is Span.ANY or task.tasks == 1
    return (
        task.needs.accelerator is not None
        and near
        and not task.reservation
        and now_ms - since_ms >= rules.waited_ms
    )


def _left(made: Iterable[int], now_ms: int, rules: MovingRules) -> int:
    return rules.moves_per_hour - sum(at > now_ms - HOUR_MS for at in made)


def _alike(one: Node, other: Node) -> bool:
    """May what runs on one run on the other? A lease does not tell what its job needs of a node."""
    blank = Node("", "", "", 0, 0, 0)
    keep = ("site", "cpu_chip", "drivers", "architecture", "emulated", "runtimes")
    first, second = (
        replace(blank, **{name: getattr(x, name) for name in keep}) for x in (one, other)
    )
    return first == second


def _touched(found: Iterable[Defragmentation]) -> set[str]:
    return {node for each in found for node in _places(each)}


def _places(found: Defragmentation) -> set[str]:
    return {*found.nodes, *(x.from_node for x in found.moves), *(x.to_node for x in found.moves)}


def why(move: Move, found: Defragmentation, project: str) -> Reason:
    """What a moved job is told; for whom, only where that is its own project's."""
    evidence = {"from": move.from_node, "to": move.to_node, "lost_ms": str(move.lost_ms)}
    if found.job.startswith(f"{project}/jobs/"):
        evidence["for"] = found.job
    return Reason(
        DEFRAGMENTED,
        f"It is moved off {move.from_node}, so that a larger job fits there as a whole; "
        f"{move.to_node} has room for it.",
        "It is placed again at once and goes on from its newest checkpoint.",
        evidence,
    )
