"""All reports of one node in one call: folded, rated, renewed or refused, gang by gang."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import (
    Answer,
    Ask,
    Cause,
    Effect,
    GrantRow,
    Quote,
    Report,
    State,
    Terms,
)
from gridlease_billing.domain.means import Means
from gridlease_billing.domain.price import Price, Tier, quote
from gridlease_billing.domain.segment import RUN_METER, chargeable, span_ns
from gridlease_billing.domain.usage import Stored, lines

NOT_YOURS = "NOT_YOURS"
NOT_SIGNED = "REPORT_NOT_SIGNED"
FORGED = "REPORT_FORGED"
AHEAD_OF_TIME = "RUN_AHEAD_OF_TIME"
PARKED = "PARKED"
MAX_COUNTERS = 256  # of one lease, over all its segments and meters
MAX_CUMULATIVE = 2**58  # nine years in ns: beyond it a counter is no counter
_WORDS: Mapping[str, str] = {
    Cause.FUNDS_EXHAUSTED: "CREDIT_EXHAUSTED",
    Cause.PRICE_ABOVE_MAX: "PRICE_TOO_HIGH",
}


@dataclass(frozen=True, slots=True)
class Settlement:
    """``steps``: each lease before and after, with what it posts; ``answers``: by lease.

    ``parked``: leases whose books contradict themselves, with what was found: nothing of theirs
    is written and nothing granted, and all others go on. ``alarms``: what was not believed.
    """

    steps: tuple[tuple[GrantRow, GrantRow, Effect], ...]
    answers: Mapping[str, Answer]
    parked: Mapping[str, str]
    alarms: tuple[Alarm, ...] = ()


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a node said and that was not believed. ``excess_ns``: to be put in suspense
    when this is heard for the first time."""

    kind: str
    tenant: str
    lease_id: str
    node: str
    facts: Mapping[str, str]
    excess_ns: int = 0


def settle(
    stored: Mapping[str, Stored],
    reports: Mapping[str, Report],
    prices: Mapping[tuple[str, str], Price],
    means: Means,
    now_ms: int,
    terms: Terms,
) -> Settlement:
    """Decides for every gang of ``stored``. ``reports``: those of the calling node's own leases
    only; a report of a lease that is not in ``stored`` is answered by ``not_yours``."""
    steps: list[tuple[GrantRow, GrantRow, Effect]] = []
    answers: dict[str, Answer] = {}
    parked: dict[str, str] = {}
    alarms: list[Alarm] = []
    for gang in _gangs(stored.values()):
        rows = [it.row for it in gang]
        known = {}
        for row in rows:
            if row.lease_id in reports:
                known[row.lease_id], told = _plausible(reports[row.lease_id], row, now_ms, terms)
                alarms += told
        quotes = _bearable(rows, {it.row.lease_id: _quote(it, prices) for it in gang})
        funds = means.funds(rows[0].ask)
        try:
            settled = grant.settle(rows, known, quotes, funds, now_ms, terms)
            _check(settled.rows)
        except AssertionError as error:
            parked |= {row.lease_id: repr(error) for row in rows}
            answers |= {lease: _parked(lease) for lease in known}
            continue
        spent = sum(it.charge_nano + it.hold_nano for it in settled.effects)
        means = means.less(rows[0].ask, spent)
        steps += zip(rows, settled.rows, settled.effects, strict=True)
        answers |= {it.lease_id: _worded(it) for it in settled.answers}
    return Settlement(tuple(steps), answers, parked, tuple(alarms))


def _check(rows: Iterable[GrantRow]) -> None:
    """I3, at run time: charged <= granted, and the lines are the charge."""
    for row in rows:
        assert sum(chargeable(row.segments, row.counters)) <= span_ns(row.segments), row
        charged = sum(line.amount_nano for line in lines(Stored(row, 0, 0)))
        assert row.charged_nano == charged, (charged, row)


def _parked(lease: str) -> Answer:
    """No grant now; what was granted stands, and the node asks again."""
    return Answer(lease, 0, False, PARKED, 0, 0, False)


def not_yours(report: Report) -> Answer:
    """The answer for a lease that is another node's, or nobody's: the same for both."""
    return replace(grant.unknown(report), reason=NOT_YOURS)


