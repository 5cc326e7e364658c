"""How much does a training job learn in a second, on each number of devices of each chip?

``goodput = throughput x statistical efficiency`` in units of initial-batch iterations a second: the
step time comes from the times that the job has reported, the efficiency of a larger batch from its
gradient noise, and the batch and its accumulation are those which make the product largest.

* gain(B) = (v + s) / (v * B0 / B + s): iterations of the initial batch B0 that one step with batch
  B is worth. s, v: squared norm, and variance at B0, of the gradient; efficiency = gain * B0 / B.
* seconds(B, n) = step + a * (step - sync): ``a`` steps gather gradients before one exchanges them.
* step = compute + sync, compute = c0 + c1 * local batch, sync = 0 on one device, else d0 + d1 *
  (n - 2), fitted by least squares for one node and for several nodes apart.
* A chip on which the job ran on fewer devices borrows the exchange of the chip it knows best,
  scaled by their compute times: the ratio of Sia's estimate.

Source: Pollux (OSDI'21), equations 4-11, with overlap 1 (exchange after compute: never too
optimistic); Sia (SOSP'23), section 3.2; McCandlish et al., An Empirical Model of Large-Batch
Training (2018), appendix A.1, for the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .lessons import Row

_BATCHES = 50  # sizes tried, in geometric steps
_GROWTH = 2  # rows reach this many times the most devices seen
_LEAST_STEP_S = 1e-6


@dataclass(frozen=True, slots=True)
class Step:
    """A reported mean step: seconds in all, and of these in exchanging gradients."""

    chip: str
    devices: int
    nodes: int
    local_batch: int
    step_s: float
    sync_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Gradient:
    """At a batch size: the gradient's squared norm, and its variance at the initial batch."""

    batch: int
    squared: float
    variance: float


@dataclass(frozen=True, slots=True)
class Batches:
    """The range that the job's owner allows. ``local_most``: what a device's memory holds."""

    initial: int
    most: int
    local_least: int
    local_most: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Choice:
    """The best batch on a configuration. ``accumulation``: steps before each exchange."""

    devices: int
    nodes: int
    per_s: float
    batch: int
    local_batch: int
    accumulation: int

    @property
    def row(self) -> Row:
        """What the elastic policy looks at."""
        return Row(self.devices, self.nodes, self.per_s)


def noise(
    replicas: int, batch: int, initial: int, mean_square: float, square_mean: float
) -> Gradient:
    """Squared norm and variance from what replicas see: no two batches are needed.

    ``mean_square``: mean over replicas of the squared norms of their gradients; ``square_mean``:
    squared norm of the mean gradient. With K replicas E[mean_square] = s + v, E[square_mean] =
    s + v / K, v at the local batch; variance falls as one over the batch.
    """
    assert replicas >= 2, replicas
    local = replicas / (replicas - 1) * (mean_square - square_mean)
    squared = max(0.0, square_mean - local / replicas)
    return Gradient(batch, squared, max(0.0, local) * batch / replicas / initial)


def gain(gradients: Sequence[Gradient], batch: float, initial: int) -> float:
    """What a step with ``batch`` is worth in initial steps: 1 at the initial batch, never less.

    Between reported batches both measures are interpolated, beyond them they stay.
    """
    if not gradients:
        return 1.0
    points = sorted(gradients, key=lambda each: each.batch)
    squared = _between([(x.batch, x.squared) for x in points], batch)
    variance = _between([(x.batch, x.variance) for x in points], batch)
    least = variance * initial / batch + squared
    return max(1.0, (variance + squared) / least) if least > 0.0 else 1.0


def _between(points: Sequence[tuple[float, float]], at: float) -> float:
    """Linear between points (sorted), constant beyond."""
    if at <= points[0][0]:
        return points[0][1]
    for (low, a), (high, b) in pairwise(points):
        if at <= high:
            return a + (b - a) * (at - low) / (high - low) if high > low else b
    return points[-1][1]


@dataclass(frozen=True, slots=True)
class Line:
    """``base + slope * x``, neither below 0."""

    base: float = 0.0
    slope: float = 0.0

    def at(self, x: float) -> float:
        """Its value."""
        return self.base + self.slope * x


