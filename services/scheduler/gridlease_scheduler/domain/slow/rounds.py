"""Which jobs run this round, and on which kind of device each? An order is searched for.

A plan is an order of the jobs that are present. It is worth what it costs when played forward
without further arrivals (``playout``); the search starts from the cheapest of "least work first",
"shortest first" and the order decided last, tries every job at every other place, and keeps what
is better. The first step of the best play runs until a job comes or goes, capacity changes, or
``replan_s`` is over. Where the remaining work is unknown, as much again as was received is
assumed.

The work of one decision is bounded without a clock: jobs sure of their place (``Search.depth``)
only give back devices while the others are played, and a search ends after ``Search.visits``.

No job starves. A job's lag is the time that it has waited less the time that it has run, less a
patience that grows with the work that is here, up to a week. Jobs with a lag choose first, the
largest lag first, and the lag of one that runs falls while that of one that waits grows; so the
one furthest behind gets whatever it can use.

Source: the setting and the measured speeds are those of D. Narayanan et al., "Heterogeneity-Aware
Cluster Scheduling Policies for Deep Learning Workloads", OSDI 2020; least attained service as a
forecast: M. Nuyens, A. Wierman, "The Foreground-Background queue: A survey", 2008.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from .playout import NOWHERE, Play, Rates, Release, Runner, assign

_LONGEST_S = 1e10  # three centuries: no estimate is longer
_SHORTEST_S = 1.0
_RELEASES = 16  # moments at most at which jobs sure of their place give devices back


@dataclass(frozen=True, slots=True)
class RoundJob:
    """A job that is present: running, waiting, or to be stopped.

    Attributes:
        name: Unique among the jobs of a round.
        scale: Devices that it takes, all of one kind.
        steps_per_s: Speed of the whole job by kind; absent or 0 = it does not run there.
        age_s: Time since it came.
        got_device_s: Device-seconds that it has received.
        left_steps: Remaining work; None = unknown.
        pinned: Where it runs now, it stays.
    """

    name: str
    scale: int
    steps_per_s: Mapping[str, float]
    age_s: float
    got_device_s: float
    left_steps: float | None = None
    pinned: bool = False

    @property
    def served_s(self) -> float:
        """How long it has run."""
        return self.got_device_s / self.scale


@dataclass(frozen=True, slots=True)
class Past:
    """How long a job has run, and how long its fastest kind would have taken for the same work."""

    served_s: float
    fast_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept from one decision to the next; whoever lost it passes what runs, or nothing.

    Attributes:
        running: Kind by job, as decided last.
        worked: What was known of each job's past at the last search.
        order: All jobs, as ordered last.
        free: Capacity by kind, as of the last search.
        planned_s: When the last search was made; -inf: never.
    """

    running: Mapping[str, str] = field(default_factory=dict)
    worked: Mapping[str, Past] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    free: tuple[tuple[str, int], ...] = ()
    planned_s: float = -inf


@dataclass(frozen=True, slots=True)
class Decision:
    """Kind by job; jobs left out wait or stop. ``memory`` goes into the next decision."""

    run: Mapping[str, str]
    memory: Memory


@dataclass(frozen=True, slots=True)
class Search:
    """How far and by what measure orders are searched.

    The weights were chosen on one draw of Gavel's jobs, and checked on denser arrivals and on
    other draws: near these values, averages differ by less than draws do.

    Attributes:
        rates: Costs of switching and of late ends, and the steps of the play.
        late: A job is late beyond this many times its time alone on its fastest kind.
        unfair: It is treated unfairly beyond this many times its time on an equal share of all
            devices. Below 1, since jobs still to come will delay it, too.
        sweeps: At most so often is every job tried at every place.
        depth: Jobs whose places are searched; the others are sure of theirs, or far behind.
        visits: Jobs looked at, in all plays of one search; a visit takes about half a
            microsecond.
        replan_s: A plan is searched anew after this time, though nothing came or went.
        newcomer_s: Where work is unknown, a job is thought to have at least this much left.
        patience_s: A job may wait this much longer than it has run before it goes first; or the
            time in which all devices together could do all the work that is here, if that is more,
        longest_patience_s: but never more than this.
        stay_s: One that goes first is not overtaken before its lag has fallen this much.
    """

    rates: Rates = field(default_factory=Rates)
    late: float = 1.1
    unfair: float = 0.9
    sweeps: int = 5
    depth: int = 24
    visits: int = 300_000
    replan_s: float = 7_200.0
    newcomer_s: float = 3_600.0
    patience_s: float = 259_200.0
    longest_patience_s: float = 604_800.0
    stay_s: float = 7_200.0


