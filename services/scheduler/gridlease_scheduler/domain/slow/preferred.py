"""Which chip should each waiting training job try first? The order search (``rounds``) says.

Its order is not used: who comes first is fair sharing's word. Its choice of a chip is, for jobs
that accept several chips of one kind without an order of their own: a job with little gain from the
fastest chip leaves it to one that gains more. Throughputs are the catalogue's. It only puts one way
of a job before the others, so it never makes a job wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gridlease_scheduler.domain.job import Purpose
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.plan import Planner
from gridlease_scheduler.domain.snapshot import Pending, Running

from .rounds import Memory, RoundJob, Search, decide

_MOST = 64  # jobs that are looked at, the first in the queue
SEARCH = Search(visits=100_000)


def preferred(
    waiting: Sequence[Pending],
    running: Iterable[Running],
    nodes: Iterable[Node],
    planner: Planner,
    now_ms: int,
    memory: Memory,
) -> tuple[dict[str, str], Memory]:
    """Chip by waiting job, and what is kept for the next time."""
    speeds = {x.job: _speeds(x, planner) for x in waiting if _chooses(x)}
    jobs = [x for x in waiting if len(speeds.get(x.job, ())) > 1]
    jobs = sorted(jobs, key=lambda x: (-x.priority, x.number))[:_MOST]
    if not jobs:
        return {}, Memory()
    chips = {chip for x in jobs for chip in speeds[x.job]}
    room, soon = _room(nodes, chips), _soon(running, chips)
    free = {chip: room.get(chip, 0) + soon.get(chip, 0) for chip in sorted(chips)}
    now_s = now_ms / 1e3
    found = decide(now_s, free, [_job(x, speeds[x.job], now_ms) for x in jobs], memory, SEARCH)
    return dict(found.run), found.memory


def _chooses(task: Pending) -> bool:
    needs = task.needs
    return (
        needs.purpose is Purpose.TRAINING
        and needs.accelerator is not None
        and not needs.alternatives_ordered
        and not task.reservation
    )


def _speeds(task: Pending, planner: Planner) -> dict[str, float]:
    """Work a second of a device, by chip: those of the kind that comes first, all real or none."""
    ways = [chip for chip, _ in planner.chips(task.needs)]
    known = [(x, planner.index.catalogue.find(x)) for x in dict.fromkeys(ways)]
    chips = [(name, chip) for name, chip in known if chip is not None]
    if not chips:
        return {}
    kind, real = chips[0][1].kind, planner.index.real
    first_real = real.get(chips[0][0], 0) > 0
    return {
        name: float(chip.throughput)
        for name, chip in chips
        if chip.kind is kind and (real.get(name, 0) > 0) == first_real and chip.throughput > 0
    }


def _room(nodes: Iterable[Node], chips: set[str]) -> dict[str, int]:
    free: dict[str, int] = {}
    for node in nodes:
        if node.connected and not node.cordoned:
            for chip in {x.chip for x in node.devices} & chips:
                free[chip] = free.get(chip, 0) + len(node.free_devices(chip))
    return free


def _soon(running: Iterable[Running], chips: set[str]) -> Mapping[str, int]:
    """What is being given back."""
    found: dict[str, int] = {}
    for lease in running:
        held = lease.allocation
        if lease.closing and held.chip in chips:
            found[held.chip] = found.get(held.chip, 0) + len(held.device_ids)
    return found


def _job(task: Pending, speeds: Mapping[str, float], now_ms: int) -> RoundJob:
    assert task.needs.accelerator is not None
    scale = task.tasks * task.needs.accelerator.count
    whole = {chip: speed * scale for chip, speed in speeds.items()}
    left = task.longest_ms / 1e3 * min(whole.values()) if task.longest_ms else None
    age_s = max(0, now_ms - task.submitted_ms) / 1e3
    return RoundJob(task.job, scale, whole, age_s, 0.0, left)
