"""Sandboxes made ahead: what to make, what to keep, what to drop, and which one a lease takes.

    wishes -> plan(rows, seen, wishes, bounds, boot_id) -> Plan
    choose(rows, waiting, need) -> the one that a lease takes, or None
    made(spool, row) -> Spool                 on disk BEFORE anything of it is made
    without(spool, warm_id) -> Spool          with the lease's STARTING row, or before it is ended

A row is of one tenant for ever. A sandbox without a row is nobody's and is ended, whoever made
it; a row without a sandbox is deleted. So a crash anywhere costs a sandbox and nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from gridlease_agent.domain.spool import Spool, Warm, WarmKind

PREFIX = "warm-"
_MIB = 1 << 20
# What one may use while it waits; a lease's own limits hold from its start.
CREATED_BYTES, FROZEN_BYTES = 32 * _MIB, 384 * _MIB


class Being(enum.StrEnum):
    """How far one has come, as its folder and its keeper say."""

    MAKING = "MAKING"
    WAITING = "WAITING"
    OVER = "OVER"


@dataclass(frozen=True, slots=True)
class Wish:
    """So many of a kind would be of use; the most wanted first."""

    kind: WarmKind
    count: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of all that a node holds ahead together."""

    count: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """``drop``: rows and sandboxes to end, whether there is a row or not. ``keep``: the others."""

    make: tuple[WarmKind, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """What a lease is, as far as that decides whether one made ahead will do.

    ``alone``: it holds a device, a network or cores of its own: it starts as any other.
    ``python``: its command is a call of Python, which a frozen one runs at once.
    """

    kind: WarmKind
    alone: bool = False
    python: bool = False


def held_bytes(kind: WarmKind) -> int:
    """The memory limit of one that waits."""
    return min(kind.memory_bytes, FROZEN_BYTES if kind.modules else CREATED_BYTES)


def plan(
    rows: Mapping[str, Warm],
    seen: Mapping[str, Being],
    wishes: Iterable[Wish],
    bounds: Bounds,
    boot_id: str,
) -> Plan:
    """What to make, drop and keep. ``seen``: every sandbox made ahead that is on this host."""
    good = [
        row
        for _, row in sorted(rows.items())
        if row.boot_id == boot_id and seen.get(row.warm_id, Being.OVER) is not Being.OVER
    ]
    wanted = _within(wishes, bounds)
    keep: list[str] = []
    for row in good:
        if wanted.get(row.kind, 0) > 0:
            wanted[row.kind] -= 1
            keep.append(row.warm_id)
    drop = sorted((rows.keys() | seen.keys()) - set(keep))
    make = tuple(kind for kind, count in wanted.items() for _ in range(count))
    return Plan(make, tuple(drop), tuple(keep))


def _within(wishes: Iterable[Wish], bounds: Bounds) -> dict[WarmKind, int]:
    """As many of the first wishes as fit, in their order."""
    found: dict[WarmKind, int] = {}
    count, room = bounds.count, bounds.memory_bytes
    for wish in wishes:
        each = held_bytes(wish.kind)
        fits = max(0, min(wish.count, count, room // each))
        if fits:
            found[wish.kind] = found.get(wish.kind, 0) + fits
        count, room = count - fits, room - fits * each
    return found


def choose(rows: Mapping[str, Warm], waiting: Collection[str], need: Need) -> str | None:
    """The one that a lease takes: of its tenant, of its make, and waiting."""
    if need.alone:
        return None
    fit = [row for row in rows.values() if row.warm_id in waiting and _fits(row.kind, need.kind)]
    if not fit:
        return None
    first = min(fit, key=lambda row: (bool(row.kind.modules) is not need.python, row.warm_id))
    return first.warm_id


def _fits(held: WarmKind, asked: WarmKind) -> bool:
    same = (held.tenant, held.root, held.environment, held.disk_bytes) == (
        asked.tenant, asked.root, asked.environment, asked.disk_bytes,
    )  # fmt: skip
    # Libraries have counted their threads when they were imported.
    threads = not held.modules or _threads(held) == _threads(asked)
    return same and bool(held.tenant) and threads


def _threads(kind: WarmKind) -> int:
    return max(1, -(-kind.cpu_milli // 1000))


def made(spool: Spool, row: Warm) -> Spool:
    """Its row is on disk before anything of it is made."""
    assert row.warm_id.startswith(PREFIX), row
    return replace(spool, warm={**spool.warm, row.warm_id: row})


def without(spool: Spool, warm_id: str) -> Spool:
    """From now on it is nobody's, or a lease's."""
    if warm_id not in spool.warm:
        return spool
    return replace(spool, warm={k: v for k, v in spool.warm.items() if k != warm_id})
