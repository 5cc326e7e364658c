"""Sessions into running tasks: how many there may be, and when a task without any is idle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gridlease_kernel.faults import Exhausted

from gridlease_agent.domain.spool import Row
from gridlease_agent.domain.task import Overtime, Task


@dataclass(frozen=True, slots=True)
class Limits:
    """Of sessions: how many of a lease and of a node at once, and for how long each."""

    per_lease: int = 32
    per_node: int = 128
    idle_ms: int = 3_600_000  # without a byte either way
    total_ms: int = 43_200_000


@dataclass(frozen=True, slots=True)
class Visits:
    """Sessions of one lease: those that are open, and when the last of the others ended."""

    open: int = 0
    last_ns: int = 0  # boottime


def admitted(limits: Limits, visits: Mapping[str, Visits], lease_id: str) -> Visits:
    """The lease's visits with one more.

    Raises:
        Exhausted: TOO_MANY_SESSIONS.
    """
    mine = visits.get(lease_id, Visits())
    if mine.open >= limits.per_lease:
        raise _too_many(f"The task has {limits.per_lease} sessions open.")
    if sum(each.open for each in visits.values()) >= limits.per_node:
        raise _too_many(f"The node has {limits.per_node} sessions open.")
    return replace(mine, open=mine.open + 1)


def left(mine: Visits, now_ns: int) -> Visits:
    """One of them has ended."""
    assert mine.open > 0, mine
    return Visits(mine.open - 1, max(mine.last_ns, now_ns))


def idle(row: Row, task: Task, visits: Visits, since_ns: int, now_ns: int) -> Overtime | None:
    """Whether nobody has been in a task for as long as it allows: warned, killed a notice later.

    Args:
        since_ns: boottime since which sessions are counted: an agent that started anew has
            forgotten those before, and puts the stop off rather than stop too early.
        now_ns: boottime of the row's boot.
    """
    if not task.idle_stop_ms or row.ready_ns is None or visits.open:
        return None
    limit_ns = max(row.ready_ns, since_ns, visits.last_ns) + task.idle_stop_ms * 1_000_000
    if now_ns < limit_ns:
        return None
    return Overtime(row.lease_id, limit_ns + task.notice_ms * 1_000_000)


def _too_many(message: str) -> Exhausted:
    return Exhausted(
        message,
        reason="TOO_MANY_SESSIONS",
        remedy="Close some of them first.",
    )
