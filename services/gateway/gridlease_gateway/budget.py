"""Prices for a request before it is submitted: quotes, and budgets too small to start."""

from __future__ import annotations

import asyncio
import logging

from gridlease.billing.v1 import account_pb2
from gridlease.scheduler.v1 import fleet_pb2
from gridlease.type.v1 import job_pb2 as types
from gridlease.type.v1 import money_pb2, resources_pb2
from gridlease_kernel.faults import Fault, Invalid, Missing
from gridlease_kernel.money import Money

from gridlease_gateway.domain import offers
from gridlease_gateway.domain.offers import Ask, PriceTag, Stock
from gridlease_gateway.inside import Inside

_LOG = logging.getLogger(__name__)
_HOUR_MS = 3_600_000
_CHECK_S = 5.0  # the scheduler's own admission finds out anyway


class Prices:
    """Stock from the scheduler, prices from billing."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def stock(self, left_s: float) -> list[Stock]:
        """What there is, by chip and site."""
        return _stock(await self._stock(left_s))

    async def _stock(self, left_s: float) -> fleet_pb2.ListStockResponse:
        return await self._inside.ask(
            self._inside.fleet.ListStock,
            fleet_pb2.ListStockRequest(),
            left_s,
            fleet_pb2.ListStockResponse,
        )

    async def in_force(self, left_s: float) -> list[PriceTag]:
        """What things cost now."""
        answer = await self._inside.ask(
            self._inside.accounts.ListPrices,
            account_pb2.ListPricesRequest(),
            left_s,
            account_pb2.ListPricesResponse,
        )
        return [
            PriceTag(it.chip, it.tier, it.price_nano_per_hour, it.currency, it.site)
            for it in answer.prices
        ]

    async def quote(self, spec: types.JobSpec, duration_ms: int, left_s: float) -> money_pb2.Quote:
        """The cheapest price at which the request could run.

        Raises:
            Missing: NO_OFFER.
        """
        told, prices = await asyncio.gather(self._stock(left_s), self.in_force(left_s))
        stock = _stock(told)
        fitting = [
            (price * ask.quantity_milli, chip, site, ask)
            for ask in asks_of(spec)
            for price, chip, site in offers.candidates(ask, stock, prices)
        ]
        if not fitting:
            raise Missing(
                "Nothing on offer, or in the price book, fits this request.",
                reason="NO_OFFER",
                field="spec.resources",
                remedy="gridlease offers lists the chips and tiers that there are.",
            )
        _, chip, site, ask = min(fitting, key=lambda it: it[:3])
        request = account_pb2.GetQuoteRequest(
            chip=chip,
            tier=types.Tier.ValueType(ask.tier),
            quantity_milli=ask.quantity_milli,
            duration_ms=duration_ms,
            notice_ms=spec.notice_ms,
            priority=spec.priority,
            site=site,
        )
        _tell_power(request, told)
        answer = await self._inside.ask(
            self._inside.accounts.GetQuote, request, left_s, account_pb2.GetQuoteResponse
        )
        return answer.quote


def _stock(told: fleet_pb2.ListStockResponse) -> list[Stock]:
    return [
        Stock(it.chip, it.site, it.total_milli, it.free_milli, it.memory_bytes, it.emulated)
        for it in told.offers
    ]


def _tell_power(request: account_pb2.GetQuoteRequest, told: fleet_pb2.ListStockResponse) -> None:
    """What the chip draws, and what is known of the power where it would run."""
    for chip in told.chips:
        if chip.chip == request.chip:
            request.power.CopyFrom(chip)
    places = {it.site for it in told.offers if it.chip == request.chip}
    if request.site in places:
        places = {request.site}
    request.sites.extend(it for it in told.sites if it.site in places)


class BudgetCheck:
    """Refuses a budget that could not even be held for the first grant."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    async def check(self, spec: types.JobSpec, left_s: float) -> None:
        """Nothing where the job has no budget, or where it cannot be priced now.

        Raises:
            Invalid: BUDGET_TOO_SMALL, with the least amount.
        """
        if not spec.budget_nano:
            return
        try:
            quote = await self._prices.quote(spec, 0, min(left_s, _CHECK_S))
        except Fault as fault:
            _LOG.info("a budget was not checked at the door: %s", fault.reason)
            return
        if spec.budget_nano < quote.hold_nano:
            least = Money(quote.hold_nano, quote.currency)
            raise Invalid(
                f"A budget of {Money(spec.budget_nano, quote.currency)} cannot start this job.",
                reason="BUDGET_TOO_SMALL",
                field="spec.budget_nano",
                remedy=f"Give at least {least}: the first grant and its notice are held ahead.",
                metadata={"least_nano": str(quote.hold_nano), "chip": quote.chip},
            )


def duration_ms(spec: types.JobSpec, asked_ms: int) -> int:
    """What to price: as asked, else the job's own limit, else an hour."""
    return asked_ms or spec.max_duration_ms or _HOUR_MS


def asks_of(spec: types.JobSpec) -> list[Ask]:
    """What decides the price of a job, all of its tasks: one for each kind that would do."""
    resources = spec.resources
    tasks = max(1, spec.nodes.min)
    if not resources.HasField("accelerator"):
        milli = resources.cpu_milli.min or offers.DEFAULT_CPU_MILLI
        return [_ask(spec, resources_pb2.AcceleratorRequest(), milli * tasks, wanted=False)]
    return [
        _ask(spec, kind, (kind.count.min or 1) * 1_000 * tasks, wanted=True)
        for kind in (resources.accelerator, *resources.alternatives)
    ]


def _ask(
    spec: types.JobSpec, kind: resources_pb2.AcceleratorRequest, milli: int, *, wanted: bool
) -> Ask:
    return offers.with_default_tier(
        Ask(
            chips=tuple(kind.chips),
            accelerator=wanted,
            memory_low_bytes=kind.memory_bytes.min,
            memory_high_bytes=kind.memory_bytes.max,
            quantity_milli=milli,
            tier=spec.tier,
        )
    )
