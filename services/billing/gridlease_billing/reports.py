"""Revenue, idle money, burn-down, budgets and what is told of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_kernel.faults import Invalid
from gridlease_kernel.money import Money

from gridlease_billing.credit import journal_summary
from gridlease_billing.domain.report import (
    DAY_MS,
    BooksCheck,
    Budget,
    Capacity,
    Notice,
    Period,
    Revenue,
    Span,
    Told,
)
from gridlease_billing.domain.spending import BurnDown, anomaly, burn_down, crossed
from gridlease_billing.domain.spot import ChipUse
from gridlease_billing.ports import EVERY, Books
from gridlease_billing.report_ports import ReportBook

_LOG = logging.getLogger(__name__)
_KEEP_WINDOWS_MS = 400 * DAY_MS
_FORGET_AT_ONCE = 10_000
_EARLIER_DAYS = 28
_LONGEST_HOURS_MS = 62 * DAY_MS  # by the hour; more would be cut off


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is asked for. ``end_ms``: None = now. ``tenant``: empty = all."""

    tenant: str
    project: str
    start_ms: int
    end_ms: int | None
    period: Period
    by_tier: bool = False
    by_supplier: bool = False  # of everybody alone


async def revenue(book: ReportBook, asked: Question) -> tuple[list[Revenue], list[Capacity]]:
    """What was earned, and of everybody also what was not.

    Raises:
        Invalid: REPORT_TOO_LONG.
    """
    async with book.work(asked.tenant or EVERY) as tx:
        now_ms = await tx.now_ms()
        span = Span(asked.start_ms, asked.end_ms or now_ms + 1)
        if asked.period is Period.HOUR and span.end_ms - span.start_ms > _LONGEST_HOURS_MS:
            raise Invalid(
                "By the hour, a report is of 62 days at most.",
                reason="REPORT_TOO_LONG",
                field="start_time",
                remedy="Name a later start, or cut by the day.",
            )
        rows = await tx.revenue(
            span,
            now_ms,
            asked.period,
            asked.tenant,
            asked.project,
            by_tier=asked.by_tier,
            by_supplier=asked.by_supplier and not asked.tenant,
        )
        return rows, [] if asked.tenant else await tx.idle(span, now_ms)


async def burning(book: ReportBook, tenant: str) -> BurnDown:
    """How long a tenant's money lasts, at what runs now."""
    async with book.work(tenant) as tx:
        wallet = await tx.wallet(tenant)
        return burn_down(wallet.available_nano, await tx.rates(tenant))


async def set_budget(book: ReportBook, budget: Budget) -> int:
    """Writes it, whole; what is spent of it."""
    async with book.work(budget.tenant) as tx:
        await tx.set_budget(budget)
        now_ms = await tx.now_ms()
        since_ms = await tx.month_of(now_ms)
        return await tx.spent_nano(budget.tenant, budget.project, since_ms, now_ms)


async def list_budgets(book: ReportBook, tenant: str) -> list[tuple[Budget, int]]:
    """A tenant's budgets, and what is spent of each."""
    async with book.work(tenant) as tx:
        now_ms = await tx.now_ms()
        since_ms = await tx.month_of(now_ms)
        return [
            (it, await tx.spent_nano(tenant, it.project, since_ms, now_ms))
            for it in await tx.budgets(tenant)
        ]


async def watch_budgets(book: ReportBook) -> int:
    """Tells of thresholds that spending has reached since it was looked at; how many."""
    async with book.work() as tx:
        found = await tx.budgets(EVERY)
    return sum([await _look(book, it.tenant, it.project) for it in found])


async def _look(book: ReportBook, tenant: str, project: str) -> int:
    """One budget, in a transaction of its own: one that fails does not silence the others."""
    told = 0
    async with book.work() as tx:
        budget = await tx.lock_budget(tenant, project)
        if budget is None:
            return 0
        now_ms = await tx.now_ms()
        month_ms = await tx.month_of(now_ms)
        spent = await tx.spent_nano(tenant, project, month_ms, now_ms)
        before = budget.looked_at(month_ms)
        for permille in crossed(budget.thresholds_permille, budget.amount_nano, before, spent):
            told += await tx.tell(_reached(budget, permille, month_ms, spent), now_ms)
        # Spending never goes down; a rewritten budget tells again only of what it newly passes.
        await tx.looked(budget, month_ms, max(before, spent))
    return told


def _reached(budget: Budget, permille: int, month_ms: int, spent_nano: int) -> Notice:
    whose = budget.project or budget.tenant
    return Notice(
        "budget.threshold",
        budget.tenant,
        budget.project,
        whose,
        f"budget/{whose}/{month_ms}/{budget.amount_nano}/{permille}",
        {
            "threshold_permille": str(permille),
            "budget": str(Money(budget.amount_nano)),
            "spent": str(Money(spent_nano)),
            "spent_nano": str(spent_nano),
        },
    )


async def find_anomalies(book: ReportBook) -> int:
    """Tells of tenants whose yesterday cost unlike the days before it; how many, once each."""
    told = 0
    async with book.work() as tx:
        now_ms = await tx.now_ms()
        today_ms = now_ms - now_ms % DAY_MS
        yesterday_ms = today_ms - DAY_MS
        span = Span(yesterday_ms - _EARLIER_DAYS * DAY_MS, today_ms)
        for tenant, days in (await tx.spent_by_day(span)).items():
            first_ms = min(days)
            earlier = [days.get(ms, 0) for ms in range(first_ms, yesterday_ms, DAY_MS)]
            odd = anomaly(earlier, days.get(yesterday_ms, 0))
            if odd is None:
                continue
            facts = {"day_ms": str(yesterday_ms), "amount": str(Money(odd.amount_nano))}
            facts |= {"usual": str(Money(odd.usual_nano)), "spread": str(Money(odd.spread_nano))}
            key = f"anomaly/{tenant}/{yesterday_ms}"
            told += await tx.tell(Notice("cost.anomaly", tenant, "", tenant, key, facts), now_ms)
    return told


async def list_notices(
    book: ReportBook, tenant: str, project: str, after: int, limit: int
) -> list[Told]:
    """What was told after a number, in order."""
    async with book.work(tenant or EVERY) as tx:
        return await tx.notices(tenant, project, after, limit)


async def keep_windows(
    book: ReportBook, end_ms: int, span_ms: int, uses: Sequence[ChipUse]
) -> None:
    """Remembers how full chips were in a window."""
    async with book.work() as tx:
        await tx.keep_windows(end_ms, span_ms, {it.place: _of(it) for it in uses})


def _of(use: ChipUse) -> tuple[int, int]:
    return use.total_milli, use.used_milli


async def forget_windows(book: ReportBook) -> int:
    """Lets go of what is older than 400 days, a bounded number at a time."""
    async with book.work() as tx:
        before_ms = await tx.now_ms() - _KEEP_WINDOWS_MS
        return await tx.forget_windows(before_ms, _FORGET_AT_ONCE)


async def check_books(books: Books, book: ReportBook) -> BooksCheck:
    """Looks through the whole books: links, sums, balances, months, alarms."""
    found = await journal_summary(books)
    sums = (found.sum_nano, found.off_balance, found.journal_count, found.entry_count)
    async with book.work() as tx:
        checked = await tx.check(sums)
    if not checked.whole:
        _LOG.error("the books are not whole", extra={"broken": len(checked.broken)})
    return checked
