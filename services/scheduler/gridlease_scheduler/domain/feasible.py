"""May a task run on a node, and if not, what is the nearest thing that stands in its way?

The checks run from what changes least (the chip is there at all) to what changes most (something
is free right now), so the last check that a node fails tells how near it came.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .chips import Catalogue, meets
from .job import Allocation, Needs
from .node import Node


class Obstacle(enum.Enum):
    """Why a node is ruled out; later members are nearer to a placement."""

    NO_SUCH_CHIP = 1
    EMULATED_ONLY = 2
    TOO_FEW_DEVICES = 3
    NOT_ENOUGH_CPU = 4
    NOT_ENOUGH_MEMORY = 5
    NOT_ENOUGH_DISK = 6
    RUNTIME_MISSING = 7
    NODES_CORDONED = 8
    NODES_DISCONNECTED = 9
    DEVICE_DIRTY = 10
    CHIP_BUSY = 11
    CPU_BUSY = 12
    MEMORY_BUSY = 13
    DISK_BUSY = 14


@dataclass(frozen=True, slots=True)
class Fit:
    """A way in which the task may run on the node."""

    node: Node
    allocation: Allocation


def fits(
    needs: Needs, node: Node, catalogue: Catalogue, *, emulated_ok: bool
) -> tuple[Fit, ...] | Obstacle:
    """Every way to run the task on the node (one for each chip), or the nearest obstacle.

    Args:
        emulated_ok: The task may run where nothing really runs.
    """
    chips = _chips(needs, node, catalogue)
    obstacle = _standing(needs, node, chips, emulated_ok=emulated_ok)
    if obstacle is not None:
        return obstacle
    if needs.accelerator is None:
        return _counted(needs, node) or (
            Fit(node, _allocation(needs, (), node.cpu_chip, needs.cpu_milli)),
        )
    obstacle = _counted(needs, node)
    found: list[Fit] = []
    cleaning = False
    for chip in chips:
        free = node.free_devices(chip)
        if len(free) >= needs.accelerator.count:
            ids = tuple(x.device_id for x in free[: needs.accelerator.count])
            found.append(Fit(node, _allocation(needs, ids, chip, 1_000 * len(ids))))
        unheld = sum(x.chip == chip and x.device_id not in node.held for x in node.devices)
        cleaning |= unheld >= needs.accelerator.count
    if found:
        return obstacle or tuple(found)
    return Obstacle.DEVICE_DIRTY if cleaning else Obstacle.CHIP_BUSY


def _chips(needs: Needs, node: Node, catalogue: Catalogue) -> tuple[str, ...]:
    """The node's chips that the request means, each once."""
    if needs.accelerator is None:
        return (node.cpu_chip,)
    chips = {
        device.chip
        for device in node.devices
        if meets(
            needs.accelerator,
            device.chip,
            catalogue.family_of(device.chip),
            device.vendor,
            device.memory_bytes,
        )
    }
    return tuple(sorted(chips))


def _standing(
    needs: Needs, node: Node, chips: tuple[str, ...], *, emulated_ok: bool
) -> Obstacle | None:
    """What stands in the way whatever else runs on the node."""
    wanted = needs.accelerator.count if needs.accelerator is not None else 0
    most = max((sum(x.chip == chip for x in node.devices) for chip in chips), default=0)
    checks = (
        (not chips, Obstacle.NO_SUCH_CHIP),
        (node.emulated and not emulated_ok, Obstacle.EMULATED_ONLY),
        (wanted > most, Obstacle.TOO_FEW_DEVICES),
        (needs.cpu_milli > node.cpu_milli, Obstacle.NOT_ENOUGH_CPU),
        (needs.memory_bytes > node.memory_bytes, Obstacle.NOT_ENOUGH_MEMORY),
        (needs.disk_bytes > node.disk_bytes, Obstacle.NOT_ENOUGH_DISK),
        (bool(needs.runtime) and needs.runtime not in node.runtimes, Obstacle.RUNTIME_MISSING),
        (node.cordoned, Obstacle.NODES_CORDONED),
        (not node.connected, Obstacle.NODES_DISCONNECTED),
    )
    return next((obstacle for fails, obstacle in checks if fails), None)


def _counted(needs: Needs, node: Node) -> Obstacle | None:
    """What the leases of the node leave too little of right now."""
    checks = (
        (needs.cpu_milli > node.free_cpu_milli, Obstacle.CPU_BUSY),
        (needs.memory_bytes > node.free_memory_bytes, Obstacle.MEMORY_BUSY),
        (needs.disk_bytes > node.free_disk_bytes, Obstacle.DISK_BUSY),
    )
    return next((obstacle for fails, obstacle in checks if fails), None)


def _allocation(
    needs: Needs, device_ids: tuple[str, ...], chip: str, quantity_milli: int
) -> Allocation:
    return Allocation(
        needs.cpu_milli, needs.memory_bytes, needs.disk_bytes, device_ids, chip, quantity_milli
    )
