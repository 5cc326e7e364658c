"""What training jobs of one application teach about each other: goodput, and how much work it is.

Jobs with the same application label (an image, a model) behave alike, so what one of them has
measured is known before the next one has tried it, and once some of the work was seen to be done,
the whole is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .seats import Held

BUCKETS = 50  # parts of a job's work within which its goodput is taken for constant
_MEASURED_WEIGHT = 50.0  # of a row that was run, against one that was estimated
_MOST_WEIGHT = 200.0
_MOST_APPS = 500
_FADE = 0.9  # of the mean time between events, by each event
_MOST_GAP_S = 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """Goodput on ``devices`` of a chip spread over ``nodes``: units of work a second."""

    devices: int
    nodes: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Trainee:
    """An elastic job as it stands. ``done``: the share of its work that is behind it.

    ``rows``: goodput by chip, as far as it is known for this job; ``hint``: the devices its user
    would have asked for; ``seen``: the most devices on which it has made progress.
    """

    name: str
    app: str
    age_s: float
    done: float
    held: Held | None
    restart_left_s: float
    restart_s: float
    restarts: int
    device_s: float
    hint: int
    least: int
    most: int
    seen: int
    rows: Mapping[str, Sequence[Row]]


Spread = tuple[str, int, int]  # chip, devices, nodes


@dataclass(frozen=True, slots=True)
class Cell:
    """A weighted mean of logarithms of goodput."""

    weight: float
    log: float

    def with_(self, weight: float, log: float) -> Cell:
        """One more sight of it."""
        total = self.weight + weight
        mean = self.log + (log - self.log) * weight / total
        return Cell(min(total, _MOST_WEIGHT), mean)


@dataclass(frozen=True, slots=True)
class App:
    """What is known of an application: rows by part of the work; work seen, share it was."""

    cells: Mapping[int, Mapping[Spread, Cell]] = field(default_factory=dict)
    work: float = 0.0
    share: float = 0.0

    @property
    def total(self) -> float | None:
        """The whole work of one job; None while too little was seen."""
        return self.work / self.share if self.share > 0.0 else None


@dataclass(frozen=True, slots=True)
class Track:
    """Where a job stood when it was last looked at."""

    done: float
    work: float
    bucket: int
    seen: int
    held: Held | None
    per_s: float
    restart_left_s: float


@dataclass(frozen=True, slots=True)
class Lessons:
    """All that is carried from one decision to the next."""

    apps: Mapping[str, App] = field(default_factory=dict)
    tracks: Mapping[str, Track] = field(default_factory=dict)
    at_s: float = 0.0
    gap_s: float = 0.0  # mean time between arrivals and ends, fading


def learn(lessons: Lessons, jobs: Sequence[Trainee], now_s: float) -> Lessons:
    """What is known after looking at the jobs once more."""
    span_s = max(0.0, now_s - lessons.at_s) if lessons.tracks else 0.0
    apps = dict(lessons.apps)
    tracks: dict[str, Track] = {}
    for job in jobs:
        app = apps.get(job.app, App())
        app, tracks[job.name] = _look(app, lessons.tracks.get(job.name), job, span_s)
        apps.pop(job.app, None)  # the last looked at comes last
        apps[job.app] = app
    for name in list(apps)[: max(0, len(apps) - _MOST_APPS)]:
        del apps[name]
    names = {job.name for job in jobs}
    events = len(names ^ lessons.tracks.keys())
    return Lessons(apps, tracks, now_s, _gap(lessons.gap_s, span_s, events))


def _gap(gap_s: float, span_s: float, events: int) -> float:
    """The mean time between events, of which ``events`` happened in the last ``span_s``."""
    if not events:
        return min(_MOST_GAP_S, gap_s + span_s * (1 - _FADE))
    for _ in range(events):
        gap_s = gap_s * _FADE + (1 - _FADE) * span_s / events
    return gap_s


def _look(app: App, track: Track | None, job: Trainee, span_s: float) -> tuple[App, Track]:
    """One job: its new rows, and the work it has done since."""
    bucket = bucket_of(job.done)
    if track is None or track.bucket != bucket or track.seen != job.seen:
        app = _with_rows(app, bucket, job)
    work = 0.0
    if track is not None:
        work = track.work
        ran_s = max(0.0, span_s - track.restart_left_s)
        if track.held is not None and track.held == job.held:
            work += track.per_s * ran_s
            if ran_s > 0.0:
                app = _measured(app, bucket, job)
        if job.done > track.done:
            share = app.share + job.done - track.done
            app, work = replace(app, work=app.work + work, share=share), 0.0
    per_s = held_rate(job) or 0.0
    return app, Track(job.done, work, bucket, job.seen, job.held, per_s, job.restart_left_s)


def bucket_of(done: float) -> int:
    """The part of the work in which a job is."""
    return min(BUCKETS - 1, int(done * BUCKETS))


def held_rate(job: Trainee) -> float | None:
    """Goodput of what the job holds, by its own rows."""
    if job.held is None:
        return None
    wanted = job.held.devices, len(job.held.nodes)
    near = [row for row in job.rows.get(job.held.chip, ()) if row.devices == wanted[0]]
    if not near:
        return None
    return min(near, key=lambda row: abs(row.nodes - wanted[1])).per_s


def _with_rows(app: App, bucket: int, job: Trainee) -> App:
    cells = dict(app.cells.get(bucket, {}))
    for chip, rows in job.rows.items():
        for row in rows:
            if row.per_s > 0.0:
                key, log = (chip, row.devices, row.nodes), math.log(row.per_s)
                cells[key] = cells.get(key, Cell(0.0, 0.0)).with_(1.0, log)
    return replace(app, cells={**app.cells, bucket: cells})


def _measured(app: App, bucket: int, job: Trainee) -> App:
    """What a job runs on is no longer an estimate."""
    per_s = held_rate(job)
    if not per_s or job.held is None:
        return app
    key = job.held.chip, job.held.devices, len(job.held.nodes)
    cells = dict(app.cells.get(bucket, {}))
    cells[key] = cells.get(key, Cell(0.0, 0.0)).with_(_MEASURED_WEIGHT, math.log(per_s))
    return replace(app, cells={**app.cells, bucket: cells})


@dataclass(frozen=True, slots=True)
class Blind:
    """How goodput is guessed beyond the counts that any job of the application has tried.

    ``growth``: up to this many times the largest known count; ``power``: of the first doubling,
    where no two counts are known; ``fade``: of each further doubling against the one before.
    """

    growth: int = 4
    power: float = 0.8
    fade: float = 0.9


Known = dict[tuple[str, int], float]  # (chip, devices) -> goodput on the fewest nodes


def rates(app: App, job: Trainee, blind: Blind | None = None) -> Known:
    """Goodput of each configuration that the job may take: its own rows, its like's, and guesses.

    Rows come with the fewest nodes last of their count, so these win.
    """
    found: Known = {}
    here = app.cells.get(bucket_of(job.done), {})
    for chip, rows in sorted(job.rows.items()):
        for row in rows:
            cell = here.get((chip, row.devices, row.nodes))
            found[chip, row.devices] = math.exp(cell.log) if cell else row.per_s
    _borrow(found, app, job)
    _extend(found, job, blind or Blind())
    _keep_held(found, job)
    return {
        key: rate for key, rate in found.items() if job.least <= key[1] <= job.most and rate > 0.0
    }


def _borrow(found: Known, app: App, job: Trainee) -> None:
    """Counts that only others have seen: here, and at the next part of the work that knows more."""
    own = dict(found)
    bucket = bucket_of(job.done)
    for at in sorted(app.cells, key=lambda at: (abs(at - bucket), at)):
        fewest: dict[tuple[str, int], tuple[int, float]] = {}
        for (chip, devices, nodes), cell in app.cells[at].items():
            key = chip, devices
            if key not in found and (key not in fewest or nodes < fewest[key][0]):
                fewest[key] = nodes, cell.log
        for (chip, devices), (_, log) in fewest.items():
            found[chip, devices] = math.exp(log + _shift(own, app.cells[at], chip, devices))
        if fewest and at != bucket:
            return


def _shift(own: Known, cells: Mapping[Spread, Cell], chip: str, devices: int) -> float:
    """How a job's goodput differs from its like's, by the largest count that both know."""
    both = [
        (n, math.log(own[chip, n]) - cell.log)
        for (where, n, _), cell in cells.items()
        if where == chip and n <= devices and own.get((chip, n), 0.0) > 0.0
    ]
    return max(both, default=(0, 0.0))[1]


def _keep_held(found: Known, job: Trainee) -> None:
    """What a job holds stays possible, at the goodput of the next smaller count."""
    if job.held is None or (job.held.chip, job.held.devices) in found:
        return
    chip, devices = job.held.chip, job.held.devices
    below = [(n, rate) for (where, n), rate in found.items() if where == chip and n < devices]
    if below:
        found[chip, devices] = max(below)[1]


def _extend(found: Known, job: Trainee, blind: Blind) -> None:
    """Doublings beyond what is known, and the least count that the job accepts."""
    for chip in sorted({chip for chip, _ in found}):
        n = max(count for where, count in found if where == chip)
        rate, half = found[chip, n], found.get((chip, n // 2), 0.0)
        if rate <= 0.0:
            continue
        power = min(1.0, math.log2(rate / half)) if half > 0.0 and n % 2 == 0 else blind.power
        largest = min(job.most, max(blind.growth * n, job.least))
        while 2 * n <= largest or n < job.least:
            power = max(0.0, power * blind.fade)
            after = min(2 * n, largest)
            rate *= (after / n) ** power
            n = after
            found[chip, n] = rate
