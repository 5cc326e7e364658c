# ruff: noqa: N802, ARG002 - names and arguments are the protos'
"""ReportService: figures, budgets and notices, as the gateway asks for them."""

from __future__ import annotations

from typing import Any

from gridlease.billing.v1 import report_pb2 as pb
from gridlease.billing.v1 import report_pb2_grpc
from gridlease.type.v1 import fleet_pb2, report_pb2
from gridlease_kernel.faults import Invalid

from gridlease_billing import reports, suspense
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.report import Budget, Capacity, Period, Revenue, Told
from gridlease_billing.job_cost import job_cost
from gridlease_billing.ports import Books, Suspended
from gridlease_billing.report_ports import ReportBook
from gridlease_billing.rpc import cost_shapes, shapes

_PERIODS = {
    pb.PERIOD_UNSPECIFIED: Period.ALL,
    pb.PERIOD_HOUR: Period.HOUR,
    pb.PERIOD_DAY: Period.DAY,
    pb.PERIOD_MONTH: Period.MONTH,
}
_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1_000
_MOST_THRESHOLDS = 20


class Reports(report_pb2_grpc.ReportServiceServicer):
    """The methods of ReportService."""

    def __init__(self, books: Books, book: ReportBook) -> None:
        self._books = books
        self._book = book

    async def GetRevenue(
        self, request: pb.GetRevenueRequest, context: Any
    ) -> pb.GetRevenueResponse:
        ends = request.HasField("end_time")
        asked = reports.Question(
            _tenant(request.tenant),
            _project(request.project),
            request.start_time.ToMilliseconds(),
            request.end_time.ToMilliseconds() if ends else None,
            _PERIODS.get(request.period, Period.ALL),
            request.by_tier,
            request.by_supplier,
        )
        rows, idle = await reports.revenue(self._book, asked)
        return pb.GetRevenueResponse(
            rows=[_revenue(it) for it in rows], idle=[_capacity(it) for it in idle]
        )

    async def GetBurnDown(
        self, request: pb.GetBurnDownRequest, context: Any
    ) -> pb.GetBurnDownResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        found = await reports.burning(self._book, tenant)
        return pb.GetBurnDownResponse(
            burn_down=report_pb2.BurnDown(
                tenant=tenant,
                available_nano=found.available_nano,
                rate_nano_per_hour=found.rate_nano_per_hour,
                lasts_ms=found.lasts_ms,
                currency=CURRENCY,
            )
        )

    async def GetJobCost(
        self, request: pb.GetJobCostRequest, context: Any
    ) -> pb.GetJobCostResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        job = shapes.resource(request.job, "projects", "job")
        return pb.GetJobCostResponse(
            cost=cost_shapes.job_cost(await job_cost(self._books, tenant, job))
        )

    async def ListBudgets(
        self, request: pb.ListBudgetsRequest, context: Any
    ) -> pb.ListBudgetsResponse:
        tenant = shapes.resource(request.tenant, "tenants", "tenant")
        found = await reports.list_budgets(self._book, tenant)
        return pb.ListBudgetsResponse(budgets=[_budget(*it) for it in found])

    async def SetBudget(self, request: pb.SetBudgetRequest, context: Any) -> pb.SetBudgetResponse:
        given = request.budget
        thresholds = tuple(sorted(set(given.thresholds_permille)))
        if given.amount_nano < 0 or not 1 <= len(thresholds) <= _MOST_THRESHOLDS:
            raise Invalid(
                "A budget is not below 0 and has 1 to 20 thresholds.",
                reason="BUDGET_MALFORMED",
                field="budget",
                remedy="Correct the amount or the thresholds.",
            )
        budget = Budget(
            shapes.resource(given.tenant, "tenants", "budget.tenant"),
            _project(given.project),
            given.amount_nano,
            thresholds,
        )
        spent = await reports.set_budget(self._book, budget)
        return pb.SetBudgetResponse(budget=_budget(budget, spent))

    async def ListNotices(
        self, request: pb.ListNoticesRequest, context: Any
    ) -> pb.ListNoticesResponse:
        found = await reports.list_notices(
            self._book,
            _tenant(request.tenant),
            _project(request.project),
            request.after_sequence,
            min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE),
        )
        return pb.ListNoticesResponse(events=[_event(it) for it in found])

    async def CheckBooks(
        self, request: pb.CheckBooksRequest, context: Any
    ) -> pb.CheckBooksResponse:
        found = await reports.check_books(self._books, self._book)
        return pb.CheckBooksResponse(
            check=report_pb2.BooksCheck(
                whole=found.whole,
                head=found.head,
                broken_links=found.broken,
                sum_nano=found.sum_nano,
                off_balance_count=found.off_balance,
                journal_count=found.journals,
                entry_count=found.entries,
                astray_count=found.astray,
                months_ahead=found.months_ahead,
                alarms=found.alarms,
                suspense_nano=found.suspense_nano,
                unexplained_count=found.unexplained,
            )
        )

    async def ListSuspense(
        self, request: pb.ListSuspenseRequest, context: Any
    ) -> pb.ListSuspenseResponse:
        tenant = _tenant(request.tenant)
        found = await suspense.list_suspense(self._books, tenant, closed=request.closed)
        return pb.ListSuspenseResponse(
            rows=[_suspended(it) for it in found],
            suspense_nano=sum(it.excess.open_nano for it in found),
        )

    async def WriteOffSuspense(
        self, request: pb.WriteOffSuspenseRequest, context: Any
    ) -> pb.WriteOffSuspenseResponse:
        gone = await suspense.write_off(
            self._books,
            shapes.plain(request.lease),
            shapes.plain(request.note),
            shapes.plain(request.request_id),
        )
        return pb.WriteOffSuspenseResponse(amount_nano=gone, currency=CURRENCY)


