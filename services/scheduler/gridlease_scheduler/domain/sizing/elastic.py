"""How many devices, of which chip, does each elastic training job hold until the next round?

The sum over jobs of ``T^-a * (goodput / reference)^p`` is made as large as possible. The reference
is the job's goodput on the fewest devices of its best chip, T the time that it still needs there: a
concave sum, so every job gets something, and a little more if it is about to end. What a job does
not hold yet is worth less: by the restart, spread over the time for which the decision is likely to
stand, and by a margin, so that running jobs change only where that clearly pays.

Source: Sia (SOSP'23), section 3, and Pollux (OSDI'21), section 4, for the normalised sum of powers
of goodput; the time weight and the margin are measured (``./dev bench elastic``).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from .lessons import App, Lessons, Trainee, learn
from .prospects import Blind, rates
from .seats import Held, Host, Wish, seat
from .shares import Option, share

_LEAST_NEEDED_S = 60.0
_MOST_LOSS = 0.95
_MOST_LOSS_HELD = 0.9  # so that a job in its restart is not thrown out by that alone


@dataclass(frozen=True, slots=True)
class Policy:
    """The weights.

    ``time_power`` a and ``goodput_power`` p as above. ``margin``: the share of its value that any
    change of a running job must gain at least; it shrinks as decisions stand longer. A decision is
    taken to stand for ``horizon_s``, or for ``gaps`` mean times between arrivals and ends where
    these are rarer. ``unknown_s``: what a job is taken to need while nothing is known of its work.
    """

    time_power: float = 0.15
    goodput_power: float = 0.7
    margin: float = 0.1
    horizon_s: float = 600.0
    gaps: float = 6.0
    unknown_s: float = 3600.0
    blind: Blind = field(default_factory=Blind)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision looks at. Hosts have devices of one chip, all of them for these jobs."""

    at_s: float
    hosts: Sequence[Host]
    jobs: Sequence[Trainee]


class Change(enum.StrEnum):
    """What a decision means for a job."""

    STAYS = "STAYS"
    STARTS = "STARTS"
    GROWS = "GROWS"
    SHRINKS = "SHRINKS"
    MOVES = "MOVES"
    STOPS = "STOPS"
    WAITS = "WAITS"


def decide(
    snapshot: Snapshot, lessons: Lessons, policy: Policy | None = None
) -> tuple[dict[str, Held], Lessons]:
    """What each job holds from now on (jobs left out wait), and what was learned."""
    policy = policy or Policy()
    lessons = learn(lessons, snapshot.jobs, snapshot.at_s)
    chips = sorted({host.chip for host in snapshot.hosts})
    capacity = [sum(h.devices for h in snapshot.hosts if h.chip == chip) for chip in chips]
    room = dict(zip(chips, capacity, strict=True))
    offers = [
        [
            Option(chips.index(chip), devices, value)
            for (chip, devices), value in values(job, lessons, room, policy).items()
        ]
        for job in snapshot.jobs
    ]
    wishes = [
        Wish(job.name, chips[option.chip], option.devices, job.held)
        for job, option in zip(snapshot.jobs, share(offers, capacity), strict=True)
        if option
    ]
    return seat(snapshot.hosts, wishes), lessons


def change(before: Held | None, after: Held | None) -> Change:
    """The word for what happens to a job."""
    if before == after:
        return Change.WAITS if after is None else Change.STAYS
    if before is None or after is None:
        return Change.STARTS if before is None else Change.STOPS
    if before.chip != after.chip or before.devices == after.devices:
        return Change.MOVES
    return Change.GROWS if after.devices > before.devices else Change.SHRINKS


def values(
    job: Trainee, lessons: Lessons, room: dict[str, int], policy: Policy
) -> dict[tuple[str, int], float]:
    """What each (chip, devices) that ``room`` has is worth for a job: above 0, without a unit."""
    app = lessons.apps.get(job.app, App())
    known = rates(lessons, job, policy.blind)
    if not known:
        return {}
    fewest = min(devices for _, devices in known)
    reference = max(rate for (_, devices), rate in known.items() if devices == fewest)
    needed_s = _needed_s(app, job, reference, policy)
    horizon_s = max(policy.horizon_s, policy.gaps * lessons.gap_s)
    margin = policy.margin * policy.horizon_s / horizon_s
    found = {}
    for (chip, devices), rate in known.items():
        if devices <= room.get(chip, 0):
            span_s = max(1.0, min(horizon_s, needed_s * reference / rate))
            worth = needed_s**-policy.time_power * (rate / reference) ** policy.goodput_power
            found[chip, devices] = worth * (1.0 - _loss(job, chip, devices, span_s, margin))
    return found


def _needed_s(app: App, job: Trainee, reference: float, policy: Policy) -> float:
    """The time that a job's remaining work takes at the reference goodput."""
    if app.total is not None:
        needed_s = app.total * (1.0 - job.done) / reference
    elif job.done > 0.0:
        needed_s = job.device_s * (1.0 - job.done) / job.done
    else:
        needed_s = max(policy.unknown_s, job.device_s)
    return max(_LEAST_NEEDED_S, needed_s)


def _loss(job: Trainee, chip: str, devices: int, span_s: float, margin: float) -> float:
    """The share of its value that a configuration loses because it is yet to be reached."""
    held = job.held
    if held is None:
        return min(_MOST_LOSS, job.restart_s / span_s)
    if held.chip == chip and held.devices == devices:
        return min(_MOST_LOSS_HELD, job.restart_left_s / span_s)
    return min(_MOST_LOSS, job.restart_s / span_s + margin)
