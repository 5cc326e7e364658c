"""Who is served first: class, priority, fair share between tenants, age; and nobody waits for ever.

The order of a queue is that of these parts, the weightiest first:

1. *Overdue*: a tenant's oldest job, once that tenant has waited ``patience_ms`` for anything in
   its turn. One job of a tenant at a time, so that a long backlog, however old, outranks neither
   critical work nor other tenants' shares. Overdue jobs are served by how long they wait.
2. Class (reserved, on-demand, spot), then priority: one scale, higher first.
3. The tenant with the least use per weight. Use is effective: device time times the chip's
   throughput, so that an hour of an H100 is more than an hour of a T4. It is history, halved every
   ``half_life_ms``, and what runs now and the jobs ahead of this one in the tenant's own queue,
   each as if held for ``horizon_ms``: so one queue served from its head fills all tenants up alike.
4. Age.

Source: max-min by progressive filling, Bertsekas and Gallager, Data Networks, 6.5.2; throughput-
normalised shares, Narayanan et al., Gavel (OSDI 2020), section 4.1; decayed use as in Slurm's
multifactor plug-in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from gridlease_scheduler.domain.chips import AcceleratorNeed, Catalogue
from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.snapshot import Pending, Running, Share

from .decay import HALF_LIFE_MS

LEVELS = {Tier.SPOT: 0, Tier.ON_DEMAND: 1_000, Tier.RESERVED: 2_000}
_TAG_BITS = 120
_CPUS = ("",)
_ONE = 1 << 32
_FRACTION_BITS = 16


@dataclass(frozen=True, slots=True)
class FairRules:
    """``half_life_ms``: after so long, use counts half. ``horizon_ms``: for how long a device just
    given counts at once. ``patience_ms``: after so long without anything, a tenant is overdue."""

    half_life_ms: int = HALF_LIFE_MS
    horizon_ms: int = 3_600_000
    patience_ms: int = 8 * 3_600_000


RULES = FairRules()


def level(tier: Tier, priority: int) -> int:
    """Class and priority as one number, higher first: what queues and evictions compare."""
    return LEVELS[tier] + priority


def order(
    pending: Iterable[Pending],
    running: Iterable[Running],
    shares: Iterable[Share],
    catalogue: Catalogue,
    now_ms: int,
    rules: FairRules = RULES,
    possible: Callable[[Pending], bool] = lambda _: True,
) -> list[Pending]:
    """The queue, first to be served first. The same input gives the same order, always.

    Args:
        possible: Could the job ever run? Asked only of those that might be overdue.
    """
    queue = sorted(pending, key=attrgetter("number", "index"))
    if not queue:
        return []
    held = tuple(running)
    elders = overdue(queue, held, now_ms, rules, possible)
    speeds = Speeds(catalogue)
    weights = {x.tenant: max(1, x.weight) for x in shares}
    used = _used(held, shares, speeds, rules)
    first = {id(x) for x in elders}
    ahead: dict[tuple[int, str, tuple[str, ...]], int] = {}
    keys: list[int] = []
    for task in queue:
        need, tenant = task.needs.accelerator, task.tenant
        rank = LEVELS[task.needs.tier] + task.priority
        group = (rank, tenant, need.chips if need is not None else _CPUS)
        before = ahead.get(group, 0)
        ahead[group] = before + task.tasks * speeds.of_need(task) * rules.horizon_ms
        tag = ((used.get(tenant, 0) + before) << 10) // weights.get(tenant, 1)
        keys.append(((3_000 - rank) << _TAG_BITS) + tag)
    # Equal keys stay in the order of age.
    rest = [queue[at] for at in sorted(range(len(queue)), key=keys.__getitem__)]
    return [*elders, *(x for x in rest if id(x) not in first)] if first else rest


def overdue(
    queue: Sequence[Pending],
    running: Iterable[Running],
    now_ms: int,
    rules: FairRules = RULES,
    possible: Callable[[Pending], bool] = lambda _: True,
) -> list[Pending]:
    """At most one job of each tenant that has waited too long; the longest wait first.

    A tenant's oldest job is overdue when nothing of that tenant has started for the whole of its
    patience, except jobs younger than it: being overtaken is no service. Jobs that can never run
    are passed over, so that they stand in nobody's way.

    Args:
        queue: By age, the oldest first.
    """
    oldest: dict[str, Pending] = {}
    for task in queue:
        if task.tenant not in oldest and _late(task, 0, now_ms, rules) and possible(task):
            oldest[task.tenant] = task
    served: dict[str, int] = {}
    for lease in running if oldest else ():
        elder = oldest.get(lease.tenant)
        if elder is not None and lease.number <= elder.number:
            served[lease.tenant] = max(served.get(lease.tenant, 0), lease.started_ms)
    late = [x for x in oldest.values() if _late(x, served.get(x.tenant, 0), now_ms, rules)]
    return sorted(late, key=lambda x: (waits_since(x), x.number, x.index))


def waits_since(task: Pending) -> int:
    """When the job began to wait: when it was submitted, or last came back to the queue."""
    return task.queued_ms or task.submitted_ms


def effective(milli: int, span_ms: int, throughput: int) -> int:
    """Use in thousandths of device-milliseconds of a chip with throughput 100 (A100-80GB)."""
    return milli * span_ms * throughput // 100


def decayed(used: int, span_ms: int, half_life_ms: int = RULES.half_life_ms) -> int:
    """What is left of a use after a span: half of it after each half-life, in whole numbers."""
    if span_ms <= 0:
        return used
    halvings, rest = divmod(span_ms, half_life_ms)
    if halvings >= used.bit_length():
        return 0
    left = (used >> halvings) << 32  # digits beyond the point, so that less is never more
    fraction = (rest << _FRACTION_BITS) // half_life_ms
    for bit, factor in _FACTORS:
        if fraction & bit:
            left = left * factor // _ONE
    return left >> 32


class Speeds:
    """Throughput by chip, and of what a job asks for; looked up once each."""

    __slots__ = ("_catalogue", "_chips", "_fastest")

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._chips = {chip.name: chip.throughput for chip in catalogue.chips}
        self._fastest: dict[tuple[tuple[str, ...], str], int] = {}

    def of_chip(self, chip: str) -> int:
        """Relative; 100 = A100-80GB, and what the catalogue does not know counts as that."""
        return self._chips.get(chip, 100)

    def of_need(self, task: Pending) -> int:
        """Effective devices of one member, in thousandths: on the fastest chip it may get."""
        need = task.needs.accelerator
        if need is None:
            return task.needs.cpu_milli // 100 + 1
        key = (need.chips, need.vendor)  # far cheaper to look up than the whole need
        fastest = self._fastest.get(key)
        if fastest is None:
            chips = self._catalogue.matching(AcceleratorNeed(need.chips, need.vendor))
            fastest = max((x.throughput for x in chips), default=100)
            self._fastest[key] = fastest
        return 10 * need.count * fastest


def _late(task: Pending, served_ms: int, now_ms: int, rules: FairRules) -> bool:
    since = waits_since(task)
    return since > 0 and now_ms - max(since, served_ms) >= rules.patience_ms


def _used(
    running: Iterable[Running], shares: Iterable[Share], speeds: Speeds, rules: FairRules
) -> dict[str, int]:
    """Each tenant's effective use: history, and what it holds for the horizon to come."""
    used = {x.tenant: x.used for x in shares}
    for lease in running:
        holds = lease.allocation
        more = effective(holds.quantity_milli, rules.horizon_ms, speeds.of_chip(holds.chip))
        used[lease.tenant] = used.get(lease.tenant, 0) + more
    return used


def _factors() -> tuple[tuple[int, int], ...]:
    """(bit of the fraction, 2 to the minus that fraction, times 2^32), by square roots alone."""
    found, factor = [], _ONE // 2
    for place in range(_FRACTION_BITS - 1, -1, -1):
        factor = math.isqrt(factor << 32)
        found.append((1 << place, factor))
    return tuple(found)


_FACTORS = _factors()
