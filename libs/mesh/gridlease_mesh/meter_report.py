"""A meter report as it is signed: the text that a node and billing agree on, byte for byte.

docs/metering.md tells of it, so that anybody can check a bill without this code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gridlease_mesh.signatures import verified

_HEAD = "gridlease meter report 1"
_COUNTER = re.compile(r"counter ([0-9]+) (\S+) ([0-9]+)")


def text(
    lease: str, spool_id: str, phase: int, final: bool, counters: Iterable[tuple[int, str, int]]
) -> str:
    """The canonical text of one lease's report.

    Args:
        lease: The lease.
        spool_id: As the request carries it.
        phase: The wire's number.
        final: Whether no counter will change again.
        counters: (segment, meter, cumulative), each pair of segment and meter once.
    """
    lines = [
        _HEAD,
        f"lease {lease}",
        f"spool {spool_id}",
        f"phase {phase}",
        f"final {int(final)}",
        *(f"counter {segment} {meter} {count}" for segment, meter, count in sorted(counters)),
    ]
    return "\n".join(lines) + "\n"


def holds(public_key: str, report: str, signature: bytes) -> bool:
    """Did the owner of a user's public nkey (``U...``) sign this very text?"""
    return verified(public_key, report.encode(), signature)


def counted(report: str) -> tuple[str, dict[tuple[int, str], int]]:
    """Whose report a text is, and what it counts by (segment, meter); "" = it is no report."""
    head, lease, *rest = [*report.splitlines(), "", ""]
    if head != _HEAD or not lease.startswith("lease "):
        return "", {}
    found = map(_COUNTER.fullmatch, rest)
    return lease.removeprefix("lease "), {(int(it[1]), it[2]): int(it[3]) for it in found if it}
