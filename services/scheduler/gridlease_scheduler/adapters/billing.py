"""Billing over the mesh: the two calls of the lease protocol, and how full the pool is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import grpc.aio
from gridlease.billing.v1 import lease_pb2, lease_pb2_grpc
from gridlease.type.v1 import job_pb2
from gridlease_kernel.faults import Unreachable
from gridlease_mesh.status import fault_from_error

from gridlease_scheduler.adapters.passports import Passport, Passports, Power
from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.lease import Lease
from gridlease_scheduler.domain.order.spot import Utilization
from gridlease_scheduler.ports import Authorized, Order, Refused
from gridlease_scheduler.wire.energy import draws

if TYPE_CHECKING:
    from gridlease.billing.v1.lease_pb2_grpc import LeaseServiceAsyncStub

_AUTHORIZE_S = 5.0
_CLOSE_S = 5.0
_TELL_S = 5.0
_TIERS = {tier: job_pb2.Tier.Value(f"TIER_{tier}") for tier in Tier}


class MeshBilling:
    """``ports.Billing``. ``passports``: who the nodes are, for the checks of their reports.

    ``catalogue``: what chips draw, for estimates where nothing meters it.
    """

    def __init__(
        self, channel: grpc.aio.Channel, passports: Passports, catalogue: Catalogue
    ) -> None:
        self._catalogue = catalogue
        self._stub = cast("LeaseServiceAsyncStub", lease_pb2_grpc.LeaseServiceStub(channel))
        self._passports = passports

    async def authorize(self, orders: Sequence[Order]) -> list[Authorized | Refused]:
        nodes = {member.node_id for order in orders for member in order.placed.members}
        passports = await self._passports.of(nodes)
        request = lease_pb2.AuthorizeRequest(
            orders=[each for order in orders for each in _orders(order, passports)],
            each_gang_alone=True,
        )
        chips = (member.allocation.chip for order in orders for member in order.placed.members)
        request.draws.extend(draws(chips, self._catalogue))
        try:
            answer = await self._stub.Authorize(request, timeout=_AUTHORIZE_S)
        except grpc.aio.AioRpcError as error:
            raise _away(error) from error
        if len(answer.authorizations) != len(request.orders):
            raise _odd("Authorize")
        given = iter(answer.authorizations)
        return [_answer([next(given) for _ in order.lease_ids]) for order in orders]

    async def close(
        self, leases: Sequence[Lease], cut_short_ms: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        request = lease_pb2.CloseRequest(
            closures=[
                lease_pb2.LeaseClosure(
                    lease=lease.lease_id,
                    notice_ms=lease.notice_ms,
                    cause=lease_pb2.CloseCause.Value(f"CLOSE_CAUSE_{lease.cause or 'STOPPED'}"),
                    cut_short_ms=(cut_short_ms or {}).get(lease.lease_id, 0),
                )
                for lease in leases
            ]
        )
        try:
            answer = await self._stub.Close(request, timeout=_CLOSE_S)
        except grpc.aio.AioRpcError as error:
            raise _away(error) from error
        return {each.lease: max(0, each.wait_ms) for each in answer.closed}


class MeshMarket:
    """``ports.Market``."""

    def __init__(self, channel: grpc.aio.Channel, passports: Passports) -> None:
        self._stub = cast("LeaseServiceAsyncStub", lease_pb2_grpc.LeaseServiceStub(channel))
        self._passports = passports

    async def tell(self, end_ms: int, uses: Sequence[Utilization]) -> int:
        powers = await self._passports.powers({x.site for x in uses})
        request = lease_pb2.ReportUtilizationRequest(
            chips=[
                lease_pb2.ChipUse(
                    chip=x.chip,
                    total_milli=x.total_milli,
                    used_milli=x.used_milli,
                    waiting_milli=x.waiting_milli,
                    site=f"sites/{x.site}" if x.site else "",
                    watts=x.watts,
                    power=_told(powers.get(x.site)),
                )
                for x in uses
            ]
        )
        request.window_end_time.FromMilliseconds(end_ms)
        try:
            answer = await self._stub.ReportUtilization(request, timeout=_TELL_S)
        except grpc.aio.AioRpcError as error:
            raise _away(error) from error
        return len(answer.moved)


def _orders(order: Order, passports: Mapping[str, Passport]) -> list[lease_pb2.LeaseOrder]:
    task = order.placed.task
    needs = task.needs
    gang = f"{task.job}#{task.attempt}" if len(order.lease_ids) > 1 else ""
    return [
        lease_pb2.LeaseOrder(
            lease=lease_id,
            job=task.job,
            gang=gang,
            tenant=task.tenant,
            project=task.project,
            node=member.node_id,
            chip=member.allocation.chip,
            quantity_milli=member.allocation.quantity_milli,
            tier=_TIERS[needs.tier],
            priority=task.priority,
            budget_nano=needs.budget_nano,
            max_price_nano_per_hour=needs.max_price_nano_per_hour,
            attempt=task.attempt,
            notice_ms=task.notice_ms,
            site=_site(passports.get(member.node_id)),
            power=_power(passports.get(member.node_id)),
            node_key=passports[member.node_id].key if member.node_id in passports else "",
        )
        for lease_id, member in zip(order.lease_ids, order.placed.members, strict=True)
    ]


def _site(passport: Passport | None) -> str:
    return f"sites/{passport.site}" if passport is not None and passport.site else ""


def _power(passport: Passport | None) -> lease_pb2.SitePower | None:
    """The site's power, for the lease's energy and carbon."""
    return _told(passport.power) if passport is not None else None


def _told(power: Power | None) -> lease_pb2.SitePower | None:
    if power is None:
        return None
    return lease_pb2.SitePower(
        pue_milli=power.pue_milli,
        carbon_mg_per_kwh=power.carbon_mg_per_kwh,
        price_nano_per_kwh=power.price_nano_per_kwh,
    )


def _answer(given: Sequence[lease_pb2.LeaseAuthorization]) -> Authorized | Refused:
    """All members' answers as the gang's: what refused one is told before what that did to all."""
    refused = [each for each in given if not each.ok]
    if not refused:
        return Authorized(tuple(each.rate_nano_per_hour for each in given))
    own = [each for each in refused if each.reason != "CALL_REFUSED"]
    first = (own or refused)[0]
    return Refused(first.reason or "CREDIT_TOO_LOW", first.hint)


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
