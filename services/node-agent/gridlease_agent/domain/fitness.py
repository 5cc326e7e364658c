"""Is this host fit to be lent, and how does it compare? From what its start-up test found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# What counts as full marks; twice as much is no better. Source: a 2023 server with an NVMe disk.
CPU_MBPS = 1_500  # SHA-256 on one core
MEMORY_MBPS = 8_000  # copied by one core
DISK_MBPS = 400  # written and synced
MOST = 1000
_AILMENT_CHARS = 200
_DRIFT_PPM = 1_000  # Source: docs/lease-protocol.md, section 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, and in words what is wrong (empty = nothing)."""

    check: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Speeds:
    """What the burn-in measured, in 10^6 bytes a second."""

    cpu_mbps: int
    memory_mbps: int
    disk_mbps: int


@dataclass(frozen=True, slots=True)
class Fitness:
    """``score``: 0 = not measured, else 1 to 1000. ``ailment``: empty = it is well."""

    score: int = 0
    ailment: str = ""


def score(speeds: Speeds) -> int:
    """The geometric mean of the shares of full marks, in thousandths; never 0.

    >>> score(Speeds(1_500, 8_000, 400)), score(Speeds(375, 8_000, 9_999)), score(Speeds(0, 1, 1))
    (1000, 630, 1)
    """
    pairs = (
        (speeds.cpu_mbps, CPU_MBPS),
        (speeds.memory_mbps, MEMORY_MBPS),
        (speeds.disk_mbps, DISK_MBPS),
    )
    shares = [min(1.0, measured / full) for measured, full in pairs]
    return max(1, round(MOST * math.prod(shares) ** (1 / len(shares))))


def ailment(findings: Iterable[Finding]) -> str:
    """What is wrong, all of it in one line; empty where nothing is.

    >>> ailment([Finding("clock"), Finding("disk", "no space is left")])
    'disk: no space is left'
    """
    words = "; ".join(f"{one.check}: {one.trouble}" for one in findings if one.trouble)
    return words if len(words) <= _AILMENT_CHARS else words[: _AILMENT_CHARS - 1] + "…"


def clocks(boottime_ns: int, raw_ns: int, wall_s: float, built_s: float) -> Finding:
    """Whether the clocks that deadlines go by agree over one span, and the time of day can be.

    Args:
        boottime_ns: the span by CLOCK_BOOTTIME.
        raw_ns: the same span by CLOCK_MONOTONIC_RAW.
        wall_s: Unix time of now.
        built_s: Unix time of something that is certainly past.
    """
    if boottime_ns <= 0 or raw_ns <= 0:
        return Finding("clock", "it stands still")
    apart_ppm = abs(boottime_ns - raw_ns) * 1_000_000 // raw_ns
    # Reading both takes time as well: within a tenth of a millisecond they are one.
    if apart_ppm > _DRIFT_PPM and abs(boottime_ns - raw_ns) > 100_000:
        return Finding("clock", f"its two clocks run {apart_ppm} ppm apart")
    if wall_s < built_s:
        return Finding("clock", "the time of day lies in the past; set it")
    return Finding("clock")
