"""What is owed to a tenant whose lease we ended, or lost, without the warning that it paid for."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_kernel.money import amount_nano

from gridlease_billing.domain.grant_row import Cause, GrantRow, State


@dataclass(frozen=True, slots=True)
class Owed:
    """``kind``: of the journal. ``missing_ms``: of the warning."""

    kind: str
    missing_ms: int
    amount_nano: int


def owed(before: GrantRow | None, notice_ms: int, cause: Cause) -> Owed | None:
    """The credit for closing a lease now, or None.

    Only a lease that runs is owed anything: the promised warning less what is given, at the
    dearest rate that it ran at. A node that is lost gives none.
    """
    if before is None or before.state is not State.OPEN:
        return None
    if cause is Cause.NODE_LOST:
        kind, given_ms = "sla_credit", 0
    elif cause in (Cause.PREEMPTED, Cause.DRAINED):
        kind, given_ms = "reclaim_credit", notice_ms
    else:
        return None
    missing_ms = max(0, before.ask.notice_ms - given_ms)
    rate = max(segment.rate_nano_per_hour for segment in before.segments)
    amount = amount_nano(rate, missing_ms * 1_000_000)
    return Owed(kind, missing_ms, amount) if amount else None
