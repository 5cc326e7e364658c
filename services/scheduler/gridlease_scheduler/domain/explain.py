"""Why a task waits, or why it was placed where it was: one dominant reason, its figures, its cure.

Of the obstacles that nodes put in the way, the dominant one is the nearest to a placement: where
one node lacks the chip and another only has it busy, the task waits because the chip is busy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .chips import Catalogue
from .job import Allocation, Needs, Reason, Span
from .node import Node
from .placing.feasible import Obstacle, chips_of, fits, may_be_emulated, wanted
from .placing.score import words
from .software.suitable import verdict
from .software.verdict import Incompatible

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


@dataclass(frozen=True, slots=True)
class Look:
    """How nodes stand to a request. ``sights``: a node, how many are like it, what rules it out
    (None: it would hold a member)."""

    sights: tuple[tuple[Node, int, Obstacle | None], ...]
    catalogue: Catalogue

    @property
    def nodes(self) -> int:
        """How many were looked at."""
        return sum(count for _, count, _ in self.sights)

    @property
    def holds(self) -> bool:
        """Would some node hold a member?"""
        return any(obstacle is None for _, _, obstacle in self.sights)


@dataclass(frozen=True, slots=True)
class Choice:
    """What placements are chosen from."""

    catalogue: Catalogue
    nodes: int
    emulated: bool


def look(
    needs: Needs,
    samples: Sequence[tuple[Node, int]],
    catalogue: Catalogue,
    real: Collection[str],
) -> Look:
    """Hold a request against nodes, each standing for so many that are like it.

    Args:
        real: Chips that real nodes have.
    """
    emulated_ok = may_be_emulated(needs, real, catalogue)
    sights: list[tuple[Node, int, Obstacle | None]] = []
    for node, count in samples:
        answer = fits(needs, node, catalogue, emulated_ok=emulated_ok)
        sights.append((node, count, answer if isinstance(answer, Obstacle) else None))
    return Look(tuple(sights), catalogue)


def ruled_out(found: Look) -> dict[str, int]:
    """How many nodes each code rules out."""
    counts: dict[str, int] = {}
    for _, count, obstacle in found.sights:
        if obstacle is not None:
            code = code_of(obstacle)
            counts[code] = counts.get(code, 0) + count
    return counts


def waiting(needs: Needs, found: Look) -> Reason:
    """The dominant reason for which a task that fits nowhere waits."""
    obstacles = [obstacle for _, _, obstacle in found.sights if obstacle is not None]
    if not obstacles:
        return Reason(
            "NO_NODES",
            "No node has joined yet.",
            "Add a node: `gridlease nodes add` prints the line to run on it.",
            {"nodes": "0"},
        )
    nearest = max(obstacles, key=lambda x: x.value)
    near = tuple(node for node, _, obstacle in found.sights if obstacle is nearest)
    count = sum(count for _, count, obstacle in found.sights if obstacle is nearest)
    evidence = {"nodes": str(found.nodes), "nodes_nearest": str(count)}
    if nearest is Obstacle.SOFTWARE_UNFIT:
        return _unfit(needs, near[0], found.catalogue, evidence)
    message, hint = _words(nearest, needs, near)
    evidence |= _figures(nearest, needs, near)
    return Reason(code_of(nearest), message, hint, evidence)


def _unfit(needs: Needs, node: Node, catalogue: Catalogue, evidence: dict[str, str]) -> Reason:
    """Why no node's driver can run the job's programs; the words are those of the first node."""
    for need in wanted(needs):
        for chip in chips_of(need, node, catalogue):
            found = verdict(needs, node, chip, catalogue)
            if isinstance(found, Incompatible):
                facts = evidence | found.evidence | {"node": node.node_id}
                return Reason(found.code, found.message, found.remedy, facts)
    raise AssertionError(node)


_NEAR = {
    Span.ANY: "",
    Span.HOST: " on any one node",
    Span.RAIL: " on any one rail",
    Span.RACK: " in any one rack",
    Span.SITE: " at any one site",
}


def too_few(needs: Needs, tasks: int, room: int) -> Reason:
    """Why a gang waits where single members of it would fit."""
    wider = "" if needs.span is Span.ANY else ", or let it span more than one " + needs.span.lower()
    return Reason(
        "GANG_DOES_NOT_FIT",
        f"There is room for {room} of its {tasks} tasks{_NEAR[needs.span]} now; "
        "they start together or not at all.",
        f"It is placed when other jobs end; or ask for fewer tasks{wider}.",
        {"tasks": str(tasks), "room": str(room), "span": needs.span.value},
    )


def placed(needs: Needs, held: Sequence[tuple[str, Allocation]], choice: Choice) -> Reason:
    """Why a job went where it went. ``held``: its members' nodes and allocations."""
    node_id, allocation = held[0]
    what = f"{len(allocation.device_ids)} x {allocation.chip}"
    if not allocation.device_ids:
        what = f"{allocation.cpu_milli / 1_000:g} cores of {allocation.chip}"
    where = node_id
    if len(held) > 1:
        names = sorted({node for node, _ in held})
        what = f"{len(held)} tasks with {what} each"
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        where = ", ".join(names[:3]) + more
    message = (
        f"{what} on {where}: {words(needs.purpose)} for {needs.purpose.lower()} among "
        f"{choice.nodes} node(s), then the place that strands the least"
    )
    if choice.emulated:
        message += f"; {EMULATED}"
    evidence = {
        "node": node_id,
        "chip": allocation.chip,
        "purpose": needs.purpose.value,
        "nodes": str(choice.nodes),
        "emulated": str(choice.emulated).lower(),
    }
    if len(held) > 1:
        evidence |= {"tasks": str(len(held)), "hosts": str(len({node for node, _ in held}))}
    chip = choice.catalogue.find(allocation.chip)
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
    Obstacle.DEVICE_AILING: (
        "The devices for {wanted} are out of stock: they could not be wiped, or are not well.",
        "It is placed when they are in order again; their node's entry says what ails them.",
    ),
    Obstacle.DEVICE_DIRTY: (
        "The free devices for {wanted} are being cleaned after their last use.",
        "It is placed when they are clean; if this lasts, look at the node's agent.",
    ),
    Obstacle.NETWORK_BUSY: (
        "The nodes that would do have too little of their network left to promise.",
        "It is placed when other jobs end; or ask for less guaranteed bandwidth.",
    ),
    Obstacle.HOST_BUSY: (
        "No host that would do is empty, and the job shares its host with nobody.",
        "It is placed when one is; or ask for less: tenancy: exclusive-device.",
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
