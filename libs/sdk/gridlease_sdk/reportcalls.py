"""The client's reports: revenue, burn-down, budgets, notices, webhooks, the books' check."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from gridlease.billing.v1 import report_pb2 as billing
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import fleet_pb2, report_pb2
from gridlease_kernel.ids import RandomIds

from gridlease_sdk.channel import Connection


class ReportCalls:
    """The part of ``Client`` about what things cost in sum."""

    _on: Connection
    _ids: RandomIds

    async def get_revenue(
        self,
        start: datetime.datetime,
        end: datetime.datetime | None = None,
        period: billing.Period.ValueType = billing.PERIOD_UNSPECIFIED,
        *,
        by_tier: bool = False,
        by_supplier: bool = False,
    ) -> pb.GetRevenueResponse:
        """By chip, site and period: a tenant's own; for operators all, and idle capacity."""
        request = pb.GetRevenueRequest(period=period, by_tier=by_tier, by_supplier=by_supplier)
        request.start_time.FromDatetime(start)
        if end is not None:
            request.end_time.FromDatetime(end)
        return await self._on.ask(self._on.reports.GetRevenue, request, pb.GetRevenueResponse)

    async def get_burn_down(self) -> report_pb2.BurnDown:
        """How long the tenant's money lasts."""
        request = pb.GetBurnDownRequest()
        answer = await self._on.ask(self._on.reports.GetBurnDown, request, pb.GetBurnDownResponse)
        return answer.burn_down

    async def get_job_cost(self, job: str) -> report_pb2.JobCost:
        """What a job has cost so far, and how long its money lasts."""
        request = pb.GetJobCostRequest(job=job)
        answer = await self._on.ask(self._on.reports.GetJobCost, request, pb.GetJobCostResponse)
        return answer.cost

    async def list_budgets(self) -> list[report_pb2.SpendingBudget]:
        """The tenant's budgets and the project's, with what is spent of them."""
        request = pb.ListBudgetsRequest()
        answer = await self._on.ask(self._on.reports.ListBudgets, request, pb.ListBudgetsResponse)
        return list(answer.budgets)

    async def set_budget(
        self, amount_nano: int, *, thresholds: Sequence[int] = (), project_only: bool = False
    ) -> report_pb2.SpendingBudget:
        """Write a month's budget; 0 takes it away."""
        request = pb.SetBudgetRequest(
            amount_nano=amount_nano, thresholds_permille=thresholds, project_only=project_only
        )
        answer = await self._on.ask(self._on.reports.SetBudget, request, pb.SetBudgetResponse)
        return answer.budget

    async def list_notices(self, *, after: int = 0, limit: int = 100) -> list[fleet_pb2.Event]:
        """Thresholds that were reached and odd days, in order."""
        request = pb.ListNoticesRequest(after_sequence=after, page_size=limit)
        answer = await self._on.ask(self._on.reports.ListNotices, request, pb.ListNoticesResponse)
        return list(answer.events)

    async def check_books(self) -> report_pb2.BooksCheck:
        """Look through the books. Operators."""
        request = pb.CheckBooksRequest()
        answer = await self._on.ask(self._on.reports.CheckBooks, request, pb.CheckBooksResponse)
        return answer.check

    async def list_suspense(
        self, *, tenant: str = "", closed: bool = False
    ) -> pb.ListSuspenseResponse:
        """What nodes told beyond what may be charged, by lease. Operators."""
        request = pb.ListSuspenseRequest(tenant=tenant, closed=closed)
        return await self._on.ask(self._on.reports.ListSuspense, request, pb.ListSuspenseResponse)

    async def write_off_suspense(
        self, lease: str, note: str, *, request_id: str = ""
    ) -> pb.WriteOffSuspenseResponse:
        """Take what a lease has in suspense out of it, for good. Operators."""
        request = pb.WriteOffSuspenseRequest(
            lease=lease, note=note, request_id=request_id or self._ids.new("rq")
        )
        return await self._on.ask(
            self._on.reports.WriteOffSuspense, request, pb.WriteOffSuspenseResponse
        )

    async def create_webhook(
        self, url: str, *, types: Sequence[str] = ()
    ) -> pb.CreateWebhookResponse:
        """Send the project's events to an address; the secret is shown once."""
        request = pb.CreateWebhookRequest(url=url, types=types)
        return await self._on.ask(
            self._on.reports.CreateWebhook, request, pb.CreateWebhookResponse, again=False
        )

    async def list_webhooks(self) -> list[report_pb2.Webhook]:
        """The project's webhooks, and how they fare."""
        request = pb.ListWebhooksRequest()
        answer = await self._on.ask(self._on.reports.ListWebhooks, request, pb.ListWebhooksResponse)
        return list(answer.webhooks)

    async def delete_webhook(self, name: str) -> None:
        """End a webhook."""
        request = pb.DeleteWebhookRequest(name=name)
        await self._on.ask(self._on.reports.DeleteWebhook, request, pb.DeleteWebhookResponse)
