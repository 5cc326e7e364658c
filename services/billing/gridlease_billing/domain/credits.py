"""What is owed to a tenant whose lease we ended, or lost, without the warning that it paid for."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_kernel.money import amount_nano

from gridlease_billing.domain.grant_row import Cause, GrantRow, State


@dataclass(frozen=True, slots=True)
class Owed:
    """``kind``: of the journal. ``missing_ms``: of the warning. ``mark``: sets its key apart from
    another credit of the same kind for the same lease."""

    kind: str
    missing_ms: int
    amount_nano: int
    mark: str = ""


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


def cut_short(row: GrantRow | None, missing_ms: int) -> Owed | None:
    """The credit for a warning that was announced and of which ``missing_ms`` were not given.

    Beside what ``owed`` pays for a warning that was announced too short. Never for more than the
    warning that the lease was authorised with.
    """
    if row is None or row.cause not in (Cause.PREEMPTED, Cause.DRAINED) or not row.segments:
        return None
    missing_ms = min(missing_ms, row.ask.notice_ms)
    rate = max(segment.rate_nano_per_hour for segment in row.segments)
    amount = amount_nano(rate, missing_ms * 1_000_000)
    return Owed("reclaim_credit", missing_ms, amount, "/cut") if amount else None
