"""A job's cost as it stands in the books, for its tenant."""

from __future__ import annotations

from gridlease_billing.domain.job_cost import JobCost
from gridlease_billing.ports import Books, Work


async def job_cost(books: Books, tenant: str, job: str) -> JobCost:
    """What a job has cost so far and how long its money lasts; nothing of another tenant's."""

    async def work(tx: Work) -> JobCost:
        return await tx.costs.of_job(tenant, job)

    return await books.run(work, tenant=tenant)
