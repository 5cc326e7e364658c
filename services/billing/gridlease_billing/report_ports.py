"""What reports ask of the world: sums that the database makes, and a few rows of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gridlease_billing.domain.report import (
    BooksCheck,
    Budget,
    Capacity,
    Notice,
    Period,
    Revenue,
    Span,
    Told,
)
from gridlease_billing.ports import EVERY, Wallet


class ReportWork(Protocol):
    """One transaction."""

    async def now_ms(self) -> int: ...

    async def month_of(self, ms: int) -> int:
        """When the month of a time began, UTC."""
        ...

    async def revenue(
        self,
        span: Span,
        now_ms: int,
        period: Period,
        tenant: str,
        project: str,
        *,
        by_tier: bool = False,
        by_supplier: bool = False,
    ) -> list[Revenue]: ...

    async def idle(self, span: Span, now_ms: int) -> list[Capacity]: ...

    async def keep_windows(
        self, end_ms: int, span_ms: int, places: Mapping[tuple[str, str], tuple[int, int]]
    ) -> None:
        """By chip and site: all there is, and what of it is used. Once for each window."""
        ...

    async def forget_windows(self, before_ms: int, limit: int) -> int: ...

    async def wallet(self, tenant: str) -> Wallet: ...

    async def rates(self, tenant: str) -> list[int]:
        """What each lease that runs costs now, an hour."""
        ...

    async def spent_nano(self, tenant: str, project: str, since_ms: int, now_ms: int) -> int: ...

    async def spent_by_day(self, span: Span) -> dict[str, dict[int, int]]:
        """By tenant and the day's first millisecond."""
        ...

    async def set_budget(self, budget: Budget) -> None: ...

    async def budgets(self, tenant: str) -> list[Budget]:
        """Of a tenant, or of EVERY one."""
        ...

    async def lock_budget(self, tenant: str, project: str) -> Budget | None: ...

    async def looked(self, budget: Budget, month_ms: int, spent_nano: int) -> None: ...

    async def tell(self, notice: Notice, now_ms: int) -> bool:
        """False where its key was told before."""
        ...

    async def notices(self, tenant: str, project: str, after: int, limit: int) -> list[Told]: ...

    async def check(self, sums: Sequence[int]) -> BooksCheck:
        """``sums``: of the entries, wrong balances, journals, entries."""
        ...

    async def months(self, now_ms: int) -> tuple[int, int]:
        """Rows of the books that lie in no month of their own, and months made, this one first."""
        ...

    async def restored(self) -> tuple[int, int] | None:
        """A restore after which nobody has been served yet: its mark and when it was."""
        ...

    async def opened(self, mark: int, now_ms: int) -> None: ...

    async def unfinished(self, limit: int) -> list[str]:
        """Leases that are neither fenced nor final."""
        ...


class ReportBook(Protocol):
    """Transactions for reports."""

    def work(self, tenant: str = EVERY) -> AbstractAsyncContextManager[ReportWork]:
        """``tenant``: whose rows it may see."""
        ...
