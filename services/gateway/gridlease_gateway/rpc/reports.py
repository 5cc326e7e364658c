"""ReportService, the figures: a tenant's own; of everybody for operators."""

from __future__ import annotations

from google.protobuf.message import Message
from gridlease.billing.v1 import report_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import report_pb2 as types

from gridlease_gateway.calls import Call
from gridlease_gateway.domain.keys import Caller, Role
from gridlease_gateway.inside import Inside
from gridlease_gateway.rpc.jobs import get_job

_USUAL_PERMILLE = (500, 800, 1_000)


class Reports:
    """Those methods of ReportService that billing answers."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def get_revenue(self, call: Call, request: pb.GetRevenueRequest) -> Message:
        tenant, project = _whose(call.caller)
        inner = report_pb2.GetRevenueRequest(tenant=tenant, project=project, period=request.period)
        inner.by_tier, inner.by_supplier = request.by_tier, request.by_supplier
        if request.HasField("start_time"):
            inner.start_time.CopyFrom(request.start_time)
        if request.HasField("end_time"):
            inner.end_time.CopyFrom(request.end_time)
        answer = await self._inside.ask(
            self._inside.reports.GetRevenue, inner, call.left_s(), report_pb2.GetRevenueResponse
        )
        return pb.GetRevenueResponse(rows=answer.rows, idle=answer.idle)

    async def get_burn_down(self, call: Call, _request: pb.GetBurnDownRequest) -> Message:
        inner = report_pb2.GetBurnDownRequest(tenant=call.caller.own_tenant())
        answer = await self._inside.ask(
            self._inside.reports.GetBurnDown, inner, call.left_s(), report_pb2.GetBurnDownResponse
        )
        return pb.GetBurnDownResponse(burn_down=answer.burn_down)

    async def get_job_cost(self, call: Call, request: pb.GetJobCostRequest) -> Message:
        await get_job(self._inside, call, request.job, "job")
        inner = report_pb2.GetJobCostRequest(tenant=call.caller.own_tenant(), job=request.job)
        answer = await self._inside.ask(
            self._inside.reports.GetJobCost, inner, call.left_s(), report_pb2.GetJobCostResponse
        )
        return pb.GetJobCostResponse(cost=answer.cost)

    async def list_budgets(self, call: Call, _request: pb.ListBudgetsRequest) -> Message:
        inner = report_pb2.ListBudgetsRequest(tenant=call.caller.own_tenant())
        answer = await self._inside.ask(
            self._inside.reports.ListBudgets, inner, call.left_s(), report_pb2.ListBudgetsResponse
        )
        mine = ("", call.caller.own_project())
        return pb.ListBudgetsResponse(budgets=[it for it in answer.budgets if it.project in mine])

    async def set_budget(self, call: Call, request: pb.SetBudgetRequest) -> Message:
        budget = types.SpendingBudget(
            tenant=call.caller.own_tenant(),
            project=call.caller.own_project() if request.project_only else "",
            amount_nano=request.amount_nano,
            thresholds_permille=request.thresholds_permille or _USUAL_PERMILLE,
        )
        inner = report_pb2.SetBudgetRequest(budget=budget)
        answer = await self._inside.ask(
            self._inside.reports.SetBudget, inner, call.left_s(), report_pb2.SetBudgetResponse
        )
        return pb.SetBudgetResponse(budget=answer.budget)

    async def list_notices(self, call: Call, request: pb.ListNoticesRequest) -> Message:
        tenant, project = _whose(call.caller)
        inner = report_pb2.ListNoticesRequest(
            tenant=tenant,
            project=project,
            after_sequence=request.after_sequence,
            page_size=request.page_size,
        )
        answer = await self._inside.ask(
            self._inside.reports.ListNotices, inner, call.left_s(), report_pb2.ListNoticesResponse
        )
        return pb.ListNoticesResponse(events=answer.events)

    async def check_books(self, call: Call, _request: pb.CheckBooksRequest) -> Message:
        answer = await self._inside.ask(
            self._inside.reports.CheckBooks,
            report_pb2.CheckBooksRequest(),
            call.left_s(),
            report_pb2.CheckBooksResponse,
        )
        return pb.CheckBooksResponse(check=answer.check)

    async def list_suspense(self, call: Call, request: pb.ListSuspenseRequest) -> Message:
        answer = await self._inside.ask(
            self._inside.reports.ListSuspense,
            report_pb2.ListSuspenseRequest(tenant=request.tenant, closed=request.closed),
            call.left_s(),
            report_pb2.ListSuspenseResponse,
        )
        return pb.ListSuspenseResponse(rows=answer.rows, suspense_nano=answer.suspense_nano)

    async def write_off_suspense(self, call: Call, request: pb.WriteOffSuspenseRequest) -> Message:
        inner = report_pb2.WriteOffSuspenseRequest(
            lease=request.lease, note=request.note, request_id=request.request_id
        )
        answer = await self._inside.ask(
            self._inside.reports.WriteOffSuspense,
            inner,
            call.left_s(),
            report_pb2.WriteOffSuspenseResponse,
        )
        return pb.WriteOffSuspenseResponse(amount_nano=answer.amount_nano, currency=answer.currency)


def _whose(caller: Caller) -> tuple[str, str]:
    """A tenant's own; of an operator, everybody's."""
    if caller.role is Role.OPERATOR:
        return "", ""
    return caller.own_tenant(), caller.own_project()
