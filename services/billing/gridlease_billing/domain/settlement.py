"""All reports of one node in one call: folded, rated, renewed or refused, gang by gang."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gridlease_billing.domain import grant
from gridlease_billing.domain.evidence import MAX_CUMULATIVE, elapsed_ns, is_over
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
from gridlease_billing.domain.price import Kind, Price, Tier, quote
from gridlease_billing.domain.priority import PriorityTable
from gridlease_billing.domain.segment import RUN_METER, chargeable, span_ns
from gridlease_billing.domain.tick import CATALOGUE
from gridlease_billing.domain.usage import Stored, lines

NOT_YOURS = "NOT_YOURS"
NOT_SIGNED = "REPORT_NOT_SIGNED"
FORGED = "REPORT_FORGED"
PARKED = "PARKED"
MAX_UNPRICED = 256  # counters of one lease that are of no meter in the catalogue
_WORDS: Mapping[str, str] = {
    Cause.FUNDS_EXHAUSTED: "CREDIT_EXHAUSTED",
    Cause.PRICE_ABOVE_MAX: "PRICE_TOO_HIGH",
}


@dataclass(frozen=True, slots=True)
class Settlement:
    """``steps``: each lease before and after, with what it posts; ``answers``: by lease.

    ``parked``: leases whose books contradict themselves, with what was found: nothing of theirs
    is written and nothing granted, and all others go on.
    """

    steps: tuple[tuple[GrantRow, GrantRow, Effect], ...]
    answers: Mapping[str, Answer]
    parked: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a node said and that was not believed."""

    kind: str
    tenant: str
    lease_id: str
    node: str
    facts: Mapping[str, str]


def settle(
    stored: Mapping[str, Stored],
    reports: Mapping[str, Report],
    prices: Mapping[Kind, Price],
    means: Means,
    now_ms: int,
    terms: Terms,
    priorities: PriorityTable | None = None,
) -> Settlement:
    """Decides for every gang of ``stored``. ``reports``: those of the calling node's own leases
    only; a report of a lease that is not in ``stored`` is answered by ``not_yours``."""
    steps: list[tuple[GrantRow, GrantRow, Effect]] = []
    answers: dict[str, Answer] = {}
    parked: dict[str, str] = {}
    for gang in _gangs(stored.values()):
        rows = [it.row for it in gang]
        known = {}
        for row in rows:
            if row.lease_id in reports:
                known[row.lease_id] = _plausible(reports[row.lease_id], row, now_ms, terms)
        quotes = _bearable(rows, {it.row.lease_id: _quote(it, prices, priorities) for it in gang})
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
    return Settlement(tuple(steps), answers, parked)


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


def _quote(stored: Stored, prices: Mapping[Kind, Price], priorities: PriorityTable | None) -> Quote:
    """What a grant would cost now. A hold keeps the rate that it promised."""
    row = stored.row
    price = prices.get(row.ask.kind)
    if row.state is not State.OPEN or price is None:
        return Quote(
            row.rate_nano_per_hour,
            stored.price_version,
            row.surcharge_nano_per_hour,
            row.priority_version,
        )
    return quote(price, row.ask.quantity_milli, row.ask.priority, priorities)


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
                kept[row.lease_id] = Quote(
                    last.rate_nano_per_hour,
                    last.period,
                    last.surcharge_nano_per_hour,
                    last.priority_version,
                )
    return kept


def _plausible(report: Report, row: GrantRow, now_ms: int, terms: Terms) -> Report:
    """A node's report without what cannot be: segments that were never opened, absurd counts, more
    run time than has passed since its segment was opened, or than it had when it was over."""
    segments = {it.number: it for it in row.segments}
    unpriced = sum(meter not in CATALOGUE for _, meter in row.counters)
    kept: dict[tuple[int, str], int] = {}
    for (segment, meter), cumulative in sorted(report.counters.items()):
        if segment not in segments:
            continue
        if meter not in CATALOGUE and (segment, meter) not in row.counters:
            unpriced += 1
            if unpriced > MAX_UNPRICED:
                continue
        most = MAX_CUMULATIVE
        if meter == RUN_METER:
            before = row.counters.get((segment, meter), 0)
            over = is_over(row, segments[segment])
            most = before if over else max(elapsed_ns(segments[segment], now_ms, terms), before)
        kept[segment, meter] = min(cumulative, most)
    return replace(report, counters=kept)


def unbelieved(report: Report, ask: Ask) -> tuple[Answer, Alarm]:
    """What a report gets whose signature is missing or wrong: no grant, and nothing is folded."""
    kind = FORGED if report.signature else NOT_SIGNED
    facts = {"spool": report.spool_id, "phase": report.phase.name}
    alarm = Alarm(kind, ask.tenant, report.lease_id, ask.node, facts)
    return Answer(report.lease_id, 0, False, kind, 0, 0, False), alarm


def _worded(answer: Answer) -> Answer:
    return replace(answer, reason=str(_WORDS.get(answer.reason, answer.reason)))
