"""A grant: may a lease run on, until when, and what has it cost so far?

One row a lease, ``HELD -> OPEN -> FENCED -> FINAL``, nothing backwards. The records stand in
``grant_row`` and are exported here too. All functions are pure: rows in, rows out; ``now_ms`` is
PostgreSQL's clock (integer ms), read inside the transaction that holds the rows' locks. The shell
writes rows, postings and holds in one commit, then answers.

    authorize(existing, asks, quotes, funds, now_ms, terms) -> Authorized   insert only
    settle(rows, reports, quotes, funds, now_ms, terms)     -> Settled      one gang, all its rows
    close(row | None, lease_id, notice_ms, cause, now_ms, terms)  -> Closed fences, idempotent
    expire(row, now_ms, terms) -> GrantRow         what time alone has done to a row
    effect(before | None, after) -> Effect         what to post: charge, hold, suspense, late usage
    fold(counters, reported) -> counters           max by (segment, meter)
    chargeable_ns(row), granted_ns(row), rated_nano(row), suspense_ns(row), reserve_nano(row)

``settle`` wants every row of the gang (a lease without a gang is its own), locked in lease-id
order, and the reports of those leases that the caller's node owns; a report for a lease that
billing does not know is answered with ``unknown(report)``. Charges are cumulative: post
``effect(before, after)``, never an amount computed from one message.

Source: docs/lease-protocol.md, sections 2, 4, 5 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gridlease_kernel.money import hold_nano

from gridlease_billing.domain.grant_row import (
    Answer,
    Ask,
    Authorized,
    Cause,
    Closed,
    Effect,
    Funds,
    Granted,
    GrantRow,
    Phase,
    Quote,
    Reason,
    Refused,
    Report,
    Settled,
    State,
    Terms,
)
from gridlease_billing.domain.segment import (
    RUN_METER,
    Counters,
    Segment,
    chargeable,
    fold,
    frozen,
    open_rate,
    rated,
    reported_ns,
    span_ns,
)

__all__ = [
    "RUN_METER",
    "Answer",
    "Ask",
    "Authorized",
    "Cause",
    "Closed",
    "Counters",
    "Effect",
    "Funds",
    "GrantRow",
    "Granted",
    "Phase",
    "Quote",
    "Reason",
    "Refused",
    "Report",
    "Segment",
    "Settled",
    "State",
    "Terms",
    "fold",
]


def granted_ns(row: GrantRow) -> int:
    """How much run time has been promised to a lease since its first grant."""
    return span_ns(row.segments)


def chargeable_ns(row: GrantRow) -> tuple[int, ...]:
    """What may be charged of each segment: ``min(counter, granted)``, never more in sum."""
    return chargeable(row.segments, row.counters)


def rated_nano(row: GrantRow) -> int:
    """The whole charge of a lease, from cumulative totals."""
    return rated(row.segments, row.counters)


def suspense_ns(row: GrantRow) -> int:
    """Reported run time that was never granted (drift, kill time): an alarm, not a charge."""
    return reported_ns(row.counters) - sum(chargeable_ns(row))


def reserve_nano(row: GrantRow) -> int:
    """What must stay held so that no later report can overdraw; 0 once FINAL."""
    if row.state is State.FINAL:
        return 0
    if row.state is State.HELD:
        return hold_nano(row.rate_nano_per_hour, row.grant_ms + row.ask.notice_ms)
    rate, open_segments = open_rate(row.segments)
    left_ns = granted_ns(row) - sum(chargeable_ns(row))
    notice_ms = row.ask.notice_ms if row.state is State.OPEN else 0
    # each open segment rounds on its own: one nano-unit for each beyond the first
    return hold_nano(rate, -(-left_ns // 1_000_000) + notice_ms) + open_segments - 1


def effect(before: GrantRow | None, after: GrantRow) -> Effect:
    """What to post so that the books say ``after``."""
    if before is None:
        return Effect(after.lease_id, after.charged_nano, after.held_nano)
    beyond = suspense_ns(after) - suspense_ns(before)
    late = before.state is State.FINAL
    return Effect(
        after.lease_id,
        charge_nano=after.charged_nano - before.charged_nano,
        hold_nano=after.held_nano - before.held_nano,
        suspense_ns=0 if late else beyond,
        late_ns=beyond if late else 0,
    )


def authorize(
    existing: Mapping[str, GrantRow],
    asks: Sequence[Ask],
    quotes: Mapping[str, Quote],
    funds: Funds,
    now_ms: int,
    terms: Terms,
) -> Authorized:
    """Reserves money for the leases of one gang, all or none. Insert only: a row that exists is
    returned as it is, whatever its state, so a late duplicate re-opens nothing."""
    rows = [
        _held(ask, quotes[ask.lease_id], now_ms, terms)
        for ask in asks
        if ask.lease_id not in existing
    ]
    reason: str | None = funds.refusal(sum(row.held_nano for row in rows))
    if any(_above_max(row.ask, row.rate_nano_per_hour) for row in rows):
        reason = Cause.PRICE_ABOVE_MAX
    known = [
        expire(existing[ask.lease_id], now_ms, terms) for ask in asks if ask.lease_id in existing
    ]
    if any(row.state in (State.FENCED, State.FINAL) for row in known):
        reason = Reason.LEASE_FENCED
    if reason is not None:
        return Authorized((), tuple(Refused(ask.lease_id, reason) for ask in asks))
    rate = {row.lease_id: row.rate_nano_per_hour for row in [*known, *rows]}
    return Authorized(tuple(rows), tuple(Granted(ask.lease_id, rate[ask.lease_id]) for ask in asks))


def _held(ask: Ask, quote: Quote, now_ms: int, terms: Terms) -> GrantRow:
    row = GrantRow(
        ask,
        quote.rate_nano_per_hour,
        terms.grant_ms,
        State.HELD,
        now_ms + terms.hold_ttl_ms,
        surcharge_nano_per_hour=quote.surcharge_nano_per_hour,
        priority_version=quote.priority_version,
    )
    return replace(row, held_nano=reserve_nano(row))


def _above_max(ask: Ask, rate_nano_per_hour: int) -> bool:
    return (
        ask.max_rate_nano_per_hour is not None and rate_nano_per_hour > ask.max_rate_nano_per_hour
    )


def expire(row: GrantRow, now_ms: int, terms: Terms) -> GrantRow:
    """What time alone has done: a hold or a grant has ended, or the last word is overdue."""
    if now_ms < row.ends_at_ms or row.state is State.FINAL:
        return row
    if not row.ever_granted:
        return _finalised(_fenced(row, Cause.HOLD_ENDED))
    if row.state is State.OPEN:
        row = _fenced(row, Cause.GRANT_ENDED)
    if now_ms >= row.ends_at_ms + terms.late_after_ms:
        return _finalised(row)
    return row


def close(
    row: GrantRow | None,
    lease_id: str,
    notice_ms: int,
    cause: Cause,
    now_ms: int,
    terms: Terms,
    *,
    clock_suspect: bool = False,
) -> Closed:
    """Fences a lease for ever and says how long its authority still lasts.

    ``notice_ms`` makes one last extension, as far as notice was prepaid. An unknown id is written
    down as fenced, so that an ``Authorize`` still under way finds it. ``clock_suspect``: the
    database clock may have jumped; the wait is then a whole grant.
    """
    if row is None:
        row = GrantRow(Ask(lease_id), 0, 0, State.FINAL, now_ms, cause=cause)
        return Closed(row, 0, effect(None, row))
    after = expire(row, now_ms, terms)
    if after.state is State.HELD:
        after = _finalised(_fenced(after, cause))
    elif after.state is State.OPEN:
        notice_ms = min(notice_ms, row.ask.notice_ms)
        after = _fenced(_extended(after, None, now_ms + notice_ms, now_ms), cause)
    wait_ms = max(0, after.ends_at_ms - now_ms)
    if clock_suspect:
        wait_ms = max(wait_ms, row.grant_ms + row.ask.notice_ms)
    return Closed(after, 0 if after.state is State.FINAL else wait_ms, effect(row, after))


def settle(
    rows: Sequence[GrantRow],
    reports: Mapping[str, Report],
    quotes: Mapping[str, Quote],
    funds: Funds,
    now_ms: int,
    terms: Terms,
) -> Settled:
    """Folds the reports of one gang, then renews all its members or fences all of them."""
    after = [
        _folded(expire(row, now_ms, terms), reports.get(row.lease_id), now_ms, terms)
        for row in rows
    ]
    if any(_due(row, reports.get(row.lease_id), now_ms, terms) for row in after):
        renewed = [_renewed(row, quotes, now_ms, terms) for row in after]
        spent = (effect(old, new) for old, new in zip(rows, renewed, strict=True))
        refusal = funds.refusal(sum(e.charge_nano + e.hold_nano for e in spent))
        if any(
            _above_max(row.ask, quotes[row.lease_id].rate_nano_per_hour)
            for row in after
            if row.state is State.OPEN
        ):
            refusal = Cause.PRICE_ABOVE_MAX
        after = renewed if refusal is None else [_last(row, refusal, now_ms) for row in after]
    after = [_opened(row, reports.get(row.lease_id), quotes, now_ms) for row in after]
    return Settled(
        tuple(after),
        tuple(
            _answer(row, reports[row.lease_id], now_ms) for row in after if row.lease_id in reports
        ),
        tuple(effect(old, new) for old, new in zip(rows, after, strict=True)),
    )


def unknown(report: Report) -> Answer:
    """The answer for a lease that billing has no row of: nothing is granted, nothing is awaited."""
    return Answer(report.lease_id, 0, True, Reason.UNKNOWN_LEASE, 0, 0, report.final)


def _foreign(row: GrantRow, report: Report) -> bool:
    return row.spool_id is not None and row.spool_id != report.spool_id


def _folded(row: GrantRow, report: Report | None, now_ms: int, terms: Terms) -> GrantRow:
    if report is None:
        return row
    if _foreign(row, report):
        # The spool that started the lease is lost, its sandbox may not be: only time ends it.
        over = row.state is State.FENCED and now_ms >= row.ends_at_ms + terms.margin_ms
        return _finalised(row) if report.final and over else row
    row = replace(row, counters=fold(row.counters, report.counters))
    if row.state is State.FINAL:
        return row
    row = _booked(replace(row, segments=frozen(row.segments, row.counters)))
    return _finalised(row) if report.final else row


def _wants(row: GrantRow, report: Report | None) -> bool:
    return report is not None and report.phase < Phase.EXITED and not _foreign(row, report)


def _due(row: GrantRow, report: Report | None, now_ms: int, terms: Terms) -> bool:
    left_ms = row.ends_at_ms - now_ms
    return (
        row.state is State.OPEN
        and _wants(row, report)
        and left_ms * 1_000 <= row.grant_ms * terms.renew_below_permille
    )


def _renewed(row: GrantRow, quotes: Mapping[str, Quote], now_ms: int, terms: Terms) -> GrantRow:
    if row.state is State.HELD:  # a gang's member that still prepares: its hold lives on
        return replace(row, ends_at_ms=max(row.ends_at_ms, now_ms + terms.hold_ttl_ms))
    if row.state is not State.OPEN:
        return row
    after = _extended(row, quotes[row.lease_id], now_ms + row.grant_ms, now_ms)
    if after is row:
        return row
    # What was reported ahead of its grant may now be charged: it leaves the hold as a charge.
    return replace(after, charged_nano=rated_nano(after), held_nano=reserve_nano(after))


def _opened(
    row: GrantRow, report: Report | None, quotes: Mapping[str, Quote], now_ms: int
) -> GrantRow:
    """The first grant: paid by the hold of ``Authorize``, at the rate that it promised."""
    if row.state is not State.HELD or report is None or not _wants(row, report):
        return row
    ends_at_ms = now_ms + row.grant_ms
    first = Segment(
        1,
        row.rate_nano_per_hour,
        quotes[row.lease_id].period,
        now_ms,
        ends_at_ms,
        None,
        row.surcharge_nano_per_hour,
        row.priority_version,
    )
    return _booked(
        replace(
            row,
            state=State.OPEN,
            spool_id=report.spool_id,
            segments=(first,),
            ends_at_ms=ends_at_ms,
        )
    )


def _extended(row: GrantRow, quote: Quote | None, ends_at_ms: int, now_ms: int) -> GrantRow:
    """More authority, never less; at another rate or in another period it is a new segment."""
    if ends_at_ms <= row.ends_at_ms:
        return row
    *older, segment = row.segments
    if quote is None or quote == _quoted(segment):
        segments = (*older, replace(segment, ends_ms=ends_at_ms))
    else:
        segments = (
            *row.segments,
            Segment(
                segment.number + 1,
                quote.rate_nano_per_hour,
                quote.period,
                now_ms,
                ends_at_ms,
                None,
                quote.surcharge_nano_per_hour,
                quote.priority_version,
            ),
        )
    return replace(row, segments=segments, ends_at_ms=ends_at_ms)


def _quoted(segment: Segment) -> Quote:
    """What a segment's rate was fixed as."""
    return Quote(
        segment.rate_nano_per_hour,
        segment.period,
        segment.surcharge_nano_per_hour,
        segment.priority_version,
    )


