"""Usage lines as they stand, newest lease first."""

from __future__ import annotations

from collections import defaultdict

from gridlease_billing.domain.usage import TIMED, Line, lines
from gridlease_billing.ports import Books, Scope, UsagePage, Work


async def list_usage(
    books: Books, scope: Scope, after: tuple[int, str] | None, page_size: int
) -> UsagePage:
    """A page of lines, cut between leases: more than ``page_size`` only if one lease has more."""

    async def work(tx: Work) -> UsagePage:
        found = await tx.leases.page(scope, after, page_size + 1)
        others: defaultdict[str, list[Line]] = defaultdict(list)
        for line in await tx.lines.usage([stored.row.lease_id for stored in found]):
            if line.meter not in TIMED:
                others[line.lease].append(line)
        page: list[tuple[Line, str, str]] = []
        key: tuple[int, str] | None = None
        for stored in found:
            new = lines(stored) + others[stored.row.lease_id]
            if page and len(page) + len(new) > page_size:
                return UsagePage(page, key)
            page += [(line, stored.row.state.value, stored.invoice) for line in new]
            key = (stored.opened_ms, stored.row.lease_id)
        return UsagePage(page, None)

    return await books.run(work, tenant=scope.tenant)
