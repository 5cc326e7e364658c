"""Moves for a job that has room in all but on no one node."""

from __future__ import annotations

from dataclasses import replace

from gridlease_scheduler.domain.chips import AcceleratorNeed, Catalogue, Chip
from gridlease_scheduler.domain.eviction.defragment import Defragmentation, defragment
from gridlease_scheduler.domain.job import Allocation, Needs, Tier
from gridlease_scheduler.domain.node import Device, Node, has_room, with_held
from gridlease_scheduler.domain.snapshot import Pending, Running
from hypothesis import given, settings
from hypothesis import strategies as st

_CHIP = Chip("T4", "nvidia", "T4", 16 * 2**30, 10, 70, 10, 10, "test")
_CATALOGUE = Catalogue((_CHIP,))
_HOUR_MS = 3_600_000


def _node(name: str, devices: int) -> Node:
    return Node(
        name, "s", "cpu", 64_000, 2**40, 2**40,
        tuple(Device(f"gpu-{i}", "T4", "nvidia", 16 * 2**30) for i in range(devices)),
    )  # fmt: skip


def _fleet(layout: list[tuple[int, list[int]]]) -> tuple[list[Node], list[Running]]:
    """Nodes of so many devices, filled by leases of such sizes as far as they fit."""
    nodes, running = [], []
    for number, (devices, leases) in enumerate(layout):
        node = _node(f"n{number}", devices)
        for size in leases:
            free = node.free_devices("T4")[:size]
            if len(free) < size:
                continue
            held = Allocation(1_000, 2**30, 2**30, tuple(x.device_id for x in free), "T4", 0)
            node = with_held(node, held)
            name = f"l{len(running)}"
            running.append(
                Running(name, f"j-{name}", 0, "t", "p", node.node_id, 0, Tier.SPOT, held, 0,
                        _HOUR_MS, _HOUR_MS - 60_000 * size)
            )  # fmt: skip
        nodes.append(node)
    return nodes, running


def _waits(count: int, tasks: int = 1) -> Pending:
    needs = Needs(1_000, 2**30, 2**30, AcceleratorNeed(("T4",), count=count))
    return Pending("big", "t", "p", 1, 0, 1, 0, 0, needs, tasks=tasks)


def _apply(found: Defragmentation, nodes: list[Node], running: list[Running]) -> dict[str, Node]:
    """Make the moves one by one; each must fit where it goes."""
    state = {node.node_id: node for node in nodes}
    leases = {lease.lease_id: lease for lease in running}
    for move in found.moves:
        held = leases[move.lease_id].allocation
        old = state[move.from_node]
        assert leases[move.lease_id].node_id == move.from_node
        state[move.from_node] = replace(
            old,
            held=old.held - set(held.device_ids),
            used_cpu_milli=old.used_cpu_milli - held.cpu_milli,
            used_memory_bytes=old.used_memory_bytes - held.memory_bytes,
            used_disk_bytes=old.used_disk_bytes - held.disk_bytes,
        )
        free = state[move.to_node].free_devices("T4")[: len(held.device_ids)]
        moved = replace(held, device_ids=tuple(x.device_id for x in free))
        assert len(free) == len(held.device_ids)
        assert has_room(state[move.to_node], moved)
        state[move.to_node] = with_held(state[move.to_node], moved)
    return state


_LAYOUT = st.lists(
    st.tuples(st.sampled_from([2, 4, 8]), st.lists(st.integers(1, 3), max_size=4)),
    min_size=2,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(_LAYOUT, st.integers(2, 8), st.integers(1, 2), st.integers(0, 4))
def test_the_moves_make_room_and_stay_within_the_budget(
    layout: list[tuple[int, list[int]]], count: int, tasks: int, budget: int
) -> None:
    nodes, running = _fleet(layout)
    task = _waits(count, tasks)
    found = defragment(task, nodes, running, _CATALOGUE, now_ms=10**12, budget=budget)
    if found is None:
        return
    assert 0 < len(found.moves) <= budget
    assert len(found.nodes) == tasks
    state = _apply(found, nodes, running)
    for node_id in found.nodes:
        free = state[node_id].free_devices("T4")[:count]
        assert len(free) == count
        held = Allocation(1_000, 2**30, 2**30, tuple(x.device_id for x in free), "T4", 0)
        state[node_id] = with_held(state[node_id], held)


def test_one_small_job_is_moved_for_a_large_one() -> None:
    nodes, running = _fleet([(4, [1]), (4, [2])])
    found = defragment(_waits(4), nodes, running, _CATALOGUE, now_ms=_HOUR_MS, budget=2)
    assert found is not None
    (move,) = found.moves
    assert (move.from_node, move.to_node) == ("n0", "n1")
    assert found.nodes == ("n0",)


def test_nothing_is_moved_that_costs_more_than_the_wait() -> None:
    nodes, running = _fleet([(4, [1]), (4, [2])])
    assert defragment(_waits(4), nodes, running, _CATALOGUE, now_ms=1, budget=2) is None


def test_reserved_and_fresh_leases_stay() -> None:
    nodes, running = _fleet([(4, [1]), (4, [2])])
    reserved = [replace(x, tier=Tier.RESERVED) for x in running]
    fresh = [replace(x, worked_ms=1_000) for x in running]
    for leases in (reserved, fresh):
        assert defragment(_waits(4), nodes, leases, _CATALOGUE, now_ms=10**9, budget=2) is None