def decide(
    t_s: float,
    free: Mapping[str, int],
    jobs: Iterable[RoundJob],
    memory: Memory | None = None,
    search: Search | None = None,
) -> Decision:
    """Who runs on what kind from now on.

    Args:
        t_s: Now, on the caller's clock.
        free: Devices by kind that these jobs may use, those that they hold now included.
        jobs: All jobs that are present, in any order.
        memory: As the last decision left it.
        search: How to search.
    """
    memory, search = memory or Memory(), search or Search()
    here = sorted(jobs, key=lambda job: job.name)
    room = tuple(sorted(free.items()))
    if _holds(t_s, room, here, memory, search):
        return Decision(memory.running, memory)
    kinds = [kind for kind, _ in room]
    worked = {job.name: _past(job, memory) for job in here}
    able, runners = _runners(here, room, worked, memory, search)
    counts = [count for _, count in room]
    order = _order(able, runners, counts, memory, search)
    chosen = assign(order, runners, counts, search.rates)
    run = {able[j].name: kinds[kind] for j, kind in sorted(chosen.items())}
    names = [able[j].name for j in order]
    placed = set(names)
    names += [job.name for job in here if job.name not in placed]
    return Decision(run, Memory(run, worked, tuple(names), room, t_s))


def _holds(
    t_s: float,
    room: tuple[tuple[str, int], ...],
    here: Sequence[RoundJob],
    memory: Memory,
    search: Search,
) -> bool:
    """Has nothing happened since the last search that asks for another?"""
    if not memory.planned_s <= t_s < memory.planned_s + search.replan_s:
        return False
    if room != memory.free or {job.name for job in here} != set(memory.order):
        return False
    left = dict(room)
    for job in here:
        kind = memory.running.get(job.name)
        if kind is None:
            continue
        if kind not in left or job.steps_per_s.get(kind, 0.0) <= 0:
            return False
        left[kind] -= job.scale
    return min(left.values(), default=0) >= 0


def _past(job: RoundJob, memory: Memory) -> Past:
    """What it has done since the last search, on the kind that it was given then, is added.

    Without a record, all its time is taken to have been spent on its fastest kind.
    """
    before = memory.worked.get(job.name)
    if before is None:
        return Past(job.served_s, job.served_s)
    kind = memory.running.get(job.name)
    top = max(job.steps_per_s.values(), default=0.0)
    part = job.steps_per_s.get(kind, 0.0) / top if kind is not None and top > 0 else 1.0
    return Past(job.served_s, before.fast_s + part * max(0.0, job.served_s - before.served_s))


def _runners(
    here: Sequence[RoundJob],
    room: Sequence[tuple[str, int]],
    worked: Mapping[str, Past],
    memory: Memory,
    search: Search,
) -> tuple[list[RoundJob], list[Runner]]:
    """The jobs that can run at all, and how the play sees each of them."""
    able, runners = [], []
    for job in here:
        speeds = [
            (number, job.steps_per_s.get(kind, 0.0), kind)
            for number, (kind, count) in enumerate(room)
            if count >= job.scale and job.steps_per_s.get(kind, 0.0) > 0
        ]
        if not speeds:
            continue
        now = memory.running.get(job.name)
        held = [each for each in speeds if each[2] == now]
        if job.pinned and held:
            speeds = held
        top = max(speed for _, speed, _ in speeds)
        done_s = worked[job.name].fast_s
        if job.left_steps is None:
            shortest = max(done_s, search.newcomer_s)
        else:
            shortest = job.left_steps / top
        options = sorted(
            (min(_LONGEST_S, max(_SHORTEST_S, shortest * top / speed)), number)
            for number, speed, _ in speeds
        )
        runners.append(
            Runner(
                job.scale,
                tuple((number, seconds) for seconds, number in options),
                held[0][0] if held else NOWHERE,
                job.age_s,
                search.late * (shortest + done_s),
                search.unfair * (shortest + done_s) * _crowding(job, here, room),
            )
        )
        able.append(job)
    return able, runners


def _crowding(job: RoundJob, here: Sequence[RoundJob], room: Sequence[tuple[str, int]]) -> float:
    """How much longer an equal share of all devices takes it than its fastest kind alone would.

    Source: K. Mahajan et al., "Themis: Fair and Efficient GPU Cluster Scheduling", NSDI 2020
    (finish-time fairness), with the mean speed over all devices for that of one kind.
    """
    devices = sum(count for _, count in room)
    speeds = [job.steps_per_s.get(kind, 0.0) * count for kind, count in room]
    top = max(job.steps_per_s.get(kind, 0.0) for kind, count in room if count >= job.scale)
    return top * devices / sum(speeds) * max(1.0, len(here) * job.scale / devices)


