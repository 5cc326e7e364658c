"""Billing's price list over the mesh, kept for a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc.aio
from gridlease.billing.v1 import account_pb2, account_pb2_grpc
from gridlease.type.v1 import job_pb2
from gridlease_kernel.faults import Unreachable
from gridlease_mesh.status import fault_from_error

from gridlease_scheduler.domain.job import Tier
from gridlease_scheduler.domain.snapshot import Offered
from gridlease_scheduler.ports import MonotonicClock, PriceList

if TYPE_CHECKING:
    from gridlease.billing.v1.account_pb2_grpc import AccountServiceAsyncStub

_ASK_S = 2.0
_KEPT_MS = 5_000


class MeshPrices:
    """``ports.Prices``."""

    def __init__(self, channel: grpc.aio.Channel, clock: MonotonicClock) -> None:
        self._stub = cast("AccountServiceAsyncStub", account_pb2_grpc.AccountServiceStub(channel))
        self._clock = clock
        self._known: tuple[int, PriceList] | None = None

    async def __call__(self) -> PriceList:
        now_ms = self._clock.now_ms()
        if self._known is not None and now_ms - self._known[0] < _KEPT_MS:
            return self._known[1]
        try:
            answer = await self._stub.ListPrices(account_pb2.ListPricesRequest(), timeout=_ASK_S)
        except grpc.aio.AioRpcError as error:
            fault = fault_from_error(error)
            raise Unreachable(
                f"Billing gave no prices: {fault.message}",
                reason="BILLING_UNREACHABLE",
                remedy="It is asked again soon.",
            ) from error
        currencies = {price.currency for price in answer.prices}
        prices = PriceList(
            currencies.pop() if len(currencies) == 1 else "",
            tuple(
                Offered(
                    price.chip,
                    Tier(job_pb2.Tier.Name(price.tier).removeprefix("TIER_")),
                    price.price_nano_per_hour,
                    price.site.removeprefix("sites/"),
                )
                for price in answer.prices
                if price.tier
            ),
        )
        self._known = (now_ms, prices)
        return prices
