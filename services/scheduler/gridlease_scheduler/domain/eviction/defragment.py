"""Which few jobs, moved elsewhere, would let a job in that has room in all but on no one node?

The slow path proposes; a move is an eviction with notice whose job is placed again at once, so it
costs the work since the last checkpoint. It is proposed only where that loss is smaller than what
the waiting job has already lost by waiting, and never more than the move budget allows.

Whole devices of one chip are moved for one member of a gang at a time. The nodes looked at are
bounded: those that miss the fewest devices first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.node import Node, has_room, with_held
from gridlease_scheduler.domain.placing.feasible import amounts
from gridlease_scheduler.domain.snapshot import Pending, Running

_NODES = 32  # looked at for each member
_MIN_RUN_MS = 300_000  # a job is left alone for so long after a start


@dataclass(frozen=True, slots=True)
class Move:
    """A lease to end with notice, and a node that would take its job now."""

    lease_id: str
    job: str
    from_node: str
    to_node: str
    lost_ms: int  # work since the newest checkpoint, times the devices held


@dataclass(frozen=True, slots=True)
class Defragmentation:
    """All moves that let ``job`` in on ``nodes``, one for each of its members."""

    job: str
    nodes: tuple[str, ...]
    moves: tuple[Move, ...]


def defragment(
    task: Pending,
    nodes: Sequence[Node],
    running: Sequence[Running],
    catalogue: Catalogue,
    *,
    now_ms: int,
    budget: int,
) -> Defragmentation | None:
    """The cheapest moves found, or None: nothing within the budget helps, or it is not worth it.

    Args:
        task: Waits though as many devices as it asks for are free.
        budget: How many moves may be made at most.
    """
    accelerator = task.needs.accelerator
    if accelerator is None or budget <= 0:
        return None
    waited_ms = max(0, now_ms - task.submitted_ms) * accelerator.count * task.tasks
    best: Defragmentation | None = None
    for chip in catalogue.matching(accelerator):
        found = _for_chip(task, chip.name, accelerator.count, nodes, running, budget)
        if found is not None and _loss(found) <= waited_ms and (best is None or _less(found, best)):
            best = found
    return best


def _loss(found: Defragmentation) -> int:
    return sum(move.lost_ms for move in found.moves)


def _less(one: Defragmentation, other: Defragmentation) -> bool:
    return (_loss(one), len(one.moves)) < (_loss(other), len(other.moves))


def _for_chip(
    task: Pending,
    chip: str,
    count: int,
    nodes: Sequence[Node],
    running: Sequence[Running],
    budget: int,
) -> Defragmentation | None:
    """Members one after another, each on the node where it costs least."""
    state = {node.node_id: node for node in nodes if node.connected and not node.cordoned}
    if sum(len(node.free_devices(chip)) for node in state.values()) < count * task.tasks:
        return None
    movable = _movable(running, chip)
    chosen: list[str] = []
    moves: list[Move] = []
    for _ in range(task.tasks):
        made = _for_member(task, chip, count, state, movable, chosen, budget - len(moves))
        if made is None:
            return None
        node_id, mine = made
        for move in mine:
            lease = next(x for x in movable[move.from_node] if x.lease_id == move.lease_id)
            state[move.from_node] = _without(state[move.from_node], lease)
            state[move.to_node] = _with(state[move.to_node], lease)
            movable[move.from_node].remove(lease)
        state[node_id] = _with_member(state[node_id], task, chip, count)
        chosen.append(node_id)
        moves += mine
    return Defragmentation(task.job, tuple(chosen), tuple(moves)) if moves else None


def _movable(running: Iterable[Running], chip: str) -> dict[str, list[Running]]:
    """Leases that may be moved, by node: alone in their job, not reserved, not just started."""
    found: dict[str, list[Running]] = {}
    for lease in running:
        alone = lease.tasks_min == 1 and lease.index == 0
        settled = lease.worked_ms >= _MIN_RUN_MS
        free_to_go = not lease.closing and lease.tier is not Tier.RESERVED
        if alone and settled and free_to_go and lease.allocation.chip == chip:
            found.setdefault(lease.node_id, []).append(lease)
    for leases in found.values():
        leases.sort(key=lambda x: (_lost_ms(x), x.lease_id))
    return found


def _lost_ms(lease: Running) -> int:
    return max(0, lease.worked_ms - lease.saved_ms) * max(1, len(lease.allocation.device_ids))


def _for_member(
    task: Pending,
    chip: str,
    count: int,
    state: dict[str, Node],
    movable: dict[str, list[Running]],
    chosen: Sequence[str],
    budget: int,
) -> tuple[str, list[Move]] | None:
    """The node where one member fits after the cheapest moves."""
    missing = {
        node_id: count - len(node.free_devices(chip))
        for node_id, node in state.items()
        if any(device.chip == chip for device in node.devices)
    }
    near = sorted(missing, key=lambda x: (max(0, missing[x]), x))[:_NODES]
    best: tuple[int, str, list[Move]] | None = None
    for node_id in near:
        moves = _empty(task, chip, count, node_id, state, movable.get(node_id, []), chosen)
        if moves is None or len(moves) > budget:
            continue
        loss = sum(move.lost_ms for move in moves)
        if best is None or (loss, node_id) < best[:2]:
            best = (loss, node_id, moves)
    return None if best is None else best[1:]


def _empty(
    task: Pending,
    chip: str,
    count: int,
    node_id: str,
    state: dict[str, Node],
    leases: Sequence[Running],
    chosen: Sequence[str],
) -> list[Move] | None:
    """Move leases off the node, the cheapest first, until the member fits."""
    node, others = state[node_id], dict(state)
    del others[node_id]
    moves: list[tuple[Running, Move]] = []
    for lease in leases:
        if _fits_member(node, task, chip, count):
            break
        to_node = _elsewhere(lease, others, chosen)
        if to_node is not None:
            node = _without(node, lease)
            others[to_node] = _with(others[to_node], lease)
            move = Move(lease.lease_id, lease.job, node_id, to_node, _lost_ms(lease))
            moves.append((lease, move))
    if not _fits_member(node, task, chip, count):
        return None
    for lease, move in reversed(moves):  # a later, larger one may have made it needless
        stays = _with(node, lease)
        if _fits_member(stays, task, chip, count):
            node = stays
            moves.remove((lease, move))
    return [move for _, move in moves]


def _fits_member(node: Node, task: Pending, chip: str, count: int) -> bool:
    cpu_milli, memory_bytes, disk_bytes = amounts(task.needs, node)
    return (
        len(node.free_devices(chip)) >= count
        and node.free_cpu_milli >= cpu_milli
        and node.free_memory_bytes >= memory_bytes
        and node.free_disk_bytes >= disk_bytes
    )


def _elsewhere(lease: Running, others: dict[str, Node], chosen: Sequence[str]) -> str | None:
    """The tightest other node with room for the lease as it is; not one that is being filled."""
    held = lease.allocation
    fitting = [
        (len(node.free_devices(held.chip)), node_id)
        for node_id, node in others.items()
        if node_id not in chosen
        and len(node.free_devices(held.chip)) >= len(held.device_ids)
        and has_room(node, replace(held, device_ids=()))
    ]
    return min(fitting)[1] if fitting else None


def _without(node: Node, lease: Running) -> Node:
    held = lease.allocation
    return replace(
        node,
        used_cpu_milli=node.used_cpu_milli - held.cpu_milli,
        used_memory_bytes=node.used_memory_bytes - held.memory_bytes,
        used_disk_bytes=node.used_disk_bytes - held.disk_bytes,
        held=node.held - set(held.device_ids),
    )


def _with(node: Node, lease: Running) -> Node:
    """The node once it has taken the lease on devices of its own."""
    held = lease.allocation
    free = node.free_devices(held.chip)[: len(held.device_ids)]
    return with_held(node, replace(held, device_ids=tuple(x.device_id for x in free)))


def _with_member(node: Node, task: Pending, chip: str, count: int) -> Node:
    free = node.free_devices(chip)[:count]
    cpu_milli, memory_bytes, disk_bytes = amounts(task.needs, node)
    return replace(
        node,
        used_cpu_milli=node.used_cpu_milli + cpu_milli,
        used_memory_bytes=node.used_memory_bytes + memory_bytes,
        used_disk_bytes=node.used_disk_bytes + disk_bytes,
        held=node.held | {x.device_id for x in free},
    )
