"""What a device was measured to do, and when it has to be measured again."""

from __future__ import annotations

from dataclasses import dataclass

_DRIFT_PERCENT = 15  # Source: docs/devices.md; what a healthy device may lose between two looks


@dataclass(frozen=True, slots=True)
class Certificate:
    """``correct``: its results agreed with fp64 within their type's bound. ``at_ns``: Unix time."""

    driver: str
    gflops: int
    memory_mbps: int
    correct: bool
    at_ns: int
    emulated: bool = False


def due(known: Certificate | None, driver: str) -> bool:
    """Whether to measure: never done, or under another driver."""
    return known is None or known.driver != driver


def drifted(before: Certificate | None, after: Certificate) -> str:
    """What is wrong with a new measurement, in words; "" = nothing.

    >>> one = Certificate("1", 1000, 1000, True, 0)
    >>> drifted(one, Certificate("1", 800, 1000, True, 0))
    'it multiplies at 800 GFLOP/s, where it did at 1000'
    """
    if not after.correct:
        return "its results are not what fp64 says"
    if before is None or before.driver != after.driver:
        return ""
    least = 100 - _DRIFT_PERCENT
    if after.gflops * 100 < before.gflops * least:
        return f"it multiplies at {after.gflops} GFLOP/s, where it did at {before.gflops}"
    if after.memory_mbps * 100 < before.memory_mbps * least:
        return f"its memory moves {after.memory_mbps} MB/s, where it did {before.memory_mbps}"
    return ""
