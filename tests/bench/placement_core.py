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

import numpy as np
from gridlease_scheduler.adapters import catalogue
from gridlease_scheduler.domain.chips import AcceleratorNeed
from gridlease_scheduler.domain.index import Index
from gridlease_scheduler.domain.job import Needs, Purpose
from gridlease_scheduler.domain.node import Device, Node
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
_WARM = 1_000  # decisions on the full cluster that are not timed
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
    """Which kinds a gang accepts: mostly one, sometimes several or all."""
    return [tuple(sorted(chance.sample(CHIPS, many))) for many in (1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 8)]


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
        place: (accepted, devices, members, number) -> what ``end`` takes, or None.
    """
    asked = enumerate(gangs(seed))
    held, devices, most = collections.deque(), 0, count * PER_NODE * FILL
    took, placed, busy_ns, full = [], 0, 0, 0
    while len(took) < decisions:
        number, gang = next(asked)
        at, cpu = time.perf_counter_ns(), time.thread_time_ns()
        found = place(*gang, number)
        spent = time.thread_time_ns() - cpu
        after = time.perf_counter_ns()
        if found is not None:
            held.append((gang[1] * gang[2], found))
            devices += held[-1][0]
        full += devices >= most or found is None
        if full > _WARM:
            busy_ns += spent
            took.append((after - at) / 1e3)
            placed += found is not None
        while devices > most:
            size, old = held.popleft()
            devices -= size
            end(old)
    return decisions / (busy_ns / 1e9), sorted(took), placed


def planned(cluster):
    """(place, end) of the production planner."""
    index = Index(cluster, catalogue.load())
    planner = Planner(index)
    known = {}

    def place(accepted, devices, members, number):
        need = known.get((accepted, devices))
        if need is None:
            need = known[accepted, devices] = needs(accepted, devices)
        decision = planner.decide(pending(number, need, members), 1)
        return decision if isinstance(decision, Placed) else None

    def end(placed):
        for member in placed.members:
            index.release(member.node_id, member.allocation)

    return place, end


class Masks:
    """The naive scan: arrays over all nodes, masked anew for each gang."""

    def __init__(self, count):
        at = np.arange(count)
        self.kind = at // RACK % len(CHIPS)
        self.rack = at // RACK
        self.racks = int(self.rack[-1]) + 1
        self.free = np.full(count, PER_NODE)
        self.cpu = np.full(count, CPU_NODE)
        self.memory = np.full(count, MEMORY_NODE // GIB)
        self.accepted = {}

    def place(self, accepted, devices, members, _number):
        """The nodes of all members and what each takes; None = no room."""
        kinds_ok = self.accepted.get(accepted)
        if kinds_ok is None:
            kinds_ok = self.accepted[accepted] = np.array([chip in accepted for chip in CHIPS])
        cpu, memory = CPU_DEVICE * devices, MEMORY_DEVICE // GIB * devices
        fits = kinds_ok[self.kind] & (self.free >= devices)
        fits &= (self.cpu >= cpu) & (self.memory >= memory)
        room = np.bincount(self.rack[fits], minlength=self.racks)
        holds = np.flatnonzero(room >= members)
        if len(holds):
            rack = holds[np.argmin(room[holds])]
            chosen = np.flatnonzero(fits & (self.rack == rack))
        else:
            chosen = self._several(np.flatnonzero(fits), room, members)
            if chosen is None:
                return None
        best = chosen[np.argsort(self.free[chosen], kind="stable")][:members]
        self._take(best, devices, cpu, memory)
        return best, devices, cpu, memory

    def _several(self, fit, room, members):
        """Over racks of the kind that has the most room."""
        total = np.bincount(self.kind[fit], minlength=len(CHIPS))
        kind = np.argmax(total)
        if total[kind] < members:
            return None
        fit = fit[self.kind[fit] == kind]
        return fit[np.argsort(-room[self.rack[fit]], kind="stable")][:members]

    def _take(self, chosen, devices, cpu, memory):
        self.free[chosen] -= devices
        self.cpu[chosen] -= cpu
        self.memory[chosen] -= memory

    def end(self, held):
        """Give it back."""
        chosen, devices, cpu, memory = held
        self._take(chosen, -devices, -cpu, -memory)


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
    masked = Masks(count)
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
        "core_placed_share": placed / decisions,
        "numpy_per_s": naive_per_s,
        "numpy_placed_share": naive_placed / (decisions // 4),
        "p99_us_1k_nodes": tail[1_000],
        "p99_us_100k_nodes": tail[100_000],
        "pass_100k_jobs_s": first_s,
        "pass_100k_jobs_again_s": later_s,
        "pass_placed": fitted,
    }