def _last(row: GrantRow, cause: Cause, now_ms: int) -> GrantRow:
    """Refused: what remains, at least the prepaid notice."""
    if row.state is State.HELD:
        return _finalised(_fenced(row, cause))
    if row.state is not State.OPEN:
        return row
    return _fenced(_extended(row, None, now_ms + row.ask.notice_ms, now_ms), cause)


def _fenced(row: GrantRow, cause: Cause) -> GrantRow:
    row = replace(row, state=State.FENCED, cause=cause)
    return _booked(row) if row.ever_granted else row


def _finalised(row: GrantRow) -> GrantRow:
    """Over: what is charged stays; whatever is still reported is late, not charged."""
    spans = zip(row.segments, chargeable_ns(row), strict=True)
    segments = tuple(replace(segment, frozen_ns=ns) for segment, ns in spans)
    return replace(row, state=State.FINAL, held_nano=0, segments=segments)


def _booked(row: GrantRow) -> GrantRow:
    """The charge brought up to the counters and taken from the hold.

    Rounding never asks for more: what is charged and what stays held do not grow in sum.
    """
    charged = rated_nano(row)
    assert charged >= row.charged_nano, (row, charged)
    left = row.held_nano - (charged - row.charged_nano)
    return replace(row, charged_nano=charged, held_nano=min(left, reserve_nano(row)))


def _answer(row: GrantRow, report: Report, now_ms: int) -> Answer:
    final_acknowledged = report.final and row.state is State.FINAL
    if _foreign(row, report):
        return Answer(row.lease_id, 0, True, Reason.SPOOL_MISMATCH, 0, 0, final_acknowledged)
    live = row.state in (State.OPEN, State.FENCED) and report.phase < Phase.EXITED
    current = row.segments[-1] if row.segments else None
    return Answer(
        row.lease_id,
        valid_for_ms=max(0, row.ends_at_ms - now_ms) if live else 0,
        last=row.state in (State.FENCED, State.FINAL),
        reason=row.cause or "",
        segment=current.number if current else 0,
        rate_nano_per_hour=current.rate_nano_per_hour if current else 0,
        final_acknowledged=final_acknowledged,
    )