def merged(reports: Iterable[Report]) -> dict[str, Report]:
    """By lease; several reports of one lease in a call are one, at its furthest."""
    result: dict[str, Report] = {}
    for report in reports:
        first = result.get(report.lease_id)
        if first is not None:
            report = Report(  # noqa: PLW2901 - the report that stands for both
                report.lease_id,
                report.spool_id,
                max(first.phase, report.phase),
                first.final or report.final,
                grant.fold(first.counters, report.counters),
            )
        result[report.lease_id] = report
    return result


def _gangs(stored: Iterable[Stored]) -> Sequence[Sequence[Stored]]:
    """In the order of their first lease's id."""
    gangs: dict[str, list[Stored]] = {}
    for it in sorted(stored, key=lambda it: it.row.lease_id):
        gangs.setdefault(it.row.ask.gang or f"alone/{it.row.lease_id}", []).append(it)
    return list(gangs.values())


def _quote(stored: Stored, prices: Mapping[tuple[str, str], Price]) -> Quote:
    """What a grant would cost now. A hold keeps the rate that it promised."""
    row = stored.row
    price = prices.get((row.ask.chip, row.ask.tier))
    if row.state is not State.OPEN or price is None:
        return Quote(row.rate_nano_per_hour, stored.price_version)
    return quote(price, row.ask.quantity_milli)


def _bearable(rows: Sequence[GrantRow], quotes: Mapping[str, Quote]) -> Mapping[str, Quote]:
    """A gang's quotes; where a spot gang would cost more than its job accepts for all of it, each
    member goes on at its last rate: the price of spot capacity ends no lease.

    Source: docs/policies.md, Price.
    """
    live = [row for row in rows if row.state in (State.OPEN, State.HELD)]
    most = rows[0].ask.max_rate_nano_per_hour
    total = sum(quotes[row.lease_id].rate_nano_per_hour for row in live)
    if rows[0].ask.tier != Tier.SPOT or most is None or total <= most:
        return quotes
    kept = dict(quotes)
    for row in live:
        if row.state is State.OPEN:
            last = row.segments[-1]
            if last.rate_nano_per_hour < kept[row.lease_id].rate_nano_per_hour:
                kept[row.lease_id] = Quote(last.rate_nano_per_hour, last.period)
    return kept


def _plausible(
    report: Report, row: GrantRow, now_ms: int, terms: Terms
) -> tuple[Report, list[Alarm]]:
    """A node's report without what cannot be: segments that were never opened, absurd counts, and
    more run time than has passed since its segment was opened."""
    starts_ms = {segment.number: segment.starts_ms for segment in row.segments}
    room = MAX_COUNTERS
    kept: dict[tuple[int, str], int] = {}
    alarms: list[Alarm] = []
    for (segment, meter), cumulative in sorted(report.counters.items()):
        fresh = (segment, meter) not in row.counters
        if segment not in starts_ms or (fresh and len(row.counters) + len(kept) >= room):
            continue
        most = MAX_CUMULATIVE
        if meter == RUN_METER:
            most = max(0, now_ms + terms.ahead_ms - starts_ms[segment]) * 1_000_000
            most = max(min(most, MAX_CUMULATIVE), row.counters.get((segment, meter), 0))
        kept[segment, meter] = min(cumulative, most)
        if meter == RUN_METER and cumulative > most:
            facts = {"segment": str(segment), "told_ns": str(cumulative), "most_ns": str(most)}
            excess = min(cumulative, MAX_CUMULATIVE) - most
            ask = row.ask
            alarms.append(
                Alarm(AHEAD_OF_TIME, ask.tenant, row.lease_id, ask.node, facts, max(0, excess))
            )
    return replace(report, counters=kept), alarms


def unbelieved(report: Report, ask: Ask) -> tuple[Answer, Alarm]:
    """What a report gets whose signature is missing or wrong: no grant, and nothing is folded."""
    kind = FORGED if report.signature else NOT_SIGNED
    facts = {"spool": report.spool_id, "phase": report.phase.name}
    alarm = Alarm(kind, ask.tenant, report.lease_id, ask.node, facts)
    return Answer(report.lease_id, 0, False, kind, 0, 0, False), alarm


def _worded(answer: Answer) -> Answer:
    return replace(answer, reason=str(_WORDS.get(answer.reason, answer.reason)))
