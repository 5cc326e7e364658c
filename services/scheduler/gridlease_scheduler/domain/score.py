"""Of all the ways to place a task, which is the best? Lower is better; ties go to the node's name.

Training wants the most throughput, inference the least power, batch the lowest cost. Then: the
tightest fit, so that large jobs still find whole nodes; and a task for CPUs alone stays off the
nodes whose CPUs feed accelerators. Where that leaves a choice, idle devices are stranded the least
(``fragmentation.strain``). Real nodes come before emulated ones, always.
"""

from __future__ import annotations

from .chips import Catalogue, Chip
from .feasible import Fit
from .fragmentation import Weights, strain
from .job import Needs, Purpose

_WEIGHTS = Weights()

Score = tuple[int, int, int, int, int, int, str, str]


def score(needs: Needs, fit: Fit, catalogue: Catalogue) -> Score:
    """A key to sort by; each part is an integer of one meaning, the weightiest first."""
    node, allocation = fit.node, fit.allocation
    chip = catalogue.find(allocation.chip)
    left = len(node.free_devices(allocation.chip)) - len(allocation.device_ids)
    return (
        int(node.emulated),
        preference(needs.purpose, chip),
        0 if allocation.device_ids else len(node.devices),
        left if allocation.device_ids else 0,
        _stranded_milli(fit),
        _left_permille(fit),
        allocation.chip,
        node.node_id,
    )


def preference(purpose: Purpose, chip: Chip | None) -> int:
    """How little a purpose likes a chip; a chip without an entry comes last."""
    if chip is None:
        return 1_000_000
    match purpose:
        case Purpose.TRAINING:
            return -chip.throughput
        case Purpose.INFERENCE:
            return chip.peak_watts
        case Purpose.BATCH:
            return chip.cost


def words(purpose: Purpose) -> str:
    """What was looked for, in words."""
    match purpose:
        case Purpose.TRAINING:
            return "the most throughput"
        case Purpose.INFERENCE:
            return "the least power"
        case Purpose.BATCH:
            return "the lowest cost"


def _stranded_milli(fit: Fit) -> int:
    """What the placement adds to the price of the node's idle devices, in thousandths of one."""
    node, allocation = fit.node, fit.allocation
    idle = sum(device.clean and device.device_id not in node.held for device in node.devices)
    left = idle - len(allocation.device_ids)
    cpu_left = node.free_cpu_milli - allocation.cpu_milli
    before = strain(idle, node.free_cpu_milli, 0.0, _WEIGHTS)
    return round(1_000 * (strain(left, cpu_left, 0.0, _WEIGHTS) - before))


def _left_permille(fit: Fit) -> int:
    """How much of the node's CPUs would stay free, in thousandths: the tightest fit is best."""
    capacity = max(1, fit.node.cpu_milli)
    return (fit.node.free_cpu_milli - fit.allocation.cpu_milli) * 1_000 // capacity
