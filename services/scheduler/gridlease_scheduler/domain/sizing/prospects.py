"""What goodput may a job expect of each configuration: its own rows, those of its like, guesses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .curves import Point, drawn
from .lessons import Cell, Lessons, Spread, Trainee, bucket_of


@dataclass(frozen=True, slots=True)
class Blind:
    """How goodput is guessed beyond the counts that any job of the application has tried.

    ``growth``: up to this many times the largest known count; ``power``: of the first doubling,
    where no two counts are known; ``fade``: of each further doubling against the one before.
    ``doubt``: by how many standard deviations an estimate is lowered: the best of many is lucky.
    """

    growth: int = 4
    power: float = 0.8
    fade: float = 0.9
    doubt: float = 0.5


Points = dict[tuple[str, int], Point]  # (chip, devices) -> on the fewest nodes


def rates(
    lessons: Lessons, job: Trainee, blind: Blind | None = None
) -> dict[tuple[str, int], float]:
    """Goodput of each (chip, devices) that the job may take, on the fewest nodes."""
    blind = blind or Blind()
    found = _own(lessons, job)
    _borrow(found, lessons, job)
    if lessons.error > 0.0:
        for chip in sorted({chip for chip, _ in found}):
            curve = {n: point for (where, n), point in found.items() if where == chip}
            found |= {(chip, n): point for n, point in drawn(curve).items()}
    _extend(found, job, blind)
    _keep_held(found, job)
    return {
        key: math.exp(point.log - blind.doubt * math.sqrt(point.variance))
        for key, point in found.items()
        if job.least <= key[1] <= job.most
    }


def _own(lessons: Lessons, job: Trainee) -> Points:
    """A job's rows, which come with the fewest nodes last; what it did not run, from all alike."""
    found: Points = {}
    track = lessons.tracks.get(job.name)
    ran: frozenset[Spread] = track.ran if track else frozenset()
    here = _cells(lessons, job).get(bucket_of(job.done), {})
    for chip, rows in sorted(job.rows.items()):
        for row in rows:
            if row.per_s <= 0.0:
                continue
            spread = chip, row.devices, row.nodes
            cell = here.get(spread)
            if spread in ran:
                point = Point(math.log(row.per_s), 0.0)
            elif cell:
                point = _point(cell, lessons)
            else:
                point = Point(math.log(row.per_s), lessons.error**2)
            found[chip, row.devices] = point
    return found


def _cells(lessons: Lessons, job: Trainee) -> Mapping[int, Mapping[Spread, Cell]]:
    app = lessons.apps.get(job.app)
    return app.cells if app else {}


def _point(cell: Cell, lessons: Lessons, shift: float = 0.0) -> Point:
    return Point(cell.log + shift, lessons.error**2 / cell.weight)


def _borrow(found: Points, lessons: Lessons, job: Trainee) -> None:
    """Counts that only others have seen: here, and at the next part of the work that knows more."""
    app = lessons.apps.get(job.app)
    if app is None or app.known <= found.keys():
        return
    own, bucket = dict(found), bucket_of(job.done)
    for at in sorted(app.cells, key=lambda at: (abs(at - bucket), at)):
        fewest: dict[tuple[str, int], tuple[int, Cell]] = {}
        for (chip, devices, nodes), cell in app.cells[at].items():
            key = chip, devices
            if key not in found and (key not in fewest or nodes < fewest[key][0]):
                fewest[key] = nodes, cell
        shifts = _shifts(own, app.cells[at]) if fewest else {}
        for (chip, devices), (_, cell) in fewest.items():
            below = [shift for shift in shifts.get(chip, ()) if shift[0] <= devices]
            found[chip, devices] = _point(cell, lessons, max(below, default=(0, 0.0))[1])
        if fewest and at != bucket:
            return


def _shifts(own: Points, cells: Mapping[Spread, Cell]) -> dict[str, list[tuple[int, float]]]:
    """How a job's goodput differs from its like's, by chip and count that both know."""
    found: dict[str, list[tuple[int, float]]] = {}
    for (chip, devices, _), cell in cells.items():
        if (chip, devices) in own:
            found.setdefault(chip, []).append((devices, own[chip, devices].log - cell.log))
    return found


def _keep_held(found: Points, job: Trainee) -> None:
    """What a job holds stays possible, at the goodput of the next smaller count."""
    if job.held is None or (job.held.chip, job.held.devices) in found:
        return
    chip, devices = job.held.chip, job.held.devices
    below = [(n, point) for (where, n), point in found.items() if where == chip and n < devices]
    if below:
        found[chip, devices] = max(below, key=lambda each: each[0])[1]


def _extend(found: Points, job: Trainee, blind: Blind) -> None:
    """Doublings beyond what is known, and the least count that the job accepts."""
    for chip in sorted({chip for chip, _ in found}):
        n = max(count for where, count in found if where == chip)
        point, half = found[chip, n], found.get((chip, n // 2))
        power = blind.power
        if half and n % 2 == 0:
            power = min(1.0, (point.log - half.log) / math.log(2))
        largest = min(job.most, max(blind.growth * n, job.least))
        while 2 * n <= largest or n < job.least:
            power = max(0.0, power * blind.fade)
            after = min(2 * n, largest)
            point = Point(point.log + power * math.log(after / n), point.variance)
            n = after
            found[chip, n] = point
