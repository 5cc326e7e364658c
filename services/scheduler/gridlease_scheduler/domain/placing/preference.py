"""In which order a purpose likes the chips that would do, and why.

Candidates in, order out; every part of a key is an integer, and lower is better:

- training: kind (GPU, TPU, ASIC, edge, FPGA, CPU); nano-units for the work of one A100-80GB hour.
- inference: latency (meets the target, known, unknown); us beyond the target; peak watts;
  nano-units an hour.
- batch: nano-units for the work of one A100-80GB hour; peak watts.

Where a job's alternatives are ordered, the place of its alternative comes before all of these;
where they are equal, it does not count. Ties go to the name, so the order is always the same.

Prices come from offers. A candidate without one is taken to cost its catalogue entry's relative
cost times the median of what the others pay for a point of theirs, so that priced and unpriced
candidates compare. Throughput is the job's own measured figure where there is one.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from gridlease_scheduler.domain.chips import Chip, Kind, Work
from gridlease_scheduler.domain.job import Purpose

Key: TypeAlias = tuple[int, ...]

_LAST = 2**62  # of a chip of which nothing is known
_KINDS = {kind: place for place, kind in enumerate(Kind)}
_WORK = {
    Purpose.TRAINING: Work.TRAINING,
    Purpose.INFERENCE: Work.INFERENCE,
    Purpose.BATCH: Work.BATCH,
}
_MEETS, _KNOWN, _UNKNOWN = range(3)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a job wants of its chip.

    Attributes:
        latency_target_us: Of one request; 0 = no target. For inference only.
        model_class: Whose published latencies apply, such as ``resnet-50``.
        ordered: Earlier alternatives come first; otherwise all are equal.
    """

    purpose: Purpose
    latency_target_us: int = 0
    model_class: str = ""
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chip that would do.

    Attributes:
        chip: Its catalogue entry; None = it has none, and comes last.
        count: How many of it the job would hold.
        price_nano_per_hour: Of one, from an offer; None = there is no offer.
        alternative: The place of the alternative it belongs to.
        throughput_milli: The job's own measured figure of one, A100-80GB = 100,000.
        latency_us: The job's own measured figure.
    """

    name: str
    chip: Chip | None
    count: int = 1
    price_nano_per_hour: int | None = None
    alternative: int = 0
    throughput_milli: int | None = None
    latency_us: int | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in its place. ``meets``: its known latency is within the target; None = no
    target, or its latency is not known, and then nothing is claimed."""

    candidate: Candidate
    key: Key
    meets: bool | None
    words: str


def rank(wish: Wish, candidates: Iterable[Candidate]) -> tuple[Ranked, ...]:
    """All candidates, the best first."""
    given = tuple(candidates)
    point_nano = _point_nano(given)
    found = (_ranked(wish, candidate, point_nano) for candidate in given)
    return tuple(sorted(found, key=lambda it: (*it.key, it.candidate.name)))


def key(wish: Wish, candidate: Candidate, point_nano: int = 1) -> Key:
    """What a candidate is sorted by; lower is better.

    Args:
        point_nano: What a point of relative cost is taken to cost an hour, where it has no price.
    """
    place = candidate.alternative if wish.ordered else 0
    chip = candidate.chip
    if chip is None:
        return (place, _LAST, _LAST, _LAST, _LAST)
    hourly = _hourly_nano(candidate, point_nano)
    work = _work_nano(wish.purpose, candidate, chip, hourly)
    watts = chip.peak_watts * candidate.count
    match wish.purpose:
        case Purpose.TRAINING:
            return (place, _KINDS[chip.kind], work)
        case Purpose.INFERENCE:
            return (place, *_latency(wish, candidate), watts, hourly)
        case Purpose.BATCH:
            return (place, work, watts)


def latency_us(wish: Wish, candidate: Candidate) -> int | None:
    """What one request takes: measured by the job, or published for its class; None = unknown."""
    if candidate.latency_us is not None:
        return candidate.latency_us
    if candidate.chip is None or not wish.model_class:
        return None
    return candidate.chip.latency_for(wish.model_class)


def meets(wish: Wish, candidate: Candidate) -> bool | None:
    """Is the known latency within the target? None = no target, or unknown."""
    known = latency_us(wish, candidate)
    if known is None or not wish.latency_target_us:
        return None
    return known <= wish.latency_target_us


def _latency(wish: Wish, candidate: Candidate) -> tuple[int, int]:
    if not wish.latency_target_us:
        return (_MEETS, 0)
    known = latency_us(wish, candidate)
    if known is None:
        return (_UNKNOWN, 0)
    beyond = max(0, known - wish.latency_target_us)
    return (_KNOWN if beyond else _MEETS, beyond)


def _point_nano(candidates: tuple[Candidate, ...]) -> int:
    """What a point of relative cost costs an hour, by those that have a price: the median."""
    known = [
        it.price_nano_per_hour // it.chip.cost
        for it in candidates
        if it.chip is not None and it.price_nano_per_hour is not None
    ]
    return max(1, statistics.median_low(known)) if known else 1


def _hourly_nano(candidate: Candidate, point_nano: int) -> int:
    assert candidate.chip is not None, candidate
    price = candidate.price_nano_per_hour
    return candidate.count * (candidate.chip.cost * point_nano if price is None else price)


def _work_nano(purpose: Purpose, candidate: Candidate, chip: Chip, hourly_nano: int) -> int:
    """What it costs to do what one A100-80GB does in an hour, rounded up.

    Without any price the unit is a thousandth of a point: only the order counts.
    """
    milli = candidate.throughput_milli
    if milli is None:
        milli = 1_000 * chip.throughput_for(_WORK[purpose])
    if milli <= 0:
        return _LAST
    return -(-hourly_nano * 1_000 * 100_000 // (milli * candidate.count))


def _ranked(wish: Wish, candidate: Candidate, point_nano: int) -> Ranked:
    return Ranked(
        candidate,
        key(wish, candidate, point_nano),
        meets(wish, candidate),
        _words(wish, candidate),
    )


def _words(wish: Wish, candidate: Candidate) -> str:
    chip = candidate.chip
    if chip is None:
        return f"{candidate.name} has no catalogue entry, so it comes last"
    source = "its offer" if candidate.price_nano_per_hour is not None else "its relative cost"
    figure = "the job's measured" if candidate.throughput_milli is not None else "its catalogued"
    match wish.purpose:
        case Purpose.TRAINING:
            return f"{chip.kind} before the kinds after it, then {figure} throughput by {source}"
        case Purpose.BATCH:
            return f"the lowest cost of work: {figure} throughput by {source}"
        case Purpose.INFERENCE:
            return _latency_words(wish, candidate, chip)


def _latency_words(wish: Wish, candidate: Candidate, chip: Chip) -> str:
    power = f"{chip.peak_watts * candidate.count} W at most"
    known = latency_us(wish, candidate)
    if not wish.latency_target_us:
        return f"the least power: {power}"
    if known is None:
        return f"{power}; its latency for this job is not known, so no target is claimed"
    whose = "measured by the job" if candidate.latency_us is not None else "published"
    verb = "meets" if known <= wish.latency_target_us else "misses"
    return f"{power}; {known} us ({whose}) {verb} the target of {wish.latency_target_us} us"
