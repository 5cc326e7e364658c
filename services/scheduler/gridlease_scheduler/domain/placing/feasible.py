"""May a task run on a node, and if not, what is the nearest thing that stands in its way?

The checks run from what changes least (the chip is there at all) to what changes most (something
is free right now), so the last check that a node fails tells how near it came.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace

from gridlease_scheduler.domain.chips import AcceleratorNeed, Catalogue, meets
from gridlease_scheduler.domain.job import Allocation, Needs, Tenancy
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.software.suitable import suits


class Obstacle(enum.Enum):
    """Why a node is ruled out; later members are nearer to a placement."""

    NO_SUCH_CHIP = 1
    EMULATED_ONLY = 2
    TOO_FEW_DEVICES = 3
    NOT_ENOUGH_CPU = 4
    NOT_ENOUGH_MEMORY = 5
    NOT_ENOUGH_DISK = 6
    SOFTWARE_UNFIT = 7
    RUNTIME_MISSING = 8
    NODES_CORDONED = 9
    NODES_DISCONNECTED = 10
    DEVICE_AILING = 11
    DEVICE_DIRTY = 12
    CHIP_BUSY = 13
    CPU_BUSY = 14
    MEMORY_BUSY = 15
    DISK_BUSY = 16
    NETWORK_BUSY = 17
    HOST_BUSY = 18


@dataclass(frozen=True, slots=True)
class Fit:
    """A way in which the task may run on the node."""

    node: Node
    allocation: Allocation


def wanted(needs: Needs) -> tuple[AcceleratorNeed | None, ...]:
    """The accelerator asked for and those that would do as well; (None,) = CPUs alone."""
    if needs.accelerator is None:
        return (None,)
    return (needs.accelerator, *needs.alternatives)


def may_be_emulated(needs: Needs, real: Collection[str], catalogue: Catalogue) -> bool:
    """May the task go where nothing really runs? Only if it says so, or if it names a chip that no
    real node has.

    Args:
        real: Chips that real nodes have.
    """
    if needs.allow_emulated:
        return True
    if needs.accelerator is None or not needs.accelerator.chips:
        return False
    return not any(chip.name in real for chip in catalogue.matching(needs.accelerator))


def amounts(needs: Needs, node: Node) -> tuple[int, int, int]:
    """What one member holds of a node: thousandths of a core, memory and disk in bytes.

    A task that shares no core with another tenant holds whole ones, with all their threads. One
    that shares the host with nobody holds all of it, and so finds only empty hosts, and leaves
    nothing for others: what it holds is what it pays for.
    """
    match needs.tenancy:
        case Tenancy.SHARED:
            return needs.cpu_milli, needs.memory_bytes, needs.disk_bytes
        case Tenancy.EXCLUSIVE_DEVICE:
            core = 1_000 * node.threads_per_core
            return -(-needs.cpu_milli // core) * core, needs.memory_bytes, needs.disk_bytes
        case Tenancy.EXCLUSIVE_HOST:
            return (
                max(needs.cpu_milli, node.cpu_milli),
                max(needs.memory_bytes, node.memory_bytes),
                max(needs.disk_bytes, node.disk_bytes),
            )


def chips_of(need: AcceleratorNeed | None, node: Node, catalogue: Catalogue) -> tuple[str, ...]:
    """The node's chips that a request means, each once."""
    if need is None:
        return (node.cpu_chip,)
    kinds = {(x.chip, x.vendor, x.memory_bytes) for x in node.devices}
    chips = {
        chip
        for chip, vendor, memory_bytes in kinds
        if meets(need, chip, catalogue.family_of(chip), vendor, memory_bytes)
    }
    return tuple(sorted(chips))


def barred(needs: Needs, node: Node) -> Obstacle | None:
    """What stands in the way however much is free, now or ever."""
    checks = (
        (bool(needs.runtime) and needs.runtime not in node.runtimes, Obstacle.RUNTIME_MISSING),
        (node.cordoned, Obstacle.NODES_CORDONED),
        (not node.connected, Obstacle.NODES_DISCONNECTED),
    )
    return next((obstacle for fails, obstacle in checks if fails), None)


def fits(
    needs: Needs, node: Node, catalogue: Catalogue, *, emulated_ok: bool
) -> tuple[Fit, ...] | Obstacle:
    """Every way to run the task on the node (one for each chip), or the nearest obstacle.

    Args:
        emulated_ok: The task may run where nothing really runs.
    """
    found: list[Fit] = []
    nearest = Obstacle.NO_SUCH_CHIP
    for need in wanted(needs):
        answer = _fits(needs, need, node, catalogue, emulated_ok=emulated_ok)
        if isinstance(answer, Obstacle):
            nearest = max(nearest, answer, key=lambda x: x.value)
        else:
            found.extend(answer)
    return tuple(found) or nearest


