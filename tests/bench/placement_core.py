"""The planner without I/O, beside a naive scan of numpy masks, on the same gangs.

A cluster of 8 kinds, racks of 32 equal nodes of 8 devices. A gang has 1 to 64 devices of one kind
out of those that it accepts, as members of up to 8 devices; members of several nodes go to one rack
where one has room, the tightest, else over several. The cluster is filled first; then each decision
is timed, and gangs end, the oldest first, so that it stays as full. A gang that fits nowhere counts
as a decision, on both sides.
"""

import collections
import random
import time
from itertools import islice

import numpy as np
from gridlease_scheduler.adapters import catalogue
from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.job import Needs, Purpose
from gridlease_scheduler.domain.node import Device, Node
from gridlease_scheduler.domain.placing.index import Index
from gridlease_scheduler.domain.plan import Placed, Planner, Snapshot, plan
from gridlease_scheduler.domain.snapshot import Pending

from . import figures

GIB = 2**30
CHIPS = (
    "A100-80GB", "A100-40GB", "H100-80GB", "H200-141GB", "L4-24GB", "L40S-48GB",
    "V100-32GB", "T4-16GB",
)  # fmt: skip
PER_NODE = 8
RACK = 32
SIZES, SHARES = (1, 2, 4, 8, 16, 32, 64), (40, 15, 15, 15, 8, 5, 2)
CPU_NODE, CPU_DEVICE = 128_000, 12_000
MEMORY_NODE, MEMORY_DEVICE = 1024 * GIB, 64 * GIB
_WARM = 32  # blocks on the full cluster that are not timed
_BLOCK = 32  # decisions between two looks at the CPU's clock
FILL = 0.8  # of the devices, before and between the decisions


def kinds():
    """The chips' entries; all of them exist."""
    book = catalogue.load()
    return book, [book.find(name) or _absent(name) for name in CHIPS]


def _absent(name):
    raise KeyError(name)


