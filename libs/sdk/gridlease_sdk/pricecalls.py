"""What a client does with the price book and the priorities' multipliers."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import job_pb2, money_pb2
from gridlease_kernel.ids import RandomIds

from gridlease_sdk.channel import Connection


class PriceCalls:
    """The part of ``Client`` about what run time costs. Times are milliseconds, UTC."""

    _on: Connection
    _ids: RandomIds

    async def list_prices(
        self,
        *,
        history: bool = False,
        as_of_ms: int | None = None,
        recorded_as_of_ms: int | None = None,
    ) -> list[money_pb2.Price]:
        """Prices in force at one time as the book stood at another (None: now), or all ever."""
        request = pb.ListPricesRequest(
            history=history, as_of=_moment(as_of_ms), recorded_as_of=_moment(recorded_as_of_ms)
        )
        answer = await self._on.ask(self._on.billing.ListPrices, request, pb.ListPricesResponse)
        return list(answer.prices)

    async def create_price(
        self,
        chip: str,
        price_nano_per_hour: int,
        tier: job_pb2.Tier.ValueType,
        *,
        site: str = "",
        effective_ms: int | None = None,
        correction: bool = False,
        withdrawn: bool = False,
        request_id: str = "",
    ) -> money_pb2.Price:
        """A price from a time on (None: now), at one site or everywhere. Operators."""
        request = pb.CreatePriceRequest(
            chip=chip,
            tier=tier,
            price_nano_per_hour=price_nano_per_hour,
            effective_time=_moment(effective_ms),
            site=site,
            correction=correction,
            withdrawn=withdrawn,
            request_id=request_id or self._ids.new("rq"),
        )
        answer = await self._on.ask(self._on.billing.CreatePrice, request, pb.CreatePriceResponse)
        return answer.price

    async def list_priority_multipliers(
        self,
        *,
        history: bool = False,
        as_of_ms: int | None = None,
        recorded_as_of_ms: int | None = None,
    ) -> list[money_pb2.PriorityMultipliers]:
        """What priorities make of prices: the table in force, if there is one, or all ever."""
        request = pb.ListPriorityMultipliersRequest(
            history=history, as_of=_moment(as_of_ms), recorded_as_of=_moment(recorded_as_of_ms)
        )
        answer = await self._on.ask(
            self._on.billing.ListPriorityMultipliers, request, pb.ListPriorityMultipliersResponse
        )
        return list(answer.tables)

    async def create_priority_multipliers(
        self,
        bands: Sequence[tuple[int, int]],
        *,
        effective_ms: int | None = None,
        correction: bool = False,
        request_id: str = "",
    ) -> money_pb2.PriorityMultipliers:
        """A table of (from this priority on, multiplier in thousandths). Operators."""
        request = pb.CreatePriorityMultipliersRequest(
            bands=[money_pb2.PriorityBand(above=it, permille=permille) for it, permille in bands],
            effective_time=_moment(effective_ms),
            correction=correction,
            request_id=request_id or self._ids.new("rq"),
        )
        answer = await self._on.ask(
            self._on.billing.CreatePriorityMultipliers,
            request,
            pb.CreatePriorityMultipliersResponse,
        )
        return answer.table


def _moment(ms: int | None) -> Timestamp | None:
    if ms is None:
        return None
    stamp = Timestamp()
    stamp.FromMilliseconds(ms)
    return stamp
