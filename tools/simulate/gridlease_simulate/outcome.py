"""What came of a run: every job's fate, and figures over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gridlease_scheduler.domain.job import Allocation, Reason, Tier

from gridlease_simulate.cluster import Cluster
from gridlease_simulate.power import Used
from gridlease_simulate.workload import Trace

STATES = ("finished", "running", "waiting", "rejected")


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job. Instants in ms, -1 = never. ``state``: one of ``STATES``."""

    name: str
    state: str
    tier: Tier
    submit_ms: int
    started_ms: int
    ended_ms: int
    waited_ms: int
    evictions: int
    cost_nano: int
    device_milli_ms: int
    reason: Reason

    @property
    def completion_ms(self) -> int:
        """From its submission to its end."""
        assert self.ended_ms >= 0, self.name
        return self.ended_ms - self.submit_ms


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One lease as it was held, so that anyone can recount a run. ``until_ms`` is exclusive."""

    job: str
    attempt: int
    node_id: str
    allocation: Allocation
    from_ms: int
    until_ms: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class Moment:
    """From this instant on: what is held of each chip, in thousandths, and how many jobs wait."""

    at_ms: int
    busy_milli: tuple[tuple[str, int], ...]
    waiting: int


@dataclass(frozen=True, slots=True)
class ChipUse:
    """How much of a chip was held over the run; CPU cores count as devices of their chip."""

    chip: str
    capacity_milli: int
    busy_milli_ms: int
    percent: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds over many jobs: mean, median, 99th percentile (nearest rank), most."""

    mean_ms: int
    p50_ms: int
    p99_ms: int
    most_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. ``unsent``: jobs that had not arrived when it was stopped."""

    cluster: Cluster
    trace: Trace
    jobs: tuple[JobRecord, ...]
    leases: tuple[LeaseRecord, ...]
    unsent: int
    span_ms: int
    busy_milli_ms: Mapping[str, int]
    energy: tuple[Used, ...]
    moments: tuple[Moment, ...]
    plans: int

    def count(self, state: str) -> int:
        """Jobs in a state at the end."""
        return sum(job.state == state for job in self.jobs)

    def completion(self) -> Spread:
        """Completion times of the finished jobs."""
        return spread([job.completion_ms for job in self.jobs if job.state == "finished"])

    def waiting(self) -> Spread:
        """How long jobs waited in all, those that still wait included."""
        return spread([job.waited_ms for job in self.jobs if job.state != "rejected"])

    def evictions(self) -> int:
        """How often a job was made to go."""
        return sum(job.evictions for job in self.jobs)

    def cost_nano(self, tier: Tier | None = None) -> int:
        """What tenants pay, at the cluster's prices."""
        return sum(job.cost_nano for job in self.jobs if tier in (None, job.tier))

    def capacity_milli(self) -> dict[str, int]:
        """Devices (or cores) of each chip, in thousandths."""
        found: dict[str, int] = {}
        for group in self.cluster.groups:
            found[group.cpu_chip] = found.get(group.cpu_chip, 0) + group.count * group.cpu_milli
            if group.devices:
                more = 1_000 * group.count * group.devices
                found[group.chip] = found.get(group.chip, 0) + more
        return found

    def utilisation(self) -> tuple[ChipUse, ...]:
        """Of each chip, devices before cores."""
        found = []
        for chip, capacity in self.capacity_milli().items():
            busy = self.busy_milli_ms.get(chip, 0)
            whole = capacity * self.span_ms
            found.append(ChipUse(chip, capacity, busy, 100 * busy / whole if whole else 0.0))
        cores = {group.cpu_chip for group in self.cluster.groups}
        return tuple(sorted(found, key=lambda each: (each.chip in cores, each.chip)))

    def reasons(self) -> list[tuple[str, str, int, str, str]]:
        """(state, code, jobs, what the first of them was told, its cure) of all not finished."""
        left = [job for job in self.jobs if job.state in ("waiting", "rejected")]
        counts = Counter((job.state, job.reason.code) for job in left)
        first = {(job.state, job.reason.code): job.reason for job in reversed(left)}
        return [
            (state, code, count, first[state, code].message, first[state, code].hint)
            for (state, code), count in sorted(counts.items())
        ]


def spread(values: list[int]) -> Spread:
    """Figures over the values; all 0 where there are none."""
    if not values:
        return Spread(0, 0, 0, 0)
    values = sorted(values)
    return Spread(sum(values) // len(values), _rank(values, 50), _rank(values, 99), values[-1])


def _rank(ordered: list[int], percent: int) -> int:
    """The nearest-rank percentile."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]