def line(points: Sequence[tuple[float, float]]) -> Line:
    """The least-squares line with neither base nor slope below 0; flat for a single point."""
    n = len(points)
    if not n:
        return Line()
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread > 0.0 else 0.0
    if slope <= 0.0:
        return Line(max(0.0, mean_y), 0.0)
    base = mean_y - slope * mean_x
    if base >= 0.0:
        return Line(base, slope)
    squares = sum(x * x for x, _ in points)
    return Line(0.0, max(0.0, sum(x * y for x, y in points) / squares))


@dataclass(frozen=True, slots=True)
class Speed:
    """Step times on one chip. ``near``, ``far``: exchange on one node and over several."""

    compute: Line
    near: Line | None
    far: Line | None

    def sync_s(self, devices: int, nodes: int) -> float | None:
        """Seconds to exchange gradients; None where nothing is known about it."""
        if devices == 1:
            return 0.0
        first, second = (self.near, self.far) if nodes == 1 else (self.far, self.near)
        known = first or second
        return known.at(devices - 2) if known else None


def speed(steps: Sequence[Step], chip: str) -> Speed | None:
    """What the reports say about a chip; None without any."""
    mine = [step for step in steps if step.chip == chip]
    if not mine:
        return None
    compute = line([(x.local_batch, max(_LEAST_STEP_S, x.step_s - x.sync_s)) for x in mine])
    near = [(x.devices - 2.0, x.sync_s) for x in mine if x.devices > 1 and x.nodes == 1]
    far = [(x.devices - 2.0, x.sync_s) for x in mine if x.devices > 1 and x.nodes > 1]
    return Speed(compute, line(near) if near else None, line(far) if far else None)


def rows(
    steps: Sequence[Step],
    gradients: Sequence[Gradient],
    batches: Batches,
    nodes: Mapping[str, tuple[int, int]],
) -> dict[str, tuple[Choice, ...]]:
    """The best batch for each count, by chip, on the fewest nodes.

    ``nodes``: devices a node, and nodes, of each chip. Counts reach twice the most devices with
    which the job was seen; a chip without any report has no rows.
    """
    speeds = {chip: own for chip in nodes if (own := speed(steps, chip))}
    seen = max((step.devices for step in steps), default=0)
    answer: dict[str, tuple[Choice, ...]] = {}
    for chip in sorted(speeds):
        size, count = nodes[chip]
        found: list[Choice] = []
        for devices in range(1, min(size * count, max(1, _GROWTH * seen)) + 1):
            spread = -(-devices // size)
            sync_s = speeds[chip].sync_s(devices, spread)
            if sync_s is None:
                sync_s = _borrowed(speeds, chip, devices, spread, batches)
            choice = best(speeds[chip].compute, sync_s, gradients, batches, (chip, devices, spread))
            if choice:
                found.append(choice)
        answer[chip] = tuple(found)
    return answer


def _borrowed(
    speeds: Mapping[str, Speed], chip: str, devices: int, nodes: int, batches: Batches
) -> float:
    """The exchange of another chip, as long as its compute is against this one's."""
    for name, other in sorted(speeds.items()):
        sync_s = other.sync_s(devices, nodes)
        if name != chip and sync_s is not None:
            local = batches.local_least
            ours = speeds[chip].compute.at(local)
            return sync_s * ours / max(_LEAST_STEP_S, other.compute.at(local))
    return 0.0


def best(
    compute: Line,
    sync_s: float,
    gradients: Sequence[Gradient],
    batches: Batches,
    spot: tuple[str, int, int],
) -> Choice | None:
    """The batch with the largest goodput on (chip, devices, nodes); None where none is allowed."""
    chip, devices, nodes = spot
    least = max(batches.initial, devices * batches.local_least)
    room = batches.local_most.get(chip, batches.most)
    found: Choice | None = None
    for size in _sizes(least, batches.most):
        local = math.ceil(size / devices)
        extra = math.ceil(local / room) - 1
        each = math.ceil(local / (extra + 1))
        whole = each * (extra + 1) * devices
        if whole > batches.most and whole > least:
            continue
        compute_s = max(_LEAST_STEP_S, compute.at(each))
        seconds = compute_s * (extra + 1) + sync_s
        per_s = gain(gradients, whole, batches.initial) / seconds
        if found is None or per_s > found.per_s:
            found = Choice(devices, nodes, per_s, whole, each, extra)
    return found


def _sizes(least: int, most: int) -> list[float]:
    """Batches to try: in equal ratios from the least to the most."""
    if least > most:
        return []
    ratio = (most / least) ** (1.0 / (_BATCHES - 1))
    return sorted({round(least * ratio**i) for i in range(_BATCHES)})
