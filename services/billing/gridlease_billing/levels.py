"""What operators watch: months of the books, debts, idle money; and the alarms of what runs out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from gridlease_billing.domain.report import DAY_MS, Notice, Period, Span
from gridlease_billing.domain.settlement import Alarm
from gridlease_billing.ports import Books, Work
from gridlease_billing.report_ports import ReportBook
from gridlease_billing.suspense import list_suspense

_LOG = logging.getLogger(__name__)
FEWEST_AHEAD = 2  # this month and the next: fewer, and a journal may soon lie in none
MONTHS_LOW = "MONTHS_LOW"
ROWS_ASTRAY = "ROWS_ASTRAY"
_MOST_TENANTS = 1


class Levels(Protocol):
    """Where levels are told, all rows of one name at a time: ``gridlease_mesh.observe``."""

    def __call__(self, name: str, rows: Sequence[tuple[Mapping[str, str], float]], /) -> None: ...


async def look_at_months(books: Books, book: ReportBook, tell: Levels) -> tuple[str, ...]:
    """Tells how many months are made ahead and how many rows lie in none; alarms of today.

    Each is raised once a day for as long as it is so, for operators: in the books' check, as a
    notice, and in the log.
    """
    async with book.work() as tx:
        now_ms = await tx.now_ms()
        astray, ahead = await tx.months(now_ms)
    tell("gridlease_billing_months_ahead", [({}, ahead)])
    tell("gridlease_billing_rows_astray", [({}, astray)])
    facts = {"months_ahead": str(ahead), "rows_astray": str(astray)}
    kinds = []
    if ahead < FEWEST_AHEAD:
        kinds.append(MONTHS_LOW)
    if astray:
        kinds.append(ROWS_ASTRAY)
    for kind in kinds:
        await _alarm(books, book, kind, facts, now_ms)
    return tuple(kinds)


async def look_at_money(books: Books, book: ReportBook, tell: Levels) -> None:
    """Tells what chips earned and did not earn in the last day, what tenants owe, and what lies
    in suspense."""

    async def owed(tx: Work) -> tuple[int, int]:
        now = await tx.now()
        (every,) = await tx.receivables.ages("", now.ms, _MOST_TENANTS)
        return every.total_nano, every.total_nano - every.current_nano

    total, late = await books.run(owed)
    suspended = await list_suspense(books)
    nano = sum(it.excess.open_nano for it in suspended)
    tell("gridlease_billing_suspense", [({}, nano / 1e9)])
    tell(
        "gridlease_billing_suspended_leases", [({}, len({it.excess.lease_id for it in suspended}))]
    )
    tell("gridlease_billing_receivable_open", [({}, total / 1e9)])
    tell("gridlease_billing_receivable_overdue", [({}, late / 1e9)])
    async with book.work() as tx:
        now_ms = await tx.now_ms()
        span = Span(now_ms - DAY_MS, now_ms + 1)
        earned = await tx.revenue(span, now_ms, Period.ALL, "", "", by_tier=True, by_supplier=True)
        idle = await tx.idle(span, now_ms)
    by = [
        ({"chip": it.chip, "site": it.site, "tier": it.tier, "supplier": it.supplier}, it)
        for it in earned
    ]
    tell("gridlease_billing_day_revenue", [(to, it.amount_nano / 1e9) for to, it in by])
    hourly = [(to, it.nano_per_device_hour / 1e9) for to, it in by]
    tell("gridlease_billing_day_revenue_per_device_hour", hourly)
    lost = [({"chip": it.chip, "site": it.site}, it.amount_nano / 1e9) for it in idle]
    tell("gridlease_billing_day_idle_money", lost)


async def _alarm(
    books: Books, book: ReportBook, kind: str, facts: Mapping[str, str], now_ms: int
) -> None:
    day = f"days/{now_ms // DAY_MS}"

    async def work(tx: Work) -> bool:
        return bool(await tx.evidence.raise_alarms([Alarm(kind, "", day, "", facts)], now_ms))

    if not await books.run(work):
        return
    _LOG.error("the months of the books run out", extra={"alarm": kind, **facts})
    async with book.work() as tx:
        name = f"books.{kind.lower()}"
        await tx.tell(Notice(name, "", "", "books", f"{name}/{day}", facts), now_ms)
