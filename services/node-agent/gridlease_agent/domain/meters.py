"""What a lease has used beside time, as cumulative counters by segment.

The interface counts from when it was made; what it shows beyond what earlier segments have is the
current segment's. Counters never go down: a network that is gone shows nothing, and changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gridlease_agent.domain.spool import SETTLED, Counters, Phase, Row, Spool

_TOLD_AGAIN = 16  # segments at a lease's end that every report tells, acknowledged or not

ENERGY_METER = "energy"  # millijoules that the lease's devices drew; the wire's name
EGRESS_METER = "egress"  # bytes that the task has sent, with their headers; the wire's name


def sent(spool: Spool, totals: Mapping[str, int]) -> Spool:
    """The spool with what running leases have sent; ``totals``: lease -> bytes since its start."""
    rows = [
        _sent(row, totals[lease_id])
        for lease_id, row in spool.rows.items()
        if row.phase is Phase.STARTING and lease_id in totals
    ]
    fresh = [row for row in rows if row is not spool.rows[row.lease_id]]
    return spool.with_rows(*fresh)


def _sent(row: Row, total: int) -> Row:
    if not row.segments:
        return row
    more = total - sum(n for (_, meter), n in row.counters.items() if meter == EGRESS_METER)
    if more <= 0:
        return row
    key = (row.segments[-1][0], EGRESS_METER)
    counters = {**row.counters, key: row.counters.get(key, 0) + more}
    return replace(row, counters=counters)


def holders(spool: Spool) -> dict[str, frozenset[str]]:
    """By device: the leases that run on it."""
    found: dict[str, frozenset[str]] = {}
    for row in spool.rows.values():
        if row.phase is Phase.STARTING and row.segments:
            for device in row.devices:
                found[device] = found.get(device, frozenset()) | {row.lease_id}
    return found


def drew(spool: Spool, drawn: Mapping[str, int], held: Mapping[str, frozenset[str]]) -> Spool:
    """The spool with what devices drew since the last look, given to who held them at both looks.

    ``drawn``: device -> millijoules. Leases that share a device share it evenly; what cannot be
    divided is nobody's.
    """
    shares: dict[str, int] = {}
    for device, leases in holders(spool).items():
        for lease_id in leases & held.get(device, frozenset()):
            shares[lease_id] = shares.get(lease_id, 0) + drawn.get(device, 0) // len(leases)
    rows = [spool.rows[lease_id] for lease_id, share in shares.items() if share > 0]
    return spool.with_rows(*(_drew(row, shares[row.lease_id]) for row in rows))


def _drew(row: Row, share: int) -> Row:
    key = (row.segments[-1][0], ENERGY_METER)
    return replace(row, counters={**row.counters, key: row.counters.get(key, 0) + share})


def acknowledged(spool: Spool, told: Mapping[str, Counters]) -> Spool:
    """The spool once billing has ``told``: counters by lease, of reports that it gave grants for.

    A price that moves makes a segment of every grant, and a lease may have thousands. Those that
    are over, and that billing has as they are, are told no more: only their sums stay, so that a
    report has a bound. The last ones are told again, for books that are restored.
    """
    rows = [
        _shortened(spool.rows[lease_id], counters)
        for lease_id, counters in told.items()
        if lease_id in spool.rows and len(spool.rows[lease_id].segments) > _TOLD_AGAIN
    ]
    return spool.with_rows(*rows)


def _shortened(row: Row, told: Counters) -> Row:
    differ = {key[0] for key, count in row.counters.items() if told.get(key) != count}
    over = 0
    for number, _ in row.segments[:-_TOLD_AGAIN]:
        if number in differ:
            break
        over += 1
    gone = {number for number, _ in row.segments[:over]}
    counters: dict[tuple[int, str], int] = {}
    for (number, meter), count in row.counters.items():
        key = (SETTLED if number in gone else number, meter)
        counters[key] = counters.get(key, 0) + count
    return replace(row, segments=row.segments[over:], counters=counters)
