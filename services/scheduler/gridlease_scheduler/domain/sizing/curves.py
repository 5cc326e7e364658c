"""Goodput over the number of devices is a smooth curve: how far do estimates stray, and from what?

Estimates of configurations that were never run err by tens of per cent. Whoever picks the best of
many such estimates picks the luckiest error, restarts for it, finds out, and restarts again. So the
size of the errors is read off the unevenness of neighbouring counts, and estimates are drawn to a
curve through all of them, the more the less sure they are.

Source: second differences as a measure of noise: Rice (1984); the drawing together: the usual
inverse-variance weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

_NORMAL = 0.6745  # median of the size of a normal deviate
_SECOND = math.sqrt(6.0)  # deviation of a second difference of independent errors
_MISFIT = 0.05**2  # variance of true goodput about the curve: nodes' edges, memory
_TRUE = 0.06  # what measured curves are uneven by: nodes' edges, odd batches


@dataclass(frozen=True, slots=True)
class Point:
    """Logarithm of goodput, and the variance of what is known about it."""

    log: float
    variance: float


def unevenness(curve: Mapping[int, float]) -> float | None:
    """The standard deviation of errors, from logarithms by count; None where neighbours lack."""
    bends = [
        abs(curve[n - 1] - 2 * log + curve[n + 1])
        for n, log in curve.items()
        if n - 1 in curve and n + 1 in curve
    ]
    if len(bends) < 2:
        return None
    error = median(bends) / _NORMAL / _SECOND
    return math.sqrt(max(0.0, error**2 - _TRUE**2))


def drawn(curve: Mapping[int, Point]) -> dict[int, Point]:
    """The points, drawn to the parabola in log2(count) that fits them best."""
    if all(point.variance <= 0.0 for point in curve.values()):
        return dict(curve)
    terms = min(3, len(curve) - 1)
    if terms < 2:
        return dict(curve)
    factors, spread = _fit(curve, terms)
    found = {}
    for n, point in curve.items():
        x = [math.log2(n) ** power for power in range(terms)]
        level = sum(a * b for a, b in zip(factors, x, strict=True))
        about = _MISFIT
        for a, row in zip(x, spread, strict=True):
            about += a * sum(b * c for b, c in zip(row, x, strict=True))
        share = point.variance / (point.variance + about)
        log = point.log + (level - point.log) * share
        found[n] = Point(log, point.variance * (1.0 - share))
    return found


def _fit(curve: Mapping[int, Point], terms: int) -> tuple[list[float], list[list[float]]]:
    """Weighted least squares in powers of log2(count): factors, and their covariance."""
    moments, right = [0.0] * (2 * terms - 1), [0.0] * terms
    for n, point in sorted(curve.items()):
        x, part = math.log2(n), 1.0 / (point.variance + _MISFIT)
        for power in range(2 * terms - 1):
            moments[power] += part
            if power < terms:
                right[power] += part * point.log
            part *= x
    inverse = _inverse([moments[i : i + terms] for i in range(terms)])
    factors = [sum(a * b for a, b in zip(row, right, strict=True)) for row in inverse]
    return factors, inverse


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Gauss and Jordan, for a matrix that is positive definite."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        lead = rows[i][i]
        rows[i] = [value / lead for value in rows[i]]
        for j in range(size):
            if j != i:
                factor = rows[j][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[size:] for row in rows]
