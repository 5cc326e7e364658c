"""Why a task waits, or why it was placed where it was: one dominant reason, its figures, its cure.

Of the obstacles that nodes put in the way, the dominant one is the nearest to a placement: where
one node lacks the chip and another only has it busy, the task waits because the chip is busy.
"""

from __future__ import annotations

from collections.abc import Mapping

from .chips import Catalogue
from .feasible import Fit, Obstacle
from .job import Needs, Reason
from .node import Node
from .score import words

# Two obstacles may share a stable code: what there is in all, and what is free now.
_CODES = {
    Obstacle.CPU_BUSY: "NOT_ENOUGH_CPU",
    Obstacle.MEMORY_BUSY: "NOT_ENOUGH_MEMORY",
    Obstacle.DISK_BUSY: "NOT_ENOUGH_DISK",
}
EMULATED = "on an emulated node: nothing really runs"


def code_of(obstacle: Obstacle) -> str:
    """The stable code of an obstacle."""
    return _CODES.get(obstacle, obstacle.name)


def ruled_out(obstacles: Mapping[str, Obstacle]) -> dict[str, int]:
    """How many nodes each code rules out."""
    counts: dict[str, int] = {}
    for obstacle in obstacles.values():
        counts[code_of(obstacle)] = counts.get(code_of(obstacle), 0) + 1
    return counts


def waiting(needs: Needs, nodes: tuple[Node, ...], obstacles: Mapping[str, Obstacle]) -> Reason:
    """The dominant reason for which a task that fits nowhere waits."""
    if not nodes:
        return Reason(
            "NO_NODES",
            "No node has joined yet.",
            "Add a node: `gridlease nodes add` prints the line to run on it.",
            {"nodes": "0"},
        )
    nearest = max(obstacles.values(), key=lambda x: x.value)
    near = tuple(node for node in nodes if obstacles[node.node_id] is nearest)
    message, hint = _words(nearest, needs, near)
    evidence = {"nodes": str(len(nodes)), "nodes_nearest": str(len(near))}
    evidence |= _figures(nearest, needs, near)
    return Reason(code_of(nearest), message, hint, evidence)


def placed(needs: Needs, fit: Fit, catalogue: Catalogue, nodes: int, ways: int) -> Reason:
    """Why the task went where it went."""
    node, allocation = fit.node, fit.allocation
    chip = catalogue.find(allocation.chip)
    what = f"{len(allocation.device_ids)} x {allocation.chip}"
    if not allocation.device_ids:
        what = f"{allocation.cpu_milli / 1_000:g} cores of {allocation.chip}"
    message = (
        f"{what} on {node.node_id}: {words(needs.purpose)} for {needs.purpose.lower()} among "
        f"{ways} way(s) on {nodes} node(s), then the tightest fit"
    )
    if node.emulated:
        message += f"; {EMULATED}"
    evidence = {
        "node": node.node_id,
        "chip": allocation.chip,
        "purpose": needs.purpose.value,
        "nodes": str(nodes),
        "ways": str(ways),
        "cpu_milli_left": str(node.free_cpu_milli - allocation.cpu_milli),
        "emulated": str(node.emulated).lower(),
    }
    if chip is not None:
        evidence |= {
            "relative_cost": str(chip.cost),
            "relative_throughput": str(chip.throughput),
            "peak_watts": str(chip.peak_watts),
        }
    return Reason("PLACED", message + ".", "", evidence)


def _wanted(needs: Needs) -> str:
    """The chips asked for, in words."""
    need = needs.accelerator
    if need is None:
        return "CPU"
    name = " or ".join(need.chips) or f"{need.vendor or 'any'} accelerator"
    if need.memory_min_bytes:
        name += f" with {need.memory_min_bytes // 2**30} GiB or more"
    return f"{need.count} x {name}" if need.count > 1 else name


_WORDS = {
    Obstacle.NO_SUCH_CHIP: (
        "No node has {wanted}.",
        "Ask for a chip that `gridlease offers` lists, or add a node that has it.",
    ),
    Obstacle.EMULATED_ONLY: (
        "Only emulated nodes would do, where nothing really runs.",
        "Add a real node, or set the variable GRIDLEASE_ALLOW_EMULATED=1 in the job's env.",
    ),
    Obstacle.TOO_FEW_DEVICES: (
        "No single node has {wanted}.",
        "Ask for fewer devices on one node, or add a node that has as many.",
    ),
    Obstacle.RUNTIME_MISSING: (
        "No suitable node has the environment {runtime}.",
        "Prepare it on a node, or leave `runtime` out to use the host's own programs.",
    ),
    Obstacle.NODES_CORDONED: (
        "The nodes that would do take no new work, by an operator's word.",
        "Ask the operator to uncordon one of them.",
    ),
    Obstacle.NODES_DISCONNECTED: (
        "The nodes that would do have not been heard lately.",
        "It is placed when one of them comes back; check its agent and its network.",
    ),
    Obstacle.DEVICE_DIRTY: (
        "The free devices for {wanted} are being cleaned after their last use.",
        "It is placed when they are clean; if this lasts, look at the node's agent.",
    ),
    Obstacle.CHIP_BUSY: (
        "All {wanted} are held by other jobs.",
        "It is placed when one ends; name further chips, or raise its priority.",
    ),
}


def _words(obstacle: Obstacle, needs: Needs, near: tuple[Node, ...]) -> tuple[str, str]:
    """Message and hint."""
    if obstacle not in _WORDS:
        return _counted_words(obstacle, near)
    message, hint = _WORDS[obstacle]
    return message.format(wanted=_wanted(needs), runtime=needs.runtime), hint


def _counted_words(obstacle: Obstacle, near: tuple[Node, ...]) -> tuple[str, str]:
    """Words for what is counted: CPU, memory, disk."""
    what = code_of(obstacle).removeprefix("NOT_ENOUGH_")
    name = "CPU" if what == "CPU" else what.lower()
    if obstacle in _CODES:
        return (
            f"The nodes that would do have too little {name} free now.",
            f"It is placed when other jobs end; or ask for less {name}.",
        )
    return (
        f"No suitable node has that much {name} in all ({len(near)} looked at).",
        f"Ask for less {name}, or add a larger node.",
    )


def _figures(obstacle: Obstacle, needs: Needs, near: tuple[Node, ...]) -> dict[str, str]:
    """The numbers behind an obstacle: what was asked for, the most that there is, the most free."""
    match code_of(obstacle):
        case "NOT_ENOUGH_CPU":
            asked, totals, frees = (
                needs.cpu_milli,
                [n.cpu_milli for n in near],
                [n.free_cpu_milli for n in near],
            )
            unit = "cpu_milli"
        case "NOT_ENOUGH_MEMORY":
            asked, totals, frees = (
                needs.memory_bytes,
                [n.memory_bytes for n in near],
                [n.free_memory_bytes for n in near],
            )
            unit = "memory_bytes"
        case "NOT_ENOUGH_DISK":
            asked, totals, frees = (
                needs.disk_bytes,
                [n.disk_bytes for n in near],
                [n.free_disk_bytes for n in near],
            )
            unit = "disk_bytes"
        case _:
            if needs.accelerator is None:
                return {}
            return {
                "asked_devices": str(needs.accelerator.count),
                "chips": ",".join(needs.accelerator.chips),
            }
    return {
        f"asked_{unit}": str(asked),
        f"most_{unit}": str(max(totals)),
        f"most_free_{unit}": str(max(frees)),
    }
