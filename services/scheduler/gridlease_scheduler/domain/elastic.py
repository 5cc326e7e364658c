"""How many devices, of which chip, does each elastic training job hold until the next round?

The sum over jobs of T^-a * (goodput / reference)^p is made as large as possible: T is the time that
a job still needs on one device, the reference its goodput there. A configuration that differs from
what the job holds loses what the restart costs, spread over the time for which the decision is
likely to stand, and a margin besides, so that running jobs change only where that clearly pays.

Source: Sia (SOSP'23) and Pollux (OSDI'21) for goodput and its normalised sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .lessons import App, Lessons, Trainee, learn, rates
from .seats import Held, Host, Wish, seat
from .shares import Option, share


@dataclass(frozen=True, slots=True)
class Policy:
    """The weights. ``horizon_s``: for how long a decision stands at least."""

    time_power: float = 0.15
    goodput_power: float = 0.7
    margin: float = 0.15
    horizon_s: float = 600.0
    gaps: float = 4.0
    unknown_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision looks at."""

    at_s: float
    round_s: float
    hosts: Sequence[Host]
    jobs: Sequence[Trainee]


def decide(
    snapshot: Snapshot, lessons: Lessons, policy: Policy | None = None
) -> tuple[dict[str, Held], Lessons]:
    """What each job holds from now on (jobs left out wait), and what was learned."""
    policy = policy or Policy()
    lessons = learn(lessons, snapshot.jobs, snapshot.at_s)
    chips = sorted({host.chip for host in snapshot.hosts})
    capacity = [sum(h.devices for h in snapshot.hosts if h.chip == chip) for chip in chips]
    offers = [_options(job, lessons, policy, chips, capacity) for job in snapshot.jobs]
    choice = share(offers, capacity)
    wishes = [
        Wish(job.name, chips[option.chip], option.devices, job.held)
        for job, option in zip(snapshot.jobs, choice, strict=True)
        if option
    ]
    return seat(snapshot.hosts, wishes), lessons


def _options(
    job: Trainee,
    lessons: Lessons,
    policy: Policy,
    chips: Sequence[str],
    capacity: Sequence[int],
) -> list[Option]:
    """What a job may hold, and what that is worth."""
    app = lessons.apps.get(job.app, App())
    known = {key: rate for key, rate in rates(app, job).items() if rate > 0.0}
    if not known:
        return []
    fewest = min(devices for _, devices in known)
    reference = max(rate for (_, devices), rate in known.items() if devices == fewest)
    needed_s = _needed(app, job, reference, policy)
    weight = needed_s**-policy.time_power
    horizon_s = max(policy.horizon_s, policy.gaps * lessons.gap_s)
    found = []
    for (chip, devices), rate in known.items():
        if chip not in chips or devices > capacity[chips.index(chip)]:
            continue
        span_s = max(1.0, min(horizon_s, needed_s * reference / rate))
        value = weight * (rate / reference) ** policy.goodput_power
        value *= 1.0 - _loss(job, chip, devices, span_s, policy)
        if value > 0.0:
            found.append(Option(chips.index(chip), devices, value))
    return found


def _needed(app: App, job: Trainee, reference: float, policy: Policy) -> float:
    """Seconds of work that are left at the reference goodput."""
    if app.total is not None:
        return max(60.0, app.total * (1.0 - job.done) / reference)
    if job.done > 0.0:
        return max(60.0, job.device_s * (1.0 - job.done) / job.done)
    return max(policy.unknown_s, job.device_s)


def _loss(job: Trainee, chip: str, devices: int, span_s: float, policy: Policy) -> float:
    """The share of the value that a change costs."""
    held = job.held
    if held is not None and held.chip == chip and held.devices == devices:
        return min(0.9, job.restart_left_s / span_s)
    margin = policy.margin if held is not None else 0.0
    return min(0.95, job.restart_s / span_s + margin)


__all__ = ["Held", "Host", "Lessons", "Mapping", "Policy", "Snapshot", "Trainee", "decide"]
