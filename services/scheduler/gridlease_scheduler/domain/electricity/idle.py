"""Which idle hosts to propose for power-down.

These are proposals: a host sleeps only when the operator, or the policy that the operator set,
agrees, and never while a lease lives on it. A reserve of each kind stays awake, so that the next
job does not wait for a boot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .energy import watts


@dataclass(frozen=True, slots=True)
class Host:
    """A host without leases. ``kind`` groups hosts that stand in for one another.

    Attributes:
        since_ms: Empty since then.
        idle_mw: What it draws while it is empty and awake, PUE included.
        wake_ms: How long it takes to come back; 0 = it cannot sleep.
    """

    node_id: str
    kind: str
    since_ms: int
    idle_mw: int
    wake_ms: int


@dataclass(frozen=True, slots=True)
class SleepPolicy:
    """``empty_ms``: how long a host is empty before it is proposed. ``reserve``: how many empty
    ones of each kind stay awake."""

    empty_ms: int = 900_000
    reserve: int = 1


@dataclass(frozen=True, slots=True)
class Proposal:
    node_id: str
    saved_mw: int
    message: str


def to_sleep(
    hosts: Iterable[Host], now_ms: int, policy: SleepPolicy, wanted: Mapping[str, int] | None = None
) -> tuple[Proposal, ...]:
    """Which empty hosts to power down, the thirstiest first.

    Args:
        wanted: How many hosts of each kind waiting jobs could use now; they stay awake as well.
    """
    proposals: list[tuple[Host, Proposal]] = []
    for kind, group in _by_kind(hosts).items():
        keep = policy.reserve + (wanted or {}).get(kind, 0)
        # The reserve is of those that cost least to keep; who cannot sleep is in it first.
        spare = sorted(group, key=lambda it: (it.wake_ms > 0, it.idle_mw, it.node_id))[keep:]
        for host in spare:
            empty_ms = now_ms - host.since_ms
            if host.wake_ms > 0 and empty_ms >= policy.empty_ms:
                message = (
                    f"Empty for {empty_ms // 60_000} min, {keep} other(s) of {kind} stay awake: "
                    f"powering it down saves {watts(host.idle_mw)} W."
                )
                proposals.append((host, Proposal(host.node_id, host.idle_mw, message)))
    proposals.sort(key=lambda it: (-it[0].idle_mw, it[0].node_id))
    return tuple(proposal for _, proposal in proposals)


def _by_kind(hosts: Iterable[Host]) -> dict[str, list[Host]]:
    groups: dict[str, list[Host]] = {}
    for host in hosts:
        groups.setdefault(host.kind, []).append(host)
    return groups
