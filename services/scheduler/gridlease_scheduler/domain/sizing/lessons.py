"""What training jobs of one application teach about each other: goodput, and how much work it is.

Jobs with the same application label (an image, a model) behave alike, so what one of them has
measured is known before the next one has tried it, and once some of the work was seen to be done,
the whole is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from .curves import unevenness
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
    """What is known of an application.

    ``cells``: rows by part of the work; ``known``: (chip, devices) of all of them; ``work``: what
    was seen done, ``share``: of how many jobs' whole work.
    """

    cells: Mapping[int, Mapping[Spread, Cell]] = field(default_factory=dict)
    known: frozenset[tuple[str, int]] = frozenset()
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
    ran: frozenset[Spread] = frozenset()


@dataclass(frozen=True, slots=True)
class Lessons:
    """All that is carried from one decision to the next.

    ``error``: the standard deviation of the logarithm of goodput that was estimated and not run.
    """

    apps: Mapping[str, App] = field(default_factory=dict)
    tracks: Mapping[str, Track] = field(default_factory=dict)
    at_s: float = 0.0
    gap_s: float = 0.0  # mean time between arrivals and ends, fading
    error: float = 0.0


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
    gap_s = _gap(lessons.gap_s, span_s, events)
    return Lessons(apps, tracks, now_s, gap_s, _error(lessons, jobs))


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
    work, ran = 0.0, frozenset[Spread]()
    per_s = held_rate(job) or 0.0
    if track is not None:
        work, ran = track.work, track.ran
        same = track.held == job.held
        ran_s = max(0.0, span_s - (track.restart_left_s if same else job.restart_s))
        if job.held is not None and ran_s > 0.0:
            work += (track.per_s if same else per_s) * ran_s
            app = _measured(app, bucket, job)
            ran |= {(job.held.chip, job.held.devices, len(job.held.nodes))}
        if job.done > track.done:
            share = app.share + job.done - track.done
            app, work = replace(app, work=app.work + work, share=share), 0.0
    left_s = job.restart_left_s
    return app, Track(job.done, work, bucket, job.seen, job.held, per_s, left_s, ran)


def _error(lessons: Lessons, jobs: Sequence[Trainee]) -> float:
    """What estimates are off by, from the unevenness of all rows that have neighbours."""
    found = []
    for job in jobs:
        track = lessons.tracks.get(job.name)
        for chip, rows in sorted(job.rows.items()):
            curve = {
                row.devices: math.log(row.per_s)
                for row in rows
                if row.per_s > 0.0
                and (track is None or (chip, row.devices, row.nodes) not in track.ran)
            }
            error = unevenness(curve)
            if error is not None:
                found.append(error)
    if not found:
        return lessons.error
    now = median(found)
    return lessons.error + (now - lessons.error) * (1 - _FADE) if lessons.error else now


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
    return _with_cells(app, bucket, cells)


def _with_cells(app: App, bucket: int, cells: Mapping[Spread, Cell]) -> App:
    known = app.known | {(chip, devices) for chip, devices, _ in cells}
    return replace(app, cells={**app.cells, bucket: cells}, known=known)


def _measured(app: App, bucket: int, job: Trainee) -> App:
    """What a job runs on is no longer an estimate."""
    per_s = held_rate(job)
    if not per_s or job.held is None:
        return app
    key = job.held.chip, job.held.devices, len(job.held.nodes)
    cells = dict(app.cells.get(bucket, {}))
    cells[key] = cells.get(key, Cell(0.0, 0.0)).with_(_MEASURED_WEIGHT, math.log(per_s))
    return _with_cells(app, bucket, cells)