def nodes(count):
    """The cluster: rack after rack, each of one kind."""
    _, chips = kinds()
    devices = [
        tuple(Device(f"gpu-{n}", it.name, it.vendor, it.memory_bytes) for n in range(PER_NODE))
        for it in chips
    ]
    return [
        Node(
            f"n{at:06d}", "s", "cpu-x86-64", CPU_NODE, MEMORY_NODE, 4096 * GIB,
            devices[at // RACK % len(CHIPS)], rack=f"r{at // RACK:05d}",
        )
        for at in range(count)
    ]  # fmt: skip


def masks(chance):
    """Which kinds a gang accepts: each kind alone, and a few sets of several."""
    return [(chip,) for chip in CHIPS] + [
        tuple(sorted(chance.sample(CHIPS, many))) for many in (2, 2, 4)
    ]


def gangs(seed):
    """(accepted kinds, devices a member, members), without an end."""
    chance = random.Random(seed)
    accepted = masks(chance)
    while True:
        size = chance.choices(SIZES, SHARES)[0]
        yield chance.choice(accepted), min(PER_NODE, size), -(-size // PER_NODE)


def needs(accepted, devices):
    """One member's needs."""
    return Needs(
        cpu_milli=CPU_DEVICE * devices,
        memory_bytes=MEMORY_DEVICE * devices,
        disk_bytes=GIB,
        accelerator=AcceleratorNeed(accepted, count=devices),
        purpose=Purpose.TRAINING,
    )


def pending(number, need, members):
    """A gang as a job; equal needs are one object, as the store gives them."""
    return Pending(f"j{number}", "tenants/t", "projects/p", 1, 0, number, 0, 0, need, tasks=members)


def churn(place, end, count, decisions, seed):
    """Fill a cluster, then time decisions while gangs end: (decisions a second, us of each,
    how many of them were placed).

    Args:
        place: (accepted, devices, members, number) -> () -> what ``end`` takes, or None: what
            comes before the decision is not timed.
    """
    asked = enumerate(gangs(seed))
    held, devices, most = collections.deque(), 0, count * PER_NODE * FILL
    took, placed, busy_ns, full = [], 0, 0, 0
    while len(took) < decisions:
        block = [(gang, place(*gang, number)) for number, gang in islice(asked, _BLOCK)]
        found, each_us = [], []
        cpu = time.thread_time_ns()
        for _, act in block:
            at = time.perf_counter_ns()
            found.append(act())
            each_us.append((time.perf_counter_ns() - at) / 1e3)
        spent = time.thread_time_ns() - cpu
        for (gang, _), outcome in zip(block, found, strict=True):
            if outcome is not None:
                held.append((gang[1] * gang[2], outcome))
                devices += held[-1][0]
        full += devices >= most
        if full > _WARM:
            busy_ns += spent
            took += each_us
            placed += sum(outcome is not None for outcome in found)
        while devices > most:
            size, old = held.popleft()
            devices -= size
            end(old)
    return len(took) / (busy_ns / 1e9), sorted(took), placed / len(took)


def planned(cluster):
    """(place, end) of the production planner."""
    index = Index(cluster, catalogue.load())
    planner = Planner(index)
    known = {}

    def place(accepted, devices, members, number):
        need = known.get((accepted, devices))
        if need is None:
            need = known[accepted, devices] = needs(accepted, devices)
        job = pending(number, need, members)

        def act():
            decision = planner.decide(job, 1)
            return decision if isinstance(decision, Placed) else None

        return act

    def end(placed):
        for member in placed.members:
            index.release(member.node_id, member.allocation)

    return place, end


class Masks:
    """The naive scan by the same rules: arrays over all nodes, masked anew for each gang.

    Kinds in the order in which the planner likes them; on each, one node that holds all members,
    the tightest; else one rack that does, the tightest; else as few racks as can be.
    """

    def __init__(self, count, order):
        at = np.arange(count)
        self.order = order
        self.kind = at // RACK % len(CHIPS)
        self.rack = at // RACK
        self.racks = int(self.rack[-1]) + 1
        self.free = np.full(count, PER_NODE)
        self.cpu = np.full(count, CPU_NODE)
        self.memory = np.full(count, MEMORY_NODE // GIB)

    def place(self, accepted, devices, members, _number):
        """What decides about the gang."""
        return lambda: self.decide(accepted, devices, members)

    def decide(self, accepted, devices, members):
        """The nodes taken, and how many members each; None = no room."""
        room = np.minimum(self.free // devices, self.cpu // (CPU_DEVICE * devices))
        room = np.minimum(room, self.memory // (MEMORY_DEVICE // GIB * devices))
        for kind in self.order[accepted]:
            here = np.where(self.kind == kind, room, 0)
            found = self._choose(here, members)
            if found is not None:
                chosen, shares = found
                self._take(chosen, shares * devices)
                return chosen, shares * devices
        return None

    def _choose(self, room, members):
        holds = np.flatnonzero(room >= members)
        if len(holds):
            return holds[[np.argmin(self.free[holds])]], np.array([members])
        if members == 1:
            return None
        racks = np.bincount(self.rack, weights=room, minlength=self.racks)
        holds = np.flatnonzero(racks >= members)
        if len(holds):
            rack = holds[np.argmin(racks[holds])]
            nodes_ = np.flatnonzero((self.rack == rack) & (room > 0))
        elif room.sum() >= members:
            nodes_ = np.flatnonzero(room)
            nodes_ = nodes_[np.argsort(-racks[self.rack[nodes_]], kind="stable")]
        else:
            return None
        sums = np.cumsum(room[nodes_])
        last = int(np.searchsorted(sums, members))
        shares = room[nodes_[: last + 1]].copy()
        shares[-1] -= sums[last] - members
        return nodes_[: last + 1], shares

    def _take(self, chosen, devices):
        self.free[chosen] -= devices
        self.cpu[chosen] -= CPU_DEVICE * devices
        self.memory[chosen] -= MEMORY_DEVICE // GIB * devices

    def end(self, held):
        """Give it back."""
        chosen, devices = held
        self._take(chosen, -devices)


def liked(seed):
    """The kinds of each set that gangs accept, by number, in the planner's order."""
    planner = Planner(Index(nodes(RACK * len(CHIPS)), catalogue.load()))
    return {
        accepted: [CHIPS.index(chip) for chip, _ in planner.chips(needs(accepted, 1))]
        for accepted in masks(random.Random(seed))
    }


def backlog(count, jobs):
    """Seconds of one pass over so many waiting jobs: at first, and when what is left is looked at
    once more; and how many were placed."""
    book = catalogue.load()
    known, waiting = {}, []
    for number, (accepted, devices, members) in zip(range(jobs), gangs(7), strict=False):
        need = known.setdefault((accepted, devices), needs(accepted, devices))
        waiting.append(pending(number, need, members))
    planner = Planner(Index(nodes(count), book))
    began = time.process_time()
    first = plan(Snapshot((), tuple(waiting), book, now_ms=1), planner)
    middle = time.process_time()
    left = tuple(x.task for x in first if not isinstance(x, Placed))
    plan(Snapshot((), left, book, now_ms=2), planner)
    return middle - began, time.process_time() - middle, len(waiting) - len(left)


def measure(count, decisions=20_000, seed=1):
    """The promised figures of the core, and what stands behind them."""
    figures.note(f"core: {decisions} gangs over {count} nodes, masks, then the planner")
    masked = Masks(count, liked(seed))
    naive_per_s, _, naive_placed = churn(masked.place, masked.end, count, decisions // 4, seed)
    per_s, took, placed = churn(*planned(nodes(count)), count, decisions, seed)
    tail = {}
    for size in (1_000, 100_000):
        figures.note(f"core: the same over {size} nodes")
        found = churn(*planned(nodes(size)), size, decisions, seed)
        tail[size] = figures.percentile(found[1], 0.99)
    figures.note("core: one pass over 100,000 waiting jobs")
    first_s, later_s, fitted = backlog(count, 100_000)
    return {
        "core_per_s": per_s,
        "core_p50_us": figures.percentile(took, 0.5),
        "core_p99_us": figures.percentile(took, 0.99),
        "core_placed_share": placed,
        "numpy_per_s": naive_per_s,
        "numpy_placed_share": naive_placed,
        "p99_us_1k_nodes": tail[1_000],
        "p99_us_100k_nodes": tail[100_000],
        "pass_100k_jobs_s": first_s,
        "pass_100k_jobs_again_s": later_s,
        "pass_placed": fitted,
    }