def _tenant(name: str) -> str:
    return shapes.resource(name, "tenants", "tenant") if name else ""


def _project(name: str) -> str:
    return shapes.resource(name, "projects", "project") if name else ""


def _revenue(it: Revenue) -> report_pb2.RevenueRow:
    row = report_pb2.RevenueRow(
        chip=it.chip,
        site=it.site,
        device_milli_ms=it.device_milli_ms,
        amount_nano=it.amount_nano,
        nano_per_device_hour=it.nano_per_device_hour,
        currency=CURRENCY,
        tier=shapes.tier_value(it.tier or "UNSPECIFIED"),
        supplier=it.supplier,
    )
    if it.starts_ms is not None:
        row.start_time.FromMilliseconds(it.starts_ms)
    return row


def _capacity(it: Capacity) -> report_pb2.IdleRow:
    return report_pb2.IdleRow(
        chip=it.chip,
        capacity_milli_ms=it.capacity_milli_ms,
        idle_milli_ms=it.idle_milli_ms,
        amount_nano=it.amount_nano,
        currency=CURRENCY,
        site=it.site,
    )


def _suspended(it: Suspended) -> report_pb2.Suspense:
    row = report_pb2.Suspense(
        lease=it.excess.lease_id,
        segment=it.excess.segment,
        tenant=it.excess.tenant,
        project=it.project,
        job=it.job,
        node=f"nodes/{it.node}",
        cause=it.excess.cause,
        told_ns=it.excess.told_ns,
        charged_ns=it.excess.charged_ns,
        amount_nano=it.excess.amount_nano,
        written_off_nano=it.excess.written_off_nano,
        open_nano=it.excess.open_nano,
        currency=CURRENCY,
        report=it.report,
        signature=it.signature,
        node_key=it.node_key,
    )
    row.record_time.FromMilliseconds(it.excess.recorded_ms)
    return row


def _budget(it: Budget, spent_nano: int) -> report_pb2.SpendingBudget:
    return report_pb2.SpendingBudget(
        tenant=it.tenant,
        project=it.project,
        amount_nano=it.amount_nano,
        thresholds_permille=it.thresholds_permille,
        spent_nano=spent_nano,
        currency=CURRENCY,
    )


def _event(it: Told) -> fleet_pb2.Event:
    event = fleet_pb2.Event(
        sequence=it.sequence,
        type=it.notice.kind,
        entity=it.notice.entity,
        project=it.notice.project,
        facts=it.notice.facts,
    )
    event.time.FromMilliseconds(it.recorded_ms)
    return event