def _order(
    able: Sequence[RoundJob],
    runners: Sequence[Runner],
    counts: Sequence[int],
    memory: Memory,
    search: Search,
) -> list[int]:
    """The best order found: pinned, overdue, sure, searched, and those far behind."""
    work_s = sum(_area(runner) for runner in runners) / max(1, sum(counts))
    patience_s = max(search.patience_s, min(work_s, search.longest_patience_s))
    first = _first(able, runners, patience_s, search.stay_s)
    taken = set(first)
    rest = [j for j in range(len(able)) if j not in taken]
    rest.sort(key=lambda j: (_area(runners[j]), -runners[j].age_s, able[j].name))
    order = first + rest
    if len(rest) < 2:
        return order
    begin, end = _window(order, len(first), runners, counts, search)
    sure, open_, behind = order[:begin], order[begin:end], order[end:]
    left: list[int] = list(counts)
    releases: list[Release] = []
    if begin > len(first):
        left, releases = _given_back(sure, runners, counts, search)
        head: list[int] = []
    else:
        head = sure
    play = Play(runners, left, search.rates, releases)
    places = {name: place for place, name in enumerate(memory.order)}
    starts = [
        open_,
        sorted(open_, key=lambda j: places.get(able[j].name, -1)),
        sorted(open_, key=lambda j: (runners[j].options[0][1], able[j].name)),
    ]
    found = _searched(play, head, starts, search)
    return sure + found + behind


def _first(
    able: Sequence[RoundJob], runners: Sequence[Runner], patience_s: float, stay_s: float
) -> list[int]:
    """Who must not be overtaken: pinned jobs, then those that have waited too long."""
    keys = []
    for j, job in enumerate(able):
        if job.pinned and runners[j].kind != NOWHERE:
            keys.append((0, 0.0, job.name, j))
            continue
        lag = job.age_s - 2 * job.served_s - patience_s
        if runners[j].kind != NOWHERE:
            lag += stay_s
        if lag > 0:
            keys.append((1, -lag, job.name, j))
    return [j for *_, j in sorted(keys)]


def _window(
    order: Sequence[int],
    fixed: int,
    runners: Sequence[Runner],
    counts: Sequence[int],
    search: Search,
) -> tuple[int, int]:
    """The places to search: around the first job that does not get its fastest kind."""
    if len(order) <= search.depth:
        return fixed, len(order)
    chosen = assign(order, runners, counts, search.rates)
    pressed = (place for place, j in enumerate(order) if chosen.get(j) != runners[j].options[0][0])
    middle = next(pressed, len(order))
    begin = max(fixed, min(middle - search.depth // 2, len(order) - search.depth))
    return begin, min(len(order), begin + search.depth)


def _given_back(
    sure: Sequence[int], runners: Sequence[Runner], counts: Sequence[int], search: Search
) -> tuple[list[int], list[Release]]:
    """What jobs sure of their place leave free, and what they give back when."""
    chosen = assign(sure, runners, counts, search.rates)
    left = list(counts)
    ends = []
    for j, kind in chosen.items():
        left[kind] -= runners[j].scale
        ends.append((dict(runners[j].options)[kind], kind, runners[j].scale))
    ends.sort()
    size = -(-len(ends) // _RELEASES) or 1
    releases = [
        Release(part[-1][0], tuple((kind, scale) for _, kind, scale in part))
        for part in (ends[at : at + size] for at in range(0, len(ends), size))
    ]
    return left, releases


def _searched(
    play: Play, head: list[int], starts: Sequence[list[int]], search: Search
) -> list[int]:
    """The best order found behind ``head``: from the best start, by moving one job at a time."""
    order, best = starts[0], play.cost(head + starts[0])
    for start in starts[1:]:
        cost = play.cost(head + start, best)
        if cost < best:
            order, best = start, cost
    for _ in range(search.sweeps):
        before = best
        for j in tuple(order):
            place = order.index(j)
            others = order[:place] + order[place + 1 :]
            for at in range(len(order)):
                if play.visits >= search.visits:
                    return order
                if at == place:
                    continue
                candidate = [*others[:at], j, *others[at:]]
                cost = play.cost(head + candidate, best)
                if cost < best - 1e-6:
                    best, order = cost, candidate
        if best >= before:
            break
    return order


def _area(runner: Runner) -> float:
    """Device-seconds to its end on its fastest kind."""
    return runner.scale * runner.options[0][1]
