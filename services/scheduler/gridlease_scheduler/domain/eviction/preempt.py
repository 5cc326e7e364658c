"""Whom does a job that cannot start put out, if anybody, and where will it go then?

A victim is a whole job: all leases of its gang end. It must be of a strictly lower class, or of
equal class and lower priority; or it borrows what is the job's own by quota. It must have worked
for a while and not have been put out too often, and reserved work is never touched. The victims
let the whole gang start, or there are none; without any one of them it could not start.

Of all sets that would do, those are looked at first that hurt the lowest standing (spot before
on-demand; within each, borrowers before owners of a guarantee), and among these the one that loses
the least effective work since the last checkpoints is taken: then the fewest devices, then the
lowest priorities.

    choose(...) -> Eviction | Coming | Spared      for a job that found no place
    reclaim(...) -> Eviction | Coming | Spared     for a job whose quota others have borrowed
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Reason, Span, Tier
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.order.fair import LEVELS, level
from gridlease_scheduler.domain.order.quota import Book, QuotaFull, borrowed, reclaimable
from gridlease_scheduler.domain.placing.vacancy import Slack, Vacancies, Way, members, place, ways
from gridlease_scheduler.domain.snapshot import Pending, Running

from .victims import Victim, cheapest, standing

EVICTION_WINDOW_MS = 24 * 3_600_000  # ``Running.evictions`` counts within it


@dataclass(frozen=True, slots=True)
class EvictionRules:
    """``min_runtime_ms``: nothing is put out sooner. ``evictions_max``: nor more often than this
    within ``EVICTION_WINDOW_MS``."""

    min_runtime_ms: int = 10 * 60_000
    evictions_max: int = 3


RULES = EvictionRules()
COMING = Reason(
    "PREEMPTING",
    "What it needs is coming free: who held it has been told to end.",
    "It is placed when they have ended and their devices are clean.",
)
_EVER = 1 << 62
_GROUPS = 4  # racks (or hosts, rails, sites) that are looked at closely


@dataclass(frozen=True, slots=True)
class Eviction:
    """Who is told to end, with how much notice, and the node of each member afterwards (empty
    where only quota was short). ``lost``: effective device-milliseconds of work, in thousandths.
    ``reason`` is for the job that waits, ``told`` for the victims."""

    task: Pending
    victims: tuple[Victim, ...]
    notice_ms: int
    chip: str
    places: tuple[tuple[str, int], ...]
    lost: int
    reason: Reason
    told: Reason


@dataclass(frozen=True, slots=True)
class Coming:
    """Nobody: what was told to end already, or is being cleaned, is enough."""

    task: Pending
    chip: str
    places: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Spared:
    """Nobody: ``reason`` says what protects those who hold the places."""

    task: Pending
    reason: Reason


Answer: TypeAlias = Eviction | Coming | Spared


def choose(
    task: Pending,
    nodes: Iterable[Node],
    running: Iterable[Running],
    catalogue: Catalogue,
    book: Book | None = None,
    *,
    rules: EvictionRules = RULES,
    taken: Collection[str] = (),
    barred: Collection[str] = (),
    vacancies: Vacancies | None = None,
) -> Answer:
    """Who gives way to a job that fits nowhere as things are.

    Bounded work: one look at each lease; then only nodes whose kind could hold a member, and of
    these the cheapest few for each number of members.

    Args:
        taken: Nodes promised to others.
        barred: Chips that it may not have.
        vacancies: What is remembered of nodes.
    """
    vacancies = vacancies or Vacancies()
    by_id = {x.node_id: x for x in nodes if x.node_id not in taken}
    could = ways(task.needs, by_id.values(), catalogue, barred, vacancies)
    leases = tuple(running)
    free = {name: vacancies.slack(by_id[name]) for name in could}
    for lease in leases:
        if lease.closing and lease.node_id in free:
            free[lease.node_id] = free[lease.node_id].plus(lease.allocation)
    groups = _groups(task, by_id, could)
    for (way, _), names in groups.items():
        seats = _seated(task.tasks, way, {name: free[name] for name in names})
        if seats:
            return Coming(task, way.chip, seats)
    chips = {way.chip for way, _ in groups}
    jobs = _jobs(task, leases, chips, book, rules)
    above = borrowed(book, leases) if jobs and book is not None and book.rules else frozenset()
    ranks = {job: standing(held[0], borrows=job in above) for job, held in jobs.items()}
    speeds = {x.name: x.throughput for x in catalogue.chips}
    for rank in sorted(set(ranks.values())):
        pool = {job: held for job, held in jobs.items() if ranks[job] <= rank}
        for near in _near(task, groups, free, pool):
            here = sorted(job for job, held in pool.items() if _touches(held, near))
            victims = [Victim.of(x, pool[x], speeds, borrows=x in above) for x in here]
            found = _cheapest(task, groups, {x: free[x] for x in near}, victims)
            if found is not None:
                return found
    return Spared(task, _why(task, leases, set(jobs), could))


def reclaim(
    task: Pending,
    full: QuotaFull,
    chip: str,
    running: Iterable[Running],
    catalogue: Catalogue,
    book: Book,
    rules: EvictionRules = RULES,
) -> Answer:
    """Who gives back what they borrow, when only a shared quota stands in the way."""
    leases = [x for x in running if x.allocation.chip == chip]
    under = [x for x in leases if full.project in book.ancestry(x.project)]
    short = full.short_milli - sum(x.allocation.quantity_milli for x in under if x.closing)
    if short <= 0:
        return Coming(task, chip, ())
    asked = _asked_milli(task)
    owed = reclaimable(book, under, task.project, chip, asked, task.needs.tier) if full.owed else ()
    held: dict[str, list[Running]] = {}
    for lease in under:
        if lease.job in owed:
            held.setdefault(lease.job, []).append(lease)
    speeds = {x.name: x.throughput for x in catalogue.chips}
    pool = [Victim.of(x, y, speeds, borrows=True) for x, y in held.items() if _may_go(y, rules)]
    order = sorted(pool, key=lambda x: (x.rank, x.cost * 1_000 // max(1, x.milli), x.job))
    chosen: list[Victim] = []
    for victim in order:
        if sum(x.milli for x in chosen) < short:
            chosen.append(victim)
    if sum(x.milli for x in chosen) < short:
        return Spared(task, full.reason)
    for victim in sorted(chosen, key=lambda x: (-x.rank, -x.cost, x.job)):
        if sum(x.milli for x in chosen) - victim.milli >= short:
            chosen.remove(victim)
    return _eviction(task, tuple(sorted(chosen, key=lambda x: x.job)), chip, ())


def _jobs(
    task: Pending,
    leases: tuple[Running, ...],
    chips: Collection[str],
    book: Book | None,
    rules: EvictionRules,
) -> dict[str, list[Running]]:
    """All jobs that may be put out for this one, with their leases."""
    owned: frozenset[str] = frozenset()
    if book is not None and book.rules:
        asked = _asked_milli(task)
        for chip in sorted(chips):
            owned |= reclaimable(book, leases, task.project, chip, asked, task.needs.tier)
    mine = level(task.needs.tier, task.priority)
    jobs: dict[str, list[Running]] = {}
    for lease in leases:
        if LEVELS[lease.tier] + lease.priority < mine or lease.job in owned:
            jobs.setdefault(lease.job, []).append(lease)
    return {job: held for job, held in jobs.items() if _may_go(held, rules)}


def _near(
    task: Pending,
    groups: dict[tuple[Way, str], list[str]],
    free: dict[str, Slack],
    pool: dict[str, list[Running]],
) -> list[dict[str, None]]:
    """Nodes to look at closely: where least is lost for each device, and then all of them."""
    every = dict.fromkeys(free)
    most = 4 * task.tasks + 128
    if len(every) <= 2 * most:
        return [every]
    lost: dict[str, int] = {}
    milli: dict[str, int] = {}
    least: dict[str, int] = {}
    for held in pool.values():
        for lease in held:
            name, span = lease.node_id, lease.worked_ms - lease.saved_ms
            many = lease.allocation.quantity_milli
            lost[name] = lost.get(name, 0) + many * span
            milli[name] = milli.get(name, 0) + many
            if span < least.get(name, _EVER):
                least[name] = span
    mean = {name: lost[name] // max(1, milli[name]) for name in milli if name in every}
    chosen: dict[str, None] = {}
    for names in groups.values():
        chosen |= dict.fromkeys(
            x for x in names if x not in milli and any(free[x].devices.values())
        )
    if task.needs.span in (Span.ANY, Span.SITE):
        chosen |= dict.fromkeys(heapq.nsmallest(most, mean, key=lambda x: (mean[x], x)))
        chosen |= dict.fromkeys(heapq.nsmallest(most, mean, key=lambda x: (least[x], x)))
        return [chosen, every]
    bounds: list[tuple[int, str, list[str]]] = []
    for (way, group), names in groups.items():
        need = -(-task.tasks // max(1, 8 // max(1, way.devices)))
        few = heapq.nsmallest(need, (mean[x] for x in names if x in mean))
        if few:
            bounds.append((sum(few) // len(few) * (1 + need - len(few)), group, names))
    bounds.sort(key=lambda x: x[:2])
    while bounds and len(chosen) < most:
        chosen |= dict.fromkeys(bounds.pop(0)[2])
    return [chosen, every]


def _cheapest(
    task: Pending,
    groups: dict[tuple[Way, str], list[str]],
    free: dict[str, Slack],
    victims: list[Victim],
) -> Eviction | None:
    """The best of all ways and groups, with these victims to choose from."""
    here = {key: [x for x in names if x in free] for key, names in groups.items()}
    best = min(
        (
            (found.cost, way.chip, found)
            for way, names in _promising(task, here, free, victims)
            if (found := cheapest(task.tasks, way, {x: free[x] for x in names}, victims))
        ),
        key=lambda x: x[:2],
        default=None,
    )
    if best is None:
        return None
    return _eviction(task, best[2].victims, best[1], best[2].places)


def _touches(held: list[Running], names: Collection[str]) -> bool:
    if len(held) == 1:
        return held[0].node_id in names
    return any(x.node_id in names for x in held)


def _may_go(held: list[Running], rules: EvictionRules) -> bool:
    """Has a job had its time, and its peace? Reserved work goes never, and what is ending in part
    goes by itself."""
    one = held[0]
    if one.tier is Tier.RESERVED:
        return False
    least_ms = max(rules.min_runtime_ms, one.min_runtime_ms)
    if len(held) == 1:
        return one.worked_ms >= least_ms and one.evictions < rules.evictions_max and not one.closing
    return (
        max(x.worked_ms for x in held) >= least_ms
        and max(x.evictions for x in held) < rules.evictions_max
        and not any(x.closing for x in held)
    )


def _groups(
    task: Pending, by_id: dict[str, Node], could: dict[str, tuple[Way, ...]]
) -> dict[tuple[Way, str], list[str]]:
    """Sets of nodes that are near enough to each other, by the way to use them."""
    found: dict[tuple[Way, str], list[str]] = {}
    for name, each in could.items():
        for way in each:
            found.setdefault((way, place(by_id[name], task.needs.span)), []).append(name)
    return found


def _promising(
    task: Pending,
    groups: dict[tuple[Way, str], list[str]],
    free: dict[str, Slack],
    pool: list[Victim],
) -> list[tuple[Way, list[str]]]:
    """Groups that would hold the gang with the whole pool gone; only the best few by a bound.

    The bound is what the cheapest devices of the group cost each.
    """
    gone = dict(free)
    price: dict[str, list[tuple[int, int]]] = {}
    for victim in pool:
        for lease in victim.leases:
            if lease.node_id in gone:
                gone[lease.node_id] = gone[lease.node_id].plus(lease.allocation)
                each = victim.cost // max(1, victim.milli)
                price.setdefault(lease.node_id, []).append((each, lease.allocation.quantity_milli))
    found: list[tuple[int, str, Way, list[str]]] = []
    for (way, group), names in groups.items():
        if sum(members(way, gone[name]) for name in names) < task.tasks:
            continue
        want = task.tasks * max(1, way.devices) * 1_000
        want -= sum(members(way, free[name]) for name in names) * max(1, way.devices) * 1_000
        bound = 0
        for each, milli in sorted(x for name in names for x in price.get(name, ())):
            bound += each * max(0, min(milli, want))
            want -= milli
        found.append((bound, group, way, names))
    found.sort(key=lambda x: (x[0], x[1], x[2].chip))
    return [(way, names) for *_, way, names in found[:_GROUPS]]


def _seated(tasks: int, way: Way, rooms: dict[str, Slack]) -> tuple[tuple[str, int], ...]:
    """Where all members go, on as few nodes as can be; empty = they do not fit."""
    order = sorted((-members(way, room), name) for name, room in rooms.items())
    left, found = tasks, []
    for fit, name in order:
        if left and fit:
            found.append((name, min(left, -fit)))
            left -= found[-1][1]
    return tuple(found) if not left else ()


def _asked_milli(task: Pending) -> int:
    need = task.needs.accelerator
    return task.tasks * (1_000 * need.count if need is not None else task.needs.cpu_milli)


def _eviction(
    task: Pending, victims: tuple[Victim, ...], chip: str, places: tuple[tuple[str, int], ...]
) -> Eviction:
    """In words for both sides; whose jobs the others are is nobody's business."""
    notice_ms = max(x.notice_ms for x in victims)
    lost = sum(x.lost for x in victims)
    jobs = "1 job that was" if len(victims) == 1 else f"{len(victims)} jobs that were"
    reason = Reason(
        "PREEMPTING",
        f"It takes the place of {jobs} told to end within {notice_ms // 1_000} s.",
        "It is placed when they have ended and their devices are clean.",
        {"victims": str(len(victims)), "notice_ms": str(notice_ms), "chip": chip},
    )
    told = Reason(
        "PREEMPTED",
        "Its place is needed by work of a higher class or priority, or by the project whose "
        "quota it borrowed.",
        "It waits again and goes on from its checkpoint.",
        {"chip": chip},
    )
    return Eviction(task, victims, notice_ms, chip, places, lost, reason, told)


def _why(
    task: Pending,
    leases: tuple[Running, ...],
    jobs: Collection[str],
    could: dict[str, tuple[Way, ...]],
) -> Reason:
    """What protects those who hold the places, in words."""
    mine = level(task.needs.tier, task.priority)
    here = [x for x in leases if x.node_id in could]
    lower = {x.job for x in here if level(x.tier, x.priority) < mine}
    kept = len(lower.difference(jobs))
    evidence = {"lower_jobs": str(len(lower)), "protected_jobs": str(kept)}
    if not lower:
        message = "Nothing of a lower class or priority holds what it needs."
        hint = "It is placed when one of the others ends; or raise its priority."
        return Reason("NOTHING_TO_PREEMPT", message, hint, evidence)
    if kept:
        message = f"{kept} of {len(lower)} jobs below it have just started or gave way too often."
        hint = "It is placed when one of them ends, or may be put out."
        return Reason("VICTIMS_PROTECTED", message, hint, evidence)
    message = "Even without all jobs below it the whole gang would not fit."
    hint = "Ask for fewer tasks, or for other chips as well; or wait until others end."
    return Reason("PREEMPTION_TOO_SMALL", message, hint, evidence)