def _fits(
    needs: Needs,
    need: AcceleratorNeed | None,
    node: Node,
    catalogue: Catalogue,
    *,
    emulated_ok: bool,
) -> tuple[Fit, ...] | Obstacle:
    chips = chips_of(need, node, catalogue)
    obstacle = _standing(needs, need, node, chips, emulated_ok=emulated_ok)
    if obstacle is not None:
        return Obstacle.DEVICE_AILING if _ails(obstacle, need, node, catalogue) else obstacle
    chips = tuple(chip for chip in chips if suits(needs, node, chip, catalogue))
    if not chips:
        return Obstacle.SOFTWARE_UNFIT
    obstacle = _counted(needs, node)
    if need is None:
        cpu_milli = amounts(needs, node)[0]
        return obstacle or (Fit(node, _allocation(needs, node, (), node.cpu_chip, cpu_milli)),)
    found: list[Fit] = []
    cleaning = False
    for chip in chips:
        free = node.free_devices(chip)
        if len(free) >= need.count:
            ids = tuple(x.device_id for x in free[: need.count])
            found.append(Fit(node, _allocation(needs, node, ids, chip, 1_000 * len(ids))))
        unheld = sum(x.chip == chip and x.device_id not in node.held for x in node.devices)
        cleaning |= unheld >= need.count
    if found:
        return obstacle or tuple(found)
    return Obstacle.DEVICE_DIRTY if cleaning else Obstacle.CHIP_BUSY


def _ails(
    obstacle: Obstacle, need: AcceleratorNeed | None, node: Node, catalogue: Catalogue
) -> bool:
    """Would there be enough of them, if those that ail were well?"""
    missing = obstacle in (Obstacle.NO_SUCH_CHIP, Obstacle.TOO_FEW_DEVICES)
    if need is None or not node.ailing or not missing:
        return False
    all_ = replace(node, devices=(*node.devices, *node.ailing))
    chips = chips_of(need, all_, catalogue)
    return any(sum(x.chip == chip for x in all_.devices) >= need.count for chip in chips)


def _standing(
    needs: Needs,
    need: AcceleratorNeed | None,
    node: Node,
    chips: tuple[str, ...],
    *,
    emulated_ok: bool,
) -> Obstacle | None:
    """What stands in the way whatever else runs on the node."""
    count = need.count if need is not None else 0
    most = max((sum(x.chip == chip for x in node.devices) for chip in chips), default=0)
    cpu_milli, memory_bytes, disk_bytes = amounts(needs, node)
    checks = (
        (not chips, Obstacle.NO_SUCH_CHIP),
        (node.emulated and not emulated_ok, Obstacle.EMULATED_ONLY),
        (count > most, Obstacle.TOO_FEW_DEVICES),
        (cpu_milli > node.cpu_milli, Obstacle.NOT_ENOUGH_CPU),
        (memory_bytes > node.memory_bytes, Obstacle.NOT_ENOUGH_MEMORY),
        (disk_bytes > node.disk_bytes, Obstacle.NOT_ENOUGH_DISK),
    )
    first = next((obstacle for fails, obstacle in checks if fails), None)
    return first or barred(needs, node)


def _counted(needs: Needs, node: Node) -> Obstacle | None:
    """What the leases of the node leave too little of right now."""
    mbps = needs.network.guaranteed_mbps
    cpu_milli, memory_bytes, disk_bytes = amounts(needs, node)
    alone = needs.tenancy is Tenancy.EXCLUSIVE_HOST
    checks = (
        (alone and cpu_milli > node.free_cpu_milli, Obstacle.HOST_BUSY),
        (cpu_milli > node.free_cpu_milli, Obstacle.CPU_BUSY),
        (memory_bytes > node.free_memory_bytes, Obstacle.MEMORY_BUSY),
        (disk_bytes > node.free_disk_bytes, Obstacle.DISK_BUSY),
        (mbps > node.link_mbps - node.reserved_mbps, Obstacle.NETWORK_BUSY),
    )
    return next((obstacle for fails, obstacle in checks if fails), None)


def _allocation(
    needs: Needs, node: Node, device_ids: tuple[str, ...], chip: str, quantity_milli: int
) -> Allocation:
    return Allocation(*amounts(needs, node), device_ids, chip, quantity_milli)
