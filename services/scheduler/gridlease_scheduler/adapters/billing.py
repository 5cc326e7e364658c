"""Billing over the mesh: the scheduler's two calls of the lease protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import grpc.aio
from gridlease.billing.v1 import lease_pb2, lease_pb2_grpc
from gridlease.type.v1 import job_pb2
from gridlease_kernel.faults import Unreachable
from gridlease_mesh.status import fault_from_error

from gridlease_scheduler.domain.lease import Lease
from gridlease_scheduler.ports import Authorized, Order, Refused

if TYPE_CHECKING:
    from gridlease.billing.v1.lease_pb2_grpc import LeaseServiceAsyncStub

_AUTHORIZE_S = 5.0
_CLOSE_S = 5.0


class MeshBilling:
    """``ports.Billing``."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = cast("LeaseServiceAsyncStub", lease_pb2_grpc.LeaseServiceStub(channel))

    async def authorize(self, order: Order) -> Authorized | Refused:
        request = lease_pb2.AuthorizeRequest(orders=[_order(order)])
        try:
            answer = await self._stub.Authorize(request, timeout=_AUTHORIZE_S)
        except grpc.aio.AioRpcError as error:
            raise _away(error) from error
        if len(answer.authorizations) != 1:
            raise _odd("Authorize")
        (given,) = answer.authorizations
        if given.ok:
            return Authorized(given.rate_nano_per_hour)
        return Refused(given.reason or "CREDIT_TOO_LOW", given.hint)

    async def close(self, leases: Sequence[Lease]) -> dict[str, int]:
        request = lease_pb2.CloseRequest(
            closures=[
                lease_pb2.LeaseClosure(
                    lease=lease.lease_id,
                    notice_ms=lease.notice_ms,
                    cause=lease_pb2.CloseCause.Value(f"CLOSE_CAUSE_{lease.cause or 'STOPPED'}"),
                )
                for lease in leases
            ]
        )
        try:
            answer = await self._stub.Close(request, timeout=_CLOSE_S)
        except grpc.aio.AioRpcError as error:
            raise _away(error) from error
        return {each.lease: max(0, each.wait_ms) for each in answer.closed}


def _order(order: Order) -> lease_pb2.LeaseOrder:
    task, held = order.placed.task, order.placed.allocation
    return lease_pb2.LeaseOrder(
        lease=order.lease_id,
        job=task.job,
        tenant=task.tenant,
        project=task.project,
        node=order.placed.node_id,
        chip=held.chip,
        quantity_milli=held.quantity_milli,
        tier=job_pb2.Tier.Value(f"TIER_{task.needs.tier}"),
        priority=task.priority,
        budget_nano=task.needs.budget_nano,
        max_price_nano_per_hour=task.needs.max_price_nano_per_hour,
        attempt=task.attempt,
        notice_ms=task.notice_ms,
    )


def _away(error: grpc.aio.AioRpcError) -> Unreachable:
    """Whatever it was: no answer that can be acted on."""
    fault = fault_from_error(error)
    return Unreachable(
        f"Billing gave no answer: {fault.message}",
        reason="BILLING_UNREACHABLE",
        remedy="It is asked again soon.",
    )


def _odd(method: str) -> Unreachable:
    return Unreachable(
        f"Billing's answer to {method} does not match the question.",
        reason="BILLING_UNREACHABLE",
        remedy="Check that billing runs the same release.",
    )
