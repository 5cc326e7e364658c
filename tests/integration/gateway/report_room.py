"""Billing's reports as a script, or its own where a test puts them there."""
# ruff: noqa: N802 - the methods' names are the wire's

from __future__ import annotations

from gridlease.billing.v1 import receivable_pb2, receivable_pb2_grpc, report_pb2, report_pb2_grpc
from gridlease_kernel.faults import Missing


class Reports(report_pb2_grpc.ReportServiceServicer):
    """Notices that a test puts there; all else is empty. ``real``: billing's own, where set."""

    def __init__(self):
        self.real = None
        self.notices = []
        self.asked = []

    async def GetRevenue(self, request, context):
        self.asked.append(request)
        return report_pb2.GetRevenueResponse()

    async def GetBurnDown(self, request, context):
        return report_pb2.GetBurnDownResponse(burn_down={"tenant": request.tenant})

    async def GetJobCost(self, request, context):
        self.asked.append(request)
        if self.real is not None:
            return await self.real.GetJobCost(request, context)
        cost = {"job": request.job, "charged_nano": 5, "lasts_ms": 60_000, "lasts_by": "BUDGET"}
        return report_pb2.GetJobCostResponse(cost=cost)

    async def ListBudgets(self, request, context):
        budgets = [{"project": "projects/other"}, {"project": ""}, {"project": "projects/demo"}]
        return report_pb2.ListBudgetsResponse(budgets=budgets)

    async def SetBudget(self, request, context):
        if self.real is not None:
            return await self.real.SetBudget(request, context)
        return report_pb2.SetBudgetResponse(budget=request.budget)

    async def ListNotices(self, request, context):
        self.asked.append(request)
        if self.real is not None:
            return await self.real.ListNotices(request, context)
        after = [it for it in self.notices if it.sequence > request.after_sequence]
        return report_pb2.ListNoticesResponse(events=after)

    async def CheckBooks(self, request, context):
        return report_pb2.CheckBooksResponse(check={"whole": True, "head": "00"})

    async def ListSuspense(self, request, context):
        self.asked.append(request)
        row = {"lease": "l1", "segment": 1, "cause": "RUN_BEYOND_GRANT", "open_nano": 5}
        return report_pb2.ListSuspenseResponse(rows=[row], suspense_nano=5)

    async def WriteOffSuspense(self, request, context):
        self.asked.append(request)
        return report_pb2.WriteOffSuspenseResponse(amount_nano=5, currency="USD")


class Receivables(receivable_pb2_grpc.ReceivableServiceServicer):
    """One invoice of 19 cents; what is asked is remembered."""

    def __init__(self):
        self.asked = []

    def _owed(self, tenant, paid_nano=0):
        return {
            "invoice": "invoices/i-1", "number": "GL-2026-000001", "tenant": tenant,
            "asked_nano": 190_000_000, "paid_nano": paid_nano, "currency": "USD",
            "open_nano": 190_000_000 - paid_nano, "state": "PAID" if paid_nano else "OPEN",
        }  # fmt: skip

    async def GetReceivable(self, request, context):
        self.asked.append(request)
        if request.name not in ("i-1", "invoices/i-1", "GL-2026-000001"):
            raise Missing("Nothing here.", reason="INVOICE_NOT_FOUND")
        return receivable_pb2.GetReceivableResponse(receivable=self._owed(request.tenant))

    async def ListReceivables(self, request, context):
        self.asked.append(request)
        whose = request.tenant or "tenants/demo"
        return receivable_pb2.ListReceivablesResponse(
            receivables=[self._owed(whose)],
            ages=[{"current_nano": 190_000_000, "total_nano": 190_000_000, "currency": "USD"}],
        )

    async def CreatePayment(self, request, context):
        self.asked.append(request)
        nano = request.amount_nano or 190_000_000
        payment = {"request_id": request.request_id, "tenant": request.tenant,
                   "amount_nano": nano, "applied_nano": nano, "currency": "USD"}  # fmt: skip
        return receivable_pb2.CreatePaymentResponse(
            payment=payment, receivable=self._owed(request.tenant, nano)
        )

    async def CreateRefund(self, request, context):
        self.asked.append(request)
        payment = {"request_id": request.request_id, "amount_nano": -190_000_000,
                   "refunds": request.payment, "currency": "USD"}  # fmt: skip
        return receivable_pb2.CreateRefundResponse(
            payment=payment, receivable=self._owed(request.tenant)
        )

    async def ListPaymentTerms(self, request, context):
        return receivable_pb2.ListPaymentTermsResponse(terms=[{"due_days": 14}])

    async def SetPaymentTerms(self, request, context):
        self.asked.append(request)
        grace = request.grace_days if request.HasField("grace_days") else None
        return receivable_pb2.SetPaymentTermsResponse(
            terms={"tenant": request.tenant, "due_days": request.due_days, "grace_days": grace}
        )
