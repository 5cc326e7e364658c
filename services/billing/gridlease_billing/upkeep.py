"""What nobody waits for: budgets are looked at, months made ahead, old windows forgotten."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gridlease_kernel.faults import Fault

from gridlease_billing.availability import credit_months
from gridlease_billing.commitments import bill_hours
from gridlease_billing.levels import Levels, look_at_money, look_at_months
from gridlease_billing.months import make_months
from gridlease_billing.ports import Books
from gridlease_billing.report_ports import ReportBook
from gridlease_billing.reports import find_anomalies, forget_windows, watch_budgets
from gridlease_billing.suppliers import RELEASE_BATCH, release_held

_LOG = logging.getLogger(__name__)
_SELDOM_S = 6 * 3_600.0
_SOON_S = 60.0
_MONEY_S = 300.0


class Upkeep:
    """The loop. Each of its parts is bounded, idempotent, and no part waits for another's luck."""

    def __init__(self, books: Books, book: ReportBook, every_s: float, tell: Levels) -> None:
        self._books = books
        self._book = book
        self._every_s = every_s
        self._tell = tell

    async def run(self) -> None:
        """For ever; survives the database's absence."""
        seldom_s = money_s = 0.0
        while True:
            if (uptime_s := time.monotonic()) >= seldom_s:
                rest_s = _SELDOM_S if await self.seldom() else _SOON_S
                seldom_s = uptime_s + rest_s
            if uptime_s >= money_s:
                money_s = uptime_s + _MONEY_S
                await self._try("money", self._money)
            await self._try("budgets", self.often)
            await self._try("commitments", self.hours)
            await asyncio.sleep(self._every_s)

    async def often(self) -> None:
        """Tells of what budgets have reached."""
        if told := await watch_budgets(self._book):
            _LOG.info("budgets have reached thresholds", extra={"count": told})

    async def hours(self) -> None:
        """Bills hours of commitments that are over, all that are due."""
        while billed := await bill_hours(self._books):
            _LOG.info("hours of commitments are billed", extra={"count": billed})

    async def seldom(self) -> bool:
        """Months, days that cost unlike others, old windows; whether all of it was done."""
        done = [
            await self._try("months", self._months),
            await self._try("months kept", self._kept),
            await self._try("anomalies", self._anomalies),
            await self._try("windows", self._windows),
            await self._try("holdbacks", self._holdbacks),
            await self._try("availability", self._availability),
        ]
        return all(done)

    async def _months(self) -> None:
        if made := await make_months(self._books):
            _LOG.info("months made ahead", extra={"partitions": made})

    async def _kept(self) -> None:
        await look_at_months(self._books, self._book, self._tell)

    async def _money(self) -> None:
        await look_at_money(self._books, self._book, self._tell)

    async def _anomalies(self) -> None:
        if told := await find_anomalies(self._book):
            _LOG.warning("days cost unlike others", extra={"count": told})

    async def _windows(self) -> None:
        await forget_windows(self._book)

    async def _holdbacks(self) -> None:
        while released := await release_held(self._books):
            _LOG.info("holdbacks are released", extra={"lines": released})
            if released < RELEASE_BATCH:
                break

    async def _availability(self) -> None:
        while looked := await credit_months(self._books):
            _LOG.info("months of projects are looked at", extra={"count": looked})

    async def _try(self, what: str, part: Callable[[], Awaitable[None]]) -> bool:
        try:
            await part()
        except Fault as fault:
            _LOG.warning("upkeep waits: %s", fault, extra={"part": what})
        except Exception:  # noqa: BLE001 - the others, and the next time, may do better
            _LOG.exception("upkeep failed", extra={"part": what})
        else:
            return True
        return False
