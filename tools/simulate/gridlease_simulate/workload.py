"""What a trace asks for: jobs that arrive at instants, need devices, and take a while on them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gridlease_scheduler.domain.chips import Catalogue, Work
from gridlease_scheduler.domain.job import Needs


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a job takes on one chip: on one node, or spread over several; 0 = not known."""

    together_ms: int
    spread_ms: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One job of a trace. ``duration_ms`` holds on every chip unless ``paces`` (by chip) says
    otherwise; ``asked_milli`` = thousandths of one device where the trace asks for a part."""

    name: str
    submit_ms: int
    duration_ms: int
    needs: Needs
    tasks: int = 1
    priority: int = 50
    tenant: str = "tenants/trace"
    project: str = ""
    paces: Mapping[str, Pace] = field(default_factory=dict)
    asked_milli: int = 0
    longest_ms: int = 0  # the max_duration that it states; 0 = none


@dataclass(frozen=True, slots=True)
class Trace:
    """All jobs, by arrival. ``notes``: what a reader must know of how it was read."""

    name: str
    kind: str
    arrivals: tuple[Arrival, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scaling:
    """How long jobs take on chips that the trace did not measure.

    ``reference``: the chip that recorded durations hold on; on another they are longer or shorter
    by the catalogue's relative throughput. Empty = as long on every chip.
    """

    catalogue: Catalogue
    reference: str = ""

    def duration_ms(self, arrival: Arrival, chip: str, nodes: int) -> int:
        """How long the whole job takes on one chip, its tasks on so many nodes; at least 1."""
        pace = arrival.paces.get(chip)
        if pace is not None:
            spread = nodes > 1 and pace.spread_ms
            return max(1, pace.spread_ms if spread else pace.together_ms)
        known = arrival.paces.get(self.reference)
        recorded_ms = known.together_ms if known else arrival.duration_ms
        here, there = self.catalogue.find(chip), self.catalogue.find(self.reference)
        if here is None or there is None or arrival.needs.accelerator is None:
            return max(1, recorded_ms)
        work = Work(arrival.needs.purpose.value.lower())
        return max(1, recorded_ms * there.throughput_for(work) // here.throughput_for(work))


def prepared(
    trace: Trace,
    *,
    sample: int = 0,
    limit: int = 0,
    seed: int = 1,
    load: int = 100,
    stated: int = 0,
) -> Trace:
    """The jobs in order, the first at instant 0, thinned and compressed as asked.

    Args:
        sample: So many jobs drawn at random by the seed; 0 = all.
        limit: The first so many; 0 = all.
        load: Percent: 200 makes the gaps between arrivals half as long.
        stated: Percent of its longest duration that each job states as its max_duration; 0 = what
            the trace says.
    """
    arrivals = sorted(trace.arrivals, key=lambda each: each.submit_ms)
    if sample and sample < len(arrivals):
        kept = sorted(random.Random(seed).sample(range(len(arrivals)), sample))  # noqa: S311
        arrivals = [arrivals[at] for at in kept]
    if limit:
        arrivals = arrivals[:limit]
    first = arrivals[0].submit_ms if arrivals else 0
    moved = (
        replace(
            each,
            submit_ms=(each.submit_ms - first) * 100 // load,
            longest_ms=longest_ms(each) * stated // 100 if stated else each.longest_ms,
        )
        for each in arrivals
    )
    return replace(trace, arrivals=tuple(moved))


def longest_ms(arrival: Arrival) -> int:
    """The longest that a job may take on any chip that was recorded."""
    spans = [span for pace in arrival.paces.values() for span in (pace.together_ms, pace.spread_ms)]
    return max([arrival.duration_ms, *spans])


def split_devices(devices: int, widest: int) -> tuple[int, int]:
    """(tasks, devices of each): as few equal tasks as fit nodes that have ``widest`` devices.

    >>> split_devices(24, 8)
    (3, 8)
    """
    if widest < 1 or devices <= widest:
        return 1, devices
    tasks = next(n for n in range(1, devices + 1) if devices % n == 0 and devices // n <= widest)
    return tasks, devices // tasks


def asked_milli(arrivals: Iterable[Arrival]) -> int:
    """Devices asked for by all jobs, in thousandths."""
    return sum(
        each.asked_milli or 1_000 * each.tasks * (each.needs.accelerator.count)
        for each in arrivals
        if each.needs.accelerator is not None
    )
