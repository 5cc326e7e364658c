# ruff: noqa: N802, ARG002 - names and arguments are the protos'
"""LeaseService for the scheduler, SettlementService for nodes."""

from __future__ import annotations

from typing import Any

from gridlease.billing.v1 import lease_pb2, lease_pb2_grpc
from gridlease_kernel.faults import Forbidden
from gridlease_mesh.context import caller_node

from gridlease_billing.authorize import authorize
from gridlease_billing.close import Closure, close
from gridlease_billing.domain.grant_row import Cause, Terms
from gridlease_billing.domain.spot import SpotPolicy
from gridlease_billing.footprints import DrawKeeper
from gridlease_billing.market import move_spot
from gridlease_billing.ports import Books
from gridlease_billing.report_ports import ReportBook
from gridlease_billing.reports import keep_windows
from gridlease_billing.rpc import energy_shapes, shapes
from gridlease_billing.ticks import Settler

_CAUSES = {
    lease_pb2.CLOSE_CAUSE_UNSPECIFIED: Cause.STOPPED,
    lease_pb2.CLOSE_CAUSE_EXITED: Cause.EXITED,
    lease_pb2.CLOSE_CAUSE_STOPPED: Cause.STOPPED,
    lease_pb2.CLOSE_CAUSE_PREEMPTED: Cause.PREEMPTED,
    lease_pb2.CLOSE_CAUSE_DRAINED: Cause.DRAINED,
    lease_pb2.CLOSE_CAUSE_NODE_LOST: Cause.NODE_LOST,
}


class Leases(lease_pb2_grpc.LeaseServiceServicer):
    """Authorize, Close and ReportUtilization."""

    def __init__(self, books: Books, terms: Terms, spot: SpotPolicy, book: ReportBook) -> None:
        self._book = book
        self._books = books
        self._draws = DrawKeeper(books)
        self._terms = terms
        self._spot = spot

    async def Authorize(
        self, request: lease_pb2.AuthorizeRequest, context: Any
    ) -> lease_pb2.AuthorizeResponse:
        asks = [shapes.ask(order) for order in request.orders]
        await self._draws.keep(energy_shapes.draws(request.draws))
        decisions = await authorize(
            self._books, asks, self._terms, each_alone=request.each_gang_alone
        )
        return lease_pb2.AuthorizeResponse(
            authorizations=[
                lease_pb2.LeaseAuthorization(
                    lease=it.lease_id,
                    ok=it.ok,
                    rate_nano_per_hour=it.rate_nano_per_hour,
                    reason=it.reason,
                    hint=it.hint,
                )
                for it in decisions
            ]
        )

    async def Close(self, request: lease_pb2.CloseRequest, context: Any) -> lease_pb2.CloseResponse:
        closures = [
            Closure(
                shapes.plain(it.lease),
                it.notice_ms,
                _CAUSES.get(it.cause, Cause.STOPPED),
                it.cut_short_ms,
            )
            for it in request.closures
        ]
        waits = await close(self._books, closures, self._terms)
        return lease_pb2.CloseResponse(
            closed=[
                lease_pb2.LeaseClosed(lease=it.lease_id, wait_ms=waits[it.lease_id])
                for it in closures
                if it.lease_id in waits
            ]
        )

    async def ReportUtilization(
        self, request: lease_pb2.ReportUtilizationRequest, context: Any
    ) -> lease_pb2.ReportUtilizationResponse:
        uses = [shapes.use(it) for it in request.chips]
        end_ms = request.window_end_time.ToMilliseconds()
        written = await move_spot(self._books, end_ms, uses, self._spot)
        await keep_windows(self._book, end_ms, self._spot.window_ms, uses)
        return lease_pb2.ReportUtilizationResponse(moved=[shapes.price(it) for it in written])


class Settlements(lease_pb2_grpc.SettlementServiceServicer):
    """Settle: who calls is in the subject, which the broker guards."""

    def __init__(self, settler: Settler) -> None:
        self._settler = settler

    async def Settle(
        self, request: lease_pb2.SettleRequest, context: Any
    ) -> lease_pb2.SettleResponse:
        node = caller_node(context)
        if node is None:
            raise Forbidden(
                "Only a node settles.",
                reason="NODES_ONLY",
                remedy="Call from a node's own connection.",
            )
        reports = [shapes.report(request.spool_id, it) for it in request.reports]
        answers = await self._settler.settle(node, reports)
        return lease_pb2.SettleResponse(grants=[shapes.grant(it) for it in answers])
